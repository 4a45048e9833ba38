"""Row slots made harmless before any arithmetic, and the factors that clip consumers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from client_sdk.recipes.per_consumer.network import Network

__all__ = ["LARGEST_INPUT", "LARGEST_VALUE", "Rows", "clip_factors", "tame"]

LARGEST_INPUT = 2.0**20
"""Norm of a row's numbers above which it counts as not finite."""

LARGEST_VALUE = 2.0**60
"""Norm of an activation, or of a consumer's vector in units of C, above which it counts as not
finite: beyond, a factor or a product could fall below 2^-126, where float32 rounds coarsely and
could round a clipped vector to more than C."""

_SHRINK = 1.0 - 2.0**-22
"""Clipped vectors end this far inside C, so that rounding factor and product to float32 cannot
lift them above it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Row slots of some blocks on the device, made harmless by `tame`.

    Args:
        numbers: float32, shape (slots, number columns).
        codes: int64, shape (slots, category columns), counted through all tables together.
        labels: float32, shape (slots,).
        present: bool, shape (slots,).
        sound: bool, shape (slots,): False where a present row held what no contract allows.
        shape: blocks, consumers in a block and row slots of a consumer; slots are in this order.
    """

    numbers: Tensor
    codes: Tensor
    labels: Tensor
    present: Tensor
    sound: Tensor
    shape: tuple[int, int, int]


def tame(
    network: Network, numbers: Tensor, categories: Tensor, labels: Tensor, present: Tensor
) -> Rows:
    """Replaces empty slots and rows that are not finite by zeros, and marks the latter.

    A code outside its column, a label outside [0, 1] and numbers of norm above 2^20 (they are
    scaled to [0, 1], or centred) count as not finite: an error raised here would tell the
    coordinator something about the data (rule R4). Arguments are shaped as `Batch` has them.
    """
    blocks, consumers, rows = present.shape
    there = present.reshape(-1) > 0
    slots = len(there)
    numbers = numbers.reshape(slots, network.numbers)
    categories = categories.reshape(slots, len(network.cardinalities))
    labels = labels.reshape(slots)
    sizes = categories.new_tensor(network.cardinalities)
    size = torch.linalg.vector_norm(numbers, dim=1, dtype=torch.float64)
    inside = ((categories >= 0) & (categories < sizes)).all(1)
    sound = (size <= LARGEST_INPUT) & (labels >= 0) & (labels <= 1) & inside
    use = there & sound
    return Rows(
        numbers=torch.where(use[:, None], numbers, 0.0),
        codes=torch.where(use[:, None], categories, 0) + sizes.new_tensor(network.starts),
        labels=torch.where(use, labels, 0.0),
        present=there,
        sound=sound | ~there,
        shape=(blocks, consumers, rows),
    )


def clip_factors(norms: Tensor, sound: Tensor, clipping_norm: float) -> Tensor:
    """What each consumer's vector is multiplied with: float64, shape (consumers,).

    | norm                      | factor               |
    |---------------------------|----------------------|
    | 0                         | 1                    |
    | at most C                 | 1                    |
    | above C, at most 2^60 C   | C (1 - 2^-22) / norm |
    | above 2^60 C, inf or NaN  | 0                    |

    Args:
        norms: float64, shape (consumers,).
        sound: bool, shape (consumers,); the factor is 0 where it is False.
        clipping_norm: C.
    """
    scaled = torch.clamp_max(clipping_norm * _SHRINK / norms, 1.0)  # C / 0 = inf, so 1
    factors = torch.where(norms <= clipping_norm, 1.0, scaled)
    return torch.where(sound & (norms <= LARGEST_VALUE * clipping_norm), factors, 0.0)
