"""Poisson sampling of consumers into batches of a public shape (rules R4 and R6).

Once per study a member *enrols* its consumers: a keyed hash puts each into one of M blocks. In
every attempt each enrolled consumer is then sampled with probability q, independently and secretly,
and the sampled ones fill the slots of their block. M and the slots of a block follow from the
terms, so neither the shape of a batch nor the time it takes tells how many were sampled.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import ConfigurationError, DataError
from privacy.keystream import KeyStream
from privacy.terms import Terms

__all__ = [
    "EMPTY_SLOT",
    "LARGEST_BLOCK",
    "OVERFLOW_PROBABILITY",
    "BatchShape",
    "Enrolment",
    "batch_shape",
    "enrol",
    "enrolment_cap",
    "padded_shape",
    "place",
    "sample_slots",
    "tail_probability",
]

EMPTY_SLOT = -1
"""Stands in a slot that no sampled consumer fills."""

LARGEST_BLOCK = 256
"""Consumers summed in float32 before the sum is rounded to the grid (rule R6)."""

OVERFLOW_PROBABILITY = 1e-15
"""Per member and attempt: that any block has more sampled consumers than slots."""

HASH_CONTEXT = b"alliance/v1/blk"
"""BLAKE2b personalisation, at most 16 bytes."""

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The public shape into which a member's sample is padded."""

    blocks: int
    """M: float sums that are rounded to the grid one by one."""
    consumers: int
    """b: slots of one block, at most ``LARGEST_BLOCK``."""

    @property
    def slots(self) -> int:
        """M b: the cap on consumers in one of the member's updates."""
        return self.blocks * self.consumers


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A member's consumers, padded to the enrolment cap and ordered by block. Secret."""

    rows: NDArray[np.int64]
    """Position in the list given to ``enrol``, or ``EMPTY_SLOT``; shape (cap,)."""
    blocks: NDArray[np.int64]
    """Block of each row, non-decreasing; padding is in the last block; shape (cap,)."""
    left_out: int
    """Consumers beyond the cap. For the member's own eyes: above 0 its declared count is wrong."""


def enrolment_cap(declared_consumers: int) -> int:
    """Most consumers a member can truthfully have: ceil(1.5 declared).

    Declared counts are rounded to one digit (rule R11); at worst 14,999 are declared as 10,000.

    >>> enrolment_cap(400)
    600
    """
    return (3 * declared_consumers + 1) // 2


def tail_probability(trials: int, probability: float, bound: int) -> float:
    """P(Binomial(trials, probability) > bound), rounded up a little.

    The first term comes from log-gamma, the following ones from their exact ratio, and the rest of
    the series from a geometric bound. Where the bound is below the mean the answer is 1.

    Args:
        trials: number of trials, at least 0.
        probability: of one trial, in [0, 1].
        bound: the count that is not exceeded.

    Returns:
        An upper bound; where it is below 1, within a relative 1e-4 up to a billion trials.

    >>> tail_probability(10, 0.5, 9) < 1.00001 * 2**-10
    True
    """
    if bound >= trials or probability <= 0:
        return 0.0
    first = bound + 1
    if first <= trials * probability or probability >= 1:
        return 1.0
    log_term = (
        math.lgamma(trials + 1)
        - math.lgamma(first + 1)
        - math.lgamma(trials - first + 1)
        + first * math.log(probability)
        + (trials - first) * math.log1p(-probability)
    )
    odds = probability / (1 - probability)
    total, term, count = 1.0, 1.0, first
    while count < trials:
        ratio = (trials - count) / (count + 1) * odds
        if term * ratio < 1e-9 * total * (1 - ratio):
            break
        term *= ratio
        total += term
        count += 1
    # log-gamma of n is off by a few units in the last place of n log n.
    lgamma_error = 16 * np.finfo(float).eps * (1 + trials * math.log1p(trials))
    return min(1.0, math.exp(log_term + lgamma_error) * total * (1 + 1e-8))


def batch_shape(terms: Terms, member: str) -> BatchShape:
    """The public shape of ``member``'s batches.

    Guarantees:
        If the member enrols at most ``enrolment_cap(declared)`` consumers, all sampled consumers
        find a slot but with probability ``OVERFLOW_PROBABILITY`` per attempt. There are as few
        blocks as ``LARGEST_BLOCK`` slots each allow, then as few slots as those blocks allow.

    Args:
        terms: of the study.
        member: a name in its roster.

    Raises:
        TermsError: if the roster does not name the member.
    """
    cap = enrolment_cap(terms.entry(member).declared_consumers)
    return padded_shape(cap, terms.privacy.sampling_probability)


