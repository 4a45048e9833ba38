"""Proposals that this member's rules did not approve, kept until a person decides.

They lie in a table of the ledger's file, so that a decision by another process, and a restart, find
them there. They are no evidence: what a member signed stands in the ledger as a consent.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass

from privacy.errors import PolicyRefusal
from privacy.ledger.store import LedgerStore
from privacy.terms import Terms

__all__ = ["Proposals", "Proposed", "Verdict"]

MOST = 100
"""Proposals kept at once, so that nobody fills the disk with them."""


class Verdict(enum.StrEnum):
    """Where a proposal stands."""

    WAITING = "waiting"
    """A person has yet to decide."""
    UNFIT = "unfit"
    """It does not fit this member as it is set up; kept so that somebody can look at it."""
    REFUSED = "refused"
    """A person refused it."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One proposal.

    Args:
        admissions: members' vouches that came with it.
        sentence: why the rules did not approve it, or why a person refused.
    """

    terms: Terms
    admissions: bytes
    verdict: Verdict
    sentence: str
    at_ms: int


class Proposals:
    """A member's undecided and refused proposals, in the file of its ledger.

    Args:
        store: the ledger.

    Raises:
        LedgerError: here and from every method, if the file cannot be used.
    """

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        with store.transaction() as transaction:
            transaction.execute(
                "CREATE TABLE IF NOT EXISTS proposal (terms TEXT PRIMARY KEY, document TEXT NOT "
                "NULL, admissions BLOB NOT NULL, verdict TEXT NOT NULL, sentence TEXT NOT NULL, "
                "at_ms INTEGER NOT NULL) STRICT"
            )

    def all(self) -> list[Proposed]:
        """All of them, in the order in which they came."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT document, admissions, verdict, sentence, at_ms FROM proposal ORDER BY at_ms"
            ).fetchall()
        return [_proposed(row) for row in rows]

    def get(self, terms_hash: str) -> Proposed | None:
        """One of them."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT document, admissions, verdict, sentence, at_ms FROM proposal "
                "WHERE terms = ?",
                (terms_hash,),
            ).fetchone()
        return None if row is None else _proposed(row)

    def keep(self, terms: Terms, admissions: bytes, verdict: Verdict, sentence: str) -> None:
        """Keeps a proposal, or what has changed about it.

        Raises:
            PolicyRefusal: if there are too many.
        """
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT verdict, sentence, admissions FROM proposal WHERE terms = ?", (terms.hash,)
            ).fetchone()
            if row == (verdict.value, sentence, admissions):
                return
            (count,) = transaction.execute("SELECT COUNT(*) FROM proposal").fetchone()
            if row is None and count >= MOST:
                raise PolicyRefusal(
                    f"study {terms.study}: {MOST} proposals wait for a person at this member; it "
                    "looks at those first"
                )
            transaction.execute(
                "INSERT INTO proposal VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (terms) DO UPDATE SET "
                "admissions = excluded.admissions, verdict = excluded.verdict, "
                "sentence = excluded.sentence",
                (
                    terms.hash,
                    terms.model_dump_json(),
                    admissions,
                    verdict.value,
                    sentence,
                    time.time_ns() // 1_000_000,
                ),
            )

    def forget(self, terms_hash: str) -> None:
        """Lets a proposal go: it was approved, or its study is over."""
        with self._store.transaction() as transaction:
            transaction.execute("DELETE FROM proposal WHERE terms = ?", (terms_hash,))


def _proposed(row: tuple[str, bytes, str, str, int]) -> Proposed:
    document, admissions, verdict, sentence, at_ms = row
    return Proposed(Terms.from_json(document), admissions, Verdict(verdict), sentence, at_ms)
