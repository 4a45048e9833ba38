"""The answers of a release as lines: one figure with its interval each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from client_sdk.recipes.statistics.answers import Answers, Figure

__all__ = ["SHARES", "Line", "lines", "suppressed"]

SHARES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles that are told."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure.

    Args:
        figure: what kind of figure it is.
        column: of which column; empty where of none.
        cell: value, bucket, range, quantile or other column it is about; empty where about none.
        value: the noised figure.
        low: of its 95 % interval.
        high: likewise.
    """

    figure: str
    column: str
    cell: str
    value: float
    low: float
    high: float


def lines(answers: Answers) -> Iterator[Line]:
    """Every figure that is shown, in the order of the contract."""
    contract = answers.terms.contract
    yield _line("consumers", "", "", answers.consumers)
    if answers.label is not None:
        yield _line("share", contract.label, "1", answers.label)
    for column in contract.categories:
        if (cells := answers.cells(column)) is not None:
            for name, figure in cells.figures():
                yield _line("count", column.name, name, figure)
    for name, _, rate in answers.rates():
        yield _line(f"share of {contract.label}", answers.settings.by, name, rate)
    for column in contract.numbers:
        if (mean := answers.mean(column)) is not None:
            yield _line("mean" if column.scale == "linear" else "log mean", column.name, "", mean)
        for share in SHARES:
            if (found := answers.quantile(column, share)) is not None:
                figure = Figure(found.within.value, found.low, found.high)
                yield _line("quantile", column.name, f"{share:g}", figure)
    for column in contract.numbers:
        if (cells := answers.cells(column)) is not None:
            for name, figure in cells.figures():
                yield _line("histogram", column.name, name, figure)
    yield from _correlations(answers)


def _correlations(answers: Answers) -> Iterator[Line]:
    told = answers.correlation()
    if told is None:
        return
    values, errors = told
    columns = answers.terms.contract.numbers
    for i, one in enumerate(columns):
        for j, other in enumerate(columns[:i]):
            if math.isfinite(values[i, j]):
                figure = Figure.about(float(values[i, j]), float(errors[i, j]))
                yield _line("correlation", one.name, other.name, figure)


def _line(figure: str, column: str, cell: str, told: Figure) -> Line:
    return Line(figure, column, cell, told.value, told.low, told.high)


def suppressed(answers: Answers) -> dict[str, tuple[int, int, float]]:
    """By column: cells that are not shown, all of them, and the count that one must exceed."""
    contract = answers.terms.contract
    found = {}
    for column in (*contract.categories, *contract.numbers):
        if (cells := answers.cells(column)) is not None:
            least = answers.settings.suppress_below * cells.error
            found[column.name] = (cells.suppressed, len(cells.names), least)
    return found
