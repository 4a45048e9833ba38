"""The one-hot simulation: every contribution is a distinct one-hot plus real noise.

After the survivors' known noise is subtracted, a coordinate shows how often its contribution is in
the sum: a double count is a 2, a forgotten one a 0, and one of another attempt a 1 out of place.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Literal

import numpy as np

from benchmarks.secagg_campaign.dropouts import random_case, random_leaves
from benchmarks.secagg_campaign.protocol import (
    NEVER,
    Disorder,
    Finding,
    Outcome,
    Play,
    exchange,
    expected,
    make_members,
    play,
)
from benchmarks.secagg_campaign.studies import Case, Vector, noised, study
from benchmarks.secagg_campaign.tally import Tally
from privacy.errors import RoundFailed
from privacy.secagg import Attempt, KeySets

__all__ = ["FAULTS", "MOST_ATTEMPTS", "runs"]

MOST_ATTEMPTS = 4
Fault = Literal["", "twice", "stale", "left out"]
FAULTS: tuple[Fault, ...] = ("twice", "stale", "left out")
"""What controls do to a sum: count one twice, add one of the attempt before, leave one out."""


def runs(name: str, numbers: range, fault: Fault = "") -> Tally:
    """Runs of several attempts each; a run fails if any sum is not what it must be.

    Args:
        name: of the series.
        numbers: which runs.
        fault: what a control does to completed sums; nothing in the campaign proper.
    """
    tally = Tally()
    for number in numbers:
        rng = random.Random(f"{name}/{number}")
        case = random_case(rng, 3, 8)
        done = tally.attempt(f"{name} {number}, {case}", partial(_run, rng, case, fault))
        for what, count in (done or {}).items():
            tally.counts[what] += count
    return tally


def _run(rng: random.Random, case: Case, fault: Fault) -> dict[str, int]:
    """One run: attempts until one completes, and one round more; retries take fresh key sets."""
    attempts = rng.randint(2, MOST_ATTEMPTS)
    setup = study(case, dimension=case.members * MOST_ATTEMPTS)
    at_once = case.dropouts == 0 and rng.random() < 0.5
    members = make_members(setup, range(1, case.members + 1))
    disorder = Disorder(rng, 0.15)
    counts = {"attempts": 0, "completed": 0}
    round_number, retry = 1, 1
    for place in range(attempts):
        leaves = random_leaves(rng, setup)
        if place == attempts - 1:
            leaves = dict.fromkeys(leaves, NEVER)  # the last one completes
        counts["attempts"] += 1
        try:
            cohort = exchange(setup, members, KeySets(1 + 2 * place, 2), leaves, disorder)
        except RoundFailed:
            retry += 1
            continue
        vectors = {
            index: noised(_one_hot(case, place, index, setup.terms.dimension))
            for index in cohort.ready
        }
        attempt = Attempt(1 + 2 * place + rng.randrange(2), round_number, retry, rng.randbytes(32))
        late = frozenset(index for index in cohort.ready if leaves[index] == "contribute")
        scene = Play(cohort, members, attempt, vectors, leaves, disorder, late, at_once=at_once)
        outcome = play(scene)
        if (outcome.failed_in is None) != expected(setup, leaves, at_once=at_once):
            raise Finding("an attempt did not end as the README says")
        if outcome.total is None:
            retry += 1
            continue
        _damage(outcome, vectors, fault, case)
        _check(outcome, vectors, case, place)
        counts["completed"] += 1
        round_number, retry = round_number + 1, 1
    return counts


def _one_hot(
    case: Case, place: int, index: int, dimension: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    vector = np.zeros(dimension, dtype=np.int64)
    vector[place * case.members + index - 1] = 1
    return vector


def _damage(outcome: Outcome, vectors: dict[int, Vector], fault: Fault, case: Case) -> None:
    if outcome.total is None or not fault:
        return
    one = outcome.survivors[0]
    if fault == "twice":
        outcome.total[:] += vectors[one].plain.astype("<u4")
    elif fault == "left out":
        outcome.total[:] -= vectors[one].plain.astype("<u4")
    else:
        outcome.total[:] += np.roll(vectors[one].plain, case.members).astype("<u4")


def _check(outcome: Outcome, vectors: dict[int, Vector], case: Case, place: int) -> None:
    """Every coordinate is 0 or 1, and exactly the survivors' of this attempt are 1."""
    if outcome.total is None:
        raise Finding("there is no sum to check")
    rest = outcome.total.view("<i4").astype(np.int64)
    for index in outcome.survivors:
        rest -= vectors[index].noise
    ones = {place * case.members + index - 1 for index in outcome.survivors}
    wrong = [at for at, value in enumerate(rest) if value != (at in ones)]
    if wrong:
        raise Finding(f"coordinates {wrong[:5]} are not what the survivors put there")
