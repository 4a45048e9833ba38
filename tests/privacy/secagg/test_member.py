"""A member's rules: what it refuses, that a refusal leaves nothing behind, and what it forgets."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.errors import RequestRefusal, TermsError
from privacy.keystream import KeyStream
from privacy.secagg import (
    MOST_KEY_SETS,
    Attempt,
    KeyExchange,
    KeySets,
    MaskingMember,
    Signed,
    model_hash,
)
from privacy.secagg.member import KEPT_RUNS
from privacy.secagg.messages import (
    Advertisement,
    Deal,
    Delivery,
    Lists,
    Offer,
    Revealed,
    Shares,
    Signatures,
    read_indices,
)
from privacy.secagg.shamir import Basis
from tests.conftest import identity
from tests.privacy.secagg.alliance import (
    MODEL,
    Alliance,
    Sum,
    attempt_fields,
    inside,
    new_member,
    other_statements,
    pieces,
    run_fields,
    sign,
    statement_fields,
    terms_of,
    vector_of,
)

ME = "member-2"
MINE = 3
"""ME's index."""
STATES = ["new", "advertised", "dealt", "delivered", "masked", "confirmed", "unmasked"]


class Course:
    """The honest course as ME sees it; the same member can be led along it again and again."""

    def __init__(self, **changes: Any) -> None:
        # One member more than a cohort takes, so that an offer can be too large.
        values = {"members": 9, "cohort_size": 8} | changes
        self.terms = terms_of(**values)
        self.alliance = Alliance(self.terms)
        self.key_sets = self.alliance.key_sets
        self.cohort = self.alliance.cohort()
        self.sum = Sum(self.alliance, self.cohort)
        self.sum.run({"contribute": ("member-7",)})
        self.attempt = self.sum.attempt
        self.sent = self.alliance.sent
        self.offer = Offer.decode(self.sent.offer, self.key_sets)
        self.delivery = Delivery.decode(self.sent.deliveries[ME], self.key_sets)
        self.lists = Lists.decode(self.sent.lists)
        self.signatures = Signatures.decode(self.sent.signatures)

    def steps(self, member: MaskingMember) -> list[Callable[[], Any]]:
        """What leads from each state to the next."""
        return [
            lambda: member.advertise(self.key_sets),
            lambda: member.share(self.key_sets, self.sent.offer),
            lambda: member.deliver(self.key_sets, self.sent.deliveries[ME]),
            lambda: self.masked(member),
            lambda: Signed(self.sent.lists, member.confirm(self.attempt, self.sent.lists)),
            lambda: member.unmask(self.attempt, self.sent.signatures),
        ]

    def masked(self, member: MaskingMember) -> Signed:
        vector = vector_of(self.terms, ME)
        signature = member.mask(self.attempt, vector)
        return Signed(vector.tobytes(), signature)

    def member(self, state: str) -> MaskingMember:
        member = new_member(self.terms, ME)
        for step in self.steps(member)[: STATES.index(state)]:
            step()
        return member

    def finish(self, member: MaskingMember, state: str) -> None:
        """Leads it to the end; it must say all that it said the first time, bit by bit."""
        phases = ["advertise", "share", "deliver", "contribute", "confirm", "unmask"]
        at = STATES.index(state)
        for phase, step in zip(phases[at:], self.steps(member)[at:], strict=True):
            assert step() == self.sent.said[phase][ME], phase

    def refuses(self, state: str, message: Callable[[MaskingMember], Any], match: str) -> None:
        """The message is refused in a state, changes nothing, and the course goes on."""
        member = self.member(state)
        before = inside(member)
        with pytest.raises(RequestRefusal, match=match):
            message(member)
        assert inside(member) == before
        self.finish(member, state)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, 32 bytes out: one block of the expansion."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@pytest.fixture(scope="module")
def course() -> Course:
    return Course()


MESSAGES: dict[str, Callable[[Course, MaskingMember], Any]] = {
    "advertise": lambda course, member: member.advertise(course.key_sets),
    "share": lambda course, member: member.share(course.key_sets, course.sent.offer),
    "deliver": lambda course, member: member.deliver(
        course.key_sets, course.sent.deliveries[ME]
    ),
    "check": lambda course, member: member.check(course.attempt),
    "mask": lambda course, member: course.masked(member),
    "contributed": lambda course, member: member.contributed(course.attempt),
    "confirm": lambda course, member: member.confirm(course.attempt, course.sent.lists),
    "unmask": lambda course, member: member.unmask(course.attempt, course.sent.signatures),
}  # fmt: skip

