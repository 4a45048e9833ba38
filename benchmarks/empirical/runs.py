"""Runs of a study with canaries, through the members' own code, and the same with faults planted.

A run takes every member's canaries (and consumers, where there are any) through sampling, clipping,
rounding, discrete Gaussian noise and the ring, adds members up and decodes; only masks and the
network are left out, which change nothing in the sum.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client_sdk.canaries import Canaries
from privacy.empirical.canaries import CanarySecret, enrol_canaries, signs
from privacy.empirical.releases import INDEX, Released, release_line, release_name
from privacy.fixedpoint import SHARE_SCALE, Grid, add_in_place, decode, encode, to_ring
from privacy.identity import Identity
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Terms

__all__ = [
    "Member",
    "audited_terms",
    "enrol_everywhere",
    "honest",
    "run",
    "seeded",
    "with_vectors",
    "write_releases",
]

Blocks = Iterator[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What one member adds to a round. The defaults are honest; a fault replaces one of them.

    Args:
        blocks: its block sums in a round, from the terms, the round and a secret stream.
        noise_scale: of its noise, in grid steps.
        noise_stream: where its noise of a round comes from; its secret stream if not given.
    """

    blocks: Callable[[Terms, int, KeyStream], Blocks]
    noise_scale: float = SHARE_SCALE
    noise_stream: Callable[[int], KeyStream] | None = None


def audited_terms(
    *,
    members: int,
    declared: int,
    dimension: int,
    rounds: int,
    q: float,
    sigma: float,
    dropouts: int = 0,
    delta: float = 1e-5,
) -> Terms:
    """Terms of a study with one colluder, whose members declare equal numbers of consumers."""
    return Terms(
        alliance="audit",
        study="canaries",
        purpose="Measure epsilon from canaries",
        recipe="propensity",
        settings={},
        dimension=dimension,
        contract=DataContract(
            name="visits",
            version=1,
            consumer_id="household",
            label="responded",
            columns=(Column(name="spend", kind="number", low=0.0, high=1.0),),
            rows_per_consumer=1,
        ),
        privacy=PrivacyTerms(
            clipping_norm=1.0,
            noise_multiplier=sigma,
            sampling_probability=q,
            rounds=rounds,
            max_attempts=rounds,
            delta=delta,
            cohort_size=members,
            colluders=1,
            dropouts=dropouts,
        ),
        roster=tuple(
            RosterEntry(
                name=f"member-{index}",
                identity=hashlib.sha256(str(index).encode()).hexdigest(),
                declared_consumers=declared,
            )
            for index in range(members)
        ),
    )


def enrol_everywhere(
    terms: Terms, count: int, *, scale: float = 1.0, key: Callable[[int], bytes] | None = None
) -> tuple[list[CanarySecret], dict[str, Canaries]]:
    """``count`` canaries in all, spread evenly over the roster.

    Args:
        terms: of the study.
        count: a multiple of the roster's length.
        scale: norm of a canary's vector.
        key: the secret of the roster's nth member; fresh if not given.
    """
    auditor = Identity.generate()
    secrets, canaries = [], {}
    for index, entry in enumerate(terms.roster):
        secret, enrolment = enrol_canaries(
            terms,
            member=entry.name,
            count=count // len(terms.roster),
            scale=scale,
            auditor=auditor,
            key=os.urandom(32) if key is None else key(index),
        )
        secrets.append(secret)
        canaries[entry.name] = Canaries(enrolment, os.urandom(32) if key is None else key(index))
    return secrets, canaries


def honest(canaries: Canaries) -> Member:
    """A member with canaries and no consumers."""
    return Member(blocks=lambda terms, _, stream: canaries.block_sums(terms, stream))


def with_vectors(
    canaries: Canaries, terms: Terms, sampled: Callable[[int, int], npt.NDArray[np.bool_]]
) -> Callable[[Terms, int, KeyStream], Blocks]:
    """Block sums of a member that does not clip and samples as ``sampled(round, count)`` says."""
    enrolment = canaries.enrolment
    seeds = [bytes.fromhex(seed) for seed in enrolment.seeds]
    length = enrolment.scale * terms.privacy.clipping_norm / math.sqrt(terms.dimension)
    vectors = signs(seeds, terms.dimension) * np.float32(length)

    def blocks(_: Terms, round_number: int, __: KeyStream) -> Blocks:
        yield sampled(round_number, len(seeds)).astype(np.float32) @ vectors

    return blocks


def seeded(seed: str, *parts: object) -> KeyStream:
    """A stream that is the same for the same arguments."""
    return KeyStream(hashlib.sha256(":".join(map(str, (seed, *parts))).encode()).digest())


def _release(
    terms: Terms, members: Mapping[str, Member], round_number: int, seed: str | None
) -> Released:
    """One round of all members."""
    grid = Grid.of(terms)
    total = np.zeros(terms.dimension, dtype=grid.dtype)
    empty = np.zeros(terms.dimension, dtype=np.float32)
    for name, member in members.items():
        stream = KeyStream.fresh() if seed is None else seeded(seed, name, round_number)
        sums = chain([empty], member.blocks(terms, round_number, stream))
        update = encode(sums, grid, grid.limit(name), stream)
        source = stream if member.noise_stream is None else member.noise_stream(round_number)
        DiscreteGaussian(member.noise_scale).add_to(update, source)
        add_in_place(total, to_ring(update, grid))
    decoded = decode(total, grid)
    return Released(round_number, 1, tuple(members), lambda: decoded)


def run(terms: Terms, members: Mapping[str, Member], *, seed: str | None = None) -> list[Released]:
    """All rounds of a study; the same again for the same seed."""
    return [_release(terms, members, number + 1, seed) for number in range(terms.privacy.rounds)]


def write_releases(folder: Path, terms: Terms, releases: Sequence[Released]) -> None:
    """Writes the folder that an auditor gets."""
    grid = Grid.of(terms)
    lines = []
    for one in releases:
        ring = np.rint(one.total() / grid.step).astype(np.int64).astype(grid.dtype).tobytes()
        (folder / release_name(one.round, one.attempt)).write_bytes(ring)
        lines.append(
            release_line(
                terms.hash,
                round_number=one.round,
                attempt=one.attempt,
                contributors=one.contributors,
                sum_sha256=hashlib.sha256(ring).hexdigest(),
            )
        )
    (folder / INDEX).write_bytes(b"".join(lines))
