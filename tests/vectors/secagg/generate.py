"""Writes the test vectors: ``python -m tests.vectors.secagg.generate [FOLDER]``.

Members are the shipped ones with key streams in place of the operating system's randomness, so that
the files come out alike byte for byte. A bad vector is the same run as its twin with one rule
broken: whoever is in the place to break it signs what it changed, and nobody else checks anything
(`Careless`), so that what follows is what the protocol makes of it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.fixedpoint import RingVector
from privacy.keystream import KeyStream
from privacy.secagg import Attempt, KeySets, MaskingMember, Setup, Signed, model_hash
from privacy.secagg.binding import Phase
from privacy.secagg.messages import (
    Advertisement,
    Deal,
    Delivery,
    Lists,
    Offer,
    Revealed,
    Shares,
    Signatures,
    write_indices,
)
from tests.conftest import identity, make_terms

FOLDER: Final = Path(__file__).parent / "v1"
ONE: Final = KeySets(1, 1)
PHASES: Final = ("advertise", "share", "deliver", "contribute", "confirm", "unmask")

Entropy = Callable[[int], bytes]
Transcript = dict[str, Any]
Tamper = Callable[[str, int, bytes], bytes]
"""Step (offer, share, delivery, lists), whose message or to whom (index), bytes: other bytes."""


@dataclass(frozen=True)
class Case:
    """One valid run.

    Args:
        name: of its file.
        roster: members in the terms.
        privacy: parameters that differ from those of `make_terms`.
        indices: who takes part; the whole roster if empty.
        away: by phase, who answers neither it nor any later one.
        wraps: whether every vector is near the top of the ring.
        at_once: whether members reveal along with their contributions.
        tamper: what a member does wrong and the others can bear.
    """

    name: str
    roster: int = 5
    privacy: Mapping[str, Any] = field(default_factory=dict)
    indices: tuple[int, ...] = ()
    dimension: int = 8
    key_sets: KeySets = ONE
    key_set: int = 1
    round: int = 1
    attempt: int = 1
    away: Mapping[str, Collection[int]] = field(default_factory=dict)
    wraps: bool = False
    at_once: bool = False
    tamper: Tamper | None = None

    @functools.cached_property
    def setup(self) -> Setup:
        terms = make_terms(members=self.roster, dimension=self.dimension, **self.privacy)
        return Setup.of(terms)

    @property
    def model(self) -> bytes:
        return model_hash(np.linspace(-1, 1, self.dimension, dtype=np.float32))

    @property
    def use(self) -> Attempt:
        return Attempt(self.key_set, self.round, self.attempt, self.model)

    def present(self, phase: str) -> list[int]:
        """Who still answers in a phase."""
        phases = PHASES[: PHASES.index(phase) + 1]
        gone = {index for earlier in phases for index in self.away.get(earlier, ())}
        return [i for i in self.indices or range(1, self.roster + 1) if i not in gone]

    def entropy(self, index: int, what: str = "member") -> Entropy:
        """The member's randomness."""
        stream = KeyStream(hashlib.sha256(f"{self.name} {what} {index}".encode()).digest())

        def draw(size: int) -> bytes:
            drawn = np.empty(size, dtype=np.uint8)
            stream.fill(drawn)
            return drawn.tobytes()

        return draw

    def vector(self, index: int) -> RingVector:
        """The noised vector that the member adds its masks to."""
        dtype = np.dtype(f"<u{self.setup.terms.privacy.ring_bits // 8}")
        if self.wraps:
            return np.full(self.dimension, np.iinfo(dtype).max - index, dtype=dtype)
        drawn = self.entropy(index, "vector")(self.dimension * dtype.itemsize)
        return np.frombuffer(drawn, dtype=dtype).copy()

    def member(self, index: int) -> MaskingMember:
        """The member as it is at the beginning, honest."""
        name = self.setup.name(index)
        return MaskingMember(self.setup.terms, name, identity(name), entropy=self.entropy(index))

    def sign(
        self,
        phase: Phase,
        index: int,
        body: bytes,
        *,
        cohort: bytes,
        use: Attempt | None = None,
        by: int | None = None,
    ) -> bytes:
        """A signature of member ``by``, the sender itself if None, over the sender's statement."""
        ahead = phase in PHASES[:3]
        statement = self.setup.statement(
            phase,
            index,
            body,
            key_sets=self.key_sets if ahead else None,
            attempt=None if ahead else use or self.use,
            cohort=cohort,
        )
        return self.setup.sign(identity(self.setup.name(by or index)), phase, statement)


