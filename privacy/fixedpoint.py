"""Fixed point on the ring: from float block sums to integers that add exactly (rules R6, R7, R10).

One grid serves the whole study. Its step is chosen so that every member's noise has the same
standard deviation in steps, 2^14, whatever the clipping norm and the noise multiplier are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from privacy.errors import DataError, TermsError
from privacy.keystream import KeyStream
from privacy.noise import CUT
from privacy.sampling import batch_shape
from privacy.terms import Terms

__all__ = [
    "FRACTION_BITS",
    "SHARE_SCALE",
    "Grid",
    "RingVector",
    "add_in_place",
    "decode",
    "encode",
    "grid_step",
    "to_ring",
]

RingVector = NDArray[np.uint32] | NDArray[np.uint64]

SHARE_SCALE = 1 << 14
"""s: standard deviation of one member's noise in grid steps (rule R7)."""

FRACTION_BITS = 32
"""Bits below the grid step that take part in the randomised rounding."""

LARGEST_BLOCK_SUM = 1 << 30
"""In grid steps; with ``FRACTION_BITS`` more bits it still fits int64."""

CHUNK = 1 << 14
"""Coordinates rounded at a time; 128 KiB per array stay in the second-level cache."""


def grid_step(terms: Terms) -> float:
    """Width of one grid step in the units of the clipping norm: sigma C / (sqrt(H) 2^14)."""
    privacy = terms.privacy
    return privacy.member_noise_multiplier * privacy.clipping_norm / SHARE_SCALE


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid and the ring of one study."""

    step: float
    """Width of a grid step."""
    ring_bits: Literal[32, 64]
    limits: dict[str, int]
    """Per roster member: the largest magnitude of its update, in steps, before noise."""

    @classmethod
    def of(cls, terms: Terms) -> Grid:
        """The grid of a study.

        Guarantees:
            No sum of one cohort's contributions wraps around the ring: rule R10 holds for the
            cohort with the largest limits.

        Raises:
            TermsError: if the ring is too narrow, or one block's sum could not be rounded in
                64-bit integers.
        """
        privacy = terms.privacy
        per_consumer = privacy.clipping_norm / grid_step(terms)
        shapes = {entry.name: batch_shape(terms, entry.name) for entry in terms.roster}
        limits = {name: math.floor(shape.slots * per_consumer) for name, shape in shapes.items()}
        if 2 * max(shape.consumers for shape in shapes.values()) * per_consumer > LARGEST_BLOCK_SUM:
            raise TermsError(
                f"rule R10: a noise multiplier of {privacy.noise_multiplier:g} is too small for "
                f"{privacy.honest_survivors} honest survivors; raise it"
            )
        largest = sorted(limits.values(), reverse=True)[: privacy.cohort_size]
        reach = sum(largest) + CUT * SHARE_SCALE * privacy.cohort_size
        if reach >= 1 << (privacy.ring_bits - 1):
            advice = "set ring_bits to 64" if privacy.ring_bits == 32 else "raise noise_multiplier"
            raise TermsError(
                f"rule R10: a sum may reach {reach} grid steps, which {privacy.ring_bits} bits "
                f"cannot hold; {advice}"
            )
        return cls(step=grid_step(terms), ring_bits=privacy.ring_bits, limits=limits)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned integers of the ring, little-endian."""
        return np.dtype("<u4" if self.ring_bits == 32 else "<u8")

    def limit(self, member: str) -> int:
        """Largest magnitude of the member's update in steps: slots * C / step, rounded down.

        Raises:
            TermsError: if the roster does not name the member.
        """
        if member not in self.limits:
            raise TermsError(f"member {member}: not in the roster")
        return self.limits[member]


