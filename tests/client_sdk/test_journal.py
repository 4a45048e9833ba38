from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from flwr.app import RecordDict

from client_sdk.app import RecordJournal
from client_sdk.journal import Journal, SqliteJournal
from privacy.errors import BudgetRefusal, ConfigurationError, PolicyRefusal, RequestRefusal
from privacy.terms import TermsHash
from tests.conftest import make_terms

TERMS = make_terms(rounds=10, max_attempts=20)


@pytest.fixture(params=["sqlite", "record"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "sqlite":
        return SqliteJournal(tmp_path / "journal.sqlite")
    return RecordJournal(RecordDict())


def test_terms_come_back_as_they_were_approved(journal: Journal) -> None:
    journal.approve(TERMS, most_studies=1)
    assert journal.terms(TERMS.hash) == TERMS


def test_unknown_terms_are_refused(journal: Journal) -> None:
    with pytest.raises(RequestRefusal, match="propose them first"):
        journal.terms(TermsHash("0" * 64))
    with pytest.raises(RequestRefusal, match="propose them first"):
        journal.reserve(TERMS, round_number=1, attempt=1)


def test_approving_again_does_not_give_budget_back(journal: Journal) -> None:
    journal.approve(TERMS, most_studies=1)
    journal.reserve(TERMS, round_number=1, attempt=1)
    journal.approve(TERMS, most_studies=1)
    with pytest.raises(BudgetRefusal, match="was reserved before"):
        journal.reserve(TERMS, round_number=1, attempt=1)
    assert journal.reserve(TERMS, round_number=1, attempt=2).attempts == 2


def test_one_study_more_than_allowed_is_refused(journal: Journal) -> None:
    other = make_terms(rounds=10, max_attempts=21)
    journal.approve(TERMS, most_studies=1)
    with pytest.raises(PolicyRefusal, match="accepted 1 studies"):
        journal.approve(other, most_studies=1)
    with pytest.raises(RequestRefusal):
        journal.terms(other.hash)
    journal.approve(other, most_studies=2)
    assert journal.terms(other.hash) == other


def test_spend_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first = SqliteJournal(path)
    first.approve(TERMS, most_studies=1)
    first.reserve(TERMS, round_number=3, attempt=1)
    again = SqliteJournal(path)
    assert again.largest_dimension == TERMS.dimension
    with pytest.raises(BudgetRefusal, match="was reserved before"):
        again.reserve(TERMS, round_number=3, attempt=1)
    assert again.reserve(TERMS, round_number=4, attempt=1).attempts == 2


def test_the_journal_is_durable_and_its_owners_alone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    pragma = journal._connection.execute("PRAGMA synchronous").fetchone()
    assert pragma == (2,)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert stat.S_IMODE((tmp_path / "journal.sqlite").stat().st_mode) == 0o600


def _race(path: Path, start: object, results: object) -> None:
    journal = SqliteJournal(path)
    start.wait()  # type: ignore[attr-defined]
    won = 0
    for attempt in range(1, 11):
        try:
            journal.reserve(TERMS, round_number=1, attempt=attempt)
            won += 1
        except BudgetRefusal:
            pass
    results.put(won)  # type: ignore[attr-defined]


def test_two_processes_never_both_win_one_attempt(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    SqliteJournal(path).approve(TERMS, most_studies=1)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_race, args=(path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    won = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    spend = SqliteJournal(path).reserve(TERMS, round_number=2, attempt=1)
    assert sum(won) == spend.attempts - 1 == 10


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigurationError, match="give the node a state folder it may write to"):
        SqliteJournal(blocked / "journal.sqlite")
