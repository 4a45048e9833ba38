"""Discrete Gaussian noise from an exact table (rule R9): no float takes part anywhere."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from privacy.keystream import KeyStream

__all__ = ["CUT", "MAX_SCALE", "DiscreteGaussian"]

Int64s = npt.NDArray[np.int64]

CUT = 12
"""The noise is cut at this many standard deviations; what lies beyond weighs under 3.6e-33."""

THRESHOLD_BITS = 128
CELL_BITS = 20
"""Width of the field that holds a cell number, in a random word and in a word of the table."""
HEAD_BITS = 63 - CELL_BITS
"""How many bits of a threshold are compared at once; the others are read only on a tie."""
TAIL_BITS = THRESHOLD_BITS - HEAD_BITS

MAX_SCALE = ((1 << CELL_BITS) - 1) / CUT
"""The largest scale whose cells can be numbered, about 87,381 grid steps."""

_FRACTION_BITS = 256
"""Fixed point of the recurrence; its error stays below 2^-200."""
_BLOCK = 8192
"""Samples per block: four arrays of 64 KiB beside the table; measured best of 2^10 to 2^16."""

_HEAD_MASK = np.int64(((1 << HEAD_BITS) - 1) << CELL_BITS)
_ZERO = np.int64(0)
_SIGN_SHIFT = np.int64(63)
_SIGN_BIT = np.int64(-(1 << 63))
_TIE_BELOW = np.uint64(1 << CELL_BITS)


@dataclass(frozen=True, slots=True)
class _Table:
    """Alias table over magnitudes, of a power-of-two length; read-only.

    Cell i holds a 128-bit threshold t and an alias a: of the cell's probability, the share
    t / 2^128 belongs to magnitude i, the rest to magnitude a.

    Args:
        words: int64; the top 43 bits of t above the 20 bits of a XOR i, sign bit clear.
        tails: uint64, shape (cells, 2); the other 85 bits of t: the low 64, then the high 21.
    """

    words: Int64s
    tails: npt.NDArray[np.uint64]


class DiscreteGaussian:
    """Sampler of the discrete Gaussian N_Z(0, scale^2), P(x) ~ exp(-x^2 / (2 scale^2)).

    A sample takes one word of 64 random bits: its lowest bits name a cell of the alias table, 43
    others are compared with the head of that cell's threshold, and the top one is the sign. When
    the heads are equal (once in 2^43) the comparison goes on with 85 fresh bits, so that the
    threshold that decides has all 128. The sign of zero has no effect; zero therefore enters
    the table once, every other magnitude with both of its signs.

    Building a table for scale 2^14 takes some tenths of a second; the last four are kept. A
    sampler holds no state: it may be shared by threads as long as each brings its own stream.

    **Guarantees:** given uniform bits, samples are independent, symmetric, at most
    ceil(12 scale) in magnitude, and have exactly the probabilities of `weights`. Each of these is
    within 2^-128 of N_Z(0, scale^2) cut at ceil(12 scale). The cut removes at most
    erfc(12 / sqrt 2) < 3.6e-33 per coordinate (midpoint rule on a convex tail, over a
    normaliser that is at least scale * sqrt(2 pi)), so d coordinates of one draw are within
    d * 3.6e-33 in total variation and add at most (1 + e^epsilon) d * 3.6e-33 to delta. Privacy
    holds only if the stream is secret and never reused: pass one of `KeyStream.fresh`. No branch
    but that on a tie depends on the samples; the caches' timing does, so time is not constant.

    **Source:** Canonne, Kamath and Steinke (2020), The Discrete Gaussian for Differential
    Privacy, definition 1; Walker (1977) and Vose (1991), algorithm of section II (alias method).

    >>> DiscreteGaussian(3.0).sample(8, KeyStream(bytes(32)))
    array([-1, -3, -1, -2,  0,  6,  3, -1])

    Args:
        scale: standard deviation in grid steps, 1 to `MAX_SCALE`; taken as the exact rational
            that the float is.

    Raises:
        ValueError: the scale is outside that range or not a number.
    """

    __slots__ = ("_table", "bound", "scale")

    def __init__(self, scale: float) -> None:
        if not 1 <= scale <= MAX_SCALE:
            raise ValueError(
                f"noise of scale {scale}: the table covers 1 to {MAX_SCALE:.0f} grid steps; "
                "choose the grid step so that the scale lies near 2^14"
            )
        self.scale = float(scale)
        self.bound = math.ceil(CUT * Fraction(self.scale))
        self._table = _build(Fraction(self.scale))

    def sample(self, count: int, stream: KeyStream) -> Int64s:
        """Independent samples, int64, shape (count,).

        Args:
            count: how many; 0 gives an empty array.
            stream: where the bits come from; a fresh one wherever privacy is at stake.
        """
        samples = np.empty(count, dtype=np.int64)
        work = _workspace(count)
        for start in range(0, count, _BLOCK):
            self._draw(samples[start : start + _BLOCK], work, stream)
        return samples

    def add_to(self, vector: Int64s, stream: KeyStream) -> None:
        """Adds an independent sample to every coordinate, in place, in blocks that fit the cache.

        Adds exactly what `sample` would have given from the same stream, with a quarter MiB of
        temporary memory whatever the length.

        Args:
            vector: int64, shape (dimension,), writable; sums wrap around modulo 2^64.
            stream: where the bits come from; a fresh one wherever privacy is at stake.

        Raises:
            ValueError: the vector has another dtype or shape, or is read-only.
        """
        if vector.dtype != np.int64 or vector.ndim != 1 or not vector.flags.writeable:
            raise ValueError(
                f"noise is added to a writable int64 vector, got {vector.dtype} of shape "
                f"{vector.shape}; encode on the grid first"
            )
        work = _workspace(len(vector))
        noise = np.empty(min(len(vector), _BLOCK), dtype=np.int64)
        for start in range(0, len(vector), _BLOCK):
            part = vector[start : start + _BLOCK]
            self._draw(noise[: len(part)], work, stream)
            np.add(part, noise[: len(part)], out=part)

    def weights(self) -> tuple[list[int], int]:
        """The exact probabilities, rebuilt from the arrays that sampling reads.

        Returns:
            Integers w and a denominator: P(X = x) = w[|x|] / denominator exactly. The list has
            one entry per cell; those beyond `bound` are zero.
        """
        words, tails = self._table.words.tolist(), self._table.tails.tolist()
        masses = [0] * len(words)
        for cell, (word, (low, high)) in enumerate(zip(words, tails, strict=True)):
            threshold = (word >> CELL_BITS) << TAIL_BITS | high << 64 | low
            masses[cell] += threshold
            masses[cell ^ (word & ((1 << CELL_BITS) - 1))] += (1 << THRESHOLD_BITS) - threshold
        masses[0] *= 2  # the sign splits every other magnitude between two values
        return masses, len(words) << (THRESHOLD_BITS + 1)

    def _draw(self, out: Int64s, work: tuple[Int64s, Int64s, Int64s], stream: KeyStream) -> None:
        """Fills one block, shape (at most _BLOCK,), without a temporary array."""
        bits, cells, heads = (array[: len(out)] for array in work)
        words = self._table.words
        cell_mask = np.int64(len(words) - 1)
        stream.fill(bits)
        np.bitwise_and(bits, cell_mask, out=cells)
        words.take(cells, out=out, mode="wrap")  # "raise" would buffer; no index is out of range
        # Head of the threshold minus head of the word; below it, untouched, alias XOR cell.
        np.bitwise_and(bits, _HEAD_MASK, out=heads)
        np.subtract(out, heads, out=out)
        if np.minimum.reduce(out.view(np.uint64)) < _TIE_BELOW:
            self._settle_ties(out, cells, stream)
        np.minimum(out, _ZERO, out=out)  # zero where the cell's own magnitude is taken
        np.bitwise_and(out, cell_mask, out=out)
        np.bitwise_xor(out, cells, out=out)
        np.right_shift(bits, _SIGN_SHIFT, out=bits)  # all ones where the sample is negative
        np.bitwise_xor(out, bits, out=out)
        np.subtract(out, bits, out=out)

    def _settle_ties(self, difference: Int64s, cells: Int64s, stream: KeyStream) -> None:
        """Where heads are equal, lets 85 more bits decide: marks the cell's share as missed."""
        for at in np.flatnonzero(difference.view(np.uint64) < _TIE_BELOW):
            low, high = stream.uint64(2).tolist()
            threshold_low, threshold_high = self._table.tails[cells[at]].tolist()
            if (high >> (128 - TAIL_BITS), low) >= (threshold_high, threshold_low):
                difference[at] |= _SIGN_BIT


