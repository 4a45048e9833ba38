"""The bodies of the protocol's messages: fixed-width binary, one encoding each, read strictly.

Integers are unsigned, 32 bits, big-endian. Lists begin with their length and are strictly
increasing by index. A body with a byte too many or too few is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from privacy.errors import MalformedBody
from privacy.identity import SIGNATURE_BYTES
from privacy.secagg.binding import KeySets, digest, u32
from privacy.secagg.shamir import SHARE_BYTES

__all__ = [
    "KEY_BYTES",
    "SALT_BYTES",
    "Advertisement",
    "Deal",
    "Delivery",
    "Lists",
    "Offer",
    "Opened",
    "Revealed",
    "Shares",
    "Signatures",
    "read_indices",
    "write_indices",
]

KEY_BYTES: Final = 32
HASH_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_INDEX_BYTES: Final = 4


class _Reader:
    """Takes fixed widths off a body."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise MalformedBody("a message body is too short")
        self._at += size
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(_INDEX_BYTES))

    def records(self, *sizes: int) -> tuple[tuple[Any, ...], ...]:
        """How many, then each: an index, and fields of so many bytes."""
        row = struct.Struct(">I" + "".join(f"{size}s" for size in sizes))
        records = tuple(row.iter_unpack(self.take(self.number() * row.size)))
        _check_increasing([record[0] for record in records])
        return records

    def numbers(self) -> tuple[int, ...]:
        """A strictly increasing list of indices from 1."""
        return tuple(index for (index,) in self.records())

    def end(self) -> None:
        if self._at != len(self._data):
            raise MalformedBody("a message body is too long")


def _check_increasing(indices: Sequence[int]) -> None:
    if any(a >= b for a, b in zip((0, *indices), indices, strict=False)):
        raise MalformedBody("a list of members repeats one or is out of order")


def write_indices(indices: Sequence[int]) -> bytes:
    """How many, then each."""
    return u32(len(indices), *indices)


def read_indices(data: bytes) -> tuple[int, ...]:
    """The inverse of `write_indices`.

    Raises:
        MalformedBody: as every reader here.
    """
    reader = _Reader(data)
    indices = reader.numbers()
    reader.end()
    return indices


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Phase advertise: X25519 public keys, one to seal shares and one per key set for masks."""

    sealing: bytes
    masks: tuple[bytes, ...]

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All public keys in it."""
        return (self.sealing, *self.masks)

    def encode(self) -> bytes:
        """The body."""
        return b"".join(self.keys)

    @classmethod
    def decode(cls, data: bytes, key_sets: KeySets) -> Advertisement:
        """Raises `MalformedBody` unless it is one for these key sets, all keys distinct."""
        reader = _Reader(data)
        sealing = reader.take(KEY_BYTES)
        masks = tuple(reader.take(KEY_BYTES) for _ in range(key_sets.count))
        reader.end()
        advertisement = cls(sealing, masks)
        if len(set(advertisement.keys)) != len(advertisement.keys):
            raise MalformedBody("an advertisement repeats a key")
        if any(key[-1] & 0x80 for key in advertisement.keys):
            raise MalformedBody("a key is not in its one form: the top bit is set")
        return advertisement


@dataclass(frozen=True, slots=True)
class Offer:
    """To everybody who advertised: all advertisements with their signatures, by index."""

    entries: tuple[tuple[int, bytes, bytes], ...]

    def encode(self) -> bytes:
        """The body."""
        parts = [u32(index) + body + signature for index, body, signature in self.entries]
        return u32(len(parts)) + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes, key_sets: KeySets) -> Offer:
        """Raises `MalformedBody`."""
        reader = _Reader(data)
        entries = reader.records(KEY_BYTES * (key_sets.count + 1), SIGNATURE_BYTES)
        reader.end()
        return cls(entries)

    def hash(self, terms_hash: bytes, key_sets: KeySets) -> bytes:
        """The keys' hash: what shares are bound to. Signatures are not in it."""
        parts = [u32(index) + body for index, body, _ in self.entries]
        return digest("keys", terms_hash, u32(key_sets.first, key_sets.count), *parts)


@dataclass(frozen=True, slots=True)
class Opened:
    """One holder's two shares of one dealer's secrets in one key set, with their salts."""

    seed_share: bytes = field(repr=False)
    seed_salt: bytes = field(repr=False)
    mask_share: bytes = field(repr=False)
    mask_salt: bytes = field(repr=False)

    def encode(self) -> bytes:
        """98 bytes, sealed for the holder."""
        return self.seed_share + self.seed_salt + self.mask_share + self.mask_salt

    @classmethod
    def decode_all(cls, data: bytes, key_sets: KeySets) -> tuple[Opened, ...]:
        """One per key set. Raises `MalformedBody`."""
        reader = _Reader(data)
        opened = tuple(
            cls(
                reader.take(SHARE_BYTES),
                reader.take(SALT_BYTES),
                reader.take(SHARE_BYTES),
                reader.take(SALT_BYTES),
            )
            for _ in range(key_sets.count)
        )
        reader.end()
        return opened


