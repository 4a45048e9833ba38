"""Attacks on attempts by the coordinator and its colluders: A1-A3, A6, A9, A12.

Each plays one trial and raises `Finding` if the adversary learned what it must not, or if an honest
member did what it must refuse.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import numpy as np

from benchmarks.secagg_campaign.protocol import Finding
from benchmarks.secagg_campaign.scene import Scene
from benchmarks.secagg_campaign.studies import identity
from privacy.fixedpoint import RingVector
from privacy.secagg import Attempt, Cohort, KeyExchange, KeySets, MaskingMember, Unmasking
from privacy.secagg.messages import Lists

__all__ = [
    "another_list",
    "few_signatures",
    "in_one_trip",
    "listed_twice",
    "other_models",
    "replays",
    "same_round_again",
]

Kind = type[MaskingMember]


def listed_twice(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A1: one member is alive in some lists and dropped in others."""
    scene = Scene(rng, kind, dropouts=True)
    cohort = scene.exchange(KeySets(1, 1))
    attempt = scene.attempt()
    for index in scene.honest:
        scene.contribute(index, attempt)
    victim = rng.choice(scene.honest)
    rest = tuple(index for index in cohort.members if index != victim)
    alive, dead = Lists(cohort.members, ()), Lists(rest, (victim,))
    both = Lists(cohort.members, (victim,)).encode()
    plans = {}
    for index in scene.honest:
        scene.must_refuse("signed a list twice over", scene.members[index].confirm, attempt, both)
        plans[index] = [alive, dead] if rng.random() < 0.5 else [dead, alive]
    plans[victim] = [dead, alive]
    scene.squeeze(dict.fromkeys(scene.honest, attempt), plans)
    scene.verdict()


