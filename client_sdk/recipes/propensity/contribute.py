"""A member's half of one step: bounded sums of consumers' gradients, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client_sdk.batch import Batch
from client_sdk.recipes.propensity.model import Model, best_device, exact_float32
from privacy.errors import RecipeError
from privacy.terms import Terms

__all__ = ["contribute"]

_SLOTS_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 17}
"""Row slots computed at a time: bounds memory; on a processor the quickest of 1024 to 4096."""


def contribute(
    parameters: npt.NDArray[np.float32], batch: Batch, *, terms: Terms
) -> npt.NDArray[np.float32]:
    """For each block, the sum of its consumers' clipped gradients.

    A consumer's vector is the gradient, at ``parameters``, of the binary cross-entropy summed
    over its present rows, clipped to C. Edge cases are in the table of the stack's
    ``clipped_sums``: an empty slot adds exactly zero, and so does, silently, a consumer with a
    value that is not finite or not in the contract.

    **Guarantees:** unit one consumer, add/remove adjacency: adding or removing one moves one row
    of the result by at most C (1 + b^2 2^-23), where b is the consumer slots of a block
    (rules R5, R6). Shapes, operations and errors depend on public inputs only (rule R4). The
    caller makes sure that a consumer fills at most one slot of one block.

    Args:
        parameters: the public state, float32, shape (dimension,).
        batch: consumers in blocks, in the public shape.
        terms: the study's terms; C is ``terms.privacy.clipping_norm``.

    Returns:
        float32, shape (blocks, dimension).

    Raises:
        RecipeError: if parameters, model or shapes do not fit the terms.
    """
    model = Model(terms, parameters, best_device())
    _check_shapes(batch, terms)
    blocks, consumers, rows = batch.present.shape
    sums = np.empty((blocks, terms.dimension), dtype=np.float32)
    whole = torch.from_numpy(sums)
    step = max(1, _SLOTS_AT_ONCE[model.device.type] // (consumers * rows))
    with exact_float32():
        for begin in range(0, blocks, step):
            some = slice(begin, begin + step)
            here = whole[some] if model.device.type == "cpu" else whole[some].to(model.device)
            model.clipped_sums(
                _tensor(batch.numbers[some], model.device),
                _tensor(batch.categories[some], model.device),
                _tensor(batch.labels[some], model.device),
                _tensor(batch.present[some], model.device),
                clipping_norm=terms.privacy.clipping_norm,
                out=here,
            )
            if model.device.type != "cpu":
                whole[some].copy_(here)
    return sums


def _tensor(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; copied if it is read-only, which torch does not know."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)


def _check_shapes(batch: Batch, terms: Terms) -> None:
    """Raises RecipeError unless types and shapes are those of the contract."""
    shape = batch.present.shape
    if len(shape) != 3 or 0 in shape:
        raise RecipeError(f"batch: present must be (blocks, consumers, rows), got {shape}")
    contract = terms.contract
    wanted = {
        "numbers": (np.float32, (*shape, len(contract.numbers))),
        "categories": (np.int64, (*shape, len(contract.categories))),
        "labels": (np.float32, shape),
        "present": (np.float32, shape),
    }
    for name, (dtype, size) in wanted.items():
        array = getattr(batch, name)
        if array.dtype != dtype or array.shape != size:
            raise RecipeError(
                f"batch: {name} must be {np.dtype(dtype)} of shape {size}, "
                f"got {array.dtype} {array.shape}; use the batch that the dataset gathers"
            )
