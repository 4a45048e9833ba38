"""Scores by data set, model and epsilon, and what is said of them: means, errors, gains."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.demo.comparison import Scores

__all__ = ["ADAPTED", "FIGURES", "Figure", "Mean", "Results"]

Figure = Literal["auc", "precision_at_10pct"]
FIGURES: tuple[tuple[Figure, str], ...] = (
    ("auc", "AUC"),
    ("precision_at_10pct", "precision among the top 10 %"),
)
ADAPTED = "adapted: "
"""Before a member's name: the alliance's model as that member adapted it."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds and its standard error; of one seed the error is 0."""

    value: float
    error: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of these."""
        count = len(values)
        error = statistics.stdev(values) / count**0.5 if count > 1 else 0.0
        return cls(statistics.fmean(values), error, count)

    def text(self, digits: int = 3) -> str:
        """As tables have it."""
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


@dataclass(slots=True)
class Results:
    """Scores of one data set.

    Args:
        name: of the data set.
        scores: by model and epsilon (None where there is no privacy), one for each seed in order.
        members: consumers of each member, largest first.
        choices: by member, the models it chose for itself, one for each seed.
        settings: one line for each epsilon, of how the study was set up.
    """

    name: str
    scores: dict[tuple[str, float | None], list[Scores]] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[float, str] = field(default_factory=dict)

    def add(self, model: str, epsilon: float | None, found: Scores) -> None:
        """One more seed."""
        self.scores.setdefault((model, epsilon), []).append(found)

    def values(self, model: str, epsilon: float | None, figure: Figure) -> list[float]:
        """One figure of every seed; a model without privacy has the same at every epsilon."""
        key = (model, epsilon if (model, epsilon) in self.scores else None)
        return [float(getattr(one, figure)) for one in self.scores[key]]

    def mean(self, model: str, epsilon: float | None, figure: Figure) -> Mean:
        """Its mean over seeds."""
        return Mean.of(self.values(model, epsilon, figure))

    def difference(self, first: str, second: str, epsilon: float | None, figure: Figure) -> Mean:
        """First minus second, paired by seed."""
        pairs = zip(
            self.values(first, epsilon, figure), self.values(second, epsilon, figure), strict=True
        )
        return Mean.of([one - other for one, other in pairs])

    def gain(self, member: str, epsilon: float, figure: Figure, model: str = "alliance") -> Mean:
        """A model's mean over that of the member's own, minus 1; the error is that of pairs."""
        alone = self.values(f"alone: {member}", None, figure)
        together = self.values(model, epsilon, figure)
        base = statistics.fmean(alone)
        difference = Mean.of([one - other for one, other in zip(together, alone, strict=True)])
        return Mean(difference.value / base, difference.error / base, difference.count)

    @property
    def epsilons(self) -> list[float]:
        """Those that the alliance was trained at."""
        return sorted(epsilon for model, epsilon in self.scores if model == "alliance" and epsilon)
