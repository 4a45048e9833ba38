"""What every hash, key and signature of the protocol is bound to; nothing here keeps state."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import BadSignature
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.secagg.graph import Graph
from privacy.terms import Terms

__all__ = [
    "Attempt",
    "KeySets",
    "Phase",
    "Setup",
    "Signed",
    "digest",
    "model_hash",
    "pair_seed",
    "sealing_key",
    "self_seed",
    "share_hash",
    "share_hasher",
    "u32",
]

CONTEXT: Final = "alliance/v1/secagg/"

_SHARE: Final = {kind: f"{CONTEXT}share/{kind}".encode() + b"\x00" for kind in ("seed", "mask")}
_THREE: Final = struct.Struct(">3I")

Phase = Literal["advertise", "share", "deliver", "contribute", "confirm", "unmask"]


@dataclass(frozen=True, slots=True)
class KeySets:
    """A run of key sets that travel together; each serves one attempt.

    Args:
        first: number of the first, from 1; a member never makes a number twice.
        count: how many.
    """

    first: int
    count: int

    def __contains__(self, key_set: int) -> bool:
        return self.first <= key_set < self.first + self.count

    def __str__(self) -> str:
        return f"key sets {self.first} to {self.first + self.count - 1}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a key set is used for, once.

    Args:
        key_set: its number.
        round: of the study, from 1.
        attempt: of the round, from 1.
        model: `model_hash` of the public state that the round starts from.
    """

    key_set: int
    round: int
    attempt: int
    model: bytes

    def __str__(self) -> str:
        return f"round {self.round} attempt {self.attempt}"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a member says: bytes and its signature over their `Setup.statement`."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Setup:
    """What signed terms imply for the protocol, worked out once.

    Args:
        terms: the study's terms.
        names: the roster's names in order; a member's index is its place, from 1.
        indices: the inverse of ``names``.
        keys: identity keys in the roster's order.
        graph: who masks with whom.
        terms_hash: 32 bytes.
    """

    terms: Terms
    names: tuple[str, ...]
    indices: Mapping[str, int]
    keys: tuple[Ed25519PublicKey, ...]
    graph: Graph
    terms_hash: bytes

    @classmethod
    def of(cls, terms: Terms) -> Setup:
        """The setup of a study.

        Raises:
            TermsError: if its cohorts are too large for secure aggregation.
        """
        names = tuple(entry.name for entry in terms.roster)
        return cls(
            terms=terms,
            names=names,
            indices={name: index for index, name in enumerate(names, start=1)},
            keys=tuple(public_key(IdentityKey(entry.identity)) for entry in terms.roster),
            graph=Graph.of(terms.privacy),
            terms_hash=bytes.fromhex(terms.hash),
        )

    def name(self, index: int) -> str:
        """The member behind an index that lies in the roster."""
        return self.names[index - 1]

    def statement(
        self,
        phase: Phase,
        sender: int,
        body: bytes | memoryview,
        *,
        hashed: bool = False,
        key_sets: KeySets | None = None,
        attempt: Attempt | None = None,
        cohort: bytes = b"",
    ) -> bytes:
        """RFC 8785 JSON of all that a signature covers.

        Args:
            phase: of the protocol.
            sender: the signer's index.
            body: of the message; its SHA-256 stands in the statement.
            hashed: whether ``body`` is that SHA-256 already.
            key_sets: in the phases ahead of time.
            attempt: from mask derivation on.
            cohort: the keys' hash in phase share, the cohort's hash afterwards; empty before.
        """
        first = attempt.key_set if attempt else key_sets.first if key_sets else 0
        document: dict[str, str | int] = {
            "alliance": self.terms.alliance,
            "attempt": attempt.attempt if attempt else 0,
            "body": (bytes(body) if hashed else hashlib.sha256(body).digest()).hex(),
            "cohort": cohort.hex(),
            "key_set": first,
            "key_sets": key_sets.count if key_sets else 1,
            "model": attempt.model.hex() if attempt else "",
            "phase": phase,
            "round": attempt.round if attempt else 0,
            "sender": self.name(sender),
            "terms": self.terms.hash,
        }
        # Letters, digits and hyphens, and integers below 2^53: this is their RFC 8785 form.
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    def sign(self, identity: Identity, phase: Phase, statement: bytes) -> bytes:
        """A member's signature over a statement."""
        return identity.sign(CONTEXT + phase, statement)

    def verify(self, sender: int, phase: Phase, statement: bytes, signature: bytes) -> None:
        """Checks a signature against the roster's key.

        Raises:
            BadSignature: if it is not the sender's.
        """
        if len(signature) != 64:
            raise BadSignature(f"a signature has 64 bytes, not {len(signature)}")
        verify(self.keys[sender - 1], signature, CONTEXT + phase, statement)


