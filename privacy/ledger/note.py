"""Signed notes as C2SP defines them: a text, an empty line, and a line for each signature.

Source: C2SP signed-note v1.0.0; key types 01 (Ed25519) and 04 (Ed25519 cosignature).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature

from privacy.errors import EvidenceError
from privacy.identity import Identity, IdentityKey, public_key

__all__ = [
    "COSIGNATURE",
    "ED25519",
    "LONGEST_TEXT",
    "Note",
    "NoteSignature",
    "decode_base64",
    "key_id",
    "open_note",
    "sign_text",
]

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04

LONGEST_TEXT: Final = 16 << 10
"""Bytes of a note's text; a manifest may be longer, and says so."""

MOST_SIGNATURES: Final = 2000
LONGEST_LINE: Final = 8 << 10
"""Bytes of a signature line; the longest known signatures have 3.3 KB."""

MARK: Final = "— "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line.

    Args:
        name: of the key.
        id: four bytes, see `key_id`.
        signature: what the key's type makes of them.
    """

    name: str
    id: bytes
    signature: bytes

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """The signature in a line (without its line feed).

        Raises:
            EvidenceError: if it is not exactly one.
        """
        if not line.startswith(MARK) or len(line.encode(errors="replace")) > LONGEST_LINE:
            raise EvidenceError(f"not a signature line: {line[:60]!r}")
        name, space, encoded = line.removeprefix(MARK).partition(" ")
        if not space or not _is_name(name):
            raise EvidenceError(f"not a signature line: {line[:60]!r}")
        decoded = decode_base64(encoded, where=f"signature of {name:.60}")
        if len(decoded) < 5:
            raise EvidenceError(f"signature of {name:.60}: {len(decoded)} bytes are too few")
        return cls(name, decoded[:4], decoded[4:])

    def line(self) -> str:
        """The line, without its line feed."""
        return f"{MARK}{self.name} {base64.b64encode(self.id + self.signature).decode()}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with signatures that nobody has checked yet.

    Args:
        text: ends in a line feed.
        signatures: one or more, no line twice.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, data: bytes, *, longest_text: int = LONGEST_TEXT) -> Note:
        """The note that exactly these bytes are.

        Args:
            data: the whole note.
            longest_text: bytes that the text may have.

        Raises:
            EvidenceError: if they are none, by the numbers below.
        """
        # 1. UTF-8 without control characters but line feeds (so no CRLF), ending in one, of
        #    bounded size.
        # 2. The last empty line separates a text that ends in a line feed from the signatures.
        # 3. At least one and at most 2,000 signature lines; names without spaces and plus signs,
        #    canonical base64.
        # 4. No line twice.
        if len(data) > longest_text + 1 + MOST_SIGNATURES * LONGEST_LINE:  # 1
            raise EvidenceError(f"a note of {len(data)} bytes is too long")
        try:
            whole = data.decode()
        except UnicodeDecodeError as error:
            raise EvidenceError(f"a note is UTF-8 text ({error.reason})") from error
        if any(character < " " and character != "\n" for character in whole):
            raise EvidenceError("a note holds no control characters but line feeds (no CRLF)")
        if not whole.endswith("\n"):
            raise EvidenceError("a note ends in a line feed")
        text, empty_line, signatures = whole.rpartition("\n\n")  # 2
        if not empty_line or not signatures:
            raise EvidenceError("a note has an empty line and signatures below it")
        text += "\n"
        if len(text.encode()) > longest_text:
            raise EvidenceError(f"a note's text has at most {longest_text} bytes")
        lines = signatures.removesuffix("\n").split("\n")
        if len(lines) > MOST_SIGNATURES:  # 3
            raise EvidenceError(f"{len(lines)} signatures; at most {MOST_SIGNATURES} are accepted")
        if len(set(lines)) < len(lines):  # 4
            raise EvidenceError("a signature line stands in the note twice")
        return cls(text, tuple(NoteSignature.parse(line) for line in lines))

    def encode(self) -> bytes:
        """The note's bytes."""
        lines = "".join(f"{signature.line()}\n" for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()

    def by(self, name: str, identifier: bytes) -> tuple[bytes, ...]:
        """The signatures by the key of that name and id."""
        return tuple(s.signature for s in self.signatures if (s.name, s.id) == (name, identifier))


def key_id(name: str, algorithm: int, key: IdentityKey) -> bytes:
    """The four bytes by which notes name a key.

    Args:
        name: of the key.
        algorithm: `ED25519` or `COSIGNATURE`.
        key: an Ed25519 public key.
    """
    preimage = name.encode() + b"\n" + bytes([algorithm]) + bytes.fromhex(key)
    return hashlib.sha256(preimage).digest()[:4]


def sign_text(text: str, *, name: str, key: Identity) -> bytes:
    """A note over ``text`` (which ends in a line feed), signed by one Ed25519 key."""
    signature = key.sign_note(text.encode())
    return Note(text, (NoteSignature(name, key_id(name, ED25519, key.public), signature),)).encode()


def open_note(
    data: bytes, *, name: str, key: IdentityKey, longest_text: int = LONGEST_TEXT
) -> Note:
    """The note behind ``data``, which ``key`` signed under ``name``; other signatures are ignored.

    Raises:
        EvidenceError: if it is no note, or that key did not sign it.
    """
    note = Note.parse(data, longest_text=longest_text)
    signatures = note.by(name, key_id(name, ED25519, key))
    if not signatures:
        raise EvidenceError(f"the note is not signed by {name} with key {key[:16]}")
    try:
        verifier = public_key(key)
        for signature in signatures:
            verifier.verify(signature, note.text.encode())
    except (InvalidSignature, ValueError) as error:
        raise EvidenceError(f"the signature of {name} is not valid") from error
    return note


def decode_base64(encoded: str, *, where: str) -> bytes:
    """The bytes behind canonical base64 (RFC 4648, section 4).

    Raises:
        EvidenceError: naming ``where``.
    """
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise EvidenceError(f"{where}: is not base64") from error
    if base64.b64encode(decoded).decode() != encoded:
        raise EvidenceError(f"{where}: is not canonical base64")
    return decoded


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)