@functools.lru_cache(maxsize=256)
def padded_shape(cap: int, q: float) -> BatchShape:
    """The shape for up to ``cap`` enrolled at sampling probability ``q``, as in `batch_shape`."""

    def overflows(blocks: int, consumers: int) -> bool:
        return blocks * tail_probability(cap, q / blocks, consumers) > OVERFLOW_PROBABILITY

    most = 1
    while overflows(most, LARGEST_BLOCK):
        most *= 2
    blocks = _first(most // 2 + 1, most, lambda count: not overflows(count, LARGEST_BLOCK))
    consumers = _first(1, LARGEST_BLOCK, lambda count: not overflows(blocks, count))
    return BatchShape(blocks=blocks, consumers=consumers)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Smallest integer in [low, high] for which ``holds``; it holds at ``high`` and is monotone."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def enrol(
    terms: Terms,
    member: str,
    consumer_ids: Sequence[str],
    key: bytes,
    takes: Callable[[str], bool] | None = None,
) -> Enrolment:
    """Puts consumers into blocks by keyed hash of their id, once per study.

    Guarantees:
        A consumer's block depends on its own id and the key only, so removing a consumer changes
        one block sum. Where more consumers come than the cap (a wrong declaration), those with the
        largest second hash are left out; the list is then fixed, and the guarantee for this member
        is against emptying a listed consumer's rows, not against re-drawing the list without it.

    Args:
        terms: of the study.
        member: whose consumers they are.
        consumer_ids: distinct ids.
        key: the member's secret, 32 bytes.
        takes: who is in the study, by the id alone; everybody if it is not given. Cap and shape
            are those of all declared consumers.

    Raises:
        DataError: if an id comes twice.
        ConfigurationError: if the key has the wrong length.
        TermsError: if the roster does not name the member.
    """
    cap = enrolment_cap(terms.entry(member).declared_consumers)
    shape = batch_shape(terms, member)
    if takes is None:
        return place(consumer_ids, shape, cap, key)
    chosen = [row for row, consumer in enumerate(consumer_ids) if takes(consumer)]
    placed = place([consumer_ids[row] for row in chosen], shape, cap, key)
    rows = np.array([*chosen, EMPTY_SLOT], dtype=np.int64)[placed.rows]  # EMPTY_SLOT is the last
    return Enrolment(rows=rows, blocks=placed.blocks, left_out=placed.left_out)


def place(consumer_ids: Sequence[str], shape: BatchShape, cap: int, key: bytes) -> Enrolment:
    """Puts ids into the blocks of ``shape``, padded to ``cap``: `enrol` for any shape and cap.

    Raises:
        DataError: if an id comes twice.
        ConfigurationError: if the key has the wrong length.
    """
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the block key must have {KEY_BYTES} bytes, not {len(key)}")
    if len(set(consumer_ids)) != len(consumer_ids):
        raise DataError("a consumer id comes twice; group rows by consumer before enrolling")
    digests = b"".join(
        hashlib.blake2b(
            consumer.encode(), key=key, digest_size=16, person=HASH_CONTEXT.ljust(16, b"\x00")
        ).digest()
        for consumer in consumer_ids
    )
    hashes = np.frombuffer(digests, dtype="<u8").reshape(len(consumer_ids), 2)
    kept = np.argsort(hashes[:, 1], kind="stable")[:cap]
    kept = kept[np.argsort(hashes[kept, 0], kind="stable")]
    rows = np.full(cap, EMPTY_SLOT, dtype=np.int64)
    rows[: len(kept)] = kept
    blocks = np.full(cap, shape.blocks - 1, dtype=np.int64)
    blocks[: len(kept)] = _scaled(hashes[kept, 0], shape.blocks)
    return Enrolment(rows=rows, blocks=blocks, left_out=len(consumer_ids) - len(kept))


def _scaled(hashes: NDArray[np.uint64], blocks: int) -> NDArray[np.int64]:
    """floor(hash * blocks / 2^64), exactly; blocks < 2^32."""
    half = np.uint64(32)
    low_bits = np.uint64(0xFFFF_FFFF)
    count = np.uint64(blocks)
    low = (hashes & low_bits) * count
    return (((hashes >> half) * count + (low >> half)) >> half).astype(np.int64)


def sample_slots(
    enrolment: Enrolment, shape: BatchShape, sampling_probability: float, stream: KeyStream
) -> NDArray[np.int64]:
    """Draws one attempt's Poisson sample into the slots of its blocks.

    Every enrolled consumer is sampled if its 64-bit uniform number is below floor(q 2^64). The
    work is the same for every outcome: all places up to the cap are drawn, ranked and written.
    Within its block a sampled consumer gets a random slot: what a processor computes for equal
    rows may differ in the last bits between slots, so slots must not depend on who else is there.

    Guarantees:
        Each consumer is sampled independently with probability q' where q - 2^-64 < q' <= q. The
        mechanism at q' follows from the one at q by post-processing (with probability q'/q keep
        the output, else draw one without the consumer), so accounting at q covers it. Slots are
        a uniform arrangement within each block: two samples that differ in one consumer can be
        coupled so that all others keep their slots, and then only that slot differs. Consumers
        beyond a block's slots are dropped, with probability ``OVERFLOW_PROBABILITY`` in all.

    Args:
        enrolment: the member's consumers.
        shape: from ``batch_shape``.
        sampling_probability: q of the terms.
        stream: secret and fresh; its draws are used nowhere else.

    Returns:
        int64, shape (blocks, consumers): positions in the enrolled list, ``EMPTY_SLOT`` if empty.
    """
    cap = len(enrolment.rows)
    threshold = int(math.ldexp(sampling_probability, 64))  # exact, then rounded down
    draws = stream.uint64(cap)
    sampled = np.ones(cap, bool) if threshold >= 1 << 64 else draws < np.uint64(threshold)
    sampled &= enrolment.rows != EMPTY_SLOT
    # Rank among the sampled of the same block: blocks are contiguous.
    before = np.concatenate([[0], np.cumsum(sampled)])
    starts = np.searchsorted(enrolment.blocks, np.arange(shape.blocks))
    rank = before[:-1] - before[starts][enrolment.blocks]
    fits = sampled & (rank < shape.consumers)
    # What is not sampled is written too, to one spare place at the end.
    target = np.where(fits, enrolment.blocks * shape.consumers + rank, shape.slots)
    flat = np.full(shape.slots + 1, EMPTY_SLOT, dtype=np.int64)
    flat[target] = enrolment.rows
    slots = flat[:-1].reshape(shape.blocks, shape.consumers)
    shuffled = np.argsort(stream.uint64(shape.slots).reshape(slots.shape), axis=1)
    return np.take_along_axis(slots, shuffled, axis=1)
