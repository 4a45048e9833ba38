"""One file per kept attempt: masked vectors as they came, then what opens their sum.

A file is the line `HEAD`, the vectors one after the other, the opening (section 6 of the README), a
canonical JSON object with ``opening`` (its size in bytes) and ``vectors`` (names and sizes, in
order), and the length of that object as 8 bytes, big-endian. One that ends otherwise is unfinished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from privacy.errors import EvidenceError
from privacy.ledger.entry import canonical, parse_canonical

__all__ = ["HEAD", "SUFFIX", "kept_files", "kept_tail"]

HEAD: Final = b"alliance/v1/kept-round\n"
SUFFIX: Final = ".kept"
_LENGTH_BYTES: Final = 8
_LONGEST_INDEX: Final = 1 << 20
_PART_BYTES: Final = 1 << 20


def kept_tail(opening: bytes, vectors: Sequence[tuple[str, int]]) -> bytes:
    """What ends a file.

    Args:
        opening: as a bundle has it.
        vectors: by member, how many bytes of it are in the file, in order.
    """
    index = {"opening": len(opening), "vectors": [list(one) for one in vectors]}
    data = canonical(index)
    return opening + data + len(data).to_bytes(_LENGTH_BYTES)


def kept_files(path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files that a bundle has of one attempt, by name, each in parts; none if it is unfinished.

    Args:
        path: of the attempt's file, which may be removed meanwhile. Take the parts of each file
            before the next one.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        at = len(HEAD)
        for name, size in _sizes(file).items():
            file.seek(at)
            yield name, _parts(file, size)
            at += size


def _sizes(file: BinaryIO) -> dict[str, int]:
    """By name, in order, how many bytes each file has; empty if it is unfinished."""
    head, size = file.read(len(HEAD)), file.seek(0, os.SEEK_END)
    if head != HEAD or size < len(HEAD) + _LENGTH_BYTES:
        return {}
    file.seek(-_LENGTH_BYTES, os.SEEK_END)
    length = int.from_bytes(file.read(_LENGTH_BYTES))
    if length > min(_LONGEST_INDEX, size - len(HEAD) - _LENGTH_BYTES):
        return {}
    file.seek(-_LENGTH_BYTES - length, os.SEEK_END)
    try:
        index = parse_canonical(
            file.read(length), where="the index", longest=_LONGEST_INDEX, widest=None
        )
        sizes = {f"{name}.bin": int(count) for name, count in index["vectors"]}
        sizes["opening.json"] = int(index["opening"])
    except (EvidenceError, LookupError, TypeError, ValueError):
        return {}  # its last bytes are a vector's
    whole = len(HEAD) + sum(sizes.values()) + length + _LENGTH_BYTES
    return sizes if whole == size and min(sizes.values()) >= 0 else {}


def _parts(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (part := file.read(min(size, _PART_BYTES))):
        size -= len(part)
        yield part