def another_list(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A2: after a whole attempt, a second unmask with other lists."""
    scene = Scene(rng, kind, dropouts=True)
    cohort = scene.exchange(KeySets(1, 1))
    attempt = scene.attempt()
    for index in scene.honest:
        scene.contribute(index, attempt)
    victims = rng.sample(scene.honest, rng.randint(1, scene.case.dropouts))
    rest = tuple(index for index in cohort.members if index not in victims)
    plan = [Lists(cohort.members, ()), Lists(rest, tuple(sorted(victims)))]
    attempts = dict.fromkeys(scene.honest, attempt)
    scene.squeeze(attempts, dict.fromkeys(scene.honest, plan))
    scene.squeeze(attempts, dict.fromkeys(scene.honest, plan[::-1]))
    scene.verdict()


def in_one_trip(rng: random.Random, kind: Kind = MaskingMember, *, dropouts: bool = False) -> None:
    """A2: shares are asked for along with contributions, some held back, and then once more."""
    scene = Scene(rng, kind, dropouts=dropouts)
    cohort = scene.exchange(KeySets(1, 1))
    attempt = scene.attempt()
    least = len(scene.honest) if dropouts else 1
    asked = rng.sample(scene.honest, rng.randint(least, len(scene.honest)))
    for index in scene.honest:
        if index not in asked:
            scene.must_refuse("revealed unasked", scene.reveal_at_once, index, attempt)
            continue
        scene.contribute(index, attempt)
        if not scene.case.dropouts:
            scene.reveal_at_once(index, attempt)
        scene.must_refuse("revealed too early or twice", scene.reveal_at_once, index, attempt)
    victim = rng.choice(asked)
    rest = tuple(index for index in cohort.members if index != victim)
    plan = [Lists(rest, (victim,)), Lists(cohort.members, ())]
    scene.squeeze(dict.fromkeys(asked, attempt), dict.fromkeys(asked, plan))
    scene.verdict()


def few_signatures(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A3: shares are asked for with fewer than t signatures, or t that are not what they seem."""
    scene = Scene(rng, kind)
    cohort = scene.exchange(KeySets(1, 2))
    attempt, other = scene.attempt(1), scene.attempt(2)
    lists = Lists(cohort.members, ())
    for index in scene.honest:
        scene.contribute(index, attempt)
        scene.contribute(index, other)
        scene.confirm(index, attempt, lists)
        scene.confirm(index, other, lists)
    threshold = scene.setup.terms.privacy.threshold
    for index in scene.honest:
        genuine = sorted(scene.signatures(index, attempt, lists).items())
        wrong = sorted(scene.signatures(index, other, lists).items())
        # A member counts itself as a signer whatever stands there in its name: it did sign.
        few = [one for one in genuine if one[0] == index]
        peers = [one for one in genuine if one[0] != index]
        few = sorted(few + rng.sample(peers, rng.randint(0, threshold - 2)))
        rest = [one for one in wrong if one[0] not in dict(few)]
        outsider = (rng.choice(scene.outside), rng.randbytes(64))
        tries = {
            "none": [],
            "one": genuine[:1],
            "few": few,
            "one repeated": sorted(few + [few[0]] * (threshold - len(few))),
            "others from another attempt": sorted(few + rest),
            "others forged": sorted(few + [(who, rng.randbytes(64)) for who, _ in rest]),
            "others in a stranger's name": sorted(few + [(who, few[0][1]) for who, _ in rest]),
            "a stranger": sorted([*genuine, outsider]),
            "an unknown index": [*genuine, (10**6, few[0][1])],
        }
        for what, entries in rng.sample(sorted(tries.items()), len(tries)):
            what = f"revealed shares for signatures: {what}"
            scene.must_refuse(what, scene.reveal, index, attempt, entries)
    scene.verdict()


def other_models(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A6: members are told different models, rounds or attempts for one key set."""
    scene = Scene(rng, kind)
    cohort = scene.exchange(KeySets(1, 1))
    one = scene.attempt()
    other = rng.choice(
        (
            replace(one, model=rng.randbytes(32)),
            replace(one, round=one.round + 1),
            replace(one, attempt=one.attempt + 1),
        )
    )
    honest = scene.honest[:]
    rng.shuffle(honest)
    cut = rng.randint(1, len(honest) - 1)
    told = {index: one if place < cut else other for place, index in enumerate(honest)}
    for index in honest:
        scene.contribute(index, told[index])
        again = scene.members[index].mask
        unasked = other if told[index] == one else one
        scene.must_refuse("masked for two models", again, unasked, np.zeros(8, dtype="<u4"))
    whole = Lists(cohort.members, ())
    plans = {index: [whole] for index in honest}
    if scene.case.dropouts:
        gone = honest[cut:][: scene.case.dropouts]
        rest = tuple(index for index in cohort.members if index not in gone)
        partial = Lists(rest, tuple(sorted(gone)))
        plans = {index: rng.sample([whole, partial], 2) for index in honest}
    scene.squeeze(told, plans)
    scene.verdict()


def same_round_again(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A9: the same round once more without one member, with the old key set and with a new one."""
    scene = Scene(rng, kind, dropouts=True)
    cohort = scene.exchange(KeySets(1, 2))
    attempt, victim = scene.attempt(1), rng.choice(scene.honest)
    first = _completed(scene, cohort, attempt, scene.honest)
    for index in scene.honest:
        for again in (attempt, replace(attempt, attempt=attempt.attempt + 1)):
            ask = scene.members[index]
            scene.must_refuse("would use a key set twice", ask.check, again)
            scene.must_refuse("used a key set twice", ask.mask, again, np.zeros(8, dtype="<u4"))
            scene.must_refuse("confirmed twice", ask.confirm, again, Lists((1,), ()).encode())
            scene.must_refuse("unmasked twice", ask.unmask, again, b"\0\0\0\0")
    rest = [index for index in scene.honest if index != victim]
    second = _completed(scene, cohort, replace(attempt, key_set=2), rest)
    truth = next(one.truth for one in scene.adversary.seen if one.index == victim)
    if np.array_equal(first - second, truth):
        raise Finding("the difference of two sums is one member's vector")
    scene.verdict()


def _completed(scene: Scene, cohort: Cohort, attempt: Attempt, honest: list[int]) -> RingVector:
    """The sum of an attempt that goes as it should, without the colluders' zero vectors' noise."""
    unmasking = Unmasking(cohort, attempt)
    total: RingVector = np.zeros(8, dtype="<u4")
    members = sorted([*honest, *scene.colluders])
    for index in members:
        if index in scene.colluders:
            masked: RingVector = np.zeros(8, dtype="<u4")
            signature = scene.members[index].mask(attempt, masked)
        else:
            masked, signature = scene.contribute(index, attempt)
        digest = hashlib.sha256(masked.data).digest()
        unmasking.take_contribution(scene.setup.name(index), digest, signature)
        total += masked
    lists = unmasking.close()
    for index in members:
        signature = scene.members[index].confirm(attempt, lists)
        unmasking.take_confirmation(scene.setup.name(index), signature)
    for index in members:
        said = scene.members[index].unmask(attempt, unmasking.signatures())
        scene.adversary.saw_revealed(index, attempt, said.body)
        unmasking.take_unmask(scene.setup.name(index), said.body, said.signature)
    unmasking.unmask(total)
    return total


def replays(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A12: bodies and signatures of one run or attempt are shown again in the next."""
    scene = Scene(rng, kind)
    old, new = KeySets(1, 2), KeySets(3, 2)
    offer_of: dict[KeySets, bytes] = {}
    shares_of: dict[tuple[KeySets, int], tuple[bytes, bytes]] = {}
    ready_of: dict[tuple[KeySets, int], tuple[bytes, bytes]] = {}
    delivery_of: dict[tuple[KeySets, int], bytes] = {}
    cohorts = {}
    for key_sets in (old, new):
        keys = KeyExchange(scene.setup, key_sets)
        for index, member in scene.members.items():
            said = member.advertise(key_sets)
            keys.take_advertisement(scene.setup.name(index), said.body, said.signature)
        offer_of[key_sets] = keys.offer()
        for index, member in scene.members.items():
            if key_sets == new:
                scene.must_refuse("shared on an old offer", member.share, new, offer_of[old])
                stale = shares_of[old, index]
                name = scene.setup.name(index)
                scene.must_refuse("took old shares", keys.take_shares, name, *stale)
            said = member.share(key_sets, offer_of[key_sets])
            scene.must_refuse("dealt twice", member.share, key_sets, offer_of[key_sets])
            keys.take_shares(scene.setup.name(index), said.body, said.signature)
            shares_of[key_sets, index] = (said.body, said.signature)
        keys.close()
        for index, member in scene.members.items():
            name = scene.setup.name(index)
            if key_sets == new:
                stale = ready_of[old, index]
                scene.must_refuse("took an old answer", keys.take_ready, name, *stale)
            delivery_of[key_sets, index] = keys.delivery(name)
            said = member.deliver(key_sets, delivery_of[key_sets, index])
            ready_of[key_sets, index] = (said.body, said.signature)
            again = delivery_of[rng.choice((old, key_sets)), index]
            scene.must_refuse("took delivery twice", member.deliver, key_sets, again)
            keys.take_ready(name, said.body, said.signature)
        cohorts[key_sets] = keys.finish()
        colluding = {index: scene.members[index] for index in scene.colluders}
        scene.joined(cohorts[key_sets], scene.honest, colluding)
    _replayed_attempts(scene, cohorts[old], cohorts[new])
    for index in scene.honest:
        for key_sets in (old, KeySets(2, 5), KeySets(new.first, 1)):
            ask = scene.members[index].advertise
            scene.must_refuse("made key sets twice", ask, key_sets)
    scene.verdict()


def _replayed_attempts(scene: Scene, old: Cohort, new: Cohort) -> None:
    """Signatures of an attempt that is over, shown to members and coordinator in the next."""
    before, now = scene.attempt(1), scene.attempt(3)
    _completed(scene, old, before, scene.honest)
    now = replace(now, round=before.round, attempt=before.attempt, model=before.model)
    lists = Lists(new.members, ())
    unmasking = Unmasking(new, now)
    stale = {index: scene.forge(index, before, lists, old) for index in old.members}
    for index in scene.honest:
        vector, _ = scene.contribute(index, now)
        digest = hashlib.sha256(vector.data).digest()
        name, member = scene.setup.name(index), scene.members[index]
        statement = scene.setup.statement(
            "contribute", index, digest, hashed=True, attempt=before, cohort=old.hash
        )
        signature = scene.setup.sign(identity(name), "contribute", statement)
        take = unmasking.take_contribution
        scene.must_refuse("took an old vector", take, name, digest, signature)
        scene.confirm(index, now, lists)
        entries = sorted(stale.items())
        scene.must_refuse("revealed for old signatures", scene.reveal, index, now, entries)
        scene.must_refuse("revealed an old attempt", member.unmask, before, b"\0\0\0\0")
