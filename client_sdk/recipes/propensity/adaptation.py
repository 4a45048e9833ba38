"""A published model adapted to one member's own consumers: what it learns stays at the member.

The member grows boosted trees on its own rows, from columns as they are, without bins, and a
logistic regression of two inputs weighs their logit and the alliance's: *stacking*. What the trees
say of a consumer there comes from those that were grown without it, so weights are earned: a large
member's trees count for most, a small one's for little, and with very few consumers the alliance's
model is kept as it is. Where own trees tell nothing new, weighing them can cost a little.

The alliance learned from these consumers too. At an epsilon around 1 differential privacy bounds
how much better it may know them than others; at a large epsilon its weight may be flattered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import rankdata

from privacy.errors import RecipeError
from privacy.keystream import KeyStream
from privacy.terms import DataContract

if TYPE_CHECKING:
    from lightgbm import Booster

__all__ = [
    "LEAST",
    "Adaptation",
    "Assessment",
    "OwnRows",
    "Ranking",
    "adapt",
    "as_logits",
    "unbinned",
]

Floats = npt.NDArray[np.float64]

LEAST: Final = 100
"""Consumers of each label below which nothing is adapted."""
FOLDS: Final = 5
MOST_TREES: Final = 1000
PATIENCE: Final = 50
"""Trees without a gain in cross-validation after which no more are tried."""
TOP: Final = 0.10
"""Share of rows among which precision is counted: those a retailer would write to."""
EXTREME: Final = 1e-6
"""Probabilities closer to 0 or 1 than this count as that close."""

_FOLDS_KEY: Final = bytes(32)
"""Public: folds need no secret, only to be the same each time."""
_TREES: Final[dict[str, Any]] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "lambda_l2": 10.0,
    "feature_fraction": 0.7,
    "cat_smooth": 20.0,
    "cat_l2": 20.0,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 1,
    "verbosity": -1,
}
"""Of LightGBM; chosen on Bank Marketing and Adult, three splits each."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnRows:
    """A member's rows beside what the alliance's model says of them.

    Args:
        columns: float32, shape (rows, columns): numbers, then category codes.
        categories: how many of the last columns are categories.
        labels: shape (rows,), 0 or 1.
        consumers: int64, shape (rows,): whose row it is.
        logits: float64, shape (rows,): the alliance's.
    """

    columns: npt.NDArray[np.float32]
    categories: int
    labels: npt.NDArray[np.float32]
    consumers: npt.NDArray[np.int64]
    logits: Floats


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well rows are ranked."""

    auc: float
    precision: float
    """Share of responses among the top 10 %."""

    @classmethod
    def of(cls, labels: npt.NDArray[np.float32], scores: Floats) -> Ranking:
        """Of these scores; rows of equal score share their place.

        >>> Ranking.of(np.array([0, 1, 1, 0], np.float32), np.array([0.1, 0.9, 0.3, 0.3]))
        Ranking(auc=0.875, precision=1.0)
        """
        ranks = rankdata(scores)
        ones = int(labels.sum())
        pairs = ones * (len(labels) - ones)
        auc = float(ranks[labels == 1].sum() - ones * (ones + 1) / 2) / pairs if pairs else 0.5
        top = np.argsort(-scores, kind="stable")[: max(1, round(TOP * len(scores)))]
        return cls(auc, float(labels[top].mean()))


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What a member learned on top of the alliance's model.

    Args:
        intercept: of the adapted logit.
        alliance: weight of the alliance's logit.
        own: weight of the own trees' logit.
        trees: LightGBM's text of the own trees; empty where they have no weight.
    """

    intercept: float = 0.0
    alliance: float = 1.0
    own: float = 0.0
    trees: str = ""

    def logits(self, columns: npt.NDArray[np.float32], logits: Floats) -> Floats:
        """The adapted logits, float64, shape (rows,).

        Args:
            columns: as in `OwnRows`.
            logits: the alliance's, shape (rows,).

        Raises:
            RecipeError: if the trees cannot be read, or are of other columns.
        """
        adapted = self.intercept + self.alliance * logits
        if self.trees:
            from lightgbm import Booster
            from lightgbm.basic import LightGBMError

            try:
                adapted += self.own * _raw(Booster(model_str=self.trees), columns)
            except LightGBMError as error:
                raise RecipeError(
                    f"the trees do not fit these columns ({error}); adapt the model again"
                ) from error
        return adapted


@dataclass(frozen=True, slots=True)
class Assessment:
    """What cross-validation on the member's own consumers says.

    How many trees there are, and the weights, were chosen on the same consumers, which flatters
    ``alone`` and ``adapted`` a little.

    Args:
        consumers: of the member.
        responded: those with a label of 1 in any row.
        trees: how many the member's own consumers support; 0 if they count for nothing.
        share: of the adapted logit's spread, what share is the own trees', 0 to 1.
        alone: of the own trees, without the alliance; None if none were grown.
        alliance: of the alliance's model as it is.
        adapted: of both together.
    """

    consumers: int
    responded: int
    trees: int
    share: float
    alone: Ranking | None
    alliance: Ranking
    adapted: Ranking

    @property
    def enough(self) -> bool:
        """Whether there are consumers enough to adapt to."""
        return min(self.responded, self.consumers - self.responded) >= LEAST


