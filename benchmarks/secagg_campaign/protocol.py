"""Plays the protocol in memory: who leaves in which phase, with disorder on the wire."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from benchmarks.secagg_campaign.studies import Vector, identity
from privacy.errors import (
    BudgetRefusal,
    MemberFault,
    PolicyRefusal,
    RequestRefusal,
    RoundFailed,
    TermsError,
)
from privacy.fixedpoint import RingVector, add_in_place
from privacy.identity import SIGNATURE_BYTES
from privacy.secagg import (
    Attempt,
    Cohort,
    KeyExchange,
    KeySets,
    MaskingMember,
    Setup,
    Unmasking,
)
from privacy.secagg.messages import Signatures

__all__ = [
    "EARLY",
    "LATE",
    "NEVER",
    "PHASES",
    "REFUSALS",
    "Disorder",
    "Finding",
    "Observer",
    "Outcome",
    "Play",
    "exchange",
    "expected",
    "make_members",
    "play",
    "refused",
    "shares_suffice",
    "stays",
]

PHASES: Final = ("advertise", "share", "deliver", "contribute", "confirm", "unmask")
"""Where a member may drop; what it would have said in that phase is never said."""
NEVER: Final = "never"
EARLY: Final = PHASES[:3]
LATE: Final = PHASES[3:]
_STAYS: Final = {phase: place for place, phase in enumerate((*PHASES, NEVER))}

REFUSALS: Final = (
    RequestRefusal,
    MemberFault,
    RoundFailed,
    PolicyRefusal,
    BudgetRefusal,
    TermsError,
)


_T = TypeVar("_T")


class Finding(Exception):
    """The campaign saw what must not happen."""


def stays(leaves: str, phase: str) -> bool:
    """Whether a member that drops in ``leaves`` still answers ``phase``."""
    return _STAYS[leaves] > _STAYS[phase]


def refused(ask: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a call is refused with a named error; any other error goes up."""
    try:
        ask(*arguments)
    except REFUSALS:
        return True
    return False