def u32(*numbers: int) -> bytes:
    """Unsigned 32-bit integers, big-endian."""
    return b"".join([number.to_bytes(4) for number in numbers])


def digest(purpose: str, *parts: bytes | memoryview) -> bytes:
    """SHA-256 of the purpose's context string, a zero byte and the parts."""
    state = hashlib.sha256(f"{CONTEXT}{purpose}".encode() + b"\x00")
    for part in parts:
        state.update(part)
    return state.digest()


def model_hash(parameters: npt.NDArray[np.float32]) -> bytes:
    """The hash of a public state: float32, little-endian, in order."""
    little = np.ascontiguousarray(parameters, dtype="<f4")
    return digest("model", little.data)


def share_hash(
    keys: bytes,
    *,
    dealer: int,
    holder: int,
    key_set: int,
    kind: Literal["seed", "mask"],
    salt: bytes,
    share: bytes,
) -> bytes:
    """What a dealer signs of a share, so that a false one names who revealed it.

    Args:
        keys: the keys' hash.
        dealer: index of the member whose secret is shared.
        holder: index of the member that holds the share.
        key_set: its number.
        kind: of the secret.
        salt: 16 secret bytes.
        share: 33 bytes.
    """
    return share_hasher(keys, holder=holder, key_set=key_set, kind=kind)(dealer, salt, share)


def share_hasher(
    keys: bytes, *, holder: int, key_set: int, kind: Literal["seed", "mask"]
) -> Callable[[int, bytes, bytes], bytes]:
    """`share_hash` of one holder's shares, for many of them.

    A large cohort's coordinator takes some hundred thousand of these hashes in a round.

    Args:
        keys: the keys' hash.
        holder: index of the member that holds the shares.
        key_set: its number.
        kind: of the secrets.

    Returns:
        A function of the dealer's index, the salt (16 bytes) and the share (33 bytes).
    """
    prefix, pack, sha256 = _SHARE[kind] + keys, _THREE.pack, hashlib.sha256

    def hashed(dealer: int, salt: bytes, share: bytes) -> bytes:
        return sha256(b"".join((prefix, pack(dealer, holder, key_set), salt, share))).digest()

    return hashed


def sealing_key(secret: bytes, keys: bytes, *, dealer: int, holder: int) -> bytes:
    """The AES-256-GCM key under which a dealer's shares travel to one holder.

    Args:
        secret: the X25519 secret of both sealing keys.
        keys: the keys' hash.
        dealer: index of the member that deals.
        holder: index of the member that receives.
    """
    info = f"{CONTEXT}seal".encode() + b"\x00" + u32(dealer, holder)
    return _derive(secret, keys, info)


def pair_seed(
    setup: Setup, secret: bytes, cohort: bytes, attempt: Attempt, *, one: int, other: int
) -> bytes:
    """The seed of the mask between two members, from their X25519 secret; order is of no matter."""
    pair = u32(min(one, other), max(one, other))
    return _derive(secret, cohort, _purpose(setup, "pair", attempt) + pair)


def self_seed(setup: Setup, secret: bytes, cohort: bytes, attempt: Attempt, *, one: int) -> bytes:
    """The seed of a member's own mask, from its shared seed."""
    return _derive(secret, cohort, _purpose(setup, "self", attempt) + u32(one))


def _purpose(setup: Setup, purpose: str, attempt: Attempt) -> bytes:
    return (
        f"{CONTEXT}{purpose}".encode()
        + b"\x00"
        + setup.terms_hash
        + u32(attempt.key_set, attempt.round, attempt.attempt)
        + attempt.model
    )


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)
