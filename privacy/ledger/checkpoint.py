"""Signed heads of logs, and witnesses' cosignatures on them.

Source: C2SP tlog-checkpoint v1.0.0 and tlog-cosignature (type 04, ``cosignature/v1``).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature

from privacy.errors import EvidenceError
from privacy.identity import SIGNATURE_BYTES, Identity, IdentityKey, public_key
from privacy.ledger.merkle import EMPTY_ROOT, HASH_BYTES
from privacy.ledger.note import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteSignature,
    decode_base64,
    key_id,
    open_note,
    sign_text,
)
from privacy.terms import LARGEST_INTEGER

__all__ = [
    "Checkpoint",
    "add_cosignatures",
    "cosign",
    "cosigners",
    "open_checkpoint",
    "own_note",
    "sign_checkpoint",
]

ORIGIN: Final = re.compile(r"[a-z0-9][a-z0-9/-]{0,190}")
SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
TIME_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log.

    Args:
        origin: the log's.
        size: how many entries.
        root: over them.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Three lines, each ended by a line feed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint that a note's text is.

        Raises:
            EvidenceError: if it is none: other lines than three, leading zeros, a root that is not
                32 bytes of canonical base64 or, at size 0, not that of the empty tree.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise EvidenceError("a checkpoint has three lines: origin, size, root")
        origin, size, encoded = lines[:3]
        if not ORIGIN.fullmatch(origin):
            raise EvidenceError(f"{origin[:60]!r} is not the origin of a log")
        if not SIZE.fullmatch(size) or int(size) > LARGEST_INTEGER:
            raise EvidenceError(f"{origin}: {size[:30]!r} is not a size in decimal")
        root = decode_base64(encoded, where=f"{origin}: root")
        if len(root) != HASH_BYTES:
            raise EvidenceError(f"{origin}: a root has {HASH_BYTES} bytes, not {len(root)}")
        if size == "0" and root != EMPTY_ROOT:
            raise EvidenceError(f"{origin}: the empty tree has another root")
        return cls(origin, int(size), root)


def sign_checkpoint(checkpoint: Checkpoint, key: Identity) -> bytes:
    """The log's own note over its head, under its origin as the key's name."""
    return sign_text(checkpoint.text(), name=checkpoint.origin, key=key)


def open_checkpoint(note: bytes, *, origin: str, key: IdentityKey) -> Checkpoint:
    """The checkpoint in a note that the log ``origin`` signed with ``key``.

    Raises:
        EvidenceError: if it is not such a note.
    """
    opened = open_note(note, name=origin, key=key)
    checkpoint = Checkpoint.parse(opened.text)
    if checkpoint.origin != origin:
        raise EvidenceError(f"{origin} signed a checkpoint of {checkpoint.origin}")
    return checkpoint


def own_note(note: bytes, *, origin: str, key: IdentityKey) -> bytes:
    """The note with the log's own signature only; what is kept as evidence.

    Raises:
        EvidenceError: if it is not signed by that log's key.
    """
    opened = open_note(note, name=origin, key=key)
    identifier = key_id(origin, ED25519, key)
    (signature, *_) = opened.by(origin, identifier)
    return Note(opened.text, (NoteSignature(origin, identifier, signature),)).encode()


def cosign(note: bytes, *, witness: str, key: Identity, time_s: int) -> str:
    """A witness's signature line for a note. Whether it may sign is decided by `Witness`.

    Args:
        note: a checkpoint.
        witness: the witness's origin.
        key: its ledger key.
        time_s: seconds since 1970.
    """
    text = Note.parse(note).text
    signature = key.sign_note(_cosigned(text, time_s))
    identifier = key_id(witness, COSIGNATURE, key.public)
    stamped = time_s.to_bytes(TIME_BYTES, "big") + signature
    return NoteSignature(witness, identifier, stamped).line()


def add_cosignatures(note: bytes, lines: Iterable[str]) -> bytes:
    """The note with further signature lines; those it has already are left out.

    Raises:
        EvidenceError: if a line is none, or there are too many.
    """
    parsed = Note.parse(note)
    signatures = dict.fromkeys(parsed.signatures)
    signatures.update(dict.fromkeys(NoteSignature.parse(line) for line in lines))
    encoded = Note(parsed.text, tuple(signatures)).encode()
    Note.parse(encoded)  # what others would refuse is not passed on
    return encoded


def cosigners(note: bytes, witnesses: Mapping[str, IdentityKey]) -> tuple[str, ...]:
    """Whose valid cosignatures stand on a note.

    Lines of unknown keys, and lines that do not verify, count for nothing.

    Args:
        note: a checkpoint with cosignatures.
        witnesses: keys by origin.

    Raises:
        EvidenceError: if it is not a note.
    """
    parsed = Note.parse(note)
    return tuple(
        origin
        for origin, key in witnesses.items()
        if any(
            _is_cosignature(parsed.text, signature, key)
            for signature in parsed.by(origin, key_id(origin, COSIGNATURE, key))
        )
    )


def _is_cosignature(text: str, signature: bytes, key: IdentityKey) -> bool:
    time_s = int.from_bytes(signature[:TIME_BYTES], "big")
    if len(signature) != TIME_BYTES + SIGNATURE_BYTES or not 0 < time_s < 2**63:
        return False
    try:
        public_key(key).verify(signature[TIME_BYTES:], _cosigned(text, time_s))
    except (InvalidSignature, ValueError):
        return False
    return True


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()