@dataclass(frozen=True)
class Bad:
    """A twin of a valid run that breaks one rule.

    Args:
        twin: name of the valid run.
        what: is bad.
        section: of the README whose rule is broken.
        why: the rule and how it is broken.
        tamper: changes a message on its way; a member's is signed again by the member.
        edit: changes the transcript afterwards.
        away: in place of the twin's.
        entropy: a rogue member's randomness, by its index.
        before_share: what a rogue member does to its own secrets before it deals.
        member: index of one that refuses, in ``member_section`` if not in ``section``; None if
            members cannot tell.
        coordinator: the section in which the coordinator refuses a message, gives up or gets
            another sum; 0 if it is the coordinator that breaks the rule.
    """

    twin: str
    what: str
    section: int
    why: str
    tamper: Tamper | None = None
    edit: Callable[[Play], None] | None = None
    away: Mapping[str, Collection[int]] | None = None
    entropy: Callable[[Case, int], Entropy | None] | None = None
    before_share: Callable[[int, MaskingMember, KeySets], None] | None = None
    member: int | None = None
    member_section: int | None = None
    coordinator: int = 0

    @property
    def name(self) -> str:
        return f"{self.twin}_bad_{self.what}"

    @property
    def seen_late(self) -> bool:
        """Whether it takes secrets, or the shares that rebuild them, to see it."""
        return self.coordinator > self.section


class Careless(MaskingMember):
    """A member that checks nothing."""

    def _checked(self, run: Any, offer: bytes) -> tuple[Offer, dict[int, Advertisement]]:
        size = 32 * (run.key_sets.count + 1)
        width = 4 + size + 64
        parts = [offer[at : at + width] for at in range(4, len(offer), width)]
        entries = [(int.from_bytes(part[:4]), part[4:-64], part[-64:]) for part in parts]
        return Offer(tuple(entries)), {
            index: Advertisement(body[:32], tuple(body[a : a + 32] for a in range(32, size, 32)))
            for index, body, _ in entries
        }

    def deliver(self, key_sets: KeySets, delivery: bytes) -> Signed:
        run = self._run(key_sets)
        self._least = 0
        for stranger in Delivery.decode(delivery, key_sets).cohort:
            run.advertisements.setdefault(stranger, run.advertisements[self._index])
        return super().deliver(key_sets, delivery)

    def confirm(self, attempt: Attempt, lists: bytes) -> bytes:
        run, use = self._used(attempt)
        use.lists = Lists.decode(lists)
        return self._sign_attempt(run, attempt, "confirm", lists)

    def unmask_at_once(self, attempt: Attempt) -> Signed:
        self._least = self._most
        return super().unmask_at_once(attempt)

    def _check_signatures(self, *_: Any) -> None:
        pass