TAKEN = {
    "new": {"advertise"},
    "advertised": {"share"},
    "dealt": {"deliver"},
    "delivered": {"check", "mask"},
    "masked": {"contributed", "confirm"},
    "confirmed": {"contributed", "unmask"},
    "unmasked": {"contributed"},
}
"""Every other message is refused in that state."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_in_every_state(course, state, message):
    if message in TAKEN[state]:
        MESSAGES[message](course, course.member(state))
    else:
        course.refuses(state, lambda member: MESSAGES[message](course, member), ":")


@pytest.mark.parametrize("state", STATES)
def test_all_wrong_messages_together_leave_nothing_behind(course, state):
    member = course.member(state)
    before = inside(member)
    for name, message in MESSAGES.items():
        if name not in TAKEN[state]:
            with pytest.raises(RequestRefusal):
                message(course, member)
    assert inside(member) == before
    course.finish(member, state)


# Who it is.


def test_an_identity_that_is_not_the_rosters_is_refused():
    with pytest.raises(RequestRefusal, match="another identity key for member-2"):
        MaskingMember(terms_of(), ME, identity("member-1"))


def test_a_stranger_to_the_roster_is_refused():
    with pytest.raises(TermsError, match="not in the roster"):
        MaskingMember(terms_of(), "stranger", identity("stranger"))


def test_cohorts_too_large_are_refused():
    terms = terms_of(members=3001, cohort_size=3001)
    with pytest.raises(TermsError, match="at most 3000"):
        MaskingMember(terms, ME, identity(ME))


# (1)


@pytest.mark.parametrize(
    "key_sets",
    [
        KeySets(0, 1),
        KeySets(-3, 5),
        KeySets(1, 0),
        KeySets(1, -1),
        KeySets(1, MOST_KEY_SETS + 1),
        KeySets(2**31 + 1, 1),
    ],
)
def test_runs_that_cannot_be_are_refused(course, key_sets):
    course.refuses("new", lambda member: member.advertise(key_sets), "made before, or too many")


def test_a_run_of_the_most_key_sets_is_made():
    member = new_member(terms_of(), ME)
    signed = member.advertise(KeySets(1, MOST_KEY_SETS))
    assert len(signed.body) == 32 * (MOST_KEY_SETS + 1)
    assert len(member.advertise(KeySets(2**31, 1)).body) == 64


@pytest.mark.parametrize("key_sets", [KeySets(1, 2), KeySets(2, 1), KeySets(2, 5), KeySets(1, 1)])
def test_no_number_is_made_twice(course, key_sets):
    for state in ("advertised", "unmasked"):
        course.refuses(state, lambda member: member.advertise(key_sets), "made before")


def test_numbers_may_skip_but_not_return():
    member = new_member(terms_of(), ME)
    member.advertise(KeySets(10, 2))
    for first in (1, 9, 10, 11):
        with pytest.raises(RequestRefusal, match="made before"):
            member.advertise(KeySets(first, 1))
    member.advertise(KeySets(12, 1))


def test_keys_are_new_in_every_run_and_key_set():
    member = new_member(terms_of(), ME)
    runs = [KeySets(1, 3), KeySets(4, 3)]
    keys = [
        key for run in runs for key in Advertisement.decode(member.advertise(run).body, run).keys
    ]
    assert len(set(keys)) == 8


# (2)


def signed_by(name: str, body: bytes, key_sets: KeySets, course: Course) -> tuple[bytes, bytes]:
    fields = statement_fields(course.alliance.setup, "advertise", name, body)
    return body, sign(name, fields | run_fields(key_sets))


def entry(course: Course, index: int, *keys: bytes) -> tuple[int, bytes, bytes]:
    """An advertisement of a member with some keys of its own choice, well signed."""
    own = [bytes([index, place]) * 16 for place in range(3)]
    body = b"".join([*keys, *own[len(keys) :]])
    return (index, *signed_by(f"member-{index - 1}", body, course.key_sets, course))


def offers(course: Course) -> dict[str, tuple[tuple[tuple[int, bytes, bytes], ...], str]]:
    entries = course.offer.entries
    others = tuple(one for one in entries if one[0] != MINE)
    stranger = entry(course, 10)
    own = Advertisement.decode(entries[MINE - 1][1], course.key_sets)
    first = Advertisement.decode(entries[0][1], course.key_sets)
    of = {index: (index, body, signature) for index, body, signature in entries}
    swapped = b"".join([own.sealing, own.masks[1], own.masks[0]])
    bad = (8, of[8][1], of[8][2][:-1] + bytes([of[8][2][-1] ^ 1]))
    return {
        "one too few": (entries[:5], "5 members, the terms say 6 to 8"),
        "one too many": ((*entries, entry(course, 9)), "9 members, the terms say 6 to 8"),
        "without me": ((*others, entry(course, 9)), "missing or not its own"),
        "my keys changed": (
            tuple(entry(course, MINE) if one[0] == MINE else one for one in entries),
            "missing or not its own",
        ),
        "my keys in another order": (
            (
                *entries[: MINE - 1],
                (MINE, *signed_by(ME, swapped, course.key_sets, course)),
                *entries[MINE:],
            ),
            "missing or not its own",
        ),
        "another member's mask key": (
            (*entries[:7], entry(course, 8, first.masks[0])), "one is repeated",
        ),
        "my sealing key as another's mask key": (
            (*entries[:7], entry(course, 8, bytes([1]) * 32, own.sealing)), "one is repeated",
        ),
        "a stranger": ((*entries[:7], stranger), "not in the roster"),
        "a bad signature": ((*entries[:7], bad), "member-7 are not signed by it"),
        "another's signature": (
            (*entries[:7], (8, of[8][1], of[7][2])), "member-7 are not signed by it",
        ),
        "a bad signature in the beginning": (
            ((1, of[1][1], of[2][2]), *entries[1:]), "member-0 are not signed by it",
        ),
    }  # fmt: skip


OFFERS = [
    "one too few", "one too many", "without me", "my keys changed", "my keys in another order",
    "another member's mask key", "my sealing key as another's mask key", "a stranger",
    "a bad signature", "another's signature", "a bad signature in the beginning",
]  # fmt: skip


@pytest.mark.parametrize("what", OFFERS)
def test_offers_that_break_the_rule_are_refused(course, what):
    entries, match = offers(course)[what]
    assert set(offers(course)) == set(OFFERS)
    body = Offer(entries).encode()
    course.refuses("advertised", lambda member: member.share(course.key_sets, body), match)


def test_the_least_and_the_most_members_are_offered(course):
    """The positive control: at the edges of the rule an offer is taken."""
    for entries in (course.offer.entries[:6], course.offer.entries):
        member = course.member("advertised")
        signed = member.share(course.key_sets, Offer(entries).encode())
        shares = Shares.decode(signed.body, course.key_sets)
        assert [deal.member for deal in shares.deals] == [
            index for index, _, _ in entries if index != MINE
        ]


@pytest.mark.parametrize("body", [b"", bytes(4), bytes(500)])
def test_malformed_offers_are_refused(course, body):
    course.refuses(
        "advertised", lambda member: member.share(course.key_sets, body), "short|long|0 members"
    )


def test_an_offered_body_that_repeats_a_key_is_refused(course):
    entries = (*course.offer.entries[:7], entry(course, 8, b"k" * 32, b"k" * 32))
    body = Offer(entries).encode()
    course.refuses(
        "advertised", lambda member: member.share(course.key_sets, body), "repeats a key"
    )


def test_an_advertisement_is_bound_to_every_field(course):
    index, body, signature = course.offer.entries[7]
    fields = statement_fields(course.alliance.setup, "advertise", "member-7", body)
    fields |= run_fields(course.key_sets)
    assert sign("member-7", fields) == signature
    for key, changed in other_statements(fields):
        forged = Offer((*course.offer.entries[:7], (index, body, sign("member-7", changed))))
        member = course.member("advertised")
        with pytest.raises(RequestRefusal, match="member-7 are not signed by it"):
            member.share(course.key_sets, forged.encode())
        assert inside(member) == inside(course.member("advertised")), key


@pytest.mark.parametrize("other", [KeySets(1, 1), KeySets(2, 1), KeySets(1, 3), KeySets(3, 2)])
def test_messages_for_a_run_that_was_not_made_are_refused(course, other):
    for state, message in (
        ("advertised", lambda member: member.share(other, course.sent.offer)),
        ("dealt", lambda member: member.deliver(other, course.sent.deliveries[ME])),
    ):
        course.refuses(state, message, "not made here, or forgotten")


SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_degenerate_sealing_keys_are_refused(course, key):
    body = Offer((*course.offer.entries[:7], entry(course, 8, key))).encode()
    member = course.member("advertised")
    with pytest.raises(RequestRefusal, match="member-7 advertised a degenerate key"):
        member.share(course.key_sets, body)
    course.finish(member, "advertised")


def test_degenerate_mask_keys_are_refused(course):
    """No honest coordinator lets one into an offer; a member finds it when it would mask."""
    alliance = Alliance(course.terms)
    for name in alliance.here:
        alliance.members[name].advertise(alliance.key_sets)
    entries = (*course.offer.entries[:7], entry(course, 8, b"k" * 32, SMALL_ORDER[2]))
    member = alliance.members[ME]
    member.share(alliance.key_sets, Offer(entries).encode())
    body = Delivery(tuple(range(1, 9)), ()).encode()
    with pytest.raises(RequestRefusal, match="degenerate key"):
        member.deliver(alliance.key_sets, body)
    with pytest.raises(RequestRefusal, match="not ready here"):
        member.check(course.attempt)


# (3)


def test_shares_are_dealt_once_for_one_offer(course):
    for offer in (course.sent.offer, Offer(course.offer.entries[:7]).encode()):
        for state in ("dealt", "delivered", "unmasked"):
            course.refuses(
                state,
                lambda member, offer=offer: member.share(course.key_sets, offer),
                "shares were dealt before",
            )


def test_shares_take_the_threshold_of_the_terms(course):
    """t shares of one seed rebuild it, t - 1 do not; by the members that hold them."""
    threshold = course.terms.privacy.threshold
    assert threshold == 5
    member = course.member("dealt")
    (run,) = inside(member)["_runs"]
    held = {}
    for index in range(1, 9):
        other = new_member(course.terms, f"member-{index - 1}")
        if index != MINE:
            other.advertise(course.key_sets)
            other.share(course.key_sets, course.sent.offer)
            name = f"member-{index - 1}"
            other.deliver(course.key_sets, course.sent.deliveries[name])
        else:
            other = member
        held[index] = inside(other)["_runs"][0]["held"][MINE]
    for place in range(2):
        for kind, secret in (
            ("seed_share", run["seeds"][place]),
            ("mask_share", run["masks"][place]),
        ):
            for first in range(1, 4):
                points = list(range(first, first + threshold))
                shares = [held[point][place][kind] for point in points]
                assert Basis(points).rebuild(shares) == secret
                assert Basis(points[:-1]).rebuild(shares[:-1]) != secret


def test_a_deal_is_that_of_the_specification(course):
    """Section 4 of the README: keys, commitments, hashes and what is sealed, for one holder."""
    (run,) = inside(course.member("dealt"))["_runs"]
    parts = [entry[0].to_bytes(4) + entry[1] for entry in course.offer.entries]
    head = course.alliance.setup.terms_hash + bytes.fromhex("0000000100000002")
    keys = hashlib.sha256(b"alliance/v1/secagg/keys\x00" + head + b"".join(parts)).digest()
    assert keys == course.cohort.keys

    def hashes(holder: int, opened: list[dict[str, bytes]]) -> tuple[bytes, ...]:
        return tuple(
            b"".join(
                hashlib.sha256(
                    f"alliance/v1/secagg/share/{kind}\0".encode()
                    + keys
                    + b"".join(number.to_bytes(4) for number in (MINE, holder, key_set))
                    + one[f"{kind}_salt"]
                    + one[f"{kind}_share"]
                ).digest()
                for kind in ("seed", "mask")
            )
            for key_set, one in enumerate(opened, start=1)
        )

    shares = Shares.decode(course.sent.said["share"][ME].body, course.key_sets)
    assert shares.own_hashes == hashes(MINE, run["held"][MINE])
    assert shares.commitments == tuple(
        hashlib.sha256(b"alliance/v1/secagg/seed\x00" + keys + seed).digest()
        for seed in run["seeds"]
    )
    other = new_member(course.terms, "member-6")
    other.advertise(course.key_sets)
    sealing = X25519PrivateKey.from_private_bytes(inside(other)["_runs"][0]["sealing"])
    own = Advertisement.decode(course.offer.entries[MINE - 1][1], course.key_sets)
    secret = sealing.exchange(X25519PublicKey.from_public_bytes(own.sealing))
    info = b"alliance/v1/secagg/seal\x00" + MINE.to_bytes(4) + (7).to_bytes(4)
    (deal,) = [deal for deal in shares.deals if deal.member == 7]
    plain = AESGCM(hkdf(secret, keys, info)).decrypt(deal.nonce, deal.sealed, keys)
    at = {
        "seed_share": (0, 33),
        "seed_salt": (33, 49),
        "mask_share": (49, 82),
        "mask_salt": (82, 98),
    }
    opened = [
        {name: plain[98 * place + a : 98 * place + b] for name, (a, b) in at.items()}
        for place in range(2)
    ]
    assert len(plain) == 2 * 98
    assert deal.hashes == hashes(7, opened)
    salts = {one[name] for one in [*opened, *run["held"][MINE]] for name in one if "salt" in name}
    assert len(salts) == 8
    assert len({one.nonce for one in shares.deals}) == 7


# (4)


def deliveries(course: Course) -> dict[str, tuple[Delivery, str]]:
    deals = course.delivery.deals
    rule = "strangers, lacks this member, or has fewer than 6"
    return {
        "one too few": (Delivery((1, 2, 3, 4, 5), deals[:4]), rule),
        "without me": (Delivery((1, 2, 4, 5, 6, 7, 8), deals), rule),
        "a member not offered": (Delivery((1, 2, 3, 4, 5, 6, 7, 9), deals[:6]), rule),
        "a stranger": (Delivery((1, 2, 3, 4, 5, 6, 7, 8, 10), deals), rule),
    }


@pytest.mark.parametrize(
    "what", ["one too few", "without me", "a member not offered", "a stranger"]
)
def test_cohorts_that_break_the_rule_are_refused(course, what):
    delivery, match = deliveries(course)[what]
    body = delivery.encode()
    course.refuses("dealt", lambda member: member.deliver(course.key_sets, body), match)


@pytest.mark.parametrize("body", [b"", bytes(4), bytes(9), bytes(500)])
def test_malformed_deliveries_are_refused(course, body):
    course.refuses(
        "dealt", lambda member: member.deliver(course.key_sets, body), "short|long|order"
    )


def test_the_least_cohort_is_taken(course):
    deals = tuple(deal for deal in course.delivery.deals if deal.member <= 6)
    member = course.member("dealt")
    signed = member.deliver(course.key_sets, Delivery((1, 2, 3, 4, 5, 6), deals).encode())
    assert read_indices(signed.body) == ()
    member.check(course.attempt)


def test_a_cohort_is_fixed_once(course):
    smaller = Delivery(tuple(range(1, 8)), course.delivery.deals[:6]).encode()
    for state in ("delivered", "masked", "unmasked"):
        course.refuses(
            state, lambda member: member.deliver(course.key_sets, smaller), "delivered before"
        )


# (5)


def spoiled(deal: Deal, part: str) -> Deal:
    def flip(data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:]

    if part == "seed hash":
        return Deal(deal.member, (flip(deal.hashes[0]), deal.hashes[1]), deal.nonce, deal.sealed)
    if part == "mask hash":
        last = deal.hashes[1][:-1] + bytes([deal.hashes[1][-1] ^ 1])
        return Deal(deal.member, (deal.hashes[0], last), deal.nonce, deal.sealed)
    if part == "nonce":
        return Deal(deal.member, deal.hashes, flip(deal.nonce), deal.sealed)
    if part == "sealed":
        return Deal(deal.member, deal.hashes, deal.nonce, flip(deal.sealed))
    return Deal(deal.member, deal.hashes[::-1], deal.nonce, deal.sealed)


@pytest.mark.parametrize(
    "part", ["seed hash", "mask hash", "nonce", "sealed", "key sets", "another's", "missing"]
)
def test_bad_deals_are_reported_and_never_used(course, part):
    deals = {deal.member: deal for deal in course.delivery.deals}
    if part == "missing":
        del deals[5]
    elif part == "another's":
        deals[5] = Deal(5, deals[6].hashes, deals[6].nonce, deals[6].sealed)
    else:
        deals[5] = spoiled(deals[5], part)
    member = course.member("dealt")
    body = Delivery(course.delivery.cohort, tuple(deals.values())).encode()
    signed = member.deliver(course.key_sets, body)
    assert read_indices(signed.body) == (5,)
    assert signed.signature == sign(
        ME,
        statement_fields(course.alliance.setup, "deliver", ME, signed.body)
        | run_fields(course.key_sets, course.cohort.hash),
    )
    # Everything else is as ever, but for the shares of that dealer.
    assert course.masked(member) == course.sent.said["contribute"][ME]
    assert member.confirm(course.attempt, course.sent.lists) == (
        course.sent.said["confirm"][ME].signature
    )
    revealed = Revealed.decode(member.unmask(course.attempt, course.sent.signatures).body)
    honest = Revealed.decode(course.sent.said["unmask"][ME].body)
    assert revealed.entries == tuple(one for one in honest.entries if one[0] != 5)


def test_all_bad_dealers_are_reported(course):
    deals = tuple(spoiled(deal, "sealed") for deal in course.delivery.deals)
    member = course.member("dealt")
    signed = member.deliver(course.key_sets, Delivery(course.delivery.cohort, deals).encode())
    assert read_indices(signed.body) == (1, 2, 4, 5, 6, 7, 8)


def test_a_deal_in_a_members_own_name_is_not_taken(course):
    """Its own shares are those it kept; the coordinator cannot replace them."""
    deals = {deal.member: deal for deal in course.delivery.deals}
    deals[MINE] = Deal(MINE, deals[1].hashes, deals[1].nonce, deals[1].sealed)
    body = Delivery(course.delivery.cohort, tuple(deals[i] for i in sorted(deals))).encode()
    member = course.member("dealt")
    member.deliver(course.key_sets, body)
    course.finish(member, "delivered")


# (6)


def other_attempts(course: Course) -> list[Attempt]:
    model = bytes([MODEL[0] ^ 1]) + MODEL[1:]
    return [Attempt(1, 3, 2, MODEL), Attempt(1, 4, 1, MODEL), Attempt(1, 3, 1, model)]


def test_a_key_set_serves_one_attempt(course):
    for state in ("masked", "confirmed", "unmasked"):
        for attempt in [*other_attempts(course), course.attempt]:
            vector = vector_of(course.terms, ME)
            for message in (
                lambda member, attempt=attempt: member.check(attempt),
                lambda member, attempt=attempt, vector=vector: member.mask(attempt, vector),
            ):
                course.refuses(state, message, "key set 1 was used before")
            assert (vector == vector_of(course.terms, ME)).all()


@pytest.mark.parametrize("key_set", [0, 3, 4])
def test_key_sets_that_were_not_made_are_refused(course, key_set):
    attempt = Attempt(key_set, 3, 1, MODEL)
    vector = vector_of(course.terms, ME)
    for message in (
        lambda member: member.check(attempt),
        lambda member: member.mask(attempt, vector),
        lambda member: member.contributed(attempt),
        lambda member: member.confirm(attempt, course.sent.lists),
        lambda member: member.unmask(attempt, course.sent.signatures),
    ):
        course.refuses("delivered", message, f"key set {key_set} is not ready")
    assert (vector == vector_of(course.terms, ME)).all()


def test_masks_are_those_of_the_specification(course):
    """Section 6 of the README, worked out from what the member knows before it masks."""
    (run,) = inside(course.member("delivered"))["_runs"]
    binding = course.alliance.setup.terms_hash
    binding += b"".join(number.to_bytes(4) for number in (1, 3, 1)) + MODEL
    expected = vector_of(course.terms, ME)
    info = b"alliance/v1/secagg/self\x00" + binding + MINE.to_bytes(4)
    expected += KeyStream(hkdf(run["seeds"][0], course.cohort.hash, info)).uint32(expected.size)
    assert sorted(run["pair_secrets"][0]) == [1, 2, 4, 5, 6, 7, 8]
    for other, secret in run["pair_secrets"][0].items():
        low, high = sorted([MINE, other])
        info = b"alliance/v1/secagg/pair\x00" + binding + low.to_bytes(4) + high.to_bytes(4)
        mask = KeyStream(hkdf(secret, course.cohort.hash, info)).uint32(expected.size)
        expected = expected + mask if low == MINE else expected - mask
    assert course.masked(course.member("delivered")).body == expected.tobytes()


def test_a_model_is_hashed_as_little_endian_float32():
    model = np.array([1.5, -2.0, 0.1], dtype=np.float32)
    raw = b"".join(struct.pack("<f", value) for value in model)
    hashed = hashlib.sha256(b"alliance/v1/secagg/model\x00" + raw).digest()
    assert model_hash(model) == hashed
    assert model_hash(np.repeat(model, 2)[::2]) == hashed
    assert model_hash(model.astype(">f4")) == hashed
    assert model_hash(np.array([1.5, -2.0, 0.2], dtype=np.float32)) != hashed


def test_masks_are_of_one_attempt_one_key_set_and_one_model(course):
    masked = set()
    attempts = [course.attempt, *other_attempts(course), Attempt(2, 3, 1, MODEL)]
    for attempt in attempts:
        vector = np.zeros_like(vector_of(course.terms, ME))
        course.member("delivered").mask(attempt, vector)
        masked.add(vector.tobytes())
    assert len(masked) == len(attempts)


def test_masks_are_of_one_cohort(course):
    masked = set()
    for size in (7, 8):
        member = course.member("dealt")
        deals = tuple(deal for deal in course.delivery.deals if deal.member <= size)
        member.deliver(course.key_sets, Delivery(tuple(range(1, size + 1)), deals).encode())
        masked.add(course.masked(member).body)
    assert len(masked) == 2


def test_the_hash_of_the_masked_vector_is_known_until_the_member_unmasks(course):
    member = course.member("delivered")
    with pytest.raises(RequestRefusal, match="did not contribute"):
        member.masked_hash(course.attempt)
    sent = course.masked(member)
    assert member.masked_hash(course.attempt) == hashlib.sha256(sent.body).digest()
    with pytest.raises(RequestRefusal, match="did not contribute"):
        member.masked_hash(Attempt(1, 3, 2, MODEL))
    with pytest.raises(RequestRefusal, match="unmasked before"):
        course.member("unmasked").masked_hash(course.attempt)


def test_no_hash_is_told_of_a_vector_whose_masking_failed(course, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("privacy.secagg.member.apply_masks", fail)
    member = course.member("delivered")
    with pytest.raises(MemoryError):
        course.masked(member)
    with pytest.raises(RequestRefusal, match="masking it failed"):
        member.masked_hash(course.attempt)


def test_contributed_tells_the_model_and_of_one_attempt_only(course):
    for state in ("masked", "confirmed", "unmasked"):
        member = course.member(state)
        assert member.contributed(Attempt(1, 3, 1, b"")) == course.attempt
        for attempt in (Attempt(1, 3, 2, MODEL), Attempt(1, 4, 1, MODEL), Attempt(2, 3, 1, MODEL)):
            with pytest.raises(RequestRefusal, match="did not contribute"):
                member.contributed(attempt)


# (7)


@pytest.mark.parametrize(
    ("survivors", "dropped"),
    [
        ((1, 2, 3, 4, 5), (6, 7, 8)),  # one too few survive
        ((1, 2, 4, 5, 6, 7, 8), (3,)),  # this member dropped
        ((1, 2, 3, 4, 5, 6), (7,)),  # one is in neither
        ((1, 2, 3, 4, 5, 6, 7), (7, 8)),  # one is in both
        ((1, 2, 3, 4, 5, 6, 7, 8), (3,)),  # this member is in both
        ((1, 2, 3, 4, 5, 6, 7, 8), (9,)),  # a stranger
        ((1, 2, 3, 4, 5, 6, 7, 9), (8,)),  # a stranger survives
        ((), (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_lists_that_break_the_rule_are_refused(course, survivors, dropped):
    lists = Lists(survivors, dropped).encode()
    course.refuses(
        "masked", lambda member: member.confirm(course.attempt, lists), "disjoint and together"
    )


@pytest.mark.parametrize("body", [b"", bytes(4), bytes(9), bytes(500)])
def test_malformed_lists_are_refused(course, body):
    course.refuses(
        "masked", lambda member: member.confirm(course.attempt, body), "short|long|order"
    )


@pytest.mark.parametrize(
    ("survivors", "dropped"),
    [((1, 2, 3, 4, 5, 6), (7, 8)), ((3, 4, 5, 6, 7, 8), (1, 2)), (tuple(range(1, 9)), ())],
)
def test_lists_within_the_rule_are_signed(course, survivors, dropped):
    lists = Lists(survivors, dropped).encode()
    fields = statement_fields(course.alliance.setup, "confirm", ME, lists)
    fields |= attempt_fields(course.attempt, course.cohort.hash)
    assert course.member("masked").confirm(course.attempt, lists) == sign(ME, fields)


def test_one_pair_of_lists_is_signed_per_attempt(course):
    for lists in (course.sent.lists, Lists(tuple(range(1, 9)), ()).encode()):
        course.refuses(
            "confirmed",
            lambda member, lists=lists: member.confirm(course.attempt, lists),
            "signed before",
        )


def test_lists_and_signatures_are_of_the_attempt_that_was_masked(course):
    for attempt in [*other_attempts(course), Attempt(2, 3, 1, MODEL)]:
        course.refuses(
            "masked",
            lambda member, attempt=attempt: member.confirm(attempt, course.sent.lists),
            "did not contribute",
        )
        course.refuses(
            "confirmed",
            lambda member, attempt=attempt: member.unmask(attempt, course.sent.signatures),
            "did not contribute",
        )


# (8)


def confirmed_by(course: Course, *indices: int, lists: bytes | None = None) -> bytes:
    entries = []
    for index in indices:
        name = f"member-{index - 1}"
        fields = statement_fields(
            course.alliance.setup, "confirm", name, lists or course.sent.lists
        ) | attempt_fields(course.attempt, course.cohort.hash)
        entries.append((index, sign(name, fields)))
    return Signatures(tuple(entries)).encode()


def test_t_signatures_of_survivors_are_enough(course):
    for indices in ((1, 2, 3, 4, 5), (1, 2, 4, 5, 6), (1, 2, 3, 4, 5, 6, 7)):
        member = course.member("confirmed")
        signed = member.unmask(course.attempt, confirmed_by(course, *indices))
        assert signed == course.sent.said["unmask"][ME]


@pytest.mark.parametrize(
    ("indices", "match"),
    [
        ((), "0 signatures"),
        ((1, 2, 3, 4), "4 signatures.*5 of survivors"),
        ((1, 2, 3, 4, 8), "5 of survivors are needed"),  # the dropped member
        ((1, 2, 3, 4, 5, 8), "5 of survivors are needed"),
        ((1, 2, 3, 4, 9), "5 of survivors are needed"),  # of the roster, not of the cohort
    ],
)
def test_fewer_signatures_or_those_of_others_are_refused(course, indices, match):
    body = confirmed_by(course, *indices)
    course.refuses("confirmed", lambda member: member.unmask(course.attempt, body), match)


@pytest.mark.parametrize("index", [1, 4, 5])
def test_each_signature_is_checked(course, index):
    good = Signatures.decode(confirmed_by(course, 1, 2, 3, 4, 5)).entries
    for bad in (bytes(64), good[1][1], good[index - 1][1][:-1] + b"\x00"):
        entries = tuple((i, bad if i == index else signature) for i, signature in good)
        body = Signatures(entries).encode()
        course.refuses(
            "confirmed",
            lambda member, body=body: member.unmask(course.attempt, body),
            rf"member-{index - 1} did not sign" if bad != good[index - 1][1] else ":",
        )


def test_signatures_over_other_lists_are_refused(course):
    lists = Lists((1, 2, 3, 4, 5, 6), (7, 8)).encode()
    body = confirmed_by(course, 1, 2, 3, 4, 5, lists=lists)
    course.refuses("confirmed", lambda member: member.unmask(course.attempt, body), "did not sign")


def test_a_confirmation_is_bound_to_every_field(course):
    fields = statement_fields(course.alliance.setup, "confirm", "member-4", course.sent.lists)
    fields |= attempt_fields(course.attempt, course.cohort.hash)
    good = Signatures.decode(confirmed_by(course, 1, 2, 3, 4, 5)).entries
    assert good[4] == (5, sign("member-4", fields))
    forgeries = [sign("member-4", changed) for _, changed in other_statements(fields)]
    forgeries.append(sign("member-4", fields, context="contribute"))
    for forged in forgeries:
        member = course.member("confirmed")
        with pytest.raises(RequestRefusal, match="member-4 did not sign this survivor list"):
            member.unmask(course.attempt, Signatures((*good[:4], (5, forged))).encode())


@pytest.mark.parametrize("body", [b"", bytes(3), bytes(9), bytes(500)])
def test_malformed_signatures_are_refused(course, body):
    course.refuses(
        "confirmed", lambda member: member.unmask(course.attempt, body), "short|long|order"
    )


def test_of_each_dealer_one_kind_of_share_is_revealed(course):
    held = inside(course.member("confirmed"))["_runs"][0]["held"]
    revealed = Revealed.decode(course.sent.said["unmask"][ME].body)
    assert [dealer for dealer, _, _ in revealed.entries] == list(range(1, 9))
    for dealer, share, salt in revealed.entries:
        kind = "mask" if dealer == 8 else "seed"
        opened = held[dealer][0]
        assert (share, salt) == (opened[f"{kind}_share"], opened[f"{kind}_salt"])
        assert opened[f"{'seed' if dealer == 8 else 'mask'}_share"] not in (
            course.sent.said["unmask"][ME].body
        )


# (9)


def secrets_of(run: dict[str, Any], place: int) -> set[bytes]:
    """What a member knows of one key set: masks, seeds, pair secrets, shares and salts."""
    known = {*run["seeds"][place : place + 1], *run["masks"][place : place + 1]}
    for secrets in run["pair_secrets"][place : place + 1]:
        known |= set(secrets.values())
    for opened in run["held"].values():
        known |= set(pieces(opened[place]))
    return known - {b""}


def test_the_key_set_is_forgotten(course):
    """Nothing that was secret of it is in the object any more; the other key set's is."""
    gone, kept = set(), set()
    for state in STATES[2:-1]:
        (run,) = inside(course.member(state))["_runs"]
        gone |= secrets_of(run, 0)
        kept |= secrets_of({**run, "masks": []}, 1)
    assert len(gone) == 1 + 1 + 7 + 8 * 4  # mask key, seed, pair secrets, shares and salts
    after = set(pieces(inside(course.member("unmasked"))))
    assert not gone & after
    assert kept <= after