class Disorder:
    """What happens to messages on their way: corrupted first, or delivered twice.

    Args:
        rng: decides.
        rate: how often each happens.
    """

    def __init__(self, rng: random.Random, rate: float) -> None:
        self._rng = rng
        self._rate = rate

    def happens(self) -> bool:
        """Whether something happens this time."""
        return self._rng.random() < self._rate

    def pass_on(self, take: Callable[..., _T], *arguments: Any) -> _T:
        """Calls ``take``; bad and repeated deliveries around it must be refused.

        Raises:
            Finding: if one was not.
        """
        if self.happens() and not refused(take, *self.corrupted(arguments)):
            raise Finding(f"{take.__qualname__} took a corrupted message")
        result = take(*arguments)
        if self.happens() and not refused(take, *arguments):
            raise Finding(f"{take.__qualname__} took a message twice")
        return result

    def corrupted(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same with one bit of one byte string flipped."""
        places = [i for i, one in enumerate(arguments) if isinstance(one, bytes)]
        at = self._rng.choice(places)
        return (*arguments[:at], self.flipped(arguments[at]), *arguments[at + 1 :])

    def flipped(self, data: bytes, *, sparing: range = range(0)) -> bytes:
        """The same bytes with one bit flipped, outside of ``sparing``."""
        damaged = bytearray(data)
        at = self._rng.choice([at for at in range(len(damaged)) if at not in sparing])
        damaged[at] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)


CALM: Final = Disorder(random.Random(0), 0.0)

Members = Mapping[int, MaskingMember]
Leaves = Mapping[int, str]


def make_members(
    setup: Setup, indices: list[int] | range, kind: type[MaskingMember] = MaskingMember
) -> dict[int, MaskingMember]:
    """Members by index."""
    return {
        index: kind(setup.terms, setup.name(index), identity(setup.name(index)))
        for index in indices
    }


def exchange(
    setup: Setup, members: Members, key_sets: KeySets, leaves: Leaves, disorder: Disorder = CALM
) -> Cohort:
    """Advertise, share, deliver.

    Raises:
        RoundFailed: if too few members are left.
        Finding: if a message that must be refused was not.
    """
    keys = KeyExchange(setup, key_sets)
    staying = [i for i in members if stays(leaves[i], "advertise")]
    for index in staying:
        said = members[index].advertise(key_sets)
        if disorder.happens() and not refused(members[index].advertise, key_sets):
            raise Finding("a member made key sets twice")
        disorder.pass_on(keys.take_advertisement, setup.name(index), said.body, said.signature)
    offer = keys.offer()
    staying = [i for i in staying if stays(leaves[i], "share")]
    for index in staying:
        said = disorder.pass_on(members[index].share, key_sets, offer)
        disorder.pass_on(keys.take_shares, setup.name(index), said.body, said.signature)
    keys.close()
    for index in staying:
        if not stays(leaves[index], "deliver"):
            continue
        delivery = keys.delivery(setup.name(index))
        said = members[index].deliver(key_sets, delivery)
        if disorder.happens() and not refused(members[index].deliver, key_sets, delivery):
            raise Finding("a member took delivery twice")
        if disorder.pass_on(keys.take_ready, setup.name(index), said.body, said.signature):
            raise Finding("an honest deal was complained of")
    return keys.finish()


class Observer(Protocol):
    """Whoever sees what the coordinator sees of an attempt."""

    def saw_vector(self, index: int, attempt: Attempt, masked: RingVector, truth: Vector) -> None:
        """A masked vector, in time or late; the truth is for the judge."""

    def saw_revealed(self, index: int, attempt: Attempt, body: bytes) -> None:
        """What a member revealed in unmask."""


@dataclass(frozen=True, slots=True)
class Play:
    """One attempt to play.

    Args:
        cohort: as `exchange` left it.
        members: by index.
        attempt: with an unused key set.
        vectors: by index, of every member that is ready.
        leaves: by index, where it drops.
        disorder: on the wire.
        late: members that drop in contribute and whose vector arrives after the lists were made.
        observer: sees it all.
        at_once: whether members reveal along with their contributions, as they may where D = 0.
    """

    cohort: Cohort
    members: Members
    attempt: Attempt
    vectors: Mapping[int, Vector]
    leaves: Leaves
    disorder: Disorder = CALM
    late: frozenset[int] = frozenset()
    observer: Observer | None = None
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Args:
        failed_in: the phase in which too few were left; None if it completed.
        survivors: indices of who is in the sum.
        total: the unmasked ring sum, if it completed.
    """

    failed_in: str | None
    survivors: tuple[int, ...] = ()
    total: RingVector | None = None

    def check_sum(self, vectors: Mapping[int, Vector]) -> None:
        """The sum is bit-exact: with noise on the ring, and without it in integers.

        Raises:
            Finding: if it is not.
        """
        if self.total is None:
            raise Finding("there is no sum to check")
        whole = np.zeros(len(self.total), dtype=np.int64)
        plain = np.zeros(len(self.total), dtype=np.int64)
        for index in self.survivors:
            whole += vectors[index].plain + vectors[index].noise
            plain += vectors[index].plain
        if not np.array_equal(whole.astype(self.total.dtype), self.total):
            raise Finding("the sum is not that of the survivors' vectors")
        if not np.array_equal(self.total.view("<i4").astype(np.int64) - (whole - plain), plain):
            raise Finding("the sum without its noise is not that of the survivors' updates")


def play(scene: Play) -> Outcome:
    """Contribute, confirm, unmask.

    Raises:
        Finding: if a message that must be refused was not.
    """
    unmasking = Unmasking(scene.cohort, scene.attempt)
    dimension = scene.cohort.setup.terms.dimension
    total: RingVector = np.zeros(dimension, dtype="<u4")
    ready = sorted(scene.cohort.ready)
    contributors = [i for i in ready if stays(scene.leaves[i], "contribute")]
    for index in contributors:
        masked, signature = _masked(scene, index)
        digest = hashlib.sha256(masked.data).digest()
        scene.disorder.pass_on(unmasking.take_contribution, _name(scene, index), digest, signature)
        add_in_place(total, masked)
        if scene.at_once:
            _reveal_at_once(scene, unmasking, index)
    try:
        lists = unmasking.close()
    except RoundFailed:
        return Outcome("contribute")
    for index in set(ready) & scene.late - set(contributors):
        masked, signature = _masked(scene, index)
        digest = hashlib.sha256(masked.data).digest()
        if not refused(unmasking.take_contribution, _name(scene, index), digest, signature):
            raise Finding("a vector was taken after the lists were made")
    if scene.at_once:
        return _unmasked(unmasking, contributors, total)
    confirmers = [i for i in contributors if stays(scene.leaves[i], "confirm")]
    for index in confirmers:
        signature = scene.disorder.pass_on(scene.members[index].confirm, scene.attempt, lists)
        scene.disorder.pass_on(unmasking.take_confirmation, _name(scene, index), signature)
    try:
        signatures = unmasking.signatures()
    except RoundFailed:
        return Outcome("confirm")
    _reveal(scene, unmasking, confirmers, signatures)
    return _unmasked(unmasking, contributors, total)


def _unmasked(unmasking: Unmasking, contributors: list[int], total: RingVector) -> Outcome:
    try:
        unmasking.unmask(total)
    except RoundFailed:
        return Outcome("unmask")
    return Outcome(None, tuple(contributors), total)


def _name(scene: Play, index: int) -> str:
    return scene.cohort.setup.name(index)


def _reveal(scene: Play, unmasking: Unmasking, confirmers: list[int], signatures: bytes) -> None:
    for index in confirmers:
        if not stays(scene.leaves[index], "unmask"):
            continue
        unmask = scene.members[index].unmask
        if scene.disorder.happens():
            # A member knows its own signature without looking at what is sent as such.
            damaged = scene.disorder.flipped(signatures, sparing=_own(signatures, index))
            if not refused(unmask, scene.attempt, damaged):
                raise Finding("a member revealed shares for damaged signatures")
        said = unmask(scene.attempt, signatures)
        if scene.disorder.happens() and not refused(unmask, scene.attempt, signatures):
            raise Finding("a member revealed shares twice")
        if scene.observer:
            scene.observer.saw_revealed(index, scene.attempt, said.body)
        scene.disorder.pass_on(
            unmasking.take_unmask, _name(scene, index), said.body, said.signature
        )


def _reveal_at_once(scene: Play, unmasking: Unmasking, index: int) -> None:
    member, attempt = scene.members[index], scene.attempt
    said = member.unmask_at_once(attempt)
    if scene.disorder.happens() and not refused(member.unmask_at_once, attempt):
        raise Finding("a member revealed shares twice")
    if scene.observer:
        scene.observer.saw_revealed(index, attempt, said.body)
    scene.disorder.pass_on(unmasking.take_unmask, _name(scene, index), said.body, said.signature)


def _own(signatures: bytes, index: int) -> range:
    """Where a member's own signature lies in what it is sent."""
    entries = [who for who, _ in Signatures.decode(signatures).entries]
    width = 4 + SIGNATURE_BYTES
    if index not in entries:
        return range(0)
    end = 4 + width * (1 + entries.index(index))
    return range(end - SIGNATURE_BYTES, end)


def _masked(scene: Play, index: int) -> tuple[RingVector, bytes]:
    """A member's masked vector and its signature; a second mask must be refused."""
    masked = scene.vectors[index].ring
    signature = scene.members[index].mask(scene.attempt, masked)
    if scene.disorder.happens() and not refused(
        scene.members[index].mask, scene.attempt, scene.vectors[index].ring
    ):
        raise Finding("a member masked twice with one key set")
    if scene.observer:
        scene.observer.saw_vector(index, scene.attempt, masked, scene.vectors[index])
    return masked, signature


def expected(setup: Setup, leaves: Leaves, *, at_once: bool = False) -> bool:
    """Whether the README lets the attempt complete, from the pattern alone."""
    privacy = setup.terms.privacy
    if at_once:  # nobody is asked again
        return all(stays(one, "contribute") for one in leaves.values())
    least = {
        **dict.fromkeys(("advertise", "share", "deliver", "contribute"), privacy.least_survivors),
        **dict.fromkeys(("confirm", "unmask"), privacy.threshold),
    }
    return all(
        sum(stays(one, phase) for one in leaves.values()) >= least[phase] for phase in PHASES
    )


def shares_suffice(cohort: Cohort, leaves: Leaves) -> bool:
    """Whether u holders of every secret that is needed answer in unmask (the sparse graph)."""
    survivors = {i for i in cohort.ready if stays(leaves[i], "contribute")}
    answering = {i for i in survivors if stays(leaves[i], "unmask")}
    for dealer in cohort.members:
        drew = {other for other in cohort.members if dealer in cohort.hashes[other]}
        if dealer not in survivors and not (set(cohort.hashes[dealer]) | drew) & survivors:
            continue
        holders = set(cohort.hashes[dealer])
        needed = min(cohort.setup.graph.share_threshold, len(holders))
        if len(holders & answering) < needed:
            return False
    return True