class Play:
    """One run of a case, and its transcript."""

    def __init__(self, case: Case, bad: Bad | None = None) -> None:
        self.case = case if bad is None or bad.away is None else replace(case, away=bad.away)
        self.bad = bad
        self.members: dict[int, MaskingMember] = {}
        self.keys = b""
        self.cohort: tuple[int, ...] = ()
        self.cohort_hash = b""
        self.transcript: Transcript = {}
        self.secrets: dict[str, dict[str, Any]] = {}

    def run(self) -> Transcript:
        """All phases."""
        setup = self.case.setup
        self.transcript |= {
            "valid": self.bad is None,
            "why": f"section {self.bad.section}: {self.bad.why}" if self.bad else "",
            "terms": setup.terms.model_dump_json(),
            "terms_hash": setup.terms_hash.hex(),
            "first": self.case.key_sets.first,
            "count": self.case.key_sets.count,
        }
        self._advertise()
        self._share()
        self._deliver()
        self._contribute()
        if self.case.at_once:
            self._unmask_at_once()
        else:
            self._confirm()
            self._unmask()
        if self.bad and self.bad.edit:
            self.bad.edit(self)
        return self.transcript

    def entry(self, message: str, index: int) -> dict[str, str]:
        """The entry of one member in a list of the transcript, to be changed in place."""
        name = self.case.setup.name(index)
        entries: list[dict[str, str]] = self.transcript[message]
        (entry,) = (each for each in entries if each["member"] == name)
        return entry

    def _changed(self, step: str, index: int, body: bytes) -> bytes:
        for source in (self.case, self.bad):
            if source is not None and source.tamper is not None:
                body = source.tamper(step, index, body)
        return body

    def _entry(self, index: int, **values: bytes) -> dict[str, str]:
        hexadecimal = {key: value.hex() for key, value in values.items()}
        return {"member": self.case.setup.name(index)} | hexadecimal

    def _make(self, index: int) -> MaskingMember:
        if self.bad is None:
            return self.case.member(index)
        name = self.case.setup.name(index)
        rogue = self.bad.entropy(self.case, index) if self.bad.entropy else None
        entropy = rogue or self.case.entropy(index)
        return Careless(self.case.setup.terms, name, identity(name), entropy=entropy)

    def _advertise(self) -> None:
        entries: list[tuple[int, bytes, bytes]] = []
        for index in self.case.present("advertise"):
            member = self.members[index] = self._make(index)
            said = member.advertise(self.case.key_sets)
            entries.append((index, said.body, said.signature))
            run = member._run(self.case.key_sets)
            self.secrets[self.case.setup.name(index)] = {
                "sealing": run.sealing.private_bytes_raw().hex(),
                "masks": [mask.private_bytes_raw().hex() for mask in run.masks],
                "seeds": [],
                "vector": "",
            }
        self.transcript["advertisements"] = [
            self._entry(index, body=body, signature=signature) for index, body, signature in entries
        ]
        self.transcript["offer"] = self._changed("offer", 0, Offer(tuple(entries)).encode()).hex()

    def _share(self) -> None:
        offer = bytes.fromhex(self.transcript["offer"])
        entries = []
        self.dealt: dict[int, Shares] = {}
        for index in self.case.present("share"):
            member = self.members[index]
            if self.bad and self.bad.before_share:
                self.bad.before_share(index, member, self.case.key_sets)
            said = member.share(self.case.key_sets, offer)
            run = member._run(self.case.key_sets)
            self.keys = run.keys
            self.secrets[self.case.setup.name(index)]["seeds"] = [s.hex() for s in run.seeds]
            body = self._changed("share", index, said.body)
            signature = self.case.sign("share", index, body, cohort=self.keys)
            self.dealt[index] = Shares.decode(body, self.case.key_sets)
            entries.append(self._entry(index, body=body, signature=signature))
        self.transcript["shares"] = entries

    def _deliver(self) -> None:
        deliveries, ready = [], []
        present = set(self.case.present("deliver"))
        for index in sorted(self.dealt):
            deals = tuple(
                Deal(dealer, deal.hashes, deal.nonce, deal.sealed)
                for dealer, shares in sorted(self.dealt.items())
                for deal in shares.deals
                if deal.member == index
            )
            body = Delivery(tuple(sorted(self.dealt)), deals).encode()
            body = self._changed("delivery", index, body)
            deliveries.append(self._entry(index, body=body))
            if index in present:
                said = self.members[index].deliver(self.case.key_sets, body)
                run = self.members[index]._run(self.case.key_sets)
                self.cohort, self.cohort_hash = run.cohort, run.cohort_hash
                ready.append(self._entry(index, body=said.body, signature=said.signature))
        self.transcript |= {"deliveries": deliveries, "ready": ready}

    def _contribute(self) -> None:
        use = self.case.use
        entries = []
        self.plain: dict[int, RingVector] = {}
        for index in self.case.present("contribute"):
            if index not in self.dealt:
                continue
            self.plain[index] = self.case.vector(index)
            masked = self.plain[index].copy()
            signature = self.members[index].mask(use, masked)
            entries.append(self._entry(index, vector=masked.tobytes(), signature=signature))
            secrets = self.secrets[self.case.setup.name(index)]
            secrets["vector"] = self.plain[index].tobytes().hex()
        self.transcript |= {
            "attempt": {
                "key_set": use.key_set,
                "round": use.round,
                "attempt": use.attempt,
                "model": use.model.hex(),
            },
            "contributions": entries,
        }

    def _confirm(self) -> None:
        survivors = tuple(sorted(self.plain))
        dropped = tuple(index for index in self.cohort if index not in self.plain)
        lists = self._changed("lists", 0, Lists(survivors, dropped).encode())
        self.survivors = Lists.decode(lists).survivors
        self.confirmed = {
            index: self.members[index].confirm(self.case.use, lists)
            for index in self.case.present("confirm")
            if index in self.survivors
        }
        chosen = sorted(self.confirmed)[: self.case.setup.terms.privacy.threshold]
        self.transcript |= {
            "lists": lists.hex(),
            "confirmations": [
                self._entry(index, signature=signature)
                for index, signature in self.confirmed.items()
            ],
            "signatures": Signatures(tuple((i, self.confirmed[i]) for i in chosen)).encode().hex(),
        }

    def _unmask(self) -> None:
        signatures = bytes.fromhex(self.transcript["signatures"])
        revealed = []
        for index in self.case.present("unmask"):
            if index in self.confirmed:
                said = self.members[index].unmask(self.case.use, signatures)
                revealed.append(self._entry(index, body=said.body, signature=said.signature))
        self._end(revealed)

    def _unmask_at_once(self) -> None:
        self.survivors = tuple(sorted(self.plain))
        self.transcript |= {"lists": "", "confirmations": [], "signatures": ""}
        revealed = []
        for index in self.survivors:
            said = self.members[index].unmask_at_once(self.case.use)
            revealed.append(self._entry(index, body=said.body, signature=said.signature))
        self._end(revealed)

    def _end(self, revealed: list[dict[str, str]]) -> None:
        total = np.zeros_like(next(iter(self.plain.values())))
        for index in self.survivors:
            total += self.plain[index]
        self.transcript |= {
            "revealed": revealed,
            "sum": total.tobytes().hex(),
            "secrets": self.secrets,
        }