def test_mask_keys_are_forgotten_once_delivered_and_seeds_once_masked(course):
    (dealt,) = inside(course.member("dealt"))["_runs"]
    (delivered,) = inside(course.member("delivered"))["_runs"]
    (masked,) = inside(course.member("masked"))["_runs"]
    assert len(dealt["masks"]) == 2
    assert delivered["masks"] == []
    assert delivered["sealing_secrets"] == {}
    assert not set(dealt["masks"]) & set(pieces(inside(course.member("delivered"))))
    assert delivered["seeds"] == dealt["seeds"]
    assert (masked["seeds"][0], masked["seeds"][1]) == (b"", dealt["seeds"][1])
    assert masked["pair_secrets"][0] == {}
    assert len(masked["pair_secrets"][1]) == 7


def test_the_other_key_set_still_serves(course):
    """One key set unmasked, the other one complete: one does not spoil the other."""
    alliance = Alliance(course.terms)
    cohort = alliance.cohort()
    for key_set in (2, 1):
        one = Sum(alliance, cohort, key_set)
        one.run({"contribute": (f"member-{key_set}",)})
        assert one.is_exact()


def test_runs_are_forgotten_beyond_those_kept():
    terms = terms_of()
    alliance = Alliance(terms, KeySets(1, 1))
    runs = [KeySets(first, 1) for first in range(1, KEPT_RUNS + 2)]
    attempts = [Attempt(run.first, 1, 1, MODEL) for run in runs]
    first = None
    for run in runs:
        alliance.key_sets, alliance.exchange = run, KeyExchange(alliance.setup, run)
        alliance.cohort()
        first = first or inside(alliance.members[ME])["_runs"][0]
        if run is runs[-2]:
            for attempt in attempts[:-1]:
                alliance.members[ME].check(attempt)
    member = alliance.members[ME]
    for attempt in attempts[1:]:
        member.check(attempt)
    with pytest.raises(RequestRefusal, match="key set 1 is not ready"):
        member.check(attempts[0])
    with pytest.raises(RequestRefusal, match="not made here, or forgotten"):
        member.deliver(runs[0], b"")
    assert len(inside(member)["_runs"]) == KEPT_RUNS
    assert not (secrets_of(first, 0) | {first["sealing"]}) & set(pieces(inside(member)))


