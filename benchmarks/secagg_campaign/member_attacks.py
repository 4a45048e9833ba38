"""A bad member against the shipped coordinator (B8), and droppings and delays (C1-C8).

In every trial the coordinator is curious as well: with its colluders it must learn nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from benchmarks.secagg_campaign.dropouts import random_leaves
from benchmarks.secagg_campaign.protocol import (
    CALM,
    NEVER,
    PHASES,
    Disorder,
    Finding,
    Play,
    exchange,
    expected,
    play,
    refused,
)
from benchmarks.secagg_campaign.scene import Scene
from benchmarks.secagg_campaign.studies import Vector, identity, noised
from privacy.errors import MemberFault, RoundFailed
from privacy.fixedpoint import RingVector
from privacy.secagg import Attempt, Cohort, KeyExchange, KeySets, MaskingMember, Unmasking
from privacy.secagg.binding import u32
from privacy.secagg.messages import Deal, Opened, Revealed, Shares

__all__ = [
    "all_gone",
    "bad_deals",
    "bad_shares",
    "down_to_the_threshold",
    "everything_twice",
    "late",
]

Kind = type[MaskingMember]


def _played(
    scene: Scene,
    leaves: dict[int, str],
    disorder: Disorder = CALM,
    late: frozenset[int] = frozenset(),
) -> bool:
    """Plays one attempt before the adversary's eyes; whether it completed."""
    try:
        cohort = exchange(scene.setup, scene.members, KeySets(1, 2), leaves, disorder)
    except RoundFailed:
        return False
    ready = {i: scene.members[i] for i in scene.colluders & cohort.ready}
    scene.joined(cohort, scene.honest, ready)
    vectors = {index: noised(scene.plain()) for index in cohort.ready}
    attempt = scene.attempt(scene.rng.randint(1, 2))
    outcome = play(
        Play(
            cohort,
            scene.members,
            attempt,
            vectors,
            leaves,
            disorder,
            late,
            observer=scene.adversary,
        )
    )
    if outcome.failed_in is None:
        scene.verdict()
        outcome.check_sum(vectors)
    return outcome.failed_in is None


def _ends_right(scene: Scene, leaves: dict[int, str], completed: bool) -> None:
    if completed != expected(scene.setup, leaves):
        raise Finding(f"{scene.case}: completed is {completed} with {leaves}")
    scene.verdict()


