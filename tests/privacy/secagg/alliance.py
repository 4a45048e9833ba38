"""An alliance in memory: members and coordinator hand each other bytes, and tests look inside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.fixedpoint import RingVector
from privacy.identity import Identity
from privacy.secagg import (
    Attempt,
    Cohort,
    KeyExchange,
    KeySets,
    MaskingMember,
    Setup,
    Signed,
    Unmasking,
)
from privacy.terms import Terms
from tests.conftest import identity, make_terms

MODEL = bytes(range(32))
Absent = Mapping[str, Collection[str]]
"""By phase: who does not answer it, nor any later one."""


class Entropy:
    """Bytes that a name decides, so that a member can be made twice; counts what it gave."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.given = 0

    def __call__(self, count: int) -> bytes:
        seed = f"{self._name}/{self.given}/{count}".encode()
        self.given += count
        return hashlib.shake_256(seed).digest(count)


def terms_of(*, members: int = 8, dropouts: int = 2, **changes: Any) -> Terms:
    """N = 8, c = 1, D = 2: at least 6 survive, t = 5."""
    return make_terms(members=members, dropouts=dropouts, **changes)


def new_member(terms: Terms, name: str) -> MaskingMember:
    return MaskingMember(terms, name, identity(name), entropy=Entropy(name))


def vector_of(terms: Terms, name: str) -> RingVector:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    generator = np.random.default_rng(seed)
    if terms.privacy.ring_bits == 32:
        return generator.integers(0, 2**32, terms.dimension, dtype=np.uint32)
    return generator.integers(0, 2**64, terms.dimension, dtype=np.uint64)


def sum_of(terms: Terms, names: Collection[str]) -> RingVector:
    total = np.zeros_like(vector_of(terms, "nobody"))
    for name in names:
        total += vector_of(terms, name)
    return total


@dataclass
class Transcript:
    """What was sent in one run of key sets, and in one attempt with one of them."""

    offer: bytes = b""
    deliveries: dict[str, bytes] = field(default_factory=dict)
    lists: bytes = b""
    signatures: bytes = b""
    said: dict[str, dict[str, Signed]] = field(default_factory=dict)
    """By phase and member; the body of contribute is the masked vector, of confirm the lists."""

    def say(self, phase: str, name: str, signed: Signed) -> Signed:
        self.said.setdefault(phase, {})[name] = signed
        return signed


class Alliance:
    """All members of some terms, and what they say to each other."""

    def __init__(self, terms: Terms, key_sets: KeySets | None = None) -> None:
        self.terms = terms
        self.setup = Setup.of(terms)
        self.key_sets = key_sets or KeySets(1, 2)
        self.members = {name: new_member(terms, name) for name in self.setup.names}
        self.here = list(self.setup.names[: terms.privacy.cohort_size])
        self.sent = Transcript()
        self.exchange = KeyExchange(self.setup, self.key_sets)

    def leave(self, names: Collection[str]) -> None:
        self.here = [name for name in self.here if name not in names]

    def advertise(self) -> None:
        for name in self.here:
            signed = self.members[name].advertise(self.key_sets)
            self.sent.say("advertise", name, signed)
            self.exchange.take_advertisement(name, signed.body, signed.signature)
        self.sent.offer = self.exchange.offer()

    def share(self) -> None:
        for name in self.here:
            signed = self.members[name].share(self.key_sets, self.sent.offer)
            self.sent.say("share", name, signed)

    def take_shares(self) -> None:
        for name in self.here:
            signed = self.sent.said["share"][name]
            self.exchange.take_shares(name, signed.body, signed.signature)
        self.exchange.close()

    def deliver(self) -> None:
        for name in self.here:
            self.sent.deliveries[name] = self.exchange.delivery(name)
            signed = self.members[name].deliver(self.key_sets, self.sent.deliveries[name])
            self.sent.say("deliver", name, signed)

    def ready(self) -> Cohort:
        for name in self.here:
            signed = self.sent.said["deliver"][name]
            assert self.exchange.take_ready(name, signed.body, signed.signature) == ()
        return self.exchange.finish()

    def cohort(self, absent: Absent | None = None) -> Cohort:
        """The whole exchange; who is absent from one phase is absent from then on."""
        absent = absent or {}
        self.leave(absent.get("advertise", ()))
        self.advertise()
        self.leave(absent.get("share", ()))
        self.share()
        self.take_shares()
        self.leave(absent.get("deliver", ()))
        self.deliver()
        return self.ready()


