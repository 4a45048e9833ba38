"""A process that races another one for a member's attempts. Loads quickly: no framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client_sdk.sqlite_journal import SqliteJournal
from privacy.errors import BudgetRefusal
from privacy.terms import Terms
from tests.conftest import identity


def race(path: Path, terms: Terms, start: Any, results: Any) -> None:
    journal = SqliteJournal(path, origin="test/member/member-0", key=identity("ledger"))
    start.wait()
    won = []
    for attempt in range(1, 31):
        try:
            journal.grant(terms, size=journal.reserve(terms, ahead=1))
            journal.use(
                terms, round_number=2, attempt=attempt, key_set=1, sha256="cd" * 32,
                signature=bytes(64),
            )  # fmt: skip
            won.append(attempt)
        except BudgetRefusal:
            continue
    results.put(won)