def down_to_the_threshold(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """C1-C5: in one phase exactly as many stay as are needed, or one fewer."""
    scene = Scene(rng, kind)
    privacy = scene.setup.terms.privacy
    phase = rng.choice(PHASES)
    least = privacy.least_survivors if phase in PHASES[:4] else privacy.threshold
    stay = least - rng.randint(0, 1)
    order = scene.indices[:]
    rng.shuffle(order)
    leaves = dict.fromkeys(order[:stay], NEVER) | dict.fromkeys(order[stay:], phase)
    late = frozenset(order[stay:]) if phase == "contribute" else frozenset()
    completed = _played(scene, leaves, late=late)
    if completed != (stay == least):
        raise Finding(f"{scene.case}: {stay} in {phase}, completed is {completed}")
    _ends_right(scene, leaves, completed)


def late(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """C6: masked vectors that arrive after the lists were made stay covered."""
    scene = Scene(rng, kind, dropouts=True)
    gone = rng.sample(scene.honest, rng.randint(1, scene.case.dropouts))
    leaves = dict.fromkeys(scene.indices, NEVER) | dict.fromkeys(gone, "contribute")
    completed = _played(scene, leaves, late=frozenset(gone))
    _ends_right(scene, leaves, completed)


def all_gone(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """C7: all drop in one phase."""
    scene = Scene(rng, kind)
    phase = rng.choice(PHASES)
    leaves = dict.fromkeys(scene.indices, phase)
    everybody = frozenset(scene.indices)
    _ends_right(scene, leaves, _played(scene, leaves, late=everybody))


def everything_twice(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """C8: stragglers, and every message corrupted once and delivered twice."""
    scene = Scene(rng, kind)
    named = random_leaves(rng, scene.setup)
    leaves = dict(zip(scene.indices, named.values(), strict=False))
    completed = _played(scene, leaves, Disorder(rng, 1.0), frozenset(scene.indices))
    _ends_right(scene, leaves, completed)


# B8.

Spoil = Callable[[random.Random, Revealed, int], bytes]


def _flipped(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    entries = list(revealed.entries)
    at = rng.randrange(len(entries))
    dealer, share, salt = entries[at]
    wrong = bytearray(share)
    wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
    entries[at] = (dealer, bytes(wrong), salt)
    return Revealed(tuple(entries)).encode()


def _another_salt(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    entries = list(revealed.entries)
    at = rng.randrange(len(entries))
    entries[at] = (*entries[at][:2], rng.randbytes(16))
    return Revealed(tuple(entries)).encode()


def _repeated(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    return Revealed((*revealed.entries[:1], *revealed.entries)).encode()


def _misindexed(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    one, other = rng.sample(range(len(revealed.entries)), 2)
    entries = list(revealed.entries)
    entries[one] = (entries[one][0], *revealed.entries[other][1:])
    return Revealed(tuple(entries)).encode()


def _stranger(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    return Revealed((*revealed.entries, (10**6, *revealed.entries[0][1:]))).encode()


def _cut(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    return revealed.encode()[: -rng.randint(1, 20)]


def _too_many(rng: random.Random, revealed: Revealed, own: int) -> bytes:
    return u32(2**32 - 1) + revealed.encode()[4:]


SPOILS: Final[tuple[Spoil, ...]] = (
    _flipped, _another_salt, _repeated, _misindexed, _stranger, _cut, _too_many,
)  # fmt: skip


def bad_shares(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """B8: shares that are false, repeated, mis-indexed or of the wrong kind, properly signed."""
    scene = Scene(rng, kind)
    cohort = scene.exchange(KeySets(1, 1))
    attempt = scene.attempt()
    gone = rng.sample(scene.honest, rng.randint(0, scene.case.dropouts))
    staying = [index for index in scene.indices if index not in gone]
    vectors, unmasking, total = _until_unmask(scene, cohort, attempt, staying)
    bad = rng.sample(sorted(scene.colluders), rng.randint(1, len(scene.colluders)))
    wrong_kind = {index: _wrong_kind(scene, cohort, index, staying) for index in bad}
    whole = set(staying)
    for index in staying:
        name = scene.setup.name(index)
        said = scene.members[index].unmask(attempt, unmasking.signatures())
        scene.adversary.saw_revealed(index, attempt, said.body)
        if index not in bad:
            unmasking.take_unmask(name, said.body, said.signature)
            continue
        spoil = rng.choice((*SPOILS, None))
        body = spoil(rng, Revealed.decode(said.body), index) if spoil else wrong_kind[index]
        statement = scene.setup.statement(
            "unmask", index, body, attempt=attempt, cohort=cohort.hash
        )
        signature = scene.setup.sign(identity(name), "unmask", statement)
        try:
            unmasking.take_unmask(name, body, signature)
        except MemberFault as fault:
            if fault.member != name:
                raise Finding(f"the fault names {fault.member}, not {name}") from fault
        else:
            raise Finding("a false share was taken")
        whole.discard(index)
    _sum_or_nothing(scene, unmasking, total, vectors, enough=len(whole))
    scene.verdict()


def _wrong_kind(scene: Scene, cohort: Cohort, index: int, survivors: list[int]) -> bytes:
    """What a colluder holds of the other kind: mask shares of survivors, seeds of the dropped."""
    held = scene.members[index]._run(cohort.key_sets).held
    return Revealed(
        tuple(
            (dealer, one[0].mask_share, one[0].mask_salt)
            if dealer in survivors
            else (dealer, one[0].seed_share, one[0].seed_salt)
            for dealer, one in sorted(held.items())
        )
    ).encode()


def _until_unmask(
    scene: Scene, cohort: Cohort, attempt: Attempt, staying: list[int]
) -> tuple[dict[int, Vector], Unmasking, RingVector]:
    vectors = {index: noised(scene.plain()) for index in staying}
    unmasking = Unmasking(cohort, attempt)
    total: RingVector = np.zeros(8, dtype="<u4")
    for index in staying:
        masked = vectors[index].ring
        signature = scene.members[index].mask(attempt, masked)
        scene.adversary.saw_vector(index, attempt, masked, vectors[index])
        digest = hashlib.sha256(masked.data).digest()
        unmasking.take_contribution(scene.setup.name(index), digest, signature)
        total += masked
    lists = unmasking.close()
    for index in staying:
        signature = scene.members[index].confirm(attempt, lists)
        unmasking.take_confirmation(scene.setup.name(index), signature)
    return vectors, unmasking, total


def _sum_or_nothing(
    scene: Scene, unmasking: Unmasking, total: RingVector, vectors: dict[int, Vector], enough: int
) -> None:
    """Either the exact sum or a round that failed; with t members unharmed, the sum."""
    if refused(unmasking.unmask, total):
        if enough >= scene.setup.terms.privacy.threshold:
            raise Finding(f"{scene.case}: {enough} members were good and there is no sum")
        return
    truth: RingVector = np.add.reduce([vector.ring for vector in vectors.values()], dtype="<u4")
    if not np.array_equal(truth, total):
        raise Finding(f"{scene.case}: the sum is wrong")


class Cheat(MaskingMember):
    """A dealer whose shares are no good; it cheats in the way it is told to."""

    way: str = ""
    victims: frozenset[int] = frozenset()

    def _deal(self, run: object, drawn: list[int]) -> Shares:
        shares = super()._deal(run, drawn)  # type: ignore[arg-type]
        if self.way == "another commitment":
            return replace(shares, commitments=(bytes(32),) * len(shares.commitments))
        if self.way == "a stranger's deal":
            return replace(
                shares, deals=(*shares.deals[:-1], replace(shares.deals[-1], member=999))
            )
        if self.way == "too few deals":
            return replace(shares, deals=shares.deals[1:])
        return shares

    def _sealed(self, run: object, holder: int, opened: list[Opened]) -> Deal:
        if self.way == "another polynomial":
            opened = [replace(one, seed_share=bytes(32) + b"\x07") for one in opened]
        deal = super()._sealed(run, holder, opened)  # type: ignore[arg-type]
        if holder not in self.victims:
            return deal
        if self.way == "does not open":
            return replace(deal, sealed=bytes(len(deal.sealed)))
        if self.way == "does not match":
            return replace(deal, hashes=(bytes(64),) * len(deal.hashes))
        return deal


WAYS: Final = (
    "another commitment", "another polynomial", "a stranger's deal", "too few deals",
    "does not open", "does not match",
)  # fmt: skip


def bad_deals(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """B8 at the dealer: it is named, by the coordinator or by whom it cheated."""
    scene = Scene(rng, kind)
    cheat = rng.choice(sorted(scene.colluders))
    name = scene.setup.name(cheat)
    others = [index for index in scene.indices if index != cheat]
    member = Cheat(scene.setup.terms, name, identity(name))
    member.way = rng.choice(WAYS)
    member.victims = frozenset(rng.sample(others, rng.randint(1, len(others))))
    scene.members[cheat] = member
    try:
        keys, complaints = _exchange(scene)
    except MemberFault as fault:
        if member.way not in {"a stranger's deal", "too few deals"} or fault.member != name:
            raise Finding(f"{member.way}: {fault}") from fault
        return scene.verdict()
    by_holders = member.way in {"does not open", "does not match"}
    if complaints != (member.victims if by_holders else frozenset()):
        raise Finding(f"{member.way}: complaints of {sorted(complaints)}")
    many = len(complaints) > scene.case.colluders  # an honest one is among them
    short = scene.case.members - len(complaints) < scene.setup.graph.share_threshold
    try:
        cohort = keys.finish()
    except RoundFailed as failed:
        if failed.members != ((name,) if many else ()) or not (many or short):
            raise Finding(f"{member.way}: {failed} names {failed.members}") from failed
        return scene.verdict()
    if many or short:
        raise Finding(f"{member.way}: {len(complaints)} complain and there is a cohort")
    scene.joined(cohort, scene.honest, {i: scene.members[i] for i in scene.colluders})
    attempt = scene.attempt()
    vectors, unmasking, total = _until_unmask(scene, cohort, attempt, scene.indices)
    for index in scene.indices:
        said = scene.members[index].unmask(attempt, unmasking.signatures())
        scene.adversary.saw_revealed(index, attempt, said.body)
        unmasking.take_unmask(scene.setup.name(index), said.body, said.signature)
    if by_holders:
        good = scene.case.members - len(member.victims)
        _sum_or_nothing(scene, unmasking, total, vectors, enough=good)
    else:
        try:
            unmasking.unmask(total)
        except RoundFailed as failed:
            if failed.members != (name,):
                raise Finding(f"{member.way}: the failure names {failed.members}") from failed
        else:
            raise Finding(f"{member.way}: unmasked all the same")
    return scene.verdict()


def _exchange(scene: Scene) -> tuple[KeyExchange, frozenset[int]]:
    """A key exchange with a cheat in it, all but finished, and who complained."""
    key_sets = KeySets(1, 1)
    keys = KeyExchange(scene.setup, key_sets)
    for index, member in scene.members.items():
        said = member.advertise(key_sets)
        keys.take_advertisement(scene.setup.name(index), said.body, said.signature)
    for index, member in scene.members.items():
        said = member.share(key_sets, keys.offer())
        keys.take_shares(scene.setup.name(index), said.body, said.signature)
    keys.close()
    complaining = set()
    for index, member in scene.members.items():
        name = scene.setup.name(index)
        said = member.deliver(key_sets, keys.delivery(name))
        if keys.take_ready(name, said.body, said.signature):
            complaining.add(index)
    return keys, frozenset(complaining)