# What is bad.


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _at(step: str, index: int, change: Callable[[bytes], bytes]) -> Tamper:
    """Changes one message (index 0: what goes to all alike; -1: whoever it goes to)."""

    def tamper(at_step: str, at_index: int, body: bytes) -> bytes:
        return change(body) if at_step == step and index in (at_index, -1) else body

    return tamper


def _offer(change: Callable[[list[tuple[int, bytes, bytes]]], None]) -> Tamper:
    """Changes the entries of an offer of single key sets."""

    def changed(body: bytes) -> bytes:
        entries = list(Offer.decode(body, ONE).entries)
        change(entries)
        return Offer(tuple(entries)).encode()

    return _at("offer", 0, changed)


def _signed_by_another(message: str, phase: Phase, index: int, by: int) -> Callable[[Play], None]:
    def edit(play: Play) -> None:
        entry = play.entry(message, index)
        cohort = {"advertise": b"", "share": play.keys}.get(phase, play.cohort_hash)
        body = bytes.fromhex(play.transcript["lists"] if phase == "confirm" else entry["body"])
        entry["signature"] = play.case.sign(phase, index, body, cohort=cohort, by=by).hex()

    return edit


def _advertised_by_another(play: Play) -> None:
    _signed_by_another("advertisements", "advertise", 2, 3)(play)
    entries = list(Offer.decode(bytes.fromhex(play.transcript["offer"]), ONE).entries)
    signature = bytes.fromhex(play.entry("advertisements", 2)["signature"])
    entries[1] = (*entries[1][:2], signature)
    play.transcript["offer"] = Offer(tuple(entries)).encode().hex()


def _offered_unsigned(entries: list[tuple[int, bytes, bytes]]) -> None:
    index, body, signature = entries[2]
    entries[2] = (index, body, _flip(signature, 0))


def _own_replaced(entries: list[tuple[int, bytes, bytes]]) -> None:
    """Puts in what member 1 signed for the same numbers before it restarted."""
    case = CASES["five_members"]
    before = MaskingMember(
        case.setup.terms, "member-0", identity("member-0"), entropy=case.entropy(1, "before")
    ).advertise(case.key_sets)
    entries[0] = (1, before.body, before.signature)


def _swapped(entries: list[tuple[int, bytes, bytes]]) -> None:
    entries[1], entries[2] = entries[2], entries[1]


