"""Settings of the statistics recipe, and where its blocks lie in the summed vector."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from client_sdk.recipes.catalogue import Plan, parse_settings
from privacy.documents import StrictModel
from privacy.errors import RecipeError
from privacy.terms import Column, DataContract, Terms

__all__ = [
    "Block",
    "StatisticsSettings",
    "Z",
    "blocks",
    "check",
    "dimension",
    "expected_errors",
    "noise",
    "parse",
    "plan",
    "scale",
]

Part = Literal["count", "label", "category", "histogram", "by", "means", "products"]

Z: Final = 1.959963984540054
"""Quantile 0.975 of the normal distribution."""

SLACK: Final = 1e-6
"""By how much the norm stays below C, relative: more than double precision can lose."""


class StatisticsSettings(StrictModel):
    """What a study asks, and how its accuracy is shared out. None of it changes the guarantee.

    The last five are weights beside the count's, which is 1: at twice the weight a figure's error
    is half as large and all others' grow a little; 0 leaves it out.
    """

    bins: int = Field(default=64, ge=2, le=4096)
    """Cells of a number's histogram, of equal width on its declared scale."""
    by: str = Field(default="", max_length=63)
    """A category column; label rates are told for each of its values."""
    suppress_below: float = Field(default=3.1, ge=0, le=100)
    """A cell is shown if its noised count exceeds so many standard deviations of its noise: by
    3.1, one empty cell in a thousand is."""
    label: float = Field(default=1.0, ge=0, le=1000)
    """The share of positive labels."""
    categories: float = Field(default=1.0, ge=0, le=1000)
    """Each category column's counts."""
    histograms: float = Field(default=1.0, ge=0, le=1000)
    """Each number column's histogram, which quantiles follow from."""
    means: float = Field(default=1.0, ge=0, le=1000)
    """The number columns' means."""
    correlation: float = Field(default=1.0, ge=0, le=1000)
    """Their spread and correlation; by 1, all products together weigh as much as the means."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.correlation and not self.means:
            raise ValueError("correlation needs means as well; give means a weight, such as 1.0")
        if self.by and not self.categories:
            raise ValueError("by needs the categories' counts; give categories a weight, as 1.0")
        return self


@dataclass(frozen=True, slots=True)
class Block:
    """One question's coordinates.

    Args:
        part: what it holds.
        column: of which column; empty where it is of none or of all numbers.
        offset: of its first coordinate.
        size: number of coordinates.
        weight: what values are multiplied by, before the whole is scaled to C.
        norm: the largest L2 norm that one consumer's values can have, without the weight.
    """

    part: Part
    column: str
    offset: int
    size: int
    weight: float
    norm: float

    @property
    def slice(self) -> slice:
        """Its place in the vector."""
        return slice(self.offset, self.offset + self.size)


def blocks(contract: DataContract, settings: StatisticsSettings) -> tuple[Block, ...]:
    """All blocks, in the order in which they stand in the vector.

    Every value is a mean over a consumer's rows: of a one (count), of the label, of one-hot codes
    (category, histogram), of label times one-hot (by), of numbers on [-1, 1] (means), and of their
    products, i <= j in rows of the upper triangle (products).
    """
    found: list[Block] = []
    for part, column, size, weight, norm in _parts(contract, settings):
        if weight > 0:
            offset = found[-1].offset + found[-1].size if found else 0
            found.append(Block(part, column, offset, size, weight, norm))
    return tuple(found)


def _parts(
    contract: DataContract, settings: StatisticsSettings
) -> Iterator[tuple[Part, str, int, float, float]]:
    """Part, column, size, weight and norm of every block that there could be."""
    yield "count", "", 1, 1.0, 1.0
    yield "label", "", 1, settings.label, 1.0
    for column in contract.categories:
        yield "category", column.name, column.codes, settings.categories, 1.0
    for column in contract.numbers:
        yield "histogram", column.name, settings.bins, settings.histograms, 1.0
    if settings.by:
        column = by_column(contract, settings)
        yield "by", column.name, column.codes, settings.categories, 1.0
    if count := len(contract.numbers):
        pairs = count * (count + 1) // 2
        alike = math.sqrt(2 / (count + 1))
        yield "means", "", count, settings.means, math.sqrt(count)
        yield "products", "", pairs, settings.correlation * alike, math.sqrt(pairs)


def by_column(contract: DataContract, settings: StatisticsSettings) -> Column:
    """The column by whose values label rates are told.

    Raises:
        RecipeError: if the contract has no such category.
    """
    for column in contract.categories:
        if column.name == settings.by:
            return column
    names = ", ".join(column.name for column in contract.categories[:10])
    raise RecipeError(
        f"setting by: {settings.by:.63} is no category of the contract; "
        + (f"name one of {names}" if names else "it has none, so leave it out")
    )


def parse(terms: Terms) -> StatisticsSettings:
    """The recipe's settings in these terms.

    Raises:
        RecipeError: naming the first setting that is wrong, or another recipe.
    """
    return parse_settings(terms, "statistics", StatisticsSettings)


def dimension(contract: DataContract, settings: StatisticsSettings) -> int:
    """How many coordinates the questions have: what ``dimension`` in the terms must be."""
    return sum(block.size for block in blocks(contract, settings))


def plan(contract: DataContract, settings: StatisticsSettings) -> Plan:
    """One sum over everybody, and another try. The vector fills any clipping norm, so 1 will do."""
    return Plan(rounds=1, sampling_probability=1.0, clipping_norm=1.0, spare_attempts=1)


def scale(terms: Terms, found: tuple[Block, ...]) -> tuple[float, ...]:
    """What the values of each block are multiplied by, so that no consumer's norm exceeds C.

    Guarantees:
        The vector of a consumer whose blocks keep their norms has an L2 norm of at most
        C (1 - 1e-6): a public bound, so nothing is ever clipped and no count is biased.
    """
    whole = math.sqrt(sum((block.weight * block.norm) ** 2 for block in found))
    fill = terms.privacy.clipping_norm * (1 - SLACK) / whole
    return tuple(block.weight * fill for block in found)


def noise(terms: Terms, found: tuple[Block, ...], members: int) -> tuple[float, ...]:
    """Standard deviation of the noise in one coordinate of each block's sum, in its own units.

    Args:
        terms: of the study.
        found: its blocks.
        members: in the sum; each added noise of variance sigma^2 C^2 / H.
    """
    privacy = terms.privacy
    whole = privacy.member_noise_multiplier * privacy.clipping_norm * math.sqrt(members)
    return tuple(whole / factor for factor in scale(terms, found))


def expected_errors(terms: Terms) -> dict[str, float]:
    """Before anything is spent: how far counts will be off, all members contributing.

    Returns:
        ``count``, ``category`` and ``histogram``: half the width of a count's 95 % interval, as far
        as the study asks for it; ``shown_above``: what a category's count must exceed to be told.
    """
    settings = parse(terms)
    found = blocks(terms.contract, settings)
    errors: dict[str, float] = {}
    for block, error in zip(found, noise(terms, found, terms.privacy.cohort_size), strict=True):
        if block.part in ("count", "category", "histogram"):
            errors[block.part] = Z * error
        if block.part == "category":
            errors["shown_above"] = settings.suppress_below * error
    return errors


def check(terms: Terms) -> None:
    """Checks that settings are some, fit the terms, and can tell anything at all.

    Raises:
        RecipeError: if not, with the nearest setting that works.
    """
    settings = parse(terms)
    privacy = terms.privacy
    needed = dimension(terms.contract, settings)
    study = f"study {terms.study}"
    if terms.dimension != needed:
        raise RecipeError(
            f"{study}: the statistics have {needed} coordinates and the terms say "
            f"{terms.dimension}; set dimension to {needed}"
        )
    if privacy.rounds != 1 or privacy.sampling_probability != 1:
        raise RecipeError(
            f"{study}: statistics are one sum over all consumers; set rounds to 1 and "
            "sampling_probability to 1, or leave both out"
        )
    _check_sizes(terms, settings, study)


def _check_sizes(terms: Terms, settings: StatisticsSettings, study: str) -> None:
    """Refuses what the noise would hide altogether, by declared sizes alone."""
    found = blocks(terms.contract, settings)
    members = terms.privacy.cohort_size
    declared = sorted((entry.declared_consumers for entry in terms.roster), reverse=True)
    most = sum(declared[:members])
    errors = noise(terms, found, members)
    for block, error in zip(found, errors, strict=True):
        least = settings.suppress_below * error
        groups = block.size if block.part == "by" else 1
        if block.part not in ("count", "category", "by") or most > least * groups:
            continue
        what = f"{groups} groups by {block.column}" if block.part == "by" else "a cell"
        fewer = int(most / least)
        raise RecipeError(
            f"{study}: the noise would hide everything: {what} must hold more than {least:.0f} "
            f"consumers{' each' if block.part == 'by' else ''} to be shown, and the members "
            f"declare {most}; raise epsilon about {least * groups / most:.1f}-fold, "
            + (f"group by a column of at most {fewer} values, " if fewer > 1 else "")
            + "or ask for fewer figures"
        )
