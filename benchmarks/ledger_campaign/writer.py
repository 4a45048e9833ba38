"""The writing process, and what its file must hold whatever happened to it.

It forks from a process that has imported the store already, so that ten thousand of them are cheap.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.secagg_campaign.protocol import Finding
from privacy.identity import Identity
from privacy.ledger.checkpoint import open_checkpoint
from privacy.ledger.entry import Opened, Started, decode_entry
from privacy.ledger.merkle import Stream, leaf_hash
from privacy.ledger.store import LedgerStore

__all__ = ["KEY", "ORIGIN", "acknowledge", "append", "check", "child", "entry", "open_store"]

ORIGIN: Final = "campaign/member/writer"
KEY: Final = Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"writer").digest()))
ACKNOWLEDGED: Final = struct.Struct("<Q")


def open_store(path: Path) -> LedgerStore:
    """The writer's log."""
    return LedgerStore(path, origin=ORIGIN, key=KEY, software="campaign", now_ms=lambda: 1)


def entry(number: int) -> Started:
    """The entry with a number; the first after `opened` has number 1, which is its index."""
    return Started(at_ms=number, software="campaign", nonce=f"{number:032x}")


def append(store: LedgerStore, count: int) -> int:
    """Adds so many entries, and a row each in a table beside them, at once; the log's size."""
    with store.transaction() as transaction:
        transaction.execute("CREATE TABLE IF NOT EXISTS spent (number INTEGER PRIMARY KEY) STRICT")
        for _ in range(count):
            transaction.execute("INSERT INTO spent VALUES (?)", (transaction.size,))
            transaction.append(entry(transaction.size))
        return transaction.size


def acknowledge(descriptor: int, size: int) -> None:
    """Tells the parent that the log has this size, durably."""
    os.write(descriptor, ACKNOWLEDGED.pack(size))


def child(work: Callable[[int], None]) -> tuple[int, int]:
    """Forks a process that works and acknowledges on a pipe; its id and the pipe's end to read."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reading)
            work(writing)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    return process, reading


def acknowledged(descriptor: int) -> list[int]:
    """All sizes that were acknowledged, once the writer is gone."""
    data = b""
    while part := os.read(descriptor, 1 << 16):
        data += part
    os.close(descriptor)
    return [size for (size,) in ACKNOWLEDGED.iter_unpack(data)]


def check(path: Path, least: int) -> int:
    """Opens a file again and reads all of it.

    Args:
        path: of the file; there may be none if nothing was acknowledged.
        least: the size acknowledged last; 0 if none was.

    Returns:
        Its size.

    Raises:
        Finding: if an acknowledged entry is lost, or what is there is not whole.
        LedgerError: if the file cannot be opened.
    """
    if not path.exists():
        if least:
            raise Finding(f"{least} entries were acknowledged and the file is gone")
        return 0
    with closing(open_store(path)) as store:
        stream = Stream()
        for index, data in enumerate(store.entries()):
            stream.append(leaf_hash(data))
            read = decode_entry(data, where=f"entry {index}")
            if read != entry(index) and not (index == 0 and isinstance(read, Opened)):
                raise Finding(f"entry {index} is another one")
        head = open_checkpoint(store.note(), origin=ORIGIN, key=KEY.public)
        if (head.size, head.root) != (stream.size, stream.root()):
            raise Finding(f"the head of {head.size} is not that of the {stream.size} entries")
        if head.size < least:
            raise Finding(f"{least} entries were acknowledged, {head.size} are there")
        if head.size > 1:
            with store.transaction() as transaction:
                rows = transaction.execute("SELECT number FROM spent ORDER BY number").fetchall()
            if rows != [(number,) for number in range(1, head.size)]:
                raise Finding(f"{len(rows)} rows beside {head.size - 1} entries")
        return head.size