def unbinned(contract: DataContract) -> DataContract:
    """The contract with its numbers as numbers: trees choose their own cuts."""
    columns = tuple(column.model_copy(update={"edges": ()}) for column in contract.columns)
    return contract.model_copy(update={"columns": columns})


def as_logits(probabilities: npt.NDArray[np.float32]) -> Floats:
    """Logits of a model's probabilities, float64.

    Raises:
        RecipeError: if one is no number.
    """
    if not np.isfinite(probabilities).all():
        wrong = int(np.count_nonzero(~np.isfinite(probabilities)))
        raise RecipeError(f"the model gives no probability for {wrong} rows; publish it again")
    clipped = probabilities.astype(np.float64).clip(EXTREME, 1 - EXTREME)
    return np.asarray(logit(clipped), dtype=np.float64)


def adapt(rows: OwnRows, progress: Callable[[str], None]) -> tuple[Adaptation, Assessment]:
    """Adapts the alliance's model to a member; equal rows give an equal result.

    **Source:** Wolpert (1992) and Breiman (1996) for stacking with weights of at least 0; Friedman
    (2001) for boosting; Ke et al. (2017), LightGBM.

    Args:
        rows: the member's.
        progress: is told how far it is, in a few words.
    """
    consumers, labels = len(np.unique(rows.consumers)), rows.labels
    responded = len(np.unique(rows.consumers[labels == 1]))
    alliance = Ranking.of(labels, rows.logits)
    unchanged = Assessment(consumers, responded, 0, 0.0, None, alliance, alliance)
    if not unchanged.enough:
        return Adaptation(), unchanged
    progress(f"growing trees on {consumers} consumers, {FOLDS} times without a part of them")
    own, count = _cross_validated(rows, progress)
    inputs = np.column_stack([rows.logits, own])
    intercept, weights = _stacked(inputs, labels)
    if not any(weights):  # neither tells anything here
        return Adaptation(), unchanged
    adapted = intercept + weights[0] * rows.logits + weights[1] * own
    trees = _grown(rows, count).model_to_string() if weights[1] > 0 else ""
    assessment = Assessment(
        consumers,
        responded,
        count if trees else 0,
        _share(weights * inputs.std(axis=0)),
        Ranking.of(labels, own),
        alliance,
        Ranking.of(labels, adapted),
    )
    return Adaptation(intercept, *weights, trees), assessment


def _share(parts: Floats) -> float:
    """What share of the whole the second part is."""
    return float(parts[1] / (parts.sum() or 1.0))


def _stacked(inputs: Floats, labels: npt.NDArray[np.float32]) -> tuple[float, tuple[float, float]]:
    """Intercept and weights, at least 0, of logistic regression.

    Args:
        inputs: logits of two models, shape (rows, 2).
        labels: shape (rows,).
    """
    spread = np.where(inputs.std(axis=0) > 0, inputs.std(axis=0), 1.0)
    scaled = inputs / spread

    def loss(line: Floats) -> tuple[float, Floats]:
        logits = line[0] + scaled @ line[1:]
        errors = expit(logits) - labels
        total = float(np.mean(np.logaddexp(0, logits) - labels * logits))
        return total, np.concatenate([[errors.mean()], errors @ scaled / len(labels)])

    bounds = [(None, None), (0.0, None), (0.0, None)]
    start, exact = np.array([0.0, 0.5, 0.5]), {"ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=exact)
    alliance, own = (float(weight) for weight in found.x[1:] / spread)
    return float(found.x[0]), (alliance, own)


def _cross_validated(rows: OwnRows, progress: Callable[[str], None]) -> tuple[Floats, int]:
    """Each row's logit by trees grown without its consumer, float64, shape (rows,); how many."""
    import lightgbm

    def tell(state: lightgbm.callback.CallbackEnv) -> None:
        if state.iteration and state.iteration % 100 == 0:
            progress(f"{state.iteration} trees of at most {MOST_TREES}")

    folds = list(_folds(rows.consumers))
    found: dict[str, Any] = lightgbm.cv(
        dict(_TREES),
        _dataset(rows),
        num_boost_round=MOST_TREES,
        folds=folds,
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False), tell],
        return_cvbooster=True,
    )
    count = len(found["valid binary_logloss-mean"])
    held_out = np.empty(len(rows.labels))
    for (_, at), booster in zip(folds, found["cvbooster"].boosters, strict=True):
        held_out[at] = _raw(booster, rows.columns[at], count)
    return held_out, count


def _folds(
    consumers: npt.NDArray[np.int64],
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Rows to learn from and rows held out; all rows of a consumer are on one side."""
    whose, places = np.unique(consumers, return_inverse=True)
    fold = (KeyStream(_FOLDS_KEY).uint32(len(whose)) % FOLDS)[places]
    for number in range(FOLDS):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _dataset(rows: OwnRows) -> Any:
    import lightgbm

    width = rows.columns.shape[1]
    return lightgbm.Dataset(
        rows.columns,
        rows.labels,
        categorical_feature=list(range(width - rows.categories, width)),
        free_raw_data=False,
    )


def _grown(rows: OwnRows, count: int) -> Booster:
    """As many trees on all rows."""
    import lightgbm

    return lightgbm.train(dict(_TREES), _dataset(rows), num_boost_round=count)


def _raw(booster: Booster, columns: npt.NDArray[np.float32], count: int | None = None) -> Floats:
    return np.asarray(booster.predict(columns, raw_score=True, num_iteration=count))