def _same_key_twice(case: Case, index: int) -> Entropy | None:
    """Member 2 draws its first key again."""
    if index != 2:
        return None
    drawn = case.entropy(2)
    first = drawn(32)
    firsts = [first, first]
    return lambda size: firsts.pop() if firsts else drawn(size)


def _key_of_another(case: Case, index: int) -> Entropy | None:
    """Member 2 has the sealing key of member 1."""
    if index != 2:
        return None
    drawn = case.entropy(2)
    firsts = [case.entropy(1)(32)]
    return lambda size: firsts.pop() if firsts else drawn(size)


def _another_mask_key(index: int, member: MaskingMember, key_sets: KeySets) -> None:
    """Member 3 deals shares of a key that it did not advertise."""
    if index == 3:
        member._run(key_sets).masks[0] = X25519PrivateKey.from_private_bytes(bytes(range(32)))


def _share_body(index: int, change: Callable[[bytes], bytes]) -> Callable[[Play], None]:
    """A share body that its dealer signs anew, and that what follows does not depend on."""

    def edit(play: Play) -> None:
        entry = play.entry("shares", index)
        body = change(bytes.fromhex(entry["body"]))
        signature = play.case.sign("share", index, body, cohort=play.keys)
        entry.update(body=body.hex(), signature=signature.hex())

    return edit


def _deals(change: Callable[[tuple[Deal, ...]], tuple[Deal, ...]]) -> Callable[[bytes], bytes]:
    """Changes the deals in a share body of single key sets."""

    def changed(body: bytes) -> bytes:
        shares = Shares.decode(body, ONE)
        return replace(shares, deals=change(shares.deals)).encode()

    return changed


def _unsealable(deals: tuple[Deal, ...]) -> tuple[Deal, ...]:
    return tuple(
        replace(deal, sealed=_flip(deal.sealed, 7)) if deal.member == 4 else deal for deal in deals
    )


def _with_stranger(body: bytes) -> bytes:
    delivery = Delivery.decode(body, ONE)
    return replace(delivery, cohort=tuple(sorted({*delivery.cohort, 2}))).encode()


def _without_itself(play: Play) -> None:
    entry = play.entry("deliveries", 1)
    delivery = Delivery.decode(bytes.fromhex(entry["body"]), play.case.key_sets)
    entry["body"] = replace(delivery, cohort=delivery.cohort[1:]).encode().hex()


def _complains_of_a_stranger(play: Play) -> None:
    entry, body = play.entry("ready", 4), write_indices([2, 6])
    signature = play.case.sign("deliver", 4, body, cohort=play.cohort_hash)
    entry.update(body=body.hex(), signature=signature.hex())


def _vector_flipped(play: Play) -> None:
    entry = play.entry("contributions", 2)
    entry["vector"] = _flip(bytes.fromhex(entry["vector"]), 5).hex()


def _contributed_to(**changes: Any) -> Callable[[Play], None]:
    def edit(play: Play) -> None:
        entry, use = play.entry("contributions", 2), replace(play.case.use, **changes)
        body = bytes.fromhex(entry["vector"])
        signature = play.case.sign("contribute", 2, body, cohort=play.cohort_hash, use=use)
        entry["signature"] = signature.hex()

    return edit


def _lists(survivors: tuple[int, ...], dropped: tuple[int, ...]) -> Tamper:
    return _at("lists", 0, lambda _: Lists(survivors, dropped).encode())


def _signatures(
    change: Callable[[Play, list[tuple[int, bytes]]], None],
) -> Callable[[Play], None]:
    def edit(play: Play) -> None:
        entries = list(Signatures.decode(bytes.fromhex(play.transcript["signatures"])).entries)
        change(play, entries)
        play.transcript["signatures"] = Signatures(tuple(entries)).encode().hex()

    return edit


def _one_less(_: Play, entries: list[tuple[int, bytes]]) -> None:
    entries.pop()


def _repeated(_: Play, entries: list[tuple[int, bytes]]) -> None:
    entries[-1] = entries[-2]


def _of_the_dropped(play: Play, entries: list[tuple[int, bytes]]) -> None:
    """Member 3 dropped; it signs all the same, in place of member 4."""
    body = bytes.fromhex(play.transcript["lists"])
    entries[2] = (3, play.case.sign("confirm", 3, body, cohort=play.cohort_hash))


