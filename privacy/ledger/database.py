"""One SQLite file: durable transactions, and none after one that failed.

Write-ahead log with synchronous=FULL: a commit is on the disk when it returns. After an error in a
commit nobody knows what the disk holds (the kernel may drop pages whose fsync failed and report
success the next time), so the file takes no further transaction until it is opened again; opening
copies the write-ahead log into the file and syncs both before anything else.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from privacy.errors import ConfigurationError, LedgerError

__all__ = ["Database", "make_file", "sync_folder"]

BUSY_S: Final = 30.0
"""How long a transaction waits for another process."""

SETTINGS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)

REMEDIES: Final = {
    "SQLITE_BUSY": "another process holds it; end that one or wait",
    "SQLITE_FULL": "make room on the disk and start again",
    "SQLITE_READONLY": "give this process a folder it may write to",
    "SQLITE_CANTOPEN": "give this process a folder it may write to, and files it may open",
    "SQLITE_IOERR": "look after the disk and start again; what was acknowledged is kept",
    "SQLITE_CORRUPT": "the file is damaged: keep it as evidence, and restore the newest copy",
    "SQLITE_NOTADB": "the file is no ledger or is damaged: restore the newest copy",
}

HARMLESS: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)
"""A statement's own fault: nothing was written, the file is as it was."""


class Database:
    """An open file. Threads take turns; processes wait for each other.

    Args:
        path: an existing file, empty or made by this class.

    Raises:
        LedgerError: if it cannot be opened, locked or written; says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.RLock()
        self._inside = False
        self._failed: str | None = None
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._error(error) from error
        try:
            for setting in SETTINGS:
                self._connection.execute(setting)
            self.checkpoint()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._error(error) from error

    def checkpoint(self) -> bool:
        """Moves the write-ahead log into the file, synced; whether nobody else held it."""
        (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Holds the file alone; durable when it ends, and nothing happened if it raises.

        Raises:
            LedgerError: if the file cannot be written, or could not be before.
        """
        with self._turn:
            if self._failed:
                raise LedgerError(
                    f"{self.path}: a write failed before ({self._failed}); start again"
                )
            if self._inside:
                raise LedgerError(f"{self.path}: a transaction is open already")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._error(error) from error
            self._inside = True
            try:
                yield
                self._commit()
            except sqlite3.Error as error:
                self._undo(error)
                raise self._error(error) from error
            except BaseException:
                self._undo(None)
                raise
            finally:
                self._inside = False

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> sqlite3.Cursor:
        """One statement inside of `transaction`, which turns its errors into `LedgerError`."""
        self._expect_transaction()
        return self._connection.execute(sql, tuple(parameters))

    def execute_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """One statement for many rows, inside of `transaction`."""
        self._expect_transaction()
        self._connection.executemany(sql, rows)

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        """All rows of a reading statement, anywhere.

        Raises:
            LedgerError: if the file cannot be read.
        """
        with self._turn:
            try:
                return self._connection.execute(sql, tuple(parameters)).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error

    def close(self) -> None:
        """Lets go of the file."""
        with self._turn:
            self._connection.close()

    def damaged(self, what: str) -> LedgerError:
        """What is said of a file that holds other than it should."""
        return LedgerError(
            f"{self.path}: {what}; keep the file as evidence and restore the newest copy"
        )

    def _expect_transaction(self) -> None:
        # SQLite itself ends a transaction after some errors; statements would then stand alone.
        if not self._inside or not self._connection.in_transaction:
            raise LedgerError(f"{self.path}: statements run inside a transaction")

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed = str(error)
            raise

    def _undo(self, error: sqlite3.Error | None) -> None:
        if error is not None and not _is_harmless(error):
            self._failed = str(error)
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as worse:
            self._failed = str(worse)

    def _error(self, error: sqlite3.Error) -> LedgerError:
        name = getattr(error, "sqlite_errorname", None) or ""
        remedy = next((REMEDIES[key] for key in REMEDIES if name.startswith(key)), "start again")
        return LedgerError(f"{self.path}: {error} {name}".rstrip() + f"; {remedy}")


def _is_harmless(error: sqlite3.Error) -> bool:
    # SQLITE_ERROR is a statement that makes no sense here; I/O has codes of its own.
    name = getattr(error, "sqlite_errorname", None)
    return isinstance(error, HARMLESS) or name == "SQLITE_ERROR"


def make_file(path: Path, fill: Callable[[Database], None]) -> None:
    """Makes a file that appears under its name whole and durable, or not at all.

    Args:
        path: where; if another process makes it meanwhile, that one's stays.
        fill: writes what it holds from the beginning.

    Raises:
        ConfigurationError: if the folder cannot be written.
        LedgerError: if SQLite cannot write.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        if path.with_name(f"{path.name}-wal").exists():
            raise LedgerError(
                f"{path}: is gone, but its write-ahead log is there; restore the newest copy"
            )
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        database = Database(temporary)
        try:
            fill(database)
            database.checkpoint()
        finally:
            database.close()
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        sync_folder(path.parent)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be made ({error})") from error
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be made ({error.strerror}); give this process a folder of its own"
        ) from error
    finally:
        for name in (temporary.name, f"{temporary.name}-wal", f"{temporary.name}-shm"):
            with suppress(OSError):  # whatever kept it from being made keeps it from being there
                temporary.with_name(name).unlink()


def sync_folder(folder: Path) -> None:
    """Has a folder's names on the disk when it returns.

    Raises:
        OSError: if they cannot be.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
