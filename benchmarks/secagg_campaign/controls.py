"""Weakened members, each of which the campaign's own harness must break. Never shipped.

Each one lacks a single protection; an attack that breaks it is known to be able to break something.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from benchmarks.secagg_campaign.brute_force import CUT_BITS, SEARCHED_BITS, two_masks
from benchmarks.secagg_campaign.coordinator_attacks import (
    another_list,
    few_signatures,
    in_one_trip,
    listed_twice,
)
from benchmarks.secagg_campaign.member_attacks import late
from benchmarks.secagg_campaign.protocol import Finding
from benchmarks.secagg_campaign.scene import CASES, Scene
from privacy.fixedpoint import RingVector
from privacy.secagg import Attempt, Graph, KeySets, MaskingMember, Signed
from privacy.secagg.binding import pair_seed, self_seed
from privacy.secagg.masking import apply_masks

__all__ = ["CONTROLS", "AlwaysAtOnce", "CutSeeds", "NoConsistency", "NoOwnMask", "ThresholdOne"]

LEARNED: Final = "the adversary has"


class CutSeeds(MaskingMember):
    """Mask seeds have 28 bits; keeps them, by member, so that a search can be told their top."""

    cut: dict[int, bytes]

    def mask(self, attempt: Attempt, vector: RingVector) -> bytes:
        """As the shipped one, with every seed cut."""
        self.check(attempt)
        run = self._ready(attempt)
        place = run.place(attempt.key_set)
        own = self_seed(self._setup, run.seeds[place], run.cohort_hash, attempt, one=self._index)
        self.cut = {self._index: _cut(own)}
        for other, secret in run.pair_secrets[place].items():
            self.cut[other] = _cut(
                pair_seed(
                    self._setup, secret, run.cohort_hash, attempt, one=self._index, other=other
                )
            )
        apply_masks(
            vector,
            add=[seed for other, seed in self.cut.items() if other >= self._index],
            subtract=[seed for other, seed in self.cut.items() if other < self._index],
        )
        return self._sign_attempt(run, attempt, "contribute", vector.data)


def _cut(seed: bytes) -> bytes:
    return (int.from_bytes(seed) % (1 << CUT_BITS)).to_bytes(32)


class NoConsistency(MaskingMember):
    """Signs any number of lists, reveals without signatures, and as often as it is asked."""

    def confirm(self, attempt: Attempt, lists: bytes) -> bytes:
        """As the shipped one, having forgotten what it signed."""
        self._used(attempt)[1].lists = None
        return super().confirm(attempt, lists)

    def _check_signatures(self, *_: Any) -> None:
        """Looks at none."""

    def _forget(self, *_: Any) -> None:
        """Keeps all."""


class AlwaysAtOnce(MaskingMember):
    """Reveals along with its contribution although members may drop, and forgets nothing."""

    def unmask_at_once(self, attempt: Attempt) -> Signed:
        """As the shipped one where nobody may drop."""
        least, self._least = self._least, self._most
        try:
            return super().unmask_at_once(attempt)
        finally:
            self._least = least
            self._used(attempt)[1].lists = None

    def _forget(self, *_: Any) -> None:
        """Keeps all."""


class ThresholdOne(MaskingMember):
    """t = 1: one signature is enough, and one share."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._threshold = 1
        self._setup = replace(self._setup, graph=Graph(None, 1))


class NoOwnMask(MaskingMember):
    """Masks with its peers alone."""

    def mask(self, attempt: Attempt, vector: RingVector) -> bytes:
        """As the shipped one, with its own mask taken off again."""
        run = self._ready(attempt)
        seed = run.seeds[run.place(attempt.key_set)]
        super().mask(attempt, vector)
        own = self_seed(self._setup, seed, run.cohort_hash, attempt, one=self._index)
        apply_masks(vector, subtract=[own])
        return self._sign_attempt(run, attempt, "contribute", vector.data)


def _broken_by(
    attack: Callable[[random.Random, type[MaskingMember]], None], kind: type[MaskingMember]
) -> Callable[[random.Random], bool]:
    """Whether an attack of the campaign learns something from such members."""

    def broken(rng: random.Random) -> bool:
        try:
            attack(rng, kind)
        except Finding as finding:
            return LEARNED in str(finding)
        return False

    return broken


def _cut_seeds(rng: random.Random) -> bool:
    return two_masks(rng, CutSeeds, None)


def _too_many_colluders(rng: random.Random) -> bool:
    """t members collude instead of c: beyond what the terms promise, and enough for all secrets."""
    cases = [case for case in CASES if (case.members + case.colluders) // 2 + 1 < case.members]
    scene = Scene(rng, cases=cases, colluding=lambda privacy: privacy.threshold)
    scene.exchange(KeySets(1, 1))
    attempt = scene.attempt()
    for index in scene.honest:
        scene.contribute(index, attempt)
    return scene.adversary.revealed() is not None


CONTROLS: Final[dict[str, tuple[Callable[[random.Random], bool], str]]] = {
    "A11, mask seeds cut to 28 bits": (
        _cut_seeds,
        f"told {CUT_BITS - SEARCHED_BITS} bits of both seeds, meets in the middle of the others",
    ),
    "A1, consistency check off": (_broken_by(listed_twice, NoConsistency), ""),
    "A2, consistency check off": (_broken_by(another_list, NoConsistency), ""),
    "A2, unmask along with contributions, always": (
        _broken_by(partial(in_one_trip, dropouts=True), AlwaysAtOnce),
        "members may drop",
    ),
    "A3, t = 1": (_broken_by(few_signatures, ThresholdOne), "one signature and one share suffice"),
    "C6, no mask of its own": (_broken_by(late, NoOwnMask), "late vectors lie open"),
    "collusion of t instead of c": (_too_many_colluders, "shipped members, beyond their promise"),
}
"""By row: one trial (whether it was broken), and a note."""
