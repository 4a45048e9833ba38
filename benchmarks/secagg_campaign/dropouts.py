"""Who drops when: every pattern of few members, random patterns of many.

An attempt must complete if and only if the README says so, and every sum must be bit-exact.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from benchmarks.secagg_campaign.protocol import (
    CALM,
    EARLY,
    NEVER,
    PHASES,
    Disorder,
    Finding,
    Outcome,
    Play,
    exchange,
    expected,
    make_members,
    play,
    shares_suffice,
    stays,
)
from benchmarks.secagg_campaign.studies import Case, Vector, admissible, noised, study
from benchmarks.secagg_campaign.tally import Tally
from privacy.errors import RoundFailed
from privacy.secagg import MOST_KEY_SETS, Attempt, Cohort, KeySets, MaskingMember, Setup

__all__ = ["all_patterns", "random_case", "random_patterns"]

_LATER: Final = "contribute"
"""In a key exchange all later droppings are the same."""


class _Supply:
    """Attempts of one prefix: key exchanges in which the same members drop, as many as needed.

    Args:
        setup: of the study.
        leaves: where each member drops; whatever is later than deliver is all the same here.
        members: made once per study; the numbers of their key sets grow.
        first: the next key set.
        wanted: attempts that are to come.
    """

    def __init__(
        self,
        setup: Setup,
        leaves: dict[int, str],
        members: dict[int, MaskingMember],
        first: int,
        wanted: int,
    ) -> None:
        self._setup = setup
        self._leaves = leaves
        self.members = members
        self._left = wanted
        self.next = first
        self.end = first
        self.cohort: Cohort | None = None
        self.exchanges = 0

    def attempt(self) -> tuple[Cohort, Attempt]:
        """An unused key set with its cohort.

        Raises:
            RoundFailed: if too few members are left to exchange keys.
        """
        if self.cohort is None or self.next == self.end:
            count = max(1, min(MOST_KEY_SETS, self._left))
            self.end = self.next + count
            self.exchanges += 1
            key_sets = KeySets(self.next, count)
            self.cohort = exchange(self._setup, self.members, key_sets, self._leaves)
        number = self.next
        self.next += 1
        self._left -= 1
        return self.cohort, Attempt(number, 1 + number % 10, 1 + number % 3, bytes(32))


def _assignments(indices: list[int], phases: tuple[str, ...]) -> Iterator[dict[int, str]]:
    for chosen in itertools.product(phases, repeat=len(indices)):
        yield dict(zip(indices, chosen, strict=True))


def _vectors(cohort: Cohort, dimension: int) -> dict[int, Vector]:
    """Index times distinct powers, so that no two sums are alike."""
    base = np.arange(1, dimension + 1, dtype=np.int64)
    return {index: noised(base * (1 << index)) for index in cohort.ready}


def _judge(setup: Setup, leaves: dict[int, str], outcome: Outcome | None) -> None:
    """Raises `Finding` unless the attempt ended as the README says."""
    completed = outcome is not None and outcome.failed_in is None
    if completed != expected(setup, leaves):
        raise Finding(f"completed is {completed}, the README says the opposite")


def all_patterns(case: Case, part: int, parts: int) -> Tally:
    """Every assignment of {never, each phase} to the members, for one N, c, D.

    Patterns that do not differ in what was said before the attempt failed are one run of the
    protocol: what a member would have done later cannot be seen. Every run uses a key set of its
    own; key sets of one exchange serve all patterns with the same droppings ahead of time.

    Args:
        case: N, c and D.
        part: which part of the key exchanges' patterns to take.
        parts: of how many.
    """
    tally = Tally()
    setup = study(case, dimension=4)
    indices = list(range(1, case.members + 1))
    members = make_members(setup, indices)
    first = 1
    prefixes = _assignments(indices, (*EARLY, _LATER))
    for early in itertools.islice(prefixes, part, None, parts):
        ready = [index for index in indices if early[index] == _LATER]
        supply = _Supply(setup, early, members, first, 3 ** len(ready))
        try:
            supply.attempt()
        except RoundFailed:
            weight = 4 ** len(ready)
            stay = early | dict.fromkeys(ready, NEVER)
            tally.attempt(str(early), partial(_judge, setup, stay, None), weight=weight)
            tally.counts["key exchanges"] += 1
        else:
            _all_attempts(tally, supply, setup, early, ready)
            tally.counts["key exchanges"] += supply.exchanges
        first = supply.end
    return tally


def _all_attempts(
    tally: Tally, supply: _Supply, setup: Setup, early: dict[int, str], ready: list[int]
) -> None:
    """All droppings of the ready members in contribute, confirm and unmask."""
    for contributing in _assignments(ready, ("contribute", "confirm")):
        silent = [index for index in ready if contributing[index] == "contribute"]
        speaking = [index for index in ready if index not in silent]
        fixed = early | dict.fromkeys(silent, "contribute")
        if not _one(tally, supply, setup, fixed | dict.fromkeys(speaking, NEVER), probe=speaking):
            continue
        for last in _assignments(speaking, ("confirm", "unmask", NEVER)):
            if any(phase != NEVER for phase in last.values()):
                _one(tally, supply, setup, fixed | last)


def _one(
    tally: Tally,
    supply: _Supply,
    setup: Setup,
    leaves: dict[int, str],
    probe: list[int] | None = None,
) -> bool:
    """Runs one pattern; whether it got beyond contribute.

    If it did not, and ``probe`` is given, it stands for all that these members could do later.
    """

    def trial() -> Outcome:
        cohort, attempt = supply.attempt()
        vectors = _vectors(cohort, setup.terms.dimension)
        outcome = play(Play(cohort, supply.members, attempt, vectors, leaves))
        _judge(setup, leaves, outcome)
        if outcome.failed_in is None:
            outcome.check_sum(vectors)
        return outcome

    outcome = tally.attempt(str(leaves), trial)
    tally.counts["attempts"] += 1
    if outcome is None:
        return True
    tally.counts["completed"] += outcome.failed_in is None
    if outcome.failed_in == "contribute" and probe is not None:
        tally.trials += 3 ** len(probe) - 1
        return False
    return True


def random_case(rng: random.Random, least: int, most: int) -> Case:
    """N the least of three uniform draws within bounds; then D, then c, of all allowed."""
    cases = admissible(min(rng.randint(least, most) for _ in range(3)))
    dropouts = rng.choice(sorted({case.dropouts for case in cases}))
    return rng.choice([case for case in cases if case.dropouts == dropouts])


def random_leaves(rng: random.Random, setup: Setup) -> dict[int, str]:
    """Droppings whose number in each part lies near what the terms allow, on both sides."""
    privacy = setup.terms.privacy
    order = list(range(1, privacy.cohort_size + 1))
    rng.shuffle(order)
    leaves = dict.fromkeys(order, NEVER)
    gone = rng.randint(0, privacy.dropouts + (rng.random() < 0.2))
    for index in order[:gone]:
        leaves[index] = rng.choice(PHASES[:4])
    left = privacy.cohort_size - gone - privacy.threshold
    if rng.random() < 0.7 and left >= 0:
        more = max(0, left + rng.choice((-2, -1, 0, 0, 0, 1)))
        for index in order[gone : gone + more]:
            leaves[index] = rng.choice(PHASES[4:])
    elif rng.random() < 0.5:
        for index in order[gone:]:
            leaves[index] = NEVER if rng.random() < 0.8 else rng.choice(PHASES)
    return leaves


def random_patterns(name: str, numbers: range, least: int, most: int) -> Tally:
    """Random N, c, D and droppings, with duplicates, corrupted bytes and late vectors.

    Args:
        name: of the series, so that series differ.
        numbers: which trials.
        least: least N.
        most: most N.
    """
    tally = Tally()
    for number in numbers:
        rng = random.Random(f"{name}/{number}")
        case = random_case(rng, least, most)
        while study(case).graph.degree is None and most > 64:
            case = random_case(rng, least, most)
        leaves = random_leaves(rng, study(case))
        completed = tally.attempt(
            f"{name} {number}, {case}, {sorted(leaves.items())}",
            partial(_random_one, rng, case, leaves),
        )
        tally.counts["completed"] += bool(completed)
    return tally


def _random_one(rng: random.Random, case: Case, leaves: dict[int, str]) -> bool:
    setup = study(case)
    members = make_members(setup, range(1, case.members + 1))
    disorder = Disorder(rng, 1 / case.members) if rng.random() < 0.7 else CALM
    at_once = case.dropouts == 0 and rng.random() < 0.5
    try:
        cohort = exchange(setup, members, KeySets(1, 1), leaves, disorder)
    except RoundFailed:
        _judge(setup, leaves, None)
        return False
    vectors = {
        index: noised(np.array([rng.randint(-(1 << 20), 1 << 20) for _ in range(8)], dtype="<i8"))
        for index in cohort.ready
    }
    late = frozenset(i for i in cohort.ready if leaves[i] == "contribute" and rng.random() < 0.5)
    attempt = Attempt(1, rng.randint(1, 10), rng.randint(1, 3), rng.randbytes(32))
    outcome = play(Play(cohort, members, attempt, vectors, leaves, disorder, late, at_once=at_once))
    completed = outcome.failed_in is None
    if completed:
        outcome.check_sum(vectors)
    allowed = expected(setup, leaves, at_once=at_once)
    if setup.graph.degree is not None and allowed and not at_once:
        allowed = shares_suffice(cohort, leaves)
    if completed != allowed:
        raise Finding(f"completed is {completed}, the README says {allowed}")
    if not all(stays(leaves[index], "contribute") for index in outcome.survivors):
        raise Finding("somebody is in the sum who did not contribute")
    return completed
