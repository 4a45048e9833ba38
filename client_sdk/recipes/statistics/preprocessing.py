"""Bins and ranges for models, from the quantiles that a release paid for (rule R5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from client_sdk.recipes.statistics.answers import Answers, in_units, scaled
from privacy.errors import RecipeError
from privacy.terms import Column

__all__ = ["advice", "cut_points"]

CROWDED: Final = 0.1
"""Of the range: where the median lies lower, a logarithmic scale spreads values better."""
UNUSED: Final = 0.5
"""Of the range: where 99 of 100 consumers lie below, a smaller one would do."""


def cut_points(answers: Answers, column: Column, bins: int) -> tuple[float, ...]:
    """Where the second and every later of ``bins`` bins begins, with about as many consumers each.

    Quantiles are moved to the nearest edge of the histogram's grid, so that values on which many
    consumers sit get one bin and not several that nobody can tell apart: there may be fewer.

    Returns:
        Increasing, strictly between ``low`` and ``high``, in the column's own units.

    Raises:
        RecipeError: if bins are too few or finer than the grid, or the release cannot tell.
    """
    grid = answers.settings.bins
    if not 2 <= bins <= grid:
        raise RecipeError(
            f"bins: {bins} cannot be told from histograms of {grid} cells; ask for 2 to {grid}"
        )
    edges: dict[float, None] = {}
    for part in range(1, bins):
        found = answers.quantile(column, part / bins)
        if found is None:
            raise RecipeError(
                f"{column.name}: the release has no histogram above its noise; run the statistics "
                "again at a larger epsilon, or with histograms = 1.0"
            )
        at = round(scaled(column, found.within.value) * grid)
        edge = float(f"{in_units(column, at / grid):.6g}")
        if 0 < at < grid and (column.low or 0.0) < edge < (column.high or 0.0):
            edges[edge] = None
    return tuple(sorted(edges))


def advice(answers: Answers, column: Column) -> Iterator[str]:
    """What the release says against a column's declared range and scale, in sentences."""
    low, high = column.low or 0.0, column.high or 0.0
    median, last = answers.quantile(column, 0.5), answers.quantile(column, 0.99)
    if median is None or last is None:
        return
    if column.scale == "linear" and median.high < low + CROWDED * (high - low):
        yield (
            f"half of the consumers lie below {median.high:g}, in the lowest tenth of the range; "
            'scale = "log" would spread them'
        )
    if last.high < low + UNUSED * (high - low):
        yield f"99 of 100 consumers lie below {last.high:g}; high = {last.high:g} would do"
