"""Where a member keeps what it approved and reserved: one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from privacy.errors import BudgetRefusal, ConfigurationError, PolicyRefusal, RequestRefusal
from privacy.terms import Terms, TermsHash

__all__ = ["Journal", "SqliteJournal", "StudySpend", "too_many_studies", "unknown_terms"]


@dataclass(frozen=True, slots=True)
class StudySpend:
    """Attempts that a member has reserved in one study.

    Guarantees:
        A (round, attempt) is reserved at most once, in increasing order, and never more of them
        than the terms' ``max_attempts``, for which the projection was approved. A reservation
        counts as spent at the nominal noise, whether or not anything was released.

    Args:
        attempts: how many have been reserved.
        last_round: of the newest reservation; 0 before the first.
        last_attempt: of the newest reservation; 0 before the first.
    """

    attempts: int = 0
    last_round: int = 0
    last_attempt: int = 0

    def reserve(self, terms: Terms, *, round_number: int, attempt: int) -> StudySpend:
        """The record after one more reservation.

        Raises:
            BudgetRefusal: if the attempt is over, out of order, or beyond the terms.
        """
        where = f"round {round_number} attempt {attempt}"
        if not 1 <= round_number <= terms.privacy.rounds or attempt < 1:
            raise BudgetRefusal(f"{where}: the terms have rounds 1 to {terms.privacy.rounds}")
        if (round_number, attempt) <= (self.last_round, self.last_attempt):
            raise BudgetRefusal(
                f"{where}: was reserved before and its contribution is gone; open a new attempt"
            )
        if self.attempts >= terms.privacy.max_attempts:
            raise BudgetRefusal(
                f"{where}: all {terms.privacy.max_attempts} attempts of the terms are spent; "
                "propose a new study"
            )
        return StudySpend(self.attempts + 1, round_number, attempt)


class Journal(Protocol):
    """A member's approved terms and its spend on each."""

    def approve(self, terms: Terms, *, most_studies: int) -> None:
        """Keeps terms this member accepts; again is the same.

        Raises:
            PolicyRefusal: if ``most_studies`` others were accepted before.
        """

    def terms(self, terms_hash: TermsHash) -> Terms:
        """Accepted terms.

        Raises:
            RequestRefusal: if this member never accepted them.
        """

    def reserve(self, terms: Terms, *, round_number: int, attempt: int) -> StudySpend:
        """Makes one reservation; when it returns, the reservation is durable.

        Raises:
            BudgetRefusal: as `privacy.budget.StudySpend.reserve`.
        """


def unknown_terms(terms_hash: str) -> RequestRefusal:
    """What is said to a message under terms that were never accepted."""
    return RequestRefusal(f"terms {terms_hash[:12]} were not accepted here; propose them first")


def too_many_studies(accepted: int) -> PolicyRefusal:
    """What is said to one study more than the policy allows."""
    return PolicyRefusal(
        f"this member has accepted {accepted} studies, which is all its policy allows; "
        "it may raise most_studies"
    )


class SqliteJournal:
    """A journal in one SQLite file: WAL, synchronous=FULL, one writer at a time.

    Args:
        path: the file; made if it is not there, readable by its owner only.

    Raises:
        ConfigurationError: if the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS study (terms_hash TEXT PRIMARY KEY, document TEXT "
                "NOT NULL, attempts INTEGER NOT NULL, last_round INTEGER NOT NULL, "
                "last_attempt INTEGER NOT NULL) STRICT"
            )
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(
                f"{path}: the journal cannot be written ({error}); "
                "give the node a state folder it may write to"
            ) from error
        self._terms: dict[TermsHash, Terms] = {}
        for (terms_hash,) in self._connection.execute("SELECT terms_hash FROM study").fetchall():
            self.terms(terms_hash)

    @property
    def largest_dimension(self) -> int:
        """Of all accepted terms: the longest public state a task may carry; 0 before any."""
        return max((terms.dimension for terms in self.accepted), default=0)

    @property
    def accepted(self) -> tuple[Terms, ...]:
        """All accepted terms."""
        return tuple(self._terms.values())

    def approve(self, terms: Terms, *, most_studies: int) -> None:
        """See `Journal.approve`."""
        with self._transaction():
            rows = self._connection.execute("SELECT terms_hash FROM study").fetchall()
            if (terms.hash,) not in rows:
                if len(rows) >= most_studies:
                    raise too_many_studies(len(rows))
                document = terms.model_dump_json()
                self._connection.execute(
                    "INSERT INTO study VALUES (?, ?, 0, 0, 0)", (terms.hash, document)
                )
        self._terms[terms.hash] = terms

    def terms(self, terms_hash: TermsHash) -> Terms:
        """See `Journal.terms`."""
        if terms_hash not in self._terms:
            row = self._connection.execute(
                "SELECT document FROM study WHERE terms_hash = ?", (terms_hash,)
            ).fetchone()
            if row is None:
                raise unknown_terms(terms_hash)
            self._terms[terms_hash] = Terms.from_json(row[0])
        return self._terms[terms_hash]

    def reserve(self, terms: Terms, *, round_number: int, attempt: int) -> StudySpend:
        """See `Journal.reserve`. Two processes on one file: the transaction decides."""
        terms_hash = terms.hash
        with self._transaction():
            row = self._connection.execute(
                "SELECT attempts, last_round, last_attempt FROM study WHERE terms_hash = ?",
                (terms_hash,),
            ).fetchone()
            if row is None:
                raise unknown_terms(terms_hash)
            spend = StudySpend(*row).reserve(terms, round_number=round_number, attempt=attempt)
            self._connection.execute(
                "UPDATE study SET attempts = ?, last_round = ?, last_attempt = ? "
                "WHERE terms_hash = ?",
                (spend.attempts, spend.last_round, spend.last_attempt, terms_hash),
            )
        return spend

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Durable when it ends; nothing happened if it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