def _over_other_lists(play: Play, entries: list[tuple[int, bytes]]) -> None:
    body = Lists((1, 2, 3, 4), (5,)).encode()
    entries[1] = (2, play.case.sign("confirm", 2, body, cohort=play.cohort_hash))


def _confirmed_other_lists(play: Play) -> None:
    """Member 5 signs other lists; nobody is shown its signature."""
    body = Lists((1, 2, 3, 5), (4,)).encode()
    signature = play.case.sign("confirm", 5, body, cohort=play.cohort_hash)
    play.entry("confirmations", 5)["signature"] = signature.hex()


def _revealed(
    change: Callable[[Play, tuple[int, bytes, bytes]], tuple[int, bytes, bytes]], dealer: int
) -> Callable[[Play], None]:
    """Member 2 reveals something else of one dealer, and signs it."""

    def edit(play: Play) -> None:
        entry = play.entry("revealed", 2)
        entries = [
            change(play, one) if one[0] == dealer else one
            for one in Revealed.decode(bytes.fromhex(entry["body"])).entries
        ]
        body = Revealed(tuple(entries)).encode()
        signature = play.case.sign("unmask", 2, body, cohort=play.cohort_hash)
        entry.update(body=body.hex(), signature=signature.hex())

    return edit


def _seed_share_of_the_dropped(
    play: Play, entry: tuple[int, bytes, bytes]
) -> tuple[int, bytes, bytes]:
    """What member 2 should have kept for itself: opened again from what was delivered to it."""
    member = play.case.member(2)
    member.advertise(play.case.key_sets)
    member.share(play.case.key_sets, bytes.fromhex(play.transcript["offer"]))
    member.deliver(play.case.key_sets, bytes.fromhex(play.entry("deliveries", 2)["body"]))
    opened = member._run(play.case.key_sets).held[entry[0]][0]
    return (entry[0], opened.seed_share, opened.seed_salt)


def _without_lists(play: Play) -> None:
    play.transcript |= {"lists": "", "confirmations": [], "signatures": ""}


def _last_away(play: Play) -> None:
    play.transcript["contributions"].pop()
    play.transcript["revealed"].pop()


def _too_few_unmask(play: Play) -> None:
    play.transcript["revealed"].pop()


def _sum_off_by_one(play: Play) -> None:
    play.transcript["sum"] = _flip(bytes.fromhex(play.transcript["sum"]), 0).hex()


_CASES: Final = (
    Case("three_members", roster=3),
    Case("five_members"),
    Case("six_members", roster=6),
    Case("three_members_at_once", roster=3, at_once=True),
    Case("five_members_at_once", privacy={"dropouts": 0}, at_once=True, round=2),
    Case("never_contributed", away={"contribute": {3}}),
    Case("never_took_delivery", away={"deliver": {2}}),
    Case("did_not_deal", away={"share": {5}}),
    Case("dropped_in_confirm", away={"confirm": {1}}, round=3, attempt=2),
    Case("dropped_in_unmask", away={"unmask": {4}}),
    Case("ring_of_64_bits", privacy={"ring_bits": 64}, away={"contribute": {1}}),
    Case("second_key_set", key_sets=KeySets(7, 3), key_set=8, away={"contribute": {5}}, round=4),
    Case("complaint", tamper=_at("share", 2, _deals(_unsealable))),
    Case(
        "least_signatures_and_unmaskers",
        roster=8,
        privacy={"dropouts": 2},
        away={"contribute": {4}, "confirm": {1}, "unmask": {8}},
    ),
    Case("sum_wraps", roster=4, wraps=True),
    Case("cohort_of_a_roster", roster=6, privacy={"cohort_size": 4}, indices=(1, 3, 4, 6)),
    Case(
        "sparse_graph",
        roster=66,
        dimension=4,
        away={"contribute": {9}, "confirm": range(36, 67)},
    ),
)
CASES: Final = {case.name: case for case in _CASES}

