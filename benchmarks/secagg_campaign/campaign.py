"""What the campaign consists of: rows, sizes, and one worker for each sort of trial."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.secagg_campaign import (
    brute_force,
    coordinator_attacks,
    dropouts,
    exchange_attacks,
    member_attacks,
    one_hot,
    terms_attacks,
)
from benchmarks.secagg_campaign.controls import CONTROLS
from benchmarks.secagg_campaign.studies import admissible
from benchmarks.secagg_campaign.tally import Job, Tally

__all__ = [
    "ATTACKS",
    "FULL",
    "QUICK",
    "Sizes",
    "attack_jobs",
    "attack_trials",
    "control_jobs",
    "control_trials",
    "dropout_jobs",
    "one_hot_control",
]

Attack = Callable[[random.Random], None]

ATTACKS: Final[dict[str, Attack]] = {
    "A1, one member listed alive and dropped": coordinator_attacks.listed_twice,
    "A2, second unmask with other lists": coordinator_attacks.another_list,
    "A2, unmask along with contributions, some held back": coordinator_attacks.in_one_trip,
    "A3, fewer than t signatures": coordinator_attacks.few_signatures,
    "A3, terms with another threshold": terms_attacks.low_threshold,
    "A4, modulus 2 or a range too narrow": terms_attacks.tiny_ring,
    "A5, peer keys swapped": exchange_attacks.swapped_keys,
    "A6, different models for one key set": coordinator_attacks.other_models,
    "A8, cohort below the floor or padded": exchange_attacks.below_the_floor,
    "A9, same round again minus one member": coordinator_attacks.same_round_again,
    "A10, clip 1e9, noise 0": terms_attacks.huge_clip_no_noise,
    "A11, brute force of captured masks": brute_force.search_honest,
    "A12, old shares and signatures replayed": coordinator_attacks.replays,
    "B8, bad, repeated or mis-indexed shares": member_attacks.bad_shares,
    "B8, bad deals": member_attacks.bad_deals,
    "B11, different keys to different peers": exchange_attacks.two_faces,
    "C1-C5, down to the threshold and below": member_attacks.down_to_the_threshold,
    "C6, vector after the lists": member_attacks.late,
    "C7, all drop": member_attacks.all_gone,
    "C8, stragglers, everything twice": member_attacks.everything_twice,
}
"""By row: one trial, which raises if the attack got anything."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Args:
        parts: by N, parts into which the patterns of one c and D are cut.
        some: by N, only this part of them; all parts if it is not there.
        random: random patterns.
        sparse: random patterns on a sparse graph.
        one_hot: runs of the simulation.
        attacks: trials of each attack.
        controls: trials of each control.
        chunk: trials that one job makes at most.
    """

    parts: dict[int, int]
    some: dict[int, int]
    random: int
    sparse: int
    one_hot: int
    attacks: int
    controls: int
    chunk: int


FULL: Final = Sizes({3: 1, 4: 1, 5: 5, 6: 23}, {}, 10_000, 60, 10_000, 1000, 20, 25)
QUICK: Final = Sizes(
    {3: 1, 4: 1, 5: 101, 6: 401}, {5: 0, 6: 0}, 60, 2, 100, 10, 3, 10
)  # fmt: skip


def _chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def dropout_jobs(sizes: Sizes) -> list[Job]:
    """Jobs of the dropout rows and of the one-hot row, the longest first."""
    jobs = [
        Job("random dropouts, sparse graph, N = 65 to 80", dropouts.random_patterns, arguments)
        for numbers in _chunks(sizes.sparse, max(1, sizes.chunk // 10))
        for arguments in [("sparse", numbers, 65, 80)]
    ]
    for members in sorted(sizes.parts, reverse=True):
        row = f"all dropout patterns, N = {members}, every c and D"
        parts = sizes.parts[members]
        chosen = [sizes.some[members]] if members in sizes.some else range(parts)
        jobs += [
            Job(row, dropouts.all_patterns, (case, part, parts))
            for case in admissible(members)
            for part in chosen
        ]
    jobs += [
        Job("random dropouts, N = 3 to 50", dropouts.random_patterns, ("random", numbers, 3, 50))
        for numbers in _chunks(sizes.random, sizes.chunk)
    ]
    jobs += [
        Job("one-hot simulation", one_hot.runs, ("one-hot", numbers))
        for numbers in _chunks(sizes.one_hot, sizes.chunk)
    ]
    return jobs


def attack_jobs(sizes: Sizes) -> list[Job]:
    """Jobs of all attacks."""
    return [
        Job(row, attack_trials, (row, numbers))
        for row in ATTACKS
        for numbers in _chunks(sizes.attacks, sizes.chunk)
    ]


def control_jobs(sizes: Sizes) -> list[Job]:
    """Jobs of all positive controls."""
    jobs = [Job(row, control_trials, (row, range(sizes.controls))) for row in CONTROLS]
    return jobs + [
        Job(f"one-hot simulation, one vector {fault}", one_hot_control, (fault, sizes.controls))
        for fault in one_hot.FAULTS
    ]


def attack_trials(row: str, numbers: range) -> Tally:
    """Trials of one attack; a failure is one that got something, or met an unnamed error."""
    tally = Tally()
    for number in numbers:
        rng = random.Random(f"{row}/{number}")
        tally.attempt(f"trial {number}", partial(ATTACKS[row], rng))
    return tally


def control_trials(row: str, numbers: range) -> Tally:
    """Trials of one control; a failure is one that the harness did not break."""
    tally = Tally()
    broken, _ = CONTROLS[row]
    for number in numbers:
        tally.trials += 1
        if not broken(random.Random(f"{row}/{number}")):
            tally.fail(f"trial {number} was not broken")
    return tally


def one_hot_control(fault: one_hot.Fault, runs: int) -> Tally:
    """Runs of the simulation with a fault in every sum; a failure is one that was not noticed."""
    damaged = one_hot.runs("one-hot control", range(runs), fault)
    return Tally(runs, runs - damaged.failures)
