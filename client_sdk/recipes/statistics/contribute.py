"""A member's half: every consumer's answers, each a mean over its rows, added up block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client_sdk.batch import Batch
from client_sdk.recipes.statistics.settings import Block, blocks, parse, scale
from privacy.errors import RecipeError
from privacy.terms import DataContract, Terms

__all__ = ["contribute"]

Floats = npt.NDArray[np.float64]

_SLOTS_AT_ONCE = 1 << 16
"""Row slots worked on at a time; bounds memory."""

_ON_THE_EDGE = 2.0**-23
"""A scaled number that is so little below a cell's edge counts as on it: it is a float32."""


def contribute(
    parameters: npt.NDArray[np.float32], batch: Batch, *, terms: Terms
) -> npt.NDArray[np.float32]:
    """For each block of consumers, the sum of their vectors of answers.

    A consumer's vector is made of the blocks of `settings.blocks`, each a mean over its present
    rows, scaled so that its norm cannot exceed C. Nothing is clipped.

    | a row has | it adds |
    |---|---|
    | no presence | nothing, and does not count as a row |
    | a code that the column does not have | zero to that column's block, and to a breakdown by it |
    | a number that is not finite | zero to its histogram, its mean and its products |
    | a number outside [0, 1] | what 0 or 1 would add |
    | a label that is not finite | zero to label and breakdown; one outside [0, 1] as 0 or 1 |

    **Guarantees:** unit one consumer, add/remove adjacency: adding or removing one moves one row
    of the result by at most C (1 + b^2 2^-23), where b is the consumer slots of a block (rules R5,
    R6): vectors have norm at most C (1 - 1e-6), sums are made in float64 and rounded to float32
    once, which moves two of them apart by at most b C 2^-23 more. Shapes, operations and errors
    depend on public inputs only (rule R4). The caller makes sure that a consumer fills at most one
    slot of one block.

    Args:
        parameters: the public state; answers do not depend on it.
        batch: consumers in blocks, in the public shape.
        terms: the study's terms; C is ``terms.privacy.clipping_norm``.

    Returns:
        float32, shape (blocks, dimension).

    Raises:
        RecipeError: if settings or shapes do not fit the terms.
    """
    settings = parse(terms)
    found = blocks(terms.contract, settings)
    _check_shapes(batch, terms)
    count, consumers, rows = batch.present.shape
    sums = np.empty((count, terms.dimension), dtype=np.float32)
    step = max(1, _SLOTS_AT_ONCE // (consumers * rows))
    factors = scale(terms, found)
    for begin in range(0, count, step):
        some = slice(begin, begin + step)
        answers = _Answers(batch, some, terms.contract)
        for block, factor in zip(found, factors, strict=True):
            sums[some, block.slice] = answers.of(block) * factor
    return sums


class _Answers:
    """What a few blocks of consumers answer; float64 throughout.

    Args:
        batch: all of them.
        some: which blocks.
        contract: what the columns are.
    """

    def __init__(self, batch: Batch, some: slice, contract: DataContract) -> None:
        present = batch.present[some] > 0
        rows = np.maximum(present.sum(-1, keepdims=True), 1)
        self._weights = present / rows  # of each row: a consumer counts once
        self._numbers = batch.numbers[some].astype(np.float64)
        self._sound = np.isfinite(self._numbers)
        np.copyto(self._numbers, 0.0, where=~self._sound)
        np.clip(self._numbers, 0.0, 1.0, out=self._numbers)
        self._codes = batch.categories[some]
        labels = batch.labels[some].astype(np.float64)
        self._positive = self._weights * np.clip(
            np.where(np.isfinite(labels), labels, 0.0), 0.0, 1.0
        )
        self._contract = contract

    def of(self, block: Block) -> Floats:
        """The sums of one question, float64, shape (blocks, block.size)."""
        if block.part in ("count", "label"):
            values = self._weights if block.part == "count" else self._positive
            return np.asarray(values.sum((1, 2)))[:, None]
        if block.part == "means":
            return np.asarray((self._weights[..., None] * self._centred()).sum((1, 2)))
        if block.part == "products":
            return self._products()
        if block.part == "histogram":
            return self._histogram(block)
        weights = self._positive if block.part == "by" else self._weights
        names = [column.name for column in self._contract.categories]
        codes = self._codes[..., names.index(block.column)]
        return _counted(codes, weights, (codes >= 0) & (codes < block.size), block.size)

    def _histogram(self, block: Block) -> Floats:
        names = [column.name for column in self._contract.numbers]
        at = names.index(block.column)
        cells = ((self._numbers[..., at] + _ON_THE_EDGE) * block.size).astype(np.int64)
        np.minimum(cells, block.size - 1, out=cells)
        return _counted(cells, self._weights, self._sound[..., at], block.size)

    def _centred(self) -> Floats:
        """Numbers on [-1, 1]; zero where there is none."""
        return np.where(self._sound, 2 * self._numbers - 1, 0.0)

    def _products(self) -> Floats:
        """Sums of z_i z_j over rows, i <= j."""
        blocks, consumers, rows, count = self._numbers.shape
        values = self._centred().reshape(blocks, consumers * rows, count)
        weights = self._weights.reshape(blocks, consumers * rows, 1)
        squares = np.matmul((values * weights).transpose(0, 2, 1), values)
        upper = np.triu_indices(count)
        chosen: Floats = squares[:, upper[0], upper[1]]
        return chosen


def _counted(
    cells: npt.NDArray[np.int64], weights: Floats, sound: npt.NDArray[np.bool_], size: int
) -> Floats:
    """Weights added up by cell, float64, shape (blocks, size); what is not sound adds zero."""
    blocks = len(cells)
    places = np.where(sound, cells, 0) + np.arange(blocks)[:, None, None] * size
    flat = np.where(sound, weights, 0.0).ravel()
    added = np.bincount(places.ravel(), weights=flat, minlength=blocks * size)
    return added.astype(np.float64).reshape(blocks, size)


def _check_shapes(batch: Batch, terms: Terms) -> None:
    """Raises RecipeError unless shapes are those of the contract."""
    shape = batch.present.shape
    if len(shape) != 3 or 0 in shape:
        raise RecipeError(f"batch: present must be (blocks, consumers, rows), got {shape}")
    wanted = {
        "numbers": (*shape, len(terms.contract.numbers)),
        "categories": (*shape, len(terms.contract.categories)),
        "labels": shape,
    }
    for name, size in wanted.items():
        if getattr(batch, name).shape != size:
            raise RecipeError(
                f"batch: {name} must have shape {size}, got {getattr(batch, name).shape}; use the "
                "batch that the dataset gathers"
            )
