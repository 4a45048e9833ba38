"""A member's half of an evaluation: who scored how high, counted block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client_sdk.batch import Batch
from client_sdk.recipes.evaluation.settings import Cells, Layout, parse
from client_sdk.recipes.model_file import PublishedModel
from client_sdk.recipes.propensity.model import score
from privacy.errors import RecipeError
from privacy.terms import DataContract, Terms

__all__ = ["contribute"]

ROW_UNIT = 1 << 16
"""A row weighs a multiple of 1 / 2^16, so that a block's sum is exact in float32."""

Codes = npt.NDArray[np.int64]


def contribute(
    parameters: npt.NDArray[np.float32], batch: Batch, *, terms: Terms, model: PublishedModel
) -> npt.NDArray[np.float32]:
    """For each block, how many of its consumers are in which cell, times C.

    A consumer's vector is, in the first round, C times the mean over its rows of a vector that has
    1 at the row's label and score cell; in the second, of one with 1 / sqrt(blocks) at its finer
    cell and, for every grouping, at the row's group, label and side of the threshold.

    | row | adds |
    |---|---|
    | not there, a value that is not finite, an unknown code, a label other than 0 or 1 | nothing |
    | of n rows | its share floor(2^16 / n) / 2^16 |

    **Guarantees:** unit one consumer, add/remove adjacency: a consumer's vector has norm at most C
    by construction, whatever model and public state are; adding or removing one moves one row of
    the result by at most C (1 + b 2^-23), where b is the consumer slots of a block: counts are
    exact in float32, and only their product with C is rounded (rules R5, R6). Shapes, operations
    and errors depend on public inputs only (rule R4). The caller makes sure that a consumer fills
    at most one slot of one block.

    Args:
        parameters: the public state, float32, shape (dimension,).
        batch: consumers in blocks, in the public shape.
        terms: the study's terms.
        model: the model that they name.

    Returns:
        float32, shape (blocks, dimension).

    Raises:
        RecipeError: if model or shapes do not fit the terms.
    """
    settings = parse(terms)
    layout = Layout.of(terms.contract, settings)
    contract = terms.contract
    if batch.numbers.shape[-1] != len(contract.numbers) or batch.categories.shape[-1] != len(
        contract.categories
    ):
        raise RecipeError(f"study {terms.study}: the batch does not have the contract's columns")
    scores = score(model.terms, model.parameters, *_columns(batch, contract, model.terms.contract))
    positive = batch.labels == 1
    sound = (batch.present > 0) & np.isfinite(scores) & (positive | (batch.labels == 0))
    label = positive.astype(np.int64)
    limit, noise_before = parameters[layout.spare][:2]
    first = noise_before == 0  # no release is folded yet
    edges = settings.edges
    if not first:
        histogram = parameters[layout.histogram]
        edges = Cells.of(histogram, float(noise_before), settings).edges(settings)
    cell = np.searchsorted(edges, np.where(sound, scores, 0), side="right")
    kinds = label * settings.cells + cell
    if first:
        counts = _counts(layout, batch, [(layout.histogram.start + kinds, sound)])
        return counts * _at_most(terms.privacy.clipping_norm)
    parts: list[tuple[Codes, npt.NDArray[np.bool_]]] = [(layout.again.start + kinds, sound)]
    side = 2 * (scores >= limit).astype(np.int64) + label
    for grouping, table in zip(layout.groupings, layout.tables, strict=True):
        group, known = grouping.of(batch.numbers, batch.categories, contract)
        parts.append((table.start + 4 * group + side, sound & known))
    counts = _counts(layout, batch, parts)
    return counts * _at_most(terms.privacy.clipping_norm * layout.weight)


def _counts(
    layout: Layout, batch: Batch, parts: list[tuple[Codes, npt.NDArray[np.bool_]]]
) -> npt.NDArray[np.float32]:
    """Sums of rows' shares by block and coordinate; the work is the same whatever is there."""
    blocks = len(batch.present)
    rows = batch.present.sum(axis=-1, keepdims=True)
    share = np.floor(ROW_UNIT / np.maximum(rows, 1)) / ROW_UNIT
    start = np.arange(blocks, dtype=np.int64).reshape(-1, 1, 1) * layout.dimension
    counts = np.zeros(blocks * layout.dimension)
    for places, there in parts:
        index = (start + np.where(there, places, layout.spare.start)).ravel()
        weights = np.where(there, share, 0.0).ravel()
        counts += np.bincount(index, weights=weights, minlength=len(counts))
    return counts.reshape(blocks, layout.dimension).astype(np.float32)


def _columns(
    batch: Batch, ours: DataContract, theirs: DataContract
) -> tuple[npt.NDArray[np.float32], Codes]:
    """The model's columns among those of the evaluation's contract."""
    numbers = {column.name: place for place, column in enumerate(ours.numbers)}
    categories = {column.name: place for place, column in enumerate(ours.categories)}
    try:
        return (
            batch.numbers[..., [numbers[column.name] for column in theirs.numbers]],
            batch.categories[..., [categories[column.name] for column in theirs.categories]],
        )
    except KeyError as error:
        raise RecipeError("the contract lacks a column of the model") from error


def _at_most(limit: float) -> np.float32:
    """The largest float32 that is not above ``limit``."""
    nearest = np.float32(limit)
    return np.nextafter(nearest, np.float32(0)) if float(nearest) > limit else nearest