class Sum:
    """One attempt of an alliance, phase by phase."""

    def __init__(self, alliance: Alliance, cohort: Cohort, key_set: int = 1) -> None:
        self.alliance = alliance
        self.attempt = Attempt(key_set, 3, 1, MODEL)
        self.unmasking = Unmasking(cohort, self.attempt)
        self.here = list(cohort.ready_names)
        self.sent = alliance.sent
        self.total = np.zeros_like(vector_of(alliance.terms, "nobody"))

    def leave(self, names: Collection[str]) -> None:
        self.here = [name for name in self.here if name not in names]

    def contribute(self) -> None:
        for name in self.here:
            vector = vector_of(self.alliance.terms, name)
            signature = self.alliance.members[name].mask(self.attempt, vector)
            signed = self.sent.say("contribute", name, Signed(vector.tobytes(), signature))
            hashed = hashlib.sha256(signed.body).digest()
            self.unmasking.take_contribution(name, hashed, signature)
            self.total += vector
        self.sent.lists = self.unmasking.close()

    def confirm(self) -> None:
        for name in self.here:
            signature = self.alliance.members[name].confirm(self.attempt, self.sent.lists)
            self.sent.say("confirm", name, Signed(self.sent.lists, signature))

    def take_confirmations(self) -> None:
        for name in self.here:
            self.unmasking.take_confirmation(name, self.sent.said["confirm"][name].signature)
        self.sent.signatures = self.unmasking.signatures()

    def reveal(self) -> None:
        for name in self.here:
            signed = self.alliance.members[name].unmask(self.attempt, self.sent.signatures)
            self.sent.say("unmask", name, signed)

    def take_unmask(self) -> None:
        for name in self.here:
            signed = self.sent.said["unmask"][name]
            self.unmasking.take_unmask(name, signed.body, signed.signature)

    def to_unmask(self, absent: Absent | None = None) -> None:
        """Up to the last phase, its messages not yet taken."""
        absent = absent or {}
        self.leave(absent.get("contribute", ()))
        self.contribute()
        self.leave(absent.get("confirm", ()))
        self.confirm()
        self.take_confirmations()
        self.leave(absent.get("unmask", ()))
        self.reveal()

    def run(self, absent: Absent | None = None) -> RingVector:
        """The whole attempt: the sum."""
        self.to_unmask(absent)
        self.take_unmask()
        self.unmasking.unmask(self.total)
        return self.total

    def is_exact(self) -> bool:
        """Whether what came out is the survivors' sum, bit by bit."""
        expected = sum_of(self.alliance.terms, self.unmasking.survivors)
        return bool((self.total == expected).all()) and bool(self.total.any())


# Statements as the specification words them, not as the code writes them.


def statement_fields(setup: Setup, phase: str, sender: str, body: bytes) -> dict[str, Any]:
    """The fields that are the same in every phase; the others empty."""
    return {
        "alliance": setup.terms.alliance,
        "attempt": 0,
        "body": hashlib.sha256(body).hexdigest(),
        "cohort": "",
        "key_set": 0,
        "key_sets": 1,
        "model": "",
        "phase": phase,
        "round": 0,
        "sender": sender,
        "terms": setup.terms_hash.hex(),
    }


def run_fields(key_sets: KeySets, cohort: bytes = b"") -> dict[str, Any]:
    """The fields of a statement ahead of time."""
    return {"key_set": key_sets.first, "key_sets": key_sets.count, "cohort": cohort.hex()}


def attempt_fields(attempt: Attempt, cohort: bytes) -> dict[str, Any]:
    """The fields of a statement in an attempt."""
    return {
        "attempt": attempt.attempt,
        "cohort": cohort.hex(),
        "key_set": attempt.key_set,
        "model": attempt.model.hex(),
        "round": attempt.round,
    }


def sign(signer: Identity | str, fields: Mapping[str, Any], *, context: str = "") -> bytes:
    """A signature over a statement; its phase is the context's too unless another is given."""
    signer = signer if isinstance(signer, Identity) else identity(signer)
    document = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return signer.sign(f"alliance/v1/secagg/{context or fields['phase']}", document)


def other_statements(fields: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same statement with one field changed, for every field."""
    for key, value in fields.items():
        if isinstance(value, int):
            changed: Any = value + 1
        elif key == "sender":
            changed = "member-3" if value != "member-3" else "member-4"
        elif key == "phase":
            changed = "deliver" if value != "deliver" else "share"
        elif value and all(digit in "0123456789abcdef" for digit in value):
            changed = f"{int(value[0], 16) ^ 1:x}{value[1:]}"
        else:
            changed = f"{value}00"
        yield key, {**fields, key: changed}


def inside(member: MaskingMember) -> Any:
    """All a member knows, in comparable form; private keys as their bytes."""
    return _plain({name: value for name, value in vars(member).items() if name != "_setup"})


def _plain(value: Any) -> Any:
    if isinstance(value, X25519PrivateKey):
        return value.private_bytes_raw()
    if isinstance(value, Entropy):
        return value.given
    if isinstance(value, Identity):
        return value.public
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def pieces(value: Any) -> Iterator[bytes]:
    """Every byte string in what `inside` gave."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from pieces(item)
    elif isinstance(value, list):
        for item in value:
            yield from pieces(item)