def test_runs_side_by_side_do_not_mix(course):
    """The next run is made while the first one serves."""
    member = course.member("delivered")
    member.advertise(KeySets(3, 1))
    course.masked(member)
    with pytest.raises(RequestRefusal, match="key set 3 is not ready"):
        member.check(Attempt(3, 3, 2, MODEL))
    assert member.confirm(course.attempt, course.sent.lists)
    assert member.unmask(course.attempt, course.sent.signatures) == course.sent.said["unmask"][ME]


# What it shows.


def test_round_secrets_are_never_pickled_or_copied(course):
    for state in ("new", "delivered"):
        member = course.member(state)
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="never pickled or copied"):
                attempt(member)


@pytest.mark.parametrize("state", STATES)
def test_no_secret_is_shown(course, state):
    member = course.member(state)
    shown = f"{member!r} {member} {member._runs!r}"
    for piece in pieces(inside(member)):
        if len(piece) >= 12:
            assert repr(piece)[2:-1] not in shown
            assert piece.hex() not in shown


def test_two_members_of_the_same_name_have_different_secrets():
    """Without a chosen entropy everything comes from the operating system."""
    terms = terms_of()
    bodies = {
        MaskingMember(terms, ME, identity(ME)).advertise(KeySets(1, 1)).body for _ in range(3)
    }
    assert len(bodies) == 3