def encode(
    block_sums: Iterable[NDArray[np.floating[Any]]], grid: Grid, limit: int, stream: KeyStream
) -> NDArray[np.int64]:
    """A member's update in grid steps: blocks rounded one by one, added, clamped.

    A block sum x becomes floor(x / step + u) with one fresh u, uniform over the multiples of 2^-32
    in [0, 1), per coordinate and block. x / step is taken to the nearest multiple of 2^-32 first,
    so the rounding is exact in integers and its mean is that multiple.

    Guarantees:
        Two block sums that differ by v, rounded with the same u, differ by an integer vector R with
        independent coordinates, each floor or ceil of v_i / step (up to 2^-32, which
        ``mechanism`` accounts) and mean v_i / step. Clamping never increases a distance.
        u does not depend on data, so it may be thought of as public (rule R7).

    | block sum | result |
    |---|---|
    | NaN or infinite | zero; cannot happen after clipping, and must not be seen if it does (R4) |
    | beyond 2^30 steps | clamped; cannot happen after clipping |

    Args:
        block_sums: float32 or float64, shape (blocks, dimension), or any iterable of its rows, so
            that a caller may hold one block at a time.
        grid: of the study.
        limit: ``grid.limit(member)``.
        stream: secret and fresh; its draws are used nowhere else.

    Returns:
        int64, shape (dimension,), within [-limit, limit].

    Raises:
        DataError: if there is no block, or blocks differ in shape: public facts.

    Source:
        Kairouz, Liu, Steinke (2021), "The Distributed Discrete Gaussian Mechanism for Federated
        Learning with Secure Aggregation", randomised rounding without their conditioning.
    """
    update: NDArray[np.int64] | None = None
    for number, block in enumerate(block_sums):
        if update is None:
            update = np.zeros(block.shape, dtype=np.int64)
        if block.shape != update.shape or block.ndim != 1:
            raise DataError(f"block {number}: shape {block.shape}, expected one vector per block")
        for start in range(0, len(block), CHUNK):
            part = slice(start, start + CHUNK)
            update[part] += _rounded(block[part], grid.step, stream)
    if update is None:
        raise DataError("no block to encode; an empty batch still has its padded blocks")
    np.clip(update, -limit, limit, out=update)
    return update


def _rounded(
    values: NDArray[np.floating[Any]], step: float, stream: KeyStream
) -> NDArray[np.int64]:
    """floor(values / step + u) for fresh u, as integers."""
    steps = values.astype(np.float64)
    np.copyto(steps, 0.0, where=~np.isfinite(steps))
    np.divide(steps, step / (1 << FRACTION_BITS), out=steps)  # a power of two: exact
    most = float(LARGEST_BLOCK_SUM << FRACTION_BITS)
    np.minimum(np.maximum(steps, -most, out=steps), most, out=steps)
    fixed = np.rint(steps, out=steps).astype(np.int64)
    fixed += stream.uint32(len(values))
    np.right_shift(fixed, FRACTION_BITS, out=fixed)  # arithmetic: rounds down
    return fixed


def to_ring(noised: NDArray[np.int64], grid: Grid) -> RingVector:
    """A noised update as ring elements, modulo 2^ring_bits.

    Args:
        noised: int64, shape (dimension,): from ``encode``, with discrete Gaussian noise of scale
            ``SHARE_SCALE`` added.
        grid: of the study.

    Returns:
        uint32 or uint64, same shape.
    """
    ring: RingVector = noised.astype(grid.dtype)
    return ring


def add_in_place(total: RingVector, addend: RingVector) -> None:
    """Adds ring elements into ``total``, exactly, modulo the ring.

    Raises:
        ValueError: if dtypes or shapes differ, where numpy would convert or broadcast.
    """
    if total.dtype != addend.dtype or total.shape != addend.shape:
        raise ValueError(
            f"cannot add {addend.dtype} {addend.shape} into {total.dtype} {total.shape}; "
            "both come from one grid and one dimension"
        )
    np.add(total, addend, out=total)


def decode(ring_sum: RingVector, grid: Grid) -> NDArray[np.float64]:
    """The real sum: ring elements lifted to [-2^(bits-1), 2^(bits-1)), times the grid step.

    Args:
        ring_sum: uint32 or uint64, an unmasked sum of shares.
        grid: of the study.

    Returns:
        float64, same shape.

    Raises:
        ValueError: if the dtype is not the grid's.
    """
    if ring_sum.dtype != grid.dtype:
        raise ValueError(f"expected {grid.dtype} ring elements, not {ring_sum.dtype}")
    signed = ring_sum.view(np.dtype("<i4" if grid.ring_bits == 32 else "<i8"))
    lifted: NDArray[np.float64] = signed.astype(np.float64)
    lifted *= grid.step
    return lifted
