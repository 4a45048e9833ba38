"""A11: captured masks against a search, with a meet in the middle over two unknown seeds.

An honest member of a cohort with one other honest member is covered by two masks whose seeds the
adversary lacks: its own and one pair's. Half of the vector is known to the adversary; it looks for
two seeds whose masks explain that half, and takes them off the other half.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.secagg_campaign.protocol import Finding
from benchmarks.secagg_campaign.scene import CASES, Scene
from benchmarks.secagg_campaign.studies import Case, noised
from privacy.keystream import counter_mode
from privacy.secagg import KeySets, MaskingMember
from privacy.secagg.binding import pair_seed
from privacy.secagg.masking import apply_masks

__all__ = ["CUT_BITS", "SEARCHED_BITS", "search_honest", "two_masks"]

CUT_BITS: Final = 28
"""What a weakened member's seeds are cut to."""
SEARCHED_BITS: Final = 16
"""Candidates per seed, as a power of two; a control is told the bits above."""

PAIRS: Final[list[Case]] = [case for case in CASES if case.members - case.colluders == 2]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Seeds of little entropy with the beginning of their masks.

    Args:
        seeds: 32 bytes each.
        heads: uint64, sorted: the first two ring elements of each mask, the first one low.
        order: which seed each head is of.
        first: uint32 per seed, shape (seeds, 2), unsorted.
    """

    seeds: list[bytes]
    heads: npt.NDArray[np.uint64]
    order: npt.NDArray[np.intp]
    first: npt.NDArray[np.uint32]


@functools.lru_cache(maxsize=4)
def candidates(high: int = 0, bits: int = SEARCHED_BITS) -> Candidates:
    """All seeds that are a number with these upper bits, at either end of the 32 bytes.

    Args:
        high: the bits above the ones that are searched.
        bits: how many are searched.
    """
    numbers = [(high << SEARCHED_BITS) + low for low in range(1 << bits)]
    seeds = [one.to_bytes(32) for one in numbers]
    if high == 0:
        seeds += [one.to_bytes(32, "little") for one in numbers]
    zeros, start = bytes(8), bytes(16)
    streams = b"".join(counter_mode(seed, start).update(zeros) for seed in seeds)
    first = np.frombuffer(streams, dtype="<u4").reshape(-1, 2)
    heads = np.frombuffer(streams, dtype="<u8")
    order = np.argsort(heads, kind="stable")
    return Candidates(seeds, heads[order], order, first)


def _head(elements: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Two ring elements as one number."""
    head: npt.NDArray[np.uint64] = np.ascontiguousarray(elements, "<u4").view("<u8").ravel()
    return head


def meet(
    target: npt.NDArray[np.uint32], own: Candidates, pair: Candidates, *, added: bool
) -> list[tuple[bytes, bytes]]:
    """Pairs of seeds with target = own mask + or - pair mask, in the first two elements."""
    wanted = target - own.first  # what the pair's mask would have to be
    if not added:
        wanted = np.uint32(0) - wanted
    heads = _head(wanted)
    at = np.minimum(np.searchsorted(pair.heads, heads), len(pair.heads) - 1)
    return [
        (own.seeds[place], pair.seeds[pair.order[at[place]]])
        for place in np.flatnonzero(pair.heads[at] == heads)
    ]


def search_honest(rng: random.Random) -> None:
    """One trial against a shipped member: all low-entropy seeds, at both places.

    Raises:
        Finding: if the member's vector was recovered.
    """
    if two_masks(rng, MaskingMember, (0, 0)):
        raise Finding("a captured mask was found among seeds of little entropy")


def two_masks(
    rng: random.Random,
    kind: type[MaskingMember],
    hints: tuple[int, int] | None,
    bits: int = SEARCHED_BITS,
) -> bool:
    """Captures one vector and searches; whether the unknown half was recovered.

    Args:
        rng: decides.
        kind: what members are made of.
        hints: the upper bits of own and pair seeds; None reads them off a weakened member, which
            keeps its seeds in ``cut``.
        bits: how many are searched.
    """
    scene = Scene(rng, kind, cases=PAIRS)
    cohort = scene.exchange(KeySets(1, 1))
    attempt = scene.attempt()
    victim, other = scene.honest if rng.random() < 0.5 else scene.honest[::-1]
    vector = noised(scene.plain())
    masked = vector.ring
    member = scene.members[victim]
    secrets = dict(member._run(cohort.key_sets).pair_secrets[0])
    member.mask(attempt, masked)
    told = {
        colluder: pair_seed(
            scene.setup, secrets[colluder], cohort.hash, attempt, one=victim, other=colluder
        )
        for colluder in scene.colluders
    }
    cut = getattr(member, "cut", {})
    if cut:  # a weakened member's colluders know their own, cut seeds
        told = {colluder: cut[colluder] for colluder in told}
    for colluder, seed in told.items():
        below = victim < colluder
        apply_masks(masked, add=() if below else (seed,), subtract=(seed,) if below else ())
    if hints is None:
        hints = (_high(cut[victim]), _high(cut[other]))
    known = slice(0, 4)
    target = (masked[known] - vector.ring[known]).astype("<u4")
    found = meet(
        target[:2], candidates(hints[0], bits), candidates(hints[1], bits), added=victim < other
    )
    for own, pair in found:
        left = masked.copy()
        below = victim < other
        apply_masks(left, subtract=(own, pair) if below else (own,), add=() if below else (pair,))
        if np.array_equal(left[known], vector.ring[known]):
            return bool(np.array_equal(left, vector.ring))
    return False


def _high(seed: bytes) -> int:
    return int.from_bytes(seed) >> SEARCHED_BITS