BAD: Final = (
    Bad(
        "three_members", "advertisement_signed_by_another", 3,
        "an advertisement is signed by its sender's identity key; member-2 signed member-1's",
        edit=_advertised_by_another, member=1, member_section=4, coordinator=3,
    ),
    Bad(
        "three_members", "key_repeated_in_an_advertisement", 3,
        "the keys of an advertisement are all distinct; member-1's two are one",
        entropy=_same_key_twice, member=1, member_section=4, coordinator=3,
    ),
    Bad(
        "three_members", "key_of_another_member", 4,
        "no key appears twice in an offer; member-1 advertised the sealing key of member-0",
        entropy=_key_of_another, member=3, coordinator=3,
    ),
    Bad(
        "three_members", "signature_in_the_offer", 4,
        "every signature in an offer holds; that of member-2 has a bit flipped there",
        tamper=_offer(_offered_unsigned), member=1,
    ),
    Bad(
        "five_members", "own_advertisement_replaced", 4,
        "a member's own advertisement is in the offer unchanged; in place of member-0's is one "
        "that it signed for the same key sets before it restarted",
        tamper=_offer(_own_replaced), member=1,
    ),
    Bad(
        "five_members", "offer_out_of_order", 4,
        "an offer goes by increasing index; member-2 stands before member-1",
        tamper=_offer(_swapped), member=1,
    ),
    Bad(
        "six_members", "offer_of_too_few", 4,
        "an offer holds N - D to N members; 4 of 6 are in it and D is 1",
        away={"advertise": {5, 6}}, member=1, coordinator=4,
    ),
    Bad(
        "five_members", "share_body_a_byte_too_long", 4,
        "a body is read strictly; that of member-1's shares has a byte too many",
        edit=_share_body(2, lambda body: body + b"\x00"), coordinator=4,
    ),
    Bad(
        "five_members", "dealt_to_too_few", 4,
        "everybody deals to all others; member-1 dealt nothing to member-4",
        tamper=_at("share", 2, _deals(lambda deals: deals[:-1])), coordinator=4,
    ),
    Bad(
        "five_members", "shares_signed_by_another", 4,
        "shares are signed by their dealer; member-2 signed member-1's",
        edit=_signed_by_another("shares", "share", 2, 3), coordinator=4,
    ),
    Bad(
        "five_members", "commitment_of_another_seed", 4,
        "a commitment is the hash of the seed that is shared; member-1's has a bit flipped",
        tamper=_at("share", 2, lambda body: _flip(body, 0)), coordinator=8,
    ),
    Bad(
        "never_contributed", "shares_of_another_mask_key", 4,
        "shares are of the mask private key that was advertised; those of member-2 are of another",
        before_share=_another_mask_key, coordinator=8,
    ),
    Bad(
        "cohort_of_a_roster", "stranger_in_the_cohort", 5,
        "the cohort is part of the offer; member-1 is in it and never advertised",
        tamper=_at("delivery", -1, _with_stranger), member=1,
    ),
    Bad(
        "six_members", "cohort_too_small", 5,
        "the cohort holds at least N - D members; 4 of 6 dealt and D is 1",
        away={"share": {5, 6}}, member=1, coordinator=5,
    ),
    Bad(
        "five_members", "delivery_without_its_receiver", 5,
        "the cohort holds the member it is delivered to; member-0 is missing in its own delivery",
        edit=_without_itself, member=1,
    ),
    Bad(
        "complaint", "of_a_stranger", 5,
        "a member lists dealers of the cohort; member-3 complains of index 6, who is nobody",
        edit=_complains_of_a_stranger, coordinator=5,
    ),
    Bad(
        "complaint", "signed_by_another", 5,
        "the answer to a delivery is signed by its sender; member-1 signed member-3's",
        edit=_signed_by_another("ready", "deliver", 4, 2), coordinator=5,
    ),
    Bad(
        "five_members", "vector_bit_flipped", 6,
        "a masked vector is signed by its sender; one bit of member-1's differs from what it "
        "signed",
        edit=_vector_flipped, coordinator=6,
    ),
    Bad(
        "five_members", "contribution_for_another_round", 6,
        "a contribution's signature covers its round; member-1 signed for round 2",
        edit=_contributed_to(round=2), coordinator=6,
    ),
    Bad(
        "ring_of_64_bits", "contribution_for_another_model", 6,
        "a contribution's signature covers the model; member-1 signed for another",
        edit=_contributed_to(model=bytes(32)), coordinator=6,
    ),
    Bad(
        "never_contributed", "alive_and_dropped", 7,
        "survivors and dropped are disjoint; member-1 is in both lists",
        tamper=_lists((1, 2, 4, 5), (2, 3)), member=1,
    ),
    Bad(
        "never_contributed", "lists_without_the_dropped", 7,
        "the lists are together the cohort; member-2 is in neither",
        tamper=_lists((1, 2, 4, 5), ()), member=1,
    ),
    Bad(
        "five_members", "contributor_called_dropped", 7,
        "the survivors are the contributors; member-4 contributed and is said to have dropped",
        tamper=_lists((1, 2, 3, 4), (5,)), member=5,
    ),
    Bad(
        "six_members", "survivors_too_few", 7,
        "at least N - D members survive; 4 of 6 do and D is 1",
        away={"contribute": {5, 6}}, member=1, coordinator=7,
    ),
    Bad(
        "five_members", "confirmation_of_other_lists", 7,
        "a confirmation is signed over the lists as sent; member-4 signed others",
        edit=_confirmed_other_lists, coordinator=7,
    ),
    Bad(
        "five_members_at_once", "contribution_missing", 7,
        "where nobody may drop the survivors are the whole cohort; member-4 is missing",
        edit=_last_away, coordinator=7,
    ),
    Bad(
        "five_members", "revealed_at_once", 8,
        "members that may drop reveal shares only against t signatures over lists; there are none",
        edit=_without_lists, member=1, coordinator=8,
    ),
    Bad(
        "three_members_at_once", "shares_signed_by_another", 8,
        "revealed shares are signed by their sender; member-0 signed member-1's",
        edit=_signed_by_another("revealed", "unmask", 2, 1), coordinator=8,
    ),
    Bad(
        "five_members", "signatures_too_few", 8,
        "a member reveals shares only against t signatures; 3 are sent and t is 4",
        edit=_signatures(_one_less), member=1,
    ),
    Bad(
        "five_members", "signature_repeated", 8,
        "signatures go by strictly increasing index; that of member-2 stands twice",
        edit=_signatures(_repeated), member=1,
    ),
    Bad(
        "never_contributed", "signature_of_the_dropped", 8,
        "t survivors sign the lists; one of the 4 signatures is by member-2, who dropped",
        edit=_signatures(_of_the_dropped), member=1,
    ),
    Bad(
        "five_members", "signature_over_other_lists", 8,
        "signatures are over the member's own lists; that of member-1 is over others",
        edit=_signatures(_over_other_lists), member=1,
    ),
    Bad(
        "never_contributed", "share_of_the_wrong_kind", 8,
        "of a dropped member the mask share is revealed; member-1 reveals a seed share of "
        "member-2, and too few mask shares are left",
        edit=_revealed(_seed_share_of_the_dropped, 3), coordinator=8,
    ),
    Bad(
        "dropped_in_unmask", "share_with_a_false_salt", 8,
        "a share and its salt match the share's hash; member-1's share of member-0 has another "
        "salt, and too few good ones are left",
        edit=_revealed(lambda _, one: (one[0], one[1], _flip(one[2], 3)), 1), coordinator=8,
    ),
    Bad(
        "dropped_in_unmask", "shares_signed_by_another", 8,
        "revealed shares are signed by their sender; member-0 signed member-1's",
        edit=_signed_by_another("revealed", "unmask", 2, 1), coordinator=8,
    ),
    Bad(
        "least_signatures_and_unmaskers", "unmaskers_too_few", 8,
        "t members unmask; 4 do and t is 5",
        edit=_too_few_unmask, coordinator=8,
    ),
    Bad(
        "sum_wraps", "sum_off_by_one", 8,
        "the sum is the survivors' vectors without their masks; its first element is off by one",
        edit=_sum_off_by_one, coordinator=8,
    ),
)  # fmt: skip
"""By section."""


def transcripts() -> dict[str, Transcript]:
    """All vectors, by name."""
    valid = {name: Play(case).run() for name, case in CASES.items()}
    return valid | {bad.name: Play(CASES[bad.twin], bad).run() for bad in BAD}


def write(folder: Path) -> None:
    """Writes all vectors into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, transcript in transcripts().items():
        (folder / f"{name}.json").write_text(json.dumps(transcript, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
