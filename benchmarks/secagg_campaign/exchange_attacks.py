"""Attacks on the key exchange by the coordinator and its colluders: A5, A8, B11.

Each plays one trial and raises `Finding` if the adversary learned what it must not, or if an honest
member did what it must refuse.
"""

from __future__ import annotations

import random

from benchmarks.secagg_campaign.protocol import Finding, refused
from benchmarks.secagg_campaign.scene import Scene
from benchmarks.secagg_campaign.studies import identity
from privacy.secagg import Cohort, KeySets, MaskingMember, Setup
from privacy.secagg.messages import Advertisement, Deal, Delivery, Lists, Offer, Shares

__all__ = ["below_the_floor", "swapped_keys", "two_faces"]

Kind = type[MaskingMember]


def swapped_keys(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A5: the offer does not hold what each member signed."""
    scene = Scene(rng, kind)
    key_sets, older = KeySets(2, 2), KeySets(1, 1)
    if rng.random() < 0.5:
        older = KeySets(5, 2)  # a newer run of the same length
    entries = {}
    old = {}
    for index, member in scene.members.items():
        first, second = sorted((key_sets, older), key=lambda one: one.first)
        said = {one: member.advertise(one) for one in (first, second)}
        entries[index] = (index, said[key_sets].body, said[key_sets].signature)
        old[index] = (index, said[older].body, said[older].signature)
    victim, other = rng.sample(scene.honest, 2)
    colluder = rng.choice(sorted(scene.colluders))
    what = rng.choice(("swap", "own keys", "replay", "copy", "zero seal", "zero mask"))
    if what == "swap":
        entries[victim], entries[other] = (
            (victim, *entries[other][1:]),
            (other, *entries[victim][1:]),
        )
    elif what == "own keys":
        signer = identity(scene.setup.name(colluder))
        entries[victim] = _signed(scene.setup, victim, rng.randbytes(96), key_sets, signer)
    elif what == "replay":
        entries[victim] = old[victim]
    else:
        body = entries[victim][1]
        if what != "copy":
            at = 0 if what == "zero seal" else 32 * rng.randint(1, 2)
            body = rng.randbytes(at) + bytes(32) + rng.randbytes(64 - at)
        signer = identity(scene.setup.name(colluder))
        entries[colluder] = _signed(scene.setup, colluder, body, key_sets, signer)
    offer = Offer(tuple(entries[index] for index in sorted(entries))).encode()
    for index in scene.honest:
        ask = scene.members[index].share
        if what == "zero mask":
            _degenerate_mask(scene, index, key_sets, offer)
        else:
            scene.must_refuse(f"shared on an offer with {what}", ask, key_sets, offer)
    scene.verdict()


def _degenerate_mask(scene: Scene, index: int, key_sets: KeySets, offer: bytes) -> None:
    """A mask key of small order: at the latest the delivery is refused."""
    member = scene.members[index]
    if refused(member.share, key_sets, offer):
        return
    delivery = Delivery(tuple(scene.indices), ()).encode()
    scene.must_refuse("took delivery with a degenerate key", member.deliver, key_sets, delivery)
    scene.must_refuse("is ready with a degenerate key", member.check, scene.attempt(2))


def _signed(
    setup: Setup, index: int, body: bytes, key_sets: KeySets, signer: object
) -> tuple[int, bytes, bytes]:
    statement = setup.statement("advertise", index, body, key_sets=key_sets)
    return index, body, setup.sign(signer, "advertise", statement)  # type: ignore[arg-type]


def two_faces(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """B11 and A5: colluders show different keys to different members, the coordinator helps."""
    scene = Scene(rng, kind)
    honest = scene.honest[:]
    rng.shuffle(honest)
    cut = rng.randint(1, len(honest) - 1)
    groups = (honest[:cut], honest[cut:])
    faces = [scene.members, scene.members | scene.made(sorted(scene.colluders))]
    worlds = _worlds(scene, groups, faces)
    attempt = scene.attempt()
    for index in honest:
        scene.contribute(index, attempt)
    whole = Lists(tuple(scene.indices), ())
    plans = {index: [whole] for index in honest}
    if scene.case.dropouts:
        gone = rng.sample(honest, min(scene.case.dropouts, len(groups[1])))
        rest = tuple(index for index in scene.indices if index not in gone)
        partial = Lists(rest, tuple(sorted(gone)))
        plans = {index: rng.sample([whole, partial], 2) for index in honest}
    scene.squeeze(dict.fromkeys(honest, attempt), plans)
    if len({world.hash for world in worlds}) != 2:
        raise Finding("two worlds have one hash")
    scene.verdict()


def _worlds(
    scene: Scene, groups: tuple[list[int], list[int]], faces: list[dict[int, MaskingMember]]
) -> list[Cohort]:
    """Two key exchanges with the same honest members, each of whom takes part in one of them."""
    key_sets, setup = KeySets(1, 1), scene.setup
    advertised = {
        index: (index, said.body, said.signature)
        for index in scene.honest
        for said in [scene.members[index].advertise(key_sets)]
    }
    shares: dict[int, bytes] = {}
    offers = []
    for group, face in zip(groups, faces, strict=True):
        entries = dict(advertised)
        for index in scene.colluders:
            said = face[index].advertise(key_sets)
            entries[index] = (index, said.body, said.signature)
        offer = Offer(tuple(entries[index] for index in sorted(entries)))
        offers.append(offer)
        dealt = {
            index: face[index].share(key_sets, offer.encode()).body
            for index in (*group, *scene.colluders)
        }
        shares |= {index: body for index, body in dealt.items() if index not in scene.colluders}
        faces_dealt = {**shares, **dealt}
        world = _deliver(setup, key_sets, offer, faces_dealt, face, [*group, *scene.colluders])
        colluders = {index: face[index] for index in scene.colluders}
        scene.joined(world, group, colluders)
    return list({id(one): one for one in scene.adversary.cohorts.values()}.values())


def _deliver(
    setup: Setup,
    key_sets: KeySets,
    offer: Offer,
    dealt: dict[int, bytes],
    members: dict[int, MaskingMember],
    takers: list[int],
) -> Cohort:
    """A delivery that claims everybody of the offer is in the cohort, with the deals there are."""
    indices = tuple(index for index, _, _ in offer.entries)
    shares = {index: Shares.decode(body, key_sets) for index, body in dealt.items()}
    keys = offer.hash(setup.terms_hash, key_sets)
    for taker in takers:
        deals = tuple(
            Deal(dealer, deal.hashes, deal.nonce, deal.sealed)
            for dealer in sorted(shares)
            for deal in shares[dealer].deals
            if deal.member == taker
        )
        members[taker].deliver(key_sets, Delivery(indices, deals).encode())
    return Cohort(
        setup=setup,
        key_sets=key_sets,
        members=indices,
        ready=frozenset(takers),
        complaints=dict.fromkeys(takers, frozenset()),
        keys=keys,
        hash=Delivery.cohort_hash(keys, indices),
        masks={i: Advertisement.decode(body, key_sets).masks for i, body, _ in offer.entries},
        commitments={index: one.commitments for index, one in shares.items()},
        hashes={
            index: {index: one.own_hashes, **{deal.member: deal.hashes for deal in one.deals}}
            for index, one in shares.items()
        },
    )


def below_the_floor(rng: random.Random, kind: Kind = MaskingMember) -> None:
    """A8: a cohort or a list with too few members, with strangers, or without the member asked."""
    scene = Scene(rng, kind)
    key_sets = KeySets(1, 1)
    said = {index: member.advertise(key_sets) for index, member in scene.members.items()}
    entries = {index: (index, one.body, one.signature) for index, one in said.items()}
    extra = {index: made.advertise(key_sets) for index, made in scene.made(scene.outside).items()}
    least = scene.setup.terms.privacy.least_survivors
    few = rng.sample(scene.indices, rng.randint(1, least - 1))
    stranger = _signed(scene.setup, 1, rng.randbytes(64), key_sets, identity("nobody"))
    offers = {
        "too few": [entries[index] for index in few],
        "too many": [
            *entries.values(),
            *((index, one.body, one.signature) for index, one in extra.items()),
        ],
        "a stranger": [
            *list(entries.values())[: scene.case.members - 1],
            (len(scene.setup.names) + rng.randint(1, 5), *stranger[1:]),
        ],
        "an index of 0": [(0, *stranger[1:]), *list(entries.values())[1:]],
    }
    good = Offer(tuple(entries[index] for index in scene.indices)).encode()
    cohort = tuple(scene.indices)
    for index in scene.honest:
        member = scene.members[index]
        without = [one for one in entries.values() if one[0] != index]
        for what, offer in (*offers.items(), ("not this member", without)):
            body = Offer(tuple(sorted(offer))).encode()
            scene.must_refuse(f"shared on an offer with {what}", member.share, key_sets, body)
        member.share(key_sets, good)
        missing = tuple(one for one in cohort if one != index)
        small = tuple(sorted(rng.sample(cohort, rng.randint(0, least - 1))))
        padded = tuple(sorted((*cohort[1:], rng.choice(scene.outside))))
        for claimed in (missing, small, padded, (*cohort, 10**6), (*small, 10**6)):
            body = Delivery(claimed, ()).encode()
            scene.must_refuse(f"took a cohort of {claimed}", member.deliver, key_sets, body)
    _bad_lists(rng, kind)
    scene.verdict()


def _bad_lists(rng: random.Random, kind: Kind) -> None:
    """The same, in the lists of an attempt whose key exchange was honest."""
    scene = Scene(rng, kind)
    cohort = scene.exchange(KeySets(1, 1)).members
    attempt = scene.attempt()
    least = scene.setup.terms.privacy.least_survivors
    for index in scene.honest:
        scene.contribute(index, attempt)
        few = tuple(sorted(rng.sample(cohort, rng.randint(0, least - 1))))
        stranger = rng.choice(scene.outside)
        for lists in (
            Lists(few, tuple(one for one in cohort if one not in few)),
            Lists(few, ()),
            Lists(tuple(one for one in cohort if one != index), (index,)),
            Lists(tuple(sorted((*cohort, stranger))), ()),
            Lists(cohort, (stranger,)),
            Lists(tuple(sorted((*cohort[1:], stranger))), (cohort[0],)),
            Lists(cohort[1:], ()),
        ):
            ask = scene.members[index].confirm
            scene.must_refuse(f"signed {lists}", ask, attempt, lists.encode())
        scene.unmask(index, attempt)
    scene.verdict()
