"""Small studies with canaries, honest and with faults planted; the same at every run."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import numpy as np

from benchmarks.empirical.runs import (
    Blocks,
    Member,
    audited_terms,
    enrol_everywhere,
    honest,
    run,
    seeded,
)
from client_sdk.canaries import Canaries
from privacy.empirical.canaries import CanarySecret
from privacy.empirical.measurement import Measurement, measure
from privacy.empirical.releases import Released
from privacy.keystream import KeyStream
from privacy.terms import Terms

CANARIES = 2000
DIMENSION = 10_000
CLAIMED = 100.0
"""These studies are too small for little noise to be safe; bounds have tests of their own."""

QUIET = audited_terms(
    members=5, declared=300, dimension=DIMENSION, rounds=6, q=0.5, sigma=0.3, dropouts=1
)
"""Little noise, so that canaries are clear."""
LOUD = audited_terms(
    members=5, declared=300, dimension=DIMENSION, rounds=6, q=0.5, sigma=2.0, dropouts=1
)

Make = Callable[[Canaries, int], Member]


def enrolled(terms: Terms, scale: float = 1.0) -> tuple[list[CanarySecret], dict[str, Canaries]]:
    return enrol_everywhere(
        terms,
        CANARIES,
        scale=scale,
        key=lambda index: hashlib.sha256(f"key:{index}".encode()).digest(),
    )


def releases_of(
    terms: Terms, make: Make, *, scale: float = 1.0, seed: str = "run"
) -> list[Released]:
    _, canaries = enrolled(terms, scale)
    members = {name: make(one, index) for index, (name, one) in enumerate(canaries.items())}
    return run(terms, members, seed=seed)


def measured(terms: Terms, make: Make, *, scale: float = 1.0, seed: str = "run") -> Measurement:
    secrets, _ = enrolled(terms, scale)
    return measure(
        terms, secrets, releases_of(terms, make, scale=scale, seed=seed), claimed=CLAIMED
    )


def honest_member(canaries: Canaries, _: int) -> Member:
    return honest(canaries)


@functools.cache
def _consumers(index: int) -> np.ndarray:
    own = np.random.default_rng(index).standard_normal((150, DIMENSION)).astype(np.float32)
    return own / np.linalg.norm(own, axis=1, keepdims=True)


def with_consumers(canaries: Canaries, index: int) -> Member:
    """An honest member with 150 consumers of norm up to C that pull together, ever elsewhere."""
    shared = np.random.default_rng(99).standard_normal((2, DIMENSION)).astype(np.float32)
    shared /= np.linalg.norm(shared, axis=1, keepdims=True)
    own = _consumers(index)

    def blocks(terms: Terms, number: int, stream: KeyStream) -> Blocks:
        sampled = (seeded("consumers", index, number).uint32(150) >> 31).astype(np.float32)
        turn = 0.3 * number
        together = np.cos(turn) * shared[0] + np.sin(turn) * shared[1]
        yield 0.58 * (sampled @ own) + 0.78 * sampled.sum() * together
        yield from canaries.block_sums(terms, stream)

    return Member(blocks=blocks)


def weighted(canaries: Canaries, weight: Callable[[int], float]) -> Member:
    """A member whose sums are multiplied by a number of the round."""

    def blocks(terms: Terms, number: int, stream: KeyStream) -> Blocks:
        for block in canaries.block_sums(terms, stream):
            yield block * np.float32(weight(number))

    return Member(blocks=blocks)
