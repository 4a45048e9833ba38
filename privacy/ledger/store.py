"""One log in one SQLite file: durable before it answers, never behind its own head."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from privacy.errors import EvidenceError, Fork, LedgerError, Rollback
from privacy.identity import Identity, IdentityKey
from privacy.ledger import merkle
from privacy.ledger.checkpoint import (
    Checkpoint,
    add_cosignatures,
    open_checkpoint,
    sign_checkpoint,
)
from privacy.ledger.database import Database, make_file
from privacy.ledger.entry import (
    LONGEST_ENTRY,
    Conflict,
    Entry,
    Opened,
    decode_entry,
    encode_entry,
)
from privacy.ledger.merkle import Stream, leaf_hash
from privacy.ledger.note import Note
from privacy.ledger.tables import PAGE, TABLES, Tables
from privacy.ledger.witness import KnownHead, Witness

__all__ = ["LedgerStore", "Transaction"]

FORMAT: Final = 1
"""Of the file; another is refused."""

SCHEMA: Final = (
    """CREATE TABLE head (
        cosigned INTEGER PRIMARY KEY,  -- 0: this log's own head; 1: its newest cosigned one
        note BLOB NOT NULL) STRICT""",
    """CREATE TABLE known (
        turn INTEGER PRIMARY KEY AUTOINCREMENT,
        origin TEXT NOT NULL, key TEXT NOT NULL,
        size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL,
        forked INTEGER NOT NULL, rolled_back INTEGER NOT NULL,
        UNIQUE (origin, key)) STRICT""",
    "CREATE TABLE receipt (id INTEGER PRIMARY KEY, data BLOB NOT NULL UNIQUE) STRICT",
    f"PRAGMA user_version={FORMAT}",
)


class Transaction:
    """Appends and statements that become durable together."""

    def __init__(self, database: Database, stream: Stream) -> None:
        self._database = database
        self._tables = Tables(database)
        self.stream = stream

    @property
    def size(self) -> int:
        """Entries of the log, those of this transaction among them."""
        return self.stream.size

    def append(self, entry: Entry) -> int:
        """Adds an entry and returns its index.

        Raises:
            LedgerError: if it is too long, or a second `Opened`.
        """
        if isinstance(entry, Opened) != (self.size == 0):
            raise LedgerError("a log has one `opened` entry, and it is the first")
        data = encode_entry(entry)
        if len(data) > LONGEST_ENTRY:
            raise LedgerError(f"an entry of {len(data)} bytes; at most {LONGEST_ENTRY} are kept")
        index = self.size
        placed = self.stream.append(leaf_hash(data))
        self._tables.append(index, data, placed)
        return index

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> sqlite3.Cursor:
        """One statement on further tables of the file."""
        return self._database.execute(sql, parameters)


class LedgerStore:
    """A log in a file that only its owner may read. Threads and processes take turns.

    Guarantees:
        What `append`, `transaction`, `remember`, `conflict`, `keep_note` and `keep_receipts` did is
        on the disk when they return; if they raise, it did not happen, but for a write whose
        failure left that open: then nothing more is written until the file is opened again, and
        whatever it holds then is whole. Entries are never changed or removed.
        A file that lost or changed entries since its own head was signed is refused. An old copy
        of the whole file agrees with itself: what others hold tells (`check_head`).

    Args:
        path: of the file; made if it is not there.
        origin: the log's.
        key: signs its heads.
        software: for the first entry.
        now_ms: milliseconds since 1970, for entries of the store itself.

    Raises:
        ConfigurationError: if the file cannot be made.
        LedgerError: if it cannot be used: another log's, damaged, behind its head, in use.
    """

    def __init__(
        self,
        path: Path,
        *,
        origin: str,
        key: Identity,
        software: str,
        now_ms: Callable[[], int],
    ) -> None:
        self.path = path
        self.origin = origin
        self._identity = key
        self._now_ms = now_ms
        self._tip: tuple[bytes, Stream] | None = None
        self._opened: tuple[bytes, Checkpoint] | None = None
        """The newest head that was signed here, or whose signature was looked at."""
        if not path.exists():
            opened = Opened(at_ms=now_ms(), origin=origin, key=key.public, software=software)
            make_file(path, lambda database: self._begin(database, opened))
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)
        self._database = Database(path)
        self._tables = Tables(self._database)
        try:
            with self._database.transaction():
                self._check()
        except BaseException:
            self._database.close()
            raise

    @property
    def key(self) -> IdentityKey:
        """The public key that this log's heads are signed with."""
        return self._identity.public

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._head().size

    @property
    def root(self) -> bytes:
        """Over all of them."""
        return self._head().root

    # Writing.

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Holds the log alone, with all that other processes wrote before in view.

        Raises:
            LedgerError: if the log may not be written.
        """
        with self._database.transaction():
            note, stream = self._newest_tip()
            transaction = Transaction(self._database, stream.copy())
            yield transaction
            if transaction.size > stream.size:
                note = self._seal(self._database, transaction.stream)
            tip = (note, transaction.stream)
        self._tip = tip

    def append(self, *entries: Entry) -> int:
        """Adds entries together; the index of the first.

        Raises:
            LedgerError: if the log may not be written.
        """
        with self.transaction() as transaction:
            first = transaction.size
            for entry in entries:
                transaction.append(entry)
        return first

    # Reading.

    def note(self) -> bytes:
        """This log's signed head over all its entries."""
        return self._note()

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes of entries ``start`` to ``stop`` (all if not given)."""
        return self._tables.entries(start, self.size if stop is None else stop)

    def leaf_hashes(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Their hashes."""
        return self._tables.leaf_hashes(start, self.size if stop is None else stop)

    def node(self, level: int, index: int) -> bytes:
        """See `merkle.Nodes`."""
        return self._tables.node(level, index)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """The proof that entry ``index`` is among the first ``size``.

        Raises:
            LedgerError: if the log has not so many.
        """
        if not 0 <= index < size <= self.size:
            raise LedgerError(f"{self.path}: entry {index} is not among the first {size}")
        return merkle.inclusion_proof(self, index, size)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """The proof that the first ``old`` entries begin the first ``new``.

        Raises:
            LedgerError: if the log has not so many.
        """
        if not 0 <= old <= new <= self.size:
            raise LedgerError(f"{self.path}: has {self.size} entries, not {old} and {new}")
        return merkle.consistency_proof(self, old, new)

    # This log's heads elsewhere.

    def check_head(self, note: bytes) -> Checkpoint:
        """The head in a note that this log's key signed and this log contains.

        Raises:
            EvidenceError: if its key did not sign it.
            Rollback: if the log is older than the head, as a restored backup is.
            Fork: if the log went another way.
        """
        head = open_checkpoint(note, origin=self.origin, key=self.key)
        size = self.size
        if head.size > size:
            message = f"{self.path}: has {size} entries, but its head of {head.size} was signed"
            raise Rollback(f"{message}: restore the newest copy", held=note)
        if merkle.root(self, head.size) != head.root:
            message = f"{self.path}: another log was signed with this key, of {head.size} entries"
            raise Fork(f"{message}: restore the newest copy", held=note)
        return head

    def keep_note(self, note: bytes) -> None:
        """Keeps a head with cosignatures, unless a newer one is kept; of equal ones all lines.

        Raises:
            EvidenceError, Rollback, Fork: as `check_head`.
        """
        with self._database.transaction():
            head = self.check_head(note)
            kept = self.newest_note()
            if kept is not None:
                size = self.check_head(kept).size
                if size > head.size:
                    return
                if size == head.size:
                    lines = [signature.line() for signature in Note.parse(kept).signatures]
                    note = add_cosignatures(note, lines)
            sql = "INSERT INTO head VALUES (1, ?) ON CONFLICT DO UPDATE SET note = excluded.note"
            self._database.execute(sql, (note,))

    def newest_note(self) -> bytes | None:
        """The newest head that was kept."""
        rows = self._database.query("SELECT note FROM head WHERE cosigned = 1")
        return rows[0][0] if rows else None

    # Other logs: see `witness.Memory`.

    def witness(self) -> Witness:
        """A witness that cosigns with this log's key and remembers in this file."""
        return Witness(self.origin, self._identity, self, lambda: self._now_ms() // 1000)

    def known(self, origin: str, key: IdentityKey | None = None) -> KnownHead | None:
        """See `witness.Memory.known`."""
        rows = self._database.query(
            "SELECT key, size, root, note, forked FROM known WHERE origin = ? AND "
            "key = coalesce(?, key) ORDER BY turn DESC LIMIT 1",
            (origin, key),
        )
        if not rows:
            return None
        held_key, size, root, note, forked = rows[0]
        return KnownHead(origin, IdentityKey(held_key), size, root, note, bool(forked))

    def remember(self, head: KnownHead, *, replaces: KnownHead | None) -> None:
        """See `witness.Memory.remember`."""
        with self._database.transaction():
            held = self.known(head.origin, head.key)
            if held != replaces:
                message = f"{head.origin}: another head was shown meanwhile; ask again"
                raise Rollback(message, held=held.note if held else b"")
            self._database.execute(
                "INSERT OR REPLACE INTO known (origin, key, size, root, note, forked, rolled_back) "
                "VALUES (?, ?, ?, ?, ?, ?, 0)",
                (head.origin, head.key, head.size, head.root, head.note, head.forked),
            )

    def conflict(self, held: KnownHead, shown: bytes, *, fork: bool) -> None:
        """See `witness.Memory.conflict`: one entry for each head held, and one for a fork."""
        column = "forked" if fork else "rolled_back"
        with self.transaction() as transaction:
            noted = transaction.execute(
                f"UPDATE known SET {column} = 1 WHERE origin = ? AND key = ? AND {column} = 0",  # noqa: S608
                (held.origin, held.key),
            )
            if noted.rowcount:
                transaction.append(
                    Conflict(
                        at_ms=self._now_ms(),
                        origin=held.origin,
                        held=held.note.decode(),
                        shown=shown.decode(),
                    )
                )

    # Receipts.

    def keep_receipts(self, receipts: Iterable[bytes]) -> None:
        """Keeps receipts: all or none."""
        with self._database.transaction():
            self._database.execute_many(
                "INSERT INTO receipt (data) VALUES (?) ON CONFLICT DO NOTHING",
                ((receipt,) for receipt in receipts),
            )

    def receipts(self) -> Iterator[bytes]:
        """All receipts, as they came."""
        last = 0
        sql = "SELECT id, data FROM receipt WHERE id > ? ORDER BY id LIMIT ?"
        while rows := self._database.query(sql, (last, PAGE)):
            yield from (data for _, data in rows)
            last = rows[-1][0]

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    # Inside.

    def _begin(self, database: Database, opened: Opened) -> None:
        with database.transaction():
            for statement in (*TABLES, *SCHEMA):
                database.execute(statement)
            transaction = Transaction(database, Stream())
            transaction.append(opened)
            self._seal(database, transaction.stream)

    def _seal(self, database: Database, stream: Stream) -> bytes:
        """Signs the head of the log as it is now."""
        head = Checkpoint(self.origin, stream.size, stream.root())
        note = sign_checkpoint(head, self._identity)
        sql = "INSERT INTO head VALUES (0, ?) ON CONFLICT DO UPDATE SET note = excluded.note"
        database.execute(sql, (note,))
        self._opened = note, head  # if the transaction fails, no note is this one
        return note

    def _note(self) -> bytes:
        rows = self._database.query("SELECT note FROM head WHERE cosigned = 0")
        if not rows:
            raise self._damaged("its head is missing")
        note: bytes = rows[0][0]
        return note

    def _head(self) -> Checkpoint:
        note = self._note()
        if self._opened is not None and self._opened[0] == note:
            return self._opened[1]
        try:
            head = open_checkpoint(note, origin=self.origin, key=self.key)
        except EvidenceError as error:
            raise LedgerError(
                f"{self.path}: is not a log of {self.origin} with key {self.key[:16]} ({error}); "
                "give this process the ledger and the key that belong together"
            ) from error
        self._opened = note, head
        return head

    def _newest_tip(self) -> tuple[bytes, Stream]:
        """This log's signed head and the stream that leads on from it."""
        note = self._note()
        tip = self._tip
        if tip is None or tip[0] != note:
            head = self._head()
            stream = Stream.resume(self, head.size)
            if stream.root() != head.root:
                raise self._damaged("its tree is not the one that was signed")
            tip = self._tip = (note, stream)
        return tip

    def _check(self) -> None:
        """Checks the file against itself, inside a transaction."""
        # 1. The file's format is this one.
        # 2. It has a head of this log, signed with this key.
        # 3. There are as many leaves and subtrees as the head says, each the hash of what is below.
        # 4. Their root is the one that was signed.
        # 5. The newest cosigned head lies on the log.
        # 6. The first entry says whose it is.
        (format_,) = self._database.execute("PRAGMA user_version").fetchone()
        if format_ != FORMAT:  # 1
            raise self._damaged(f"its format is {format_}, not {FORMAT}")
        head = self._head()  # 2
        self._tables.check(head.size)  # 3
        self._newest_tip()  # 4
        kept = self.newest_note()
        try:
            if kept is not None:  # 5
                self.check_head(kept)
            (first,) = self.entries(0, 1)
            opened = decode_entry(first, where=f"{self.path}: entry 0")
        except EvidenceError as error:
            raise self._damaged(str(error)) from error
        if not isinstance(opened, Opened) or (opened.origin, opened.key) != (self.origin, self.key):
            raise self._damaged(f"its first entry does not open {self.origin}")  # 6

    def _damaged(self, what: str) -> LedgerError:
        return self._database.damaged(what)
