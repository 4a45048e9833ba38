"""A member's own ledger, followed entry by entry: what the account and its journal know of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.budget import Account
from privacy.errors import BudgetRefusal, LedgerError
from privacy.identity import Identity
from privacy.ledger.entry import AnyEntry, Consent, Refusal, Reservation, decode_entry
from privacy.ledger.store import LedgerStore, Transaction
from privacy.terms import Terms

__all__ = ["DAY_MS", "OwnLog"]

DAY_MS = 24 * 3600 * 1000


class OwnLog:
    """The ledger of this member, and the account of all its entries.

    Guarantees:
        Every entry was allowed by the account of all entries before it, those of other processes
        on the same file included. After an error the account is that of what became durable.

    Args:
        path: the file; made if it is not there.
        origin: of the log.
        key: signs its heads.
        software: what writes it.
        now_ms: milliseconds since 1970.

    Raises:
        ConfigurationError: if the file cannot be made.
        LedgerError: if it cannot be used, or holds what no member may have written.
    """

    def __init__(
        self, path: Path, *, origin: str, key: Identity, software: str, now_ms: Callable[[], int]
    ) -> None:
        self.store = LedgerStore(path, origin=origin, key=key, software=software, now_ms=now_ms)
        self.lock = threading.RLock()
        """Held while anything below is read or changed."""
        self._read = 0
        self.account = Account()
        self.terms: dict[str, Terms] = {}
        """Accepted terms by hash."""
        self.reserved: dict[str, list[tuple[int, int]]] = {}
        """Of each study: where reservations stand, and the last number that each reserves."""
        self.refusals: tuple[int, int] = (0, 0)
        """The day of the newest refusal, and how many were recorded on it."""
        self.last_refusal: Refusal | None = None
        self.follow()

    def follow(self, size: int | None = None) -> None:
        """Takes in what other processes appended, up to ``size`` entries or all."""
        with self.lock:
            stop = self.store.size if size is None else size
            for index, data in enumerate(self.store.entries(self._read, stop), start=self._read):
                where = f"{self.store.path}: entry {index}"
                entry = decode_entry(data, where=where)
                try:
                    self.account.apply(entry, recompute=True)
                except BudgetRefusal as error:
                    raise LedgerError(
                        f"{where}: no member may write that ({error}); keep the file as evidence "
                        "and restore the newest copy"
                    ) from error
                self._note(index, entry)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Holds the log alone, with everything in view; nothing happened if it raises."""
        with self.lock:
            durable = self._read
            try:
                with self.store.transaction() as transaction:
                    self.follow(transaction.size)
                    durable = transaction.size
                    yield transaction
            except BaseException:
                if self._read > durable:
                    self._forget()  # and read again what is on the disk, when it is needed
                raise

    def append(self, transaction: Transaction, entry: AnyEntry) -> int:
        """Appends an entry if the account allows it; its index.

        Raises:
            BudgetRefusal: if it does not; then nothing changed.
        """
        self.account.apply(entry, recompute=True)
        index = transaction.size
        self._note(index, entry)
        return transaction.append(entry)

    def _note(self, index: int, entry: AnyEntry) -> None:
        """Keeps what the account does not."""
        self._read = index + 1
        if isinstance(entry, Consent):
            self.terms[entry.hash] = Terms.from_canonical(entry.terms)
            self.reserved[entry.hash] = []
        elif isinstance(entry, Reservation):
            self.reserved[entry.terms].append((index, entry.first + entry.count - 1))
        elif isinstance(entry, Refusal):
            day, count = self.refusals
            today = entry.at_ms // DAY_MS
            self.refusals = (today, count + 1 if today == day else 1)
            self.last_refusal = entry

    def _forget(self) -> None:
        self._read = 0
        self.account = Account()
        self.terms, self.reserved = {}, {}
        self.refusals, self.last_refusal = (0, 0), None
