"""Settings of the evaluation recipe, and where each count stands in its vector."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from client_sdk.recipes.catalogue import Plan, parse_settings
from client_sdk.recipes.holdout import Holdout
from privacy.documents import StrictModel
from privacy.errors import RecipeError
from privacy.terms import Column, DataContract, Terms

__all__ = [
    "ROUNDS",
    "SPARE",
    "Cells",
    "EvaluationSettings",
    "Grouping",
    "Layout",
    "check",
    "check_model",
    "dimension",
    "model_needed",
    "parse",
    "plan",
    "smallest_group",
    "takes",
]

ROUNDS: Final = 2
"""The first finds the threshold, the second counts who is above it."""

SPARE: Final = 1024
"""Coordinates that stay empty: what is released there is noise, which tells its own size to within
1 / sqrt(2 * 1024), 2 %. Survivors and their declared counts need not be known for that."""

MOST_GROUPS: Final = 256

OUTSIDE: Final = 0.01
"""Share of consumers at either end whose cells are not kept apart in the second round."""


class EvaluationSettings(StrictModel):
    """Which model is measured, on whom, and how finely. None of it changes the guarantee."""

    model: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the published model's file, as its passport names it."""
    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """The study that learned it."""
    holdout: float = Field(default=0.0, ge=0, le=0.9)
    """Measure on the consumers that the study held out, of this share; 0: on all of them."""
    by: str = Field(default="", max_length=2000)
    """Groups to compare, such as ``region, age: 30 45 60``: a category column by its values, a
    number column by edges between groups."""
    top: float = Field(default=0.1, ge=0.001, le=0.5)
    """The share of consumers that is selected: those with the highest scores."""
    cells: int = Field(default=20, ge=4, le=1000)
    """Cells of the score histogram: more of them blur less and take more noise."""
    lowest: float = Field(default=0.005, gt=0, lt=1)
    """Probability below which all scores share a cell; so do those above ``highest``. Between them
    cells are equally wide in log-odds."""
    highest: float = Field(default=0.9, gt=0, lt=1)
    least: float = Field(default=10.0, ge=3, le=1000)
    """A group is reported if its noised size is this many of its standard deviations."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self

    @property
    def edges(self) -> npt.NDArray[np.float32]:
        """Probabilities between cells, rising; float32, shape (cells - 1,)."""
        low, high = (math.log(p / (1 - p)) for p in (self.lowest, self.highest))
        steps = self.cells - 2
        odds = (low + (high - low) * step / steps for step in range(steps + 1))
        return np.array([1 / (1 + math.exp(-one)) for one in odds], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Cells:
    """The second round's cells: those of the first that hold consumers, cut into parts.

    What lies beyond them is counted with the outermost: it is little, and noise saved.

    Args:
        first: of the first round's cells that is kept apart.
        last: likewise, inclusive.
        parts: that each is cut into.
    """

    first: int
    last: int
    parts: int

    @classmethod
    def of(
        cls, histogram: npt.NDArray[np.float32], noise: float, settings: EvaluationSettings
    ) -> Self:
        """The cells by the first round's release.

        Args:
            histogram: shape (2 cells,), for label 0 and then for label 1.
            noise: standard deviation of one count.
            settings: of the evaluation.
        """
        cells = settings.cells
        halves = histogram[:cells], histogram[cells:]
        totals = [float(a) + float(b) for a, b in zip(*halves, strict=True)]
        whole = math.fsum(totals)

        def beyond(counts: list[float]) -> int:
            found, held = 0, 0.0
            for place, count in enumerate(counts[:-1], start=1):
                held += count
                if held <= max(OUTSIDE * whole, 3 * noise * math.sqrt(2 * place)):
                    found = place
            return found

        first, last = beyond(totals), cells - 1 - beyond(totals[::-1])
        if first > last or whole <= 0:
            first, last = 0, cells - 1
        return cls(first, last, cells // (last - first + 1))

    @property
    def count(self) -> int:
        """How many there are; at most as many as in the first round."""
        return (self.last - self.first + 1) * self.parts

    def edges(self, settings: EvaluationSettings) -> npt.NDArray[np.float32]:
        """Probabilities between them, rising; float32, shape (count - 1,).

        Parts are even in log-odds, those of an end cell in probability.
        """
        outer = [0.0, *map(float, settings.edges), 1.0]
        found: list[float] = []
        for cell in range(self.first, self.last + 1):
            low, high = outer[cell], outer[cell + 1]
            shares = [part / self.parts for part in range(1, self.parts + 1)]
            if cell in (0, settings.cells - 1):
                found += [low + share * (high - low) for share in shares]
                continue
            odds = [math.log(one / (1 - one)) for one in (low, high)]
            cuts = [odds[0] + share * (odds[1] - odds[0]) for share in shares]
            found += [1 / (1 + math.exp(-cut)) for cut in cuts]
        return np.array(found[:-1], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to part consumers: by a category, or by a number's ranges.

    Args:
        name: the column's; empty for the grouping that has everybody in one group.
        labels: names of the groups, in order.
        edges: of a number column, in the batch's scale, float32; empty otherwise.
        codes: of a column that models read as categories, the group of each code, int64.
    """

    name: str
    labels: tuple[str, ...]
    edges: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    codes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def of(
        self,
        numbers: npt.NDArray[np.float32],
        categories: npt.NDArray[np.int64],
        contract: DataContract,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Each row's group, and whether it is in one: both of the shape (...).

        Args:
            numbers: float32, shape (..., number columns).
            categories: int64, shape (..., category columns).
            contract: whose columns they are.
        """
        if not self.name:
            shape = numbers.shape[:-1]
            return np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=bool)
        names = [column.name for column in contract.categories]
        if self.name in names:
            codes = categories[..., names.index(self.name)]
            sound = (codes >= 0) & (codes < len(self.codes))
            return self.codes[np.where(sound, codes, 0)], sound
        values = numbers[..., [one.name for one in contract.numbers].index(self.name)]
        sound = np.isfinite(values)
        groups = np.searchsorted(self.edges, np.where(sound, values, 0), side="right")
        return groups.astype(np.int64), sound


@dataclass(frozen=True, slots=True)
class Layout:
    """Where counts stand in the vector, for C = 1 and one consumer.

    ``[histogram | finer histogram | tables | spare]``: a histogram has, for labels 0 and 1, one
    coordinate a cell; a table has four coordinates a group: not selected with label 0 and 1, then
    selected with label 0 and 1. In the published vector the first three spare places hold the
    threshold, and the noise's standard deviation in either round.

    Args:
        cells: of the histogram.
        groupings: everybody first, then those asked for.
    """

    cells: int
    groupings: tuple[Grouping, ...]

    @classmethod
    def of(cls, contract: DataContract, settings: EvaluationSettings) -> Self:
        """The layout of a study.

        Raises:
            RecipeError: if ``by`` does not fit the contract.
        """
        everybody = Grouping("", ("everybody",))
        return cls(settings.cells, (everybody, *_groupings(contract, settings.by)))

    @property
    def histogram(self) -> slice:
        """The first round's."""
        return slice(0, 2 * self.cells)

    @property
    def again(self) -> slice:
        """The second round's histogram, of at most as many cells."""
        return slice(2 * self.cells, 4 * self.cells)

    @property
    def tables(self) -> tuple[slice, ...]:
        """The second round's table of each grouping."""
        parts, start = [], 4 * self.cells
        for grouping in self.groupings:
            parts.append(slice(start, start + 4 * len(grouping.labels)))
            start = parts[-1].stop
        return tuple(parts)

    @property
    def spare(self) -> slice:
        """What nothing is counted in."""
        return slice(self.tables[-1].stop, self.tables[-1].stop + SPARE)

    @property
    def dimension(self) -> int:
        """Length of the vector."""
        return 4 * (self.cells + sum(len(one.labels) for one in self.groupings)) + SPARE

    @property
    def weight(self) -> float:
        """Of one block in the second round: with as many blocks, a consumer's norm is 1."""
        return 1 / math.sqrt(1 + len(self.groupings))


def _groupings(contract: DataContract, by: str) -> tuple[Grouping, ...]:
    columns = {column.name: column for column in contract.columns}
    found: dict[str, Grouping] = {}
    for part in filter(None, (one.strip() for one in by.split(","))):
        name, _, edges = (piece.strip() for piece in part.partition(":"))
        if name not in columns or name in found:
            what = "comes twice" if name in found else "is no column of the contract"
            raise RecipeError(
                f"recipe.by: {name} {what}; name columns of the contract, such as "
                f"{', '.join(list(columns)[:5])}"
            )
        found[name] = _grouping(columns[name], edges)
    if sum(len(one.labels) for one in found.values()) > MOST_GROUPS:
        raise RecipeError(f"recipe.by: more than {MOST_GROUPS} groups; name columns with fewer")
    return tuple(found.values())


def _grouping(column: Column, edges: str) -> Grouping:
    if column.kind == "category":
        if edges or not column.values:
            what = "takes no edges" if edges else "has no values that name groups"
            raise RecipeError(f"recipe.by: {column.name} is a category and {what}")
        return Grouping(column.name, column.values, codes=np.arange(len(column.values)))
    low, high = column.low or 0.0, column.high or 0.0
    try:
        bounds = [float(edge) for edge in edges.split()] or list(column.edges)
    except ValueError:
        bounds = []
    if not bounds or bounds != sorted(set(bounds)) or not low < bounds[0] <= bounds[-1] <= high:
        raise RecipeError(
            f"recipe.by: {column.name} is a number and needs rising edges between {low:g} and "
            f"{high:g}, such as {column.name}: {(low + high) / 2:g}"
        )
    between = [f"{one:g} to {two:g}" for one, two in itertools.pairwise(bounds)]
    labels = (f"below {bounds[0]:g}", *between, f"{bounds[-1]:g} and above")
    if column.binned:
        other = [edge for edge in bounds if edge not in column.edges]
        if other:
            raise RecipeError(
                f"recipe.by: {column.name} is read in bins, and {other[0]:g} is between two of "
                f"them; its edges are {', '.join(f'{edge:g}' for edge in column.edges[:10])}"
            )
        begins = np.array([low, *column.edges])
        return Grouping(column.name, labels, codes=np.searchsorted(bounds, begins, side="right"))
    part, whole = np.array(bounds) - low, high - low
    scaled = np.log1p(part) / np.log1p(whole) if column.scale == "log" else part / whole
    return Grouping(column.name, labels, edges=scaled.astype(np.float32))


def parse(terms: Terms) -> EvaluationSettings:
    """The recipe's settings in these terms.

    Raises:
        RecipeError: naming the first setting that is wrong, or another recipe.
    """
    return parse_settings(terms, "evaluation", EvaluationSettings)


def dimension(contract: DataContract, settings: EvaluationSettings) -> int:
    """Length of the summed vector: what ``dimension`` in the terms must be."""
    return Layout.of(contract, settings).dimension


def plan(contract: DataContract, settings: EvaluationSettings) -> Plan:
    """Two rounds over everybody. A failed attempt ends the study: spares would cost noise."""
    return Plan(rounds=ROUNDS, sampling_probability=1.0, clipping_norm=1.0, spare_attempts=0)


def smallest_group(terms: Terms, settings: EvaluationSettings, layout: Layout) -> float:
    """From how many consumers on a group is reported, if all members contribute."""
    privacy = terms.privacy
    noise = privacy.member_noise_multiplier * math.sqrt(privacy.cohort_size)
    return settings.least * 2 * noise / layout.weight


def check(terms: Terms) -> None:
    """Checks that settings are some, and fit the terms' contract, dimension and privacy.

    Raises:
        RecipeError: if not, with the remedy.
    """
    settings = parse(terms)
    layout = Layout.of(terms.contract, settings)
    privacy = terms.privacy
    for what, is_, due in (
        ("dimension", terms.dimension, layout.dimension),
        ("rounds", privacy.rounds, ROUNDS),
        ("sampling_probability", privacy.sampling_probability, 1.0),
    ):
        if is_ != due:
            raise RecipeError(
                f"study {terms.study}: an evaluation needs {what} {due:g} and the terms say "
                f"{is_:g}; set it to {due:g}"
            )
    sizes = sorted((one.declared_consumers for one in terms.roster), reverse=True)
    consumers = sum(sizes[: privacy.cohort_size]) * (settings.holdout or 1.0)
    smallest = smallest_group(terms, settings, layout)
    for grouping in layout.groupings:
        groups = len(grouping.labels)
        if groups * smallest > consumers:
            fit = int(consumers / smallest)
            remedy = (
                f"name a column with at most {fit} groups, or give a larger epsilon"
                if fit > 1
                else f"divide the noise multiplier by {groups * smallest / consumers:.2g} "
                "by a larger epsilon, or hold out more consumers"
            )
            raise RecipeError(
                f"study {terms.study}: {grouping.name or 'everybody'}: a group is reported from "
                f"{smallest:.0f} consumers on, and {groups} of them have {consumers:.0f} together; "
                + remedy
            )


def model_needed(terms: Terms) -> str:
    """SHA-256 of the model file that members need."""
    return parse(terms).model


def check_model(terms: Terms, model: Terms) -> None:
    """Checks that a model can be measured under these terms.

    Args:
        terms: of the evaluation.
        model: the terms that the model was learned under.

    Raises:
        RecipeError: naming what does not fit, and what to do.
    """
    settings, ours, theirs = parse(terms), terms.contract, model.contract
    where = f"study {terms.study}"
    if model.recipe != "propensity":
        raise RecipeError(f"{where}: models of the recipe {model.recipe} cannot be evaluated yet")
    if (model.alliance, model.study) != (terms.alliance, settings.study):
        raise RecipeError(
            f"{where}: the model was learned by {model.study} of {model.alliance}, not by "
            f"{settings.study} of {terms.alliance}; write recipe.study = {model.study}"
        )
    for what, asked, learned in (
        ("label", ours.label, theirs.label),
        ("consumer id", ours.consumer_id, theirs.consumer_id),
    ):
        if asked != learned:
            raise RecipeError(
                f"{where}: its contract's {what} is {asked}, the model's is {learned}; evaluate "
                "under the model's own contract"
            )
    columns = {column.name: column for column in ours.columns}
    for column in theirs.columns:
        if columns.get(column.name) != column:
            what = "declares otherwise" if column.name in columns else "lacks"
            raise RecipeError(
                f"{where}: its contract {what} the model's column {column.name}; take that column "
                "over from the model's own contract"
            )
    held = model.settings.get("holdout", 0.0)
    if settings.holdout not in (0.0, held):
        raise RecipeError(
            f"{where}: recipe.holdout is {settings.holdout:g} and the model was trained with "
            f"holdout {held:g}; write {held:g}"
        )


def takes(terms: Terms, consumer_id: str) -> bool:
    """Whether a consumer is among those that are measured."""
    settings = parse(terms)
    if not settings.holdout:
        return True
    return consumer_id in Holdout(terms.alliance, settings.study, settings.holdout)
