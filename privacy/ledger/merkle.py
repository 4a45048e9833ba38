"""The Merkle tree of RFC 9162: hashes, roots, proofs, and what verifies them.

A tree is kept as the hashes of its complete subtrees: `node` (level, index) covers the leaves from
index * 2^level on. They never change once they are there, so roots and proofs of every size, past
ones too, are read off in O(log n).

Source: RFC 9162 (2021), sections 2.1.1 to 2.1.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from privacy.errors import EvidenceError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MemoryTree",
    "Nodes",
    "Placed",
    "Stream",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "new_nodes",
    "node_hash",
    "root",
    "roots_of_proof",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

LONGEST_PROOF: Final = 64
"""Hashes; the path of a tree of 2^53 leaves has 53."""

Placed = tuple[int, int, bytes]
"""A complete subtree: level, index, hash."""


class Nodes(Protocol):
    """Where complete subtrees are looked up."""

    def node(self, level: int, index: int) -> bytes:
        """The hash of the complete subtree over leaves index * 2^level and on."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(nodes: Nodes, size: int) -> bytes:
    """The root of the tree of the first ``size`` leaves."""
    return _range(nodes, 0, size) if size else EMPTY_ROOT


def new_nodes(nodes: Nodes, size: int, leaf: bytes) -> list[Placed]:
    """The complete subtrees that come about when one leaf follows ``size`` others.

    Args:
        nodes: holds those of the first ``size`` leaves.
        size: the tree's, before.
        leaf: the leaf's hash.

    Returns:
        The leaf itself first, then upwards.
    """
    level, index, top = 0, size, leaf
    placed = [(level, index, top)]
    while index & 1:
        top = node_hash(nodes.node(level, index - 1), top)
        level, index = level + 1, index >> 1
        placed.append((level, index, top))
    return placed


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """The path from leaf ``index`` to the root of the first ``size`` leaves (section 2.1.3.1)."""
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(_range(nodes, middle, stop))
            stop = middle
        else:
            path.append(_range(nodes, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """The proof that the first ``old`` leaves are the beginning of the first ``new`` (2.1.4.1).

    It is empty for ``old`` = 0 and for ``old`` = ``new``.
    """
    path: list[bytes] = []
    start, stop = 0, new
    while 0 < old < stop:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(_range(nodes, middle, stop))
            stop = middle
        else:
            path.append(_range(nodes, start, middle))
            start = middle
    if start:
        path.append(_range(nodes, start, stop))
    return path[::-1]


def verify_inclusion(
    *, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Checks that a leaf is in a tree (section 2.1.3.2).

    Args:
        leaf: its hash, as `leaf_hash` gives it.
        index: its place, from 0.
        size: the tree's.
        proof: as `inclusion_proof` gives it.
        root: the tree's.

    Raises:
        EvidenceError: if that does not follow.
    """
    if not 0 <= index < size:
        raise EvidenceError(f"entry {index} cannot be in a tree of {size}")
    _check_hashes([leaf, root, *proof])
    place, last, top = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise EvidenceError(f"entry {index}: the inclusion proof is too long")
        if place & 1 or place == last:
            top = node_hash(sibling, top)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            top = node_hash(top, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise EvidenceError(f"entry {index}: the inclusion proof is too short")
    if top != root:
        raise EvidenceError(f"entry {index} is not in the tree of {size} that was signed")


def verify_consistency(
    *, old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Checks that one tree is the beginning of another (section 2.1.4.2).

    Args:
        old_size: at least 1: everything begins with the empty tree, which proves nothing.
        new_size: at least as many.
        proof: as `consistency_proof` gives it.
        old_root: of the first ``old_size`` leaves.
        new_root: of all of them.

    Raises:
        EvidenceError: if that does not follow.
    """
    if not 0 < old_size <= new_size:
        raise EvidenceError(f"nothing shows that a tree of {old_size} begins one of {new_size}")
    older, newer = roots_of_proof(old_size, new_size, proof, old_root)
    if older != old_root or newer != new_root:
        raise EvidenceError(
            f"the tree of {old_size} is not the beginning of the tree of {new_size}"
        )


def roots_of_proof(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes
) -> tuple[bytes, bytes]:
    """The two roots that a consistency proof belongs to, for 0 < old_size <= new_size.

    If the second is the root of a tree, then the first is the root of that tree's beginning, even
    where the two sizes were signed with another beginning: that is how a fork shows.

    Args:
        old_size: of the beginning.
        new_size: of the tree.
        proof: hashes.
        old_root: taken as it is where ``old_size`` is a power of two or ``new_size``.

    Raises:
        EvidenceError: if the proof has not the length for these sizes, or no hashes.
    """
    if old_size == new_size:
        if proof:
            raise EvidenceError("a consistency proof between equal sizes is empty")
        return old_root, old_root
    _check_hashes([old_root, *proof])
    complete = old_size & (old_size - 1) == 0
    path = [old_root, *proof] if complete else list(proof)
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not path:
        raise EvidenceError("the consistency proof is empty")
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise EvidenceError("the consistency proof is too long")
        if place & 1 or place == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise EvidenceError("the consistency proof is too short")
    return older, newer


class Stream:
    """The root of leaves that pass by once: a compact range of O(log n) hashes."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    @classmethod
    def resume(cls, nodes: Nodes, size: int) -> Stream:
        """The stream as it is after the first ``size`` leaves of a tree."""
        stream = cls()
        stream.size = size
        stream._peaks = _peaks(nodes, 0, size)
        return stream

    def copy(self) -> Stream:
        """Another one in the same state."""
        stream = Stream()
        stream.size, stream._peaks = self.size, self._peaks.copy()
        return stream

    def append(self, leaf: bytes) -> list[Placed]:
        """Adds a leaf's hash; returns the complete subtrees it ends, as `new_nodes` does."""
        level, index, top = 0, self.size, leaf
        placed = [(level, index, top)]
        while index & 1:
            top = node_hash(self._peaks.pop(), top)
            level, index = level + 1, index >> 1
            placed.append((level, index, top))
        self._peaks.append(top)
        self.size += 1
        return placed

    def root(self) -> bytes:
        """The root over all leaves so far."""
        return _fold(self._peaks) if self._peaks else EMPTY_ROOT


class MemoryTree:
    """A tree in memory: its complete subtrees, level by level."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    def node(self, level: int, index: int) -> bytes:
        """See `Nodes.node`."""
        return self._levels[level][index]

    def append(self, leaf: bytes) -> int:
        """Adds a leaf's hash and returns its index."""
        size = self.size
        for level, _, placed in new_nodes(self, size, leaf):
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(placed)
        return size

    def root(self, size: int | None = None) -> bytes:
        """The root over the first ``size`` leaves; over all of them if not given."""
        return root(self, self.size if size is None else size)


def _split(size: int) -> int:
    """The largest power of two below ``size``, which is 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def _peaks(nodes: Nodes, start: int, stop: int) -> list[bytes]:
    """The complete subtrees that leaves start to stop consist of, largest first."""
    size = stop - start
    return [
        nodes.node(level, (start >> level) + (size >> level) - 1)
        for level in range(size.bit_length() - 1, -1, -1)
        if size >> level & 1
    ]


def _fold(peaks: Sequence[bytes]) -> bytes:
    top = peaks[-1]
    for peak in reversed(peaks[:-1]):
        top = node_hash(peak, top)
    return top


def _range(nodes: Nodes, start: int, stop: int) -> bytes:
    """The hash over leaves start to stop, where start is a multiple of their largest subtree."""
    return _fold(_peaks(nodes, start, stop))


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > LONGEST_PROOF + 2:
        raise EvidenceError(f"a proof of {len(hashes)} hashes is longer than any tree is high")
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise EvidenceError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