SEALED_BYTES: Final = 2 * (SHARE_BYTES + SALT_BYTES)


@dataclass(frozen=True, slots=True)
class Deal:
    """What one dealer has for one holder: hashes for everybody, shares for the holder alone.

    Args:
        member: the holder's index in `Shares`, the dealer's in `Delivery`.
        hashes: per key set the hashes of the seed's and the mask key's share, 64 bytes.
        nonce: of AES-GCM.
        sealed: ciphertext and tag over one `Opened` per key set.
    """

    member: int
    hashes: tuple[bytes, ...]
    nonce: bytes
    sealed: bytes

    def encode(self) -> bytes:
        """Fixed width for given key sets."""
        return u32(self.member) + b"".join(self.hashes) + self.nonce + self.sealed


def _deals(reader: _Reader, key_sets: KeySets) -> tuple[Deal, ...]:
    pair, count = 2 * HASH_BYTES, key_sets.count
    return tuple(
        Deal(member, tuple(hashes[pair * k : pair * (k + 1)] for k in range(count)), nonce, sealed)
        for member, hashes, nonce, sealed in reader.records(
            pair * count, NONCE_BYTES, SEALED_BYTES * count + TAG_BYTES
        )
    )


@dataclass(frozen=True, slots=True)
class Shares:
    """Phase share: a dealer's commitments to its seeds, hashes of its own shares, and its deals."""

    commitments: tuple[bytes, ...]
    own_hashes: tuple[bytes, ...]
    deals: tuple[Deal, ...]

    def encode(self) -> bytes:
        """The body."""
        parts = [*self.commitments, *self.own_hashes, u32(len(self.deals))]
        return b"".join(parts) + b"".join(deal.encode() for deal in self.deals)

    @classmethod
    def decode(cls, data: bytes, key_sets: KeySets) -> Shares:
        """Raises `MalformedBody`."""
        reader = _Reader(data)
        commitments = tuple(reader.take(HASH_BYTES) for _ in range(key_sets.count))
        own_hashes = tuple(reader.take(2 * HASH_BYTES) for _ in range(key_sets.count))
        deals = _deals(reader, key_sets)
        reader.end()
        return cls(commitments, own_hashes, deals)


@dataclass(frozen=True, slots=True)
class Delivery:
    """To each member of the cohort: who is in it, and what others dealt to this member."""

    cohort: tuple[int, ...]
    deals: tuple[Deal, ...]

    def encode(self) -> bytes:
        """The body."""
        parts = [write_indices(self.cohort), u32(len(self.deals))]
        return b"".join(parts) + b"".join(deal.encode() for deal in self.deals)

    @classmethod
    def decode(cls, data: bytes, key_sets: KeySets) -> Delivery:
        """Raises `MalformedBody`."""
        reader = _Reader(data)
        cohort = reader.numbers()
        deals = _deals(reader, key_sets)
        reader.end()
        return cls(cohort, deals)

    @staticmethod
    def cohort_hash(keys: bytes, cohort: Sequence[int]) -> bytes:
        """What masks and all later signatures are bound to."""
        return digest("cohort", keys, write_indices(cohort))


@dataclass(frozen=True, slots=True)
class Lists:
    """Phase confirm: who is in the sum and who is not. Members sign these very bytes."""

    survivors: tuple[int, ...]
    dropped: tuple[int, ...]

    def encode(self) -> bytes:
        """The body."""
        return write_indices(self.survivors) + write_indices(self.dropped)

    @classmethod
    def decode(cls, data: bytes) -> Lists:
        """Raises `MalformedBody`."""
        reader = _Reader(data)
        lists = cls(reader.numbers(), reader.numbers())
        reader.end()
        return lists


@dataclass(frozen=True, slots=True)
class Signatures:
    """Phase unmask: who signed the lists, with the signatures."""

    entries: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        """The body."""
        parts = [u32(index) + signature for index, signature in self.entries]
        return u32(len(parts)) + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Signatures:
        """Raises `MalformedBody`."""
        reader = _Reader(data)
        entries = reader.records(SIGNATURE_BYTES)
        reader.end()
        return cls(entries)


@dataclass(frozen=True, slots=True)
class Revealed:
    """A member's last word: by dealer, a share and its salt, of the one kind the lists call for."""

    entries: tuple[tuple[int, bytes, bytes], ...]

    def encode(self) -> bytes:
        """The body."""
        parts = [u32(dealer) + share + salt for dealer, share, salt in self.entries]
        return u32(len(parts)) + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Revealed:
        """Raises `MalformedBody`."""
        reader = _Reader(data)
        entries = reader.records(SHARE_BYTES, SALT_BYTES)
        reader.end()
        return cls(entries)
