"""A log's entries and complete subtrees as tables of its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from privacy.ledger.database import Database
from privacy.ledger.merkle import Placed, leaf_hash, node_hash

__all__ = ["PAGE", "TABLES", "Tables"]

TABLES: Final = (
    "CREATE TABLE leaf (idx INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
    """CREATE TABLE node (
        level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID""",
)

PAGE: Final = 1000
"""Rows read at a time, so that nobody holds a file for long."""


class Tables:
    """The tables ``leaf`` and ``node`` of an open file.

    Args:
        database: the file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, index: int, data: bytes, placed: Sequence[Placed]) -> None:
        """Adds an entry and the subtrees it ends, inside a transaction."""
        self._database.execute("INSERT INTO leaf VALUES (?, ?)", (index, data))
        self._database.execute_many("INSERT INTO node VALUES (?, ?, ?)", placed)

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of entries ``start`` to ``stop``."""
        yield from self._rows("SELECT data FROM leaf WHERE idx >= ? AND idx < ?", start, stop)

    def leaf_hashes(self, start: int, stop: int) -> Iterator[bytes]:
        """Their hashes."""
        sql = "SELECT hash FROM node WHERE level = 0 AND idx >= ? AND idx < ?"
        yield from self._rows(sql, start, stop)

    def node(self, level: int, index: int) -> bytes:
        """See `merkle.Nodes`."""
        sql = "SELECT hash FROM node WHERE level = ? AND idx = ?"
        rows = self._database.query(sql, (level, index))
        if not rows:
            raise self._database.damaged(f"it has no subtree {level}/{index}")
        found: bytes = rows[0][0]
        return found

    def check(self, size: int) -> None:
        """Checks, inside a transaction, that these are exactly the subtrees of ``size`` entries.

        Raises:
            LedgerError: naming the first that is not what is below it.
        """
        leaves = self._database.execute("SELECT idx, data FROM leaf ORDER BY idx")
        self._check_level(0, size, ((index, leaf_hash(data)) for index, data in leaves))
        level, below = 0, size
        while below > 1:
            pairs = self._paired(level)
            level, below = level + 1, below // 2
            self._check_level(level, below, pairs)
        (rows,) = self._database.execute("SELECT count(*) FROM node WHERE level > ?", (level,))
        if rows != (0,):
            raise self._database.damaged("it has subtrees of entries that are not there")

    def _check_level(self, level: int, size: int, wanted: Iterator[tuple[int, bytes]]) -> None:
        rows = self._level(level)
        count = 0
        for expected in wanted:
            if expected[0] != count or next(rows, None) != expected:
                raise self._database.damaged(f"entry or subtree {level}/{count} changed or is lost")
            count += 1
        if count != size or next(rows, None) is not None:
            raise self._database.damaged(f"it has {count} of {size} subtrees of level {level}")

    def _paired(self, level: int) -> Iterator[tuple[int, bytes]]:
        """The hashes of neighbours at a level, from the left."""
        rows = self._level(level)
        for (_, left), (index, right) in zip(rows, rows, strict=False):
            yield index // 2, node_hash(left, right)

    def _level(self, level: int) -> Iterator[tuple[int, bytes]]:
        sql = "SELECT idx, hash FROM node WHERE level = ? ORDER BY idx"
        return iter(self._database.execute(sql, (level,)))

    def _rows(self, sql: str, start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop, PAGE):
            page = (first, min(stop, first + PAGE))
            yield from (row[0] for row in self._database.query(f"{sql} ORDER BY idx", page))
