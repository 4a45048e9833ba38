"""What a release of statistics says, with the error that its noise causes. Needs numpy only.

All of it is post-processing. Intervals cover 95 % over the noise, whose size is known; the formulas
are in the README. A coordinate's noise has standard deviation sigma C sqrt(n / H) in the vector, n
being the members in the sum: sqrt(n / H) above what is accounted, because c of them may not have
added theirs and D may have dropped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from client_sdk.recipes.statistics.settings import Z, blocks, noise, parse, scale
from privacy.errors import RecipeError
from privacy.terms import Column, Terms

__all__ = ["SEEN_ABOVE", "Answers", "Cells", "Figure", "Quantile", "in_units"]

Floats = npt.NDArray[np.float64]

SEEN_ABOVE: Final = 5.0
"""A column's variance in standard deviations of its noise: below, no correlation is told, since the
intervals would no longer cover what they say."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def about(cls, value: float, error: float) -> Figure:
        """The figure for a standard deviation."""
        return cls(value, value - Z * error, value + Z * error)


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile in the column's own units.

    Args:
        share: of consumers that are below it.
        within: interpolated in its cell, with what the noise alone moves it.
        low: together with ``high`` it covers the quantile wherever in its cell the values lie:
            whole cells of the grid.
    """

    share: float
    within: Figure
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Counts of one column's cells.

    Args:
        column: of the contract.
        names: of the cells.
        counts: noised counts, float64.
        error: standard deviation of each.
        shown: which are large enough to be told.
    """

    column: Column
    names: tuple[str, ...]
    counts: Floats
    error: float
    shown: npt.NDArray[np.bool_]

    @property
    def suppressed(self) -> int:
        """Cells that are not shown."""
        return int(np.count_nonzero(~self.shown))

    def figures(self) -> list[tuple[str, Figure]]:
        """Name and count of the cells that are shown, in their order."""
        return [
            (self.names[at], Figure.about(float(self.counts[at]), self.error))
            for at in np.flatnonzero(self.shown)
        ]

    def count_of(self, value: str) -> Figure | None:
        """The count of a value's cell, where it is shown; for a hashed vocabulary an upper bound.

        Raises:
            RecipeError: if the vocabulary is closed and does not hold it.
        """
        if self.column.buckets:
            at = self.column.bucket(value)
        elif value in self.names:
            at = self.names.index(value)
        else:
            raise RecipeError(f"{self.column.name}: {value:.80} is none of its values")
        return Figure.about(float(self.counts[at]), self.error) if self.shown[at] else None


def in_units(column: Column, scaled: float) -> float:
    """A number's own value for a scaled one in [0, 1]."""
    low, high = column.low or 0.0, column.high or 0.0  # the contract has both
    if column.scale == "log":
        return low + math.expm1(scaled * math.log1p(high - low))
    return low + scaled * (high - low)


def scaled(column: Column, value: float) -> float:
    """A number in [0, 1] for its own value: the inverse of `in_units`."""
    low, high = column.low or 0.0, column.high or 0.0
    if column.scale == "log":
        return math.log1p(value - low) / math.log1p(high - low)
    return (value - low) / (high - low)