def _workspace(count: int) -> tuple[Int64s, Int64s, Int64s]:
    size = min(count, _BLOCK)
    return np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)


@functools.lru_cache(maxsize=4)
def _build(scale: Fraction) -> _Table:
    """The alias table of one scale, in integers throughout."""
    masses = _masses(scale)
    thresholds, aliases = _alias(masses)
    words = [
        (threshold >> TAIL_BITS) << CELL_BITS | (alias ^ cell)
        for cell, (threshold, alias) in enumerate(zip(thresholds, aliases, strict=True))
    ]
    low, high = (1 << 64) - 1, (1 << (TAIL_BITS - 64)) - 1
    tails = [(threshold & low, threshold >> 64 & high) for threshold in thresholds]
    table = _Table(np.array(words, dtype=np.int64), np.array(tails, dtype=np.uint64))
    table.words.flags.writeable = False
    table.tails.flags.writeable = False
    return table


def _masses(scale: Fraction) -> list[int]:
    """Probability of every magnitude in units of 2^-128 / cells, padded with zeros to a power of 2.

    Each is rounded to the nearest unit; what is missing from the exact total, at most 2^-129,
    goes to magnitude 1, the heaviest.
    """
    bound = math.ceil(CUT * scale)
    cells = 1 << bound.bit_length()
    ratio = _exp_minus(1 / (2 * scale * scale))
    ratio_squared = ratio * ratio >> _FRACTION_BITS
    weight = 1 << _FRACTION_BITS
    weights = []  # exp(-k^2 / 2 scale^2), each from the last by the factor q^(2k + 1)
    for _ in range(bound + 1):
        weights.append(2 * weight)
        weight = weight * ratio >> _FRACTION_BITS
        ratio = ratio * ratio_squared >> _FRACTION_BITS
    weights[0] >>= 1
    total, whole = sum(weights), cells << THRESHOLD_BITS
    masses = [(weight * whole + (total >> 1)) // total for weight in weights]
    masses[1] += whole - sum(masses)
    return masses + [0] * (cells - len(masses))


def _exp_minus(exponent: Fraction) -> int:
    """exp(-exponent) in fixed point, for 0 <= exponent <= 1, by its alternating series."""
    fixed = (exponent.numerator << _FRACTION_BITS) // exponent.denominator
    term, total, order = 1 << _FRACTION_BITS, 0, 0
    while term:
        total += -term if order % 2 else term
        order += 1
        term = (term * fixed >> _FRACTION_BITS) // order
    return total


def _alias(masses: list[int]) -> tuple[list[int], list[int]]:
    """Thresholds and aliases by Vose's algorithm; exact because the masses fill the cells exactly.

    A cell that belongs to its own magnitude alone is its own alias, and its threshold is 0.
    """
    full = 1 << THRESHOLD_BITS
    left = list(masses)
    thresholds, aliases = [0] * len(masses), list(range(len(masses)))
    small = [cell for cell, mass in enumerate(left) if mass < full]
    large = [cell for cell, mass in enumerate(left) if mass > full]
    while small:
        cell, donor = small.pop(), large[-1]
        thresholds[cell], aliases[cell] = left[cell], donor
        left[donor] -= full - left[cell]
        if left[donor] <= full:
            large.pop()
            if left[donor] < full:
                small.append(donor)
    return thresholds, aliases