def test_keys_are_those_of_the_entropy(course):
    (run,) = inside(course.member("advertised"))["_runs"]
    own = Advertisement.decode(course.sent.said["advertise"][ME].body, course.key_sets)
    for secret, public in zip([run["sealing"], *run["masks"]], own.keys, strict=True):
        key = X25519PrivateKey.from_private_bytes(secret)
        assert key.public_key().public_bytes_raw() == public


def test_the_sum_of_the_course_is_exact(course):
    assert course.sum.is_exact()


def test_the_sealing_key_is_gone_once_shares_are_dealt(course):
    (dealt,) = inside(course.member("advertised"))["_runs"]
    for state in ("dealt", "delivered", "unmasked"):
        assert dealt["sealing"] not in set(pieces(inside(course.member(state))))


@pytest.mark.parametrize(
    "attempt",
    [
        Attempt(1, 2**32, 1, MODEL),
        Attempt(1, -1, 1, MODEL),
        Attempt(1, 3, 2**60, MODEL),
        Attempt(1, 3, 1, b""),
    ],
)
def test_odd_attempts_are_refused_and_use_up_nothing(course, attempt):
    course.refuses("delivered", lambda m: m.mask(attempt, vector_of(course.terms, ME)), ":")


@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_a_vector_that_is_not_of_the_terms_uses_up_nothing(course, shape):
    member = course.member("delivered")
    before = inside(member)
    with pytest.raises(ValueError, match="not of these terms"):
        member.mask(course.attempt, np.zeros(shape, np.uint32))
    assert inside(member) == before


def test_a_refused_offer_leaves_nothing_behind(course):
    body = Offer((*course.offer.entries[:7], entry(course, 8, SMALL_ORDER[2]))).encode()
    course.refuses("advertised", lambda m: m.share(course.key_sets, body), "degenerate")