class Answers:
    """Everything that one release says.

    Args:
        terms: of the study.
        mean: what it published, shape (dimension,).
        contributors: members in the sum; who dropped is not counted anywhere.

    Raises:
        RecipeError: if these do not fit together.
    """

    def __init__(
        self, terms: Terms, mean: npt.NDArray[np.floating], contributors: Sequence[str]
    ) -> None:
        self.terms = terms
        self.settings = parse(terms)
        self.contributors = tuple(contributors)
        self.blocks = blocks(terms.contract, self.settings)
        if mean.shape != (terms.dimension,) or terms.dimension != self._size:
            raise RecipeError(
                f"study {terms.study}: the release has shape {mean.shape} and its statistics "
                f"{self._size} coordinates; use the file that was published"
            )
        declared = sum(terms.entry(name).declared_consumers for name in contributors)
        self._total = mean.astype(np.float64) * declared
        self._scale = scale(terms, self.blocks)
        self._errors = noise(terms, self.blocks, len(self.contributors))

    @property
    def _size(self) -> int:
        return sum(block.size for block in self.blocks)

    def _of(self, part: str, column: str = "") -> tuple[Floats, float] | None:
        """A block's sums in its own units and their standard deviation; None if it is not asked."""
        for block, factor, error in zip(self.blocks, self._scale, self._errors, strict=True):
            if (block.part, block.column) == (part, column):
                return self._total[block.slice] / factor, error
        return None

    # Counts.

    @cached_property
    def _count(self) -> tuple[float, float]:
        found = self._of("count")
        if found is None:
            raise RecipeError("a release of statistics without a count is none")
        return float(found[0][0]), found[1]

    @property
    def consumers(self) -> Figure:
        """Consumers in the sum; one whom two members know counts twice."""
        return Figure.about(*self._count)

    @property
    def seen(self) -> bool:
        """Whether the count itself is large enough for anything to be divided by it."""
        count, error = self._count
        return count > max(self.settings.suppress_below, 1.0) * error

    @property
    def label(self) -> Figure | None:
        """The share of positive labels."""
        return self._ratio(self._of("label"))

    def _ratio(self, found: tuple[Floats, float] | None) -> Figure | None:
        """A sum over the count, by the first order of both noises."""
        if found is None or not self.seen:
            return None
        count, error = self._count
        share = float(found[0][0]) / count
        return Figure.about(share, math.hypot(found[1], share * error) / count)

    def cells(self, column: Column) -> Cells | None:
        """Counts by value, by bucket, or by cell of a number's grid."""
        part = "histogram" if column in self.terms.contract.numbers else "category"
        found = self._of(part, column.name)
        if found is None:
            return None
        counts, error = found
        return Cells(
            column=column,
            names=_names(column, len(counts)),
            counts=counts,
            error=error,
            shown=counts > self.settings.suppress_below * error,
        )

    def rates(self) -> list[tuple[str, Figure, Figure]]:
        """By value of the column ``by``: name, count and share of positive labels, where shown."""
        found = self._of("by", self.settings.by)
        columns = [one for one in self.terms.contract.categories if one.name == self.settings.by]
        cells = self.cells(columns[0]) if columns else None
        if found is None or cells is None:
            return []
        rates = []
        for at in np.flatnonzero(cells.shown):
            count = float(cells.counts[at])
            rate = float(found[0][at]) / count
            error = math.hypot(found[1], rate * cells.error) / count
            figure = Figure.about(count, cells.error)
            rates.append((cells.names[at], figure, Figure.about(rate, error)))
        return rates

    # Quantiles.

    def quantile(self, column: Column, share: float) -> Quantile | None:
        """The value below which a share of consumers is; None where the noise hides all.

        Raises:
            RecipeError: if the share is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise RecipeError(f"quantile {share}: must lie between 0 and 1")
        found = self._of("histogram", column.name)
        if found is None or not self.seen:
            return None
        excess, error = self._excess(*found, share)
        low = _crossing(excess + Z * error)
        high = 1 - _crossing((Z * error - excess)[::-1])
        value = min(max(_crossing(_monotone(excess)), low), high)
        bins = len(excess) - 1
        edges = math.floor(low * bins) / bins, math.ceil(high * bins) / bins
        return Quantile(
            share,
            Figure(*(in_units(column, one) for one in (value, low, high))),
            in_units(column, edges[0]),
            in_units(column, edges[1]),
        )

    def _excess(self, counts: Floats, error: float, share: float) -> tuple[Floats, Floats]:
        """Consumers below each edge less the share of all of them, and its standard deviation.

        Cells and count are first made to agree, by least squares.
        """
        total, total_error = self._count
        bins = len(counts)
        give = error**2 / (bins * error**2 + total_error**2)
        below = np.arange(bins + 1)
        moved = (below - share * bins) * give
        inner = np.concatenate([[0.0], np.cumsum(counts)]) - share * counts.sum()
        excess: Floats = inner + moved * (total - counts.sum())
        spread = below * (1 - share - moved) ** 2 + (bins - below) * (share + moved) ** 2
        deviation: Floats = np.sqrt(error**2 * spread + total_error**2 * moved**2)
        return excess, deviation

    # Means and correlation.

    def mean(self, column: Column) -> Figure | None:
        """A number's mean in its own units.

        On a logarithmic scale it is that of the logarithms, and back: the geometric mean of
        1 + x - low, less what was added.
        """
        found = self._of("means")
        if found is None:
            return None
        at = self.terms.contract.numbers.index(column)
        centred = self._ratio((found[0][at : at + 1], found[1]))
        if centred is None:
            return None
        ends = (centred.value, centred.low, centred.high)
        return Figure(*(in_units(column, min(max((one + 1) / 2, 0.0), 1.0)) for one in ends))

    def correlation(self) -> tuple[Floats, Floats] | None:
        """Correlations of the scaled numbers and their standard deviations; None if not asked.

        NaN where a column's spread does not stand out from the noise. Float64, shape (k, k).
        """
        means, products = self._of("means"), self._of("products")
        if means is None or products is None or not self.seen:
            return None
        count, count_error = self._count
        size = len(means[0])
        upper = np.triu_indices(size)
        square = np.zeros((size, size))
        square[upper] = products[0] / count
        square = square + square.T - np.diag(np.diag(square))
        mean = means[0] / count
        outer = np.outer(mean, mean)
        covariance = square - outer
        variance = np.diag(covariance).copy()
        errors = _variance_errors(mean, np.diag(square), means[1], products[1], count_error) / count
        variance[variance <= SEEN_ABOVE * errors] = np.nan
        spread = np.sqrt(np.outer(variance, variance))
        found = covariance / spread
        # Derivatives, times the count, by: product, own squares, own means, count.
        by_product = 1 / spread
        by_square = -found / (2 * variance[:, None])
        by_mean = -mean[None, :] / spread + found * (mean / variance)[:, None]
        own = (2 * mean**2 - np.diag(square)) / variance
        by_count = (2 * outer - square) / spread - found / 2 * (own[:, None] + own[None, :])
        deviation = np.sqrt(
            products[1] ** 2 * (by_product**2 + by_square**2 + by_square.T**2)
            + means[1] ** 2 * (by_mean**2 + by_mean.T**2)
            + count_error**2 * by_count**2
        )
        deviation = deviation / count
        np.fill_diagonal(deviation, 0.0)
        return found, deviation


def _variance_errors(
    mean: Floats, square: Floats, means: float, products: float, count: float
) -> Floats:
    """Standard deviation of each column's variance, times the count, by the first order."""
    errors: Floats = np.sqrt(
        products**2 + (2 * mean * means) ** 2 + ((2 * mean**2 - square) * count) ** 2
    )
    return errors


def _monotone(values: Floats) -> Floats:
    """The mean of the least non-decreasing series above and the greatest below."""
    above = np.maximum.accumulate(values)
    below = np.minimum.accumulate(values[::-1])[::-1]
    middle: Floats = (above + below) / 2
    return middle


def _crossing(values: Floats) -> float:
    """Where a series on equal steps over [0, 1] first reaches zero; 1 if it never does."""
    reached = np.flatnonzero(values >= 0)
    if len(reached) == 0:
        return 1.0
    at = int(reached[0])
    if at == 0:
        return 0.0
    before, after = float(values[at - 1]), float(values[at])
    return (at - 1 + before / (before - after)) / (len(values) - 1)


def _names(column: Column, cells: int) -> tuple[str, ...]:
    """What cells of a column are called."""
    if column.values:
        return column.values
    if column.buckets:
        return tuple(f"bucket {at}" for at in range(cells))
    ends = (in_units(column, at / cells) for at in range(cells + 1))
    if column.binned:
        ends = (end for end in (column.low or 0.0, *column.edges, column.high or 0.0))
    edges = [f"{end:.6g}" for end in ends]
    return tuple(f"{low} to {high}" for low, high in itertools.pairwise(edges))
