from __future__ import annotations

import multiprocessing
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict

from client_sdk.app import RecordJournal
from client_sdk.dataset import RowPeriod
from client_sdk.journal import Journal
from client_sdk.policy import Budget
from client_sdk.sqlite_journal import SqliteJournal
from privacy.errors import (
    BudgetRefusal,
    ConfigurationError,
    Fork,
    LedgerError,
    PolicyRefusal,
    RequestRefusal,
    Rollback,
)
from privacy.ledger.entry import Refusal, Reservation, decode_entry, encode_entry
from privacy.terms import Terms, TermsHash
from tests.client_sdk.racing import race
from tests.conftest import identity, make_terms

TERMS = make_terms(rounds=10, max_attempts=20, noise_multiplier=4.0)
PROFILE = {members: members / 10 for members in range(1, 6)}
DAY_MS = 24 * 3600 * 1000
START_MS = 1_800_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def sqlite_journal(path: Path, clock: Callable[[], int] | None = None) -> SqliteJournal:
    return SqliteJournal(
        path, origin="test/member/member-0", key=identity("ledger"), now_ms=clock or Clock()
    )


def begun(path: Path, budget: Budget | None = None, clock: Clock | None = None) -> SqliteJournal:
    journal = sqlite_journal(path, clock)
    journal.adopt((budget or Budget()).rule())
    journal.renew()
    return journal


@pytest.fixture(params=["sqlite", "record"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "sqlite":
        return begun(tmp_path / "ledger.sqlite")
    return RecordJournal(RecordDict())


def approve(journal: Journal, terms: Terms = TERMS, most_studies: int = 9) -> None:
    journal.approve(
        terms, profile=PROFILE, most_studies=most_studies, signature=bytes.fromhex("ab" * 64)
    )


def ready(journal: Journal, ahead: int = 1, terms: Terms = TERMS) -> None:
    journal.grant(terms, size=journal.reserve(terms, ahead=ahead))


def use(journal: Journal, round_number: int, attempt: int = 1, terms: Terms = TERMS) -> None:
    journal.check(terms, round_number=round_number, attempt=attempt)
    journal.use(
        terms, round_number=round_number, attempt=attempt, key_set=1, sha256="cd" * 32,
        signature=bytes(64),
    )  # fmt: skip


def entries(journal: SqliteJournal) -> list[Any]:
    return [decode_entry(data, where="here") for data in journal.store.entries()]


def kinds(journal: SqliteJournal) -> list[str]:
    return [entry.kind for entry in entries(journal)]


# What both journals do.


def test_terms_come_back_as_they_were_approved(journal: Journal) -> None:
    approve(journal)
    assert journal.terms(TERMS.hash) == TERMS


def test_unknown_terms_are_refused(journal: Journal) -> None:
    for step in (
        lambda: journal.terms(TermsHash("0" * 64)),
        lambda: journal.reserve(TERMS, ahead=1),
        lambda: journal.check(TERMS, round_number=1, attempt=1),
        lambda: use(journal, 1),
        lambda: journal.finish(TERMS, "over"),
    ):
        with pytest.raises(RequestRefusal, match="propose them first"):
            step()


def test_approving_again_does_not_give_budget_back(journal: Journal) -> None:
    approve(journal)
    ready(journal)
    use(journal, 1)
    approve(journal)
    ready(journal)
    with pytest.raises(BudgetRefusal, match="open a new attempt"):
        use(journal, 1)
    use(journal, 1, 2)


def test_one_study_more_than_allowed_is_refused(journal: Journal) -> None:
    other = make_terms(rounds=10, max_attempts=21, noise_multiplier=4.0)
    approve(journal, most_studies=1)
    with pytest.raises(PolicyRefusal, match="accepted 1 studies"):
        approve(journal, other, most_studies=1)
    with pytest.raises(RequestRefusal):
        journal.terms(other.hash)
    approve(journal, other, most_studies=2)
    assert journal.terms(other.hash) == other


def test_nothing_is_used_that_was_not_reserved(journal: Journal) -> None:
    approve(journal)
    for _ in range(2):
        with pytest.raises(BudgetRefusal, match="reserve"):
            use(journal, 1)
    ready(journal)
    use(journal, 1)
    with pytest.raises(BudgetRefusal, match="reserve"):
        use(journal, 2)


def test_a_check_writes_nothing_and_a_use_is_for_good(journal: Journal) -> None:
    approve(journal)
    ready(journal)
    for _ in range(3):
        journal.check(TERMS, round_number=3, attempt=1)
    use(journal, 3)
    ready(journal)
    with pytest.raises(BudgetRefusal, match="open a new attempt"):
        journal.check(TERMS, round_number=2, attempt=1)


def test_reserving_ahead_ends_with_the_terms(journal: Journal) -> None:
    approve(journal)
    ready(journal, ahead=1000)
    for number in range(1, 21):
        use(journal, (number + 1) // 2, 2 - number % 2)
    with pytest.raises(BudgetRefusal, match="all 20 attempts of the terms are spent"):
        journal.reserve(TERMS, ahead=1)


def test_a_finished_study_takes_nothing_more_and_may_be_finished_again(journal: Journal) -> None:
    approve(journal)
    ready(journal, ahead=3)
    journal.finish(TERMS, "its model was published")
    journal.finish(TERMS, "its model was published")
    for step in (lambda: journal.reserve(TERMS, ahead=5), lambda: use(journal, 1)):
        with pytest.raises(BudgetRefusal, match="the study is over"):
            step()


# What a ledger adds.


def test_entries_are_in_the_order_of_things(tmp_path: Path) -> None:
    journal = begun(tmp_path / "ledger.sqlite")
    approve(journal)
    ready(journal, ahead=2)
    use(journal, 1)
    use(journal, 2)
    journal.finish(TERMS, "over")
    assert kinds(journal) == [
        "opened", "rule", "consent", "started", "reservation", "contribution", "contribution",
        "finished",
    ]  # fmt: skip
    consent = entries(journal)[2]
    assert consent.profile_micro == (100_000, 200_000, 300_000, 400_000, 500_000)
    assert consent.signature == "ab" * 64
    assert journal.largest_dimension == TERMS.dimension


def test_a_reserved_attempt_waits_for_a_grant_and_after_a_restart_for_another(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    first = begun(path)
    approve(first)
    size = first.reserve(TERMS, ahead=3)
    with pytest.raises(BudgetRefusal, match="no quorum vouches yet"):
        use(first, 1)
    first.grant(TERMS, size=size - 1)  # covers `started`, but not the reservation
    with pytest.raises(BudgetRefusal, match="no quorum vouches yet"):
        use(first, 1)
    first.grant(TERMS, size=size)
    use(first, 1)
    first.close()
    again = begun(path)
    with pytest.raises(RequestRefusal, match="covers nothing that this process wrote"):
        again.grant(TERMS, size=again.store.size)
    size = again.reserve(TERMS, ahead=2)
    with pytest.raises(BudgetRefusal, match="no quorum vouches yet"):
        use(again, 2)
    with pytest.raises(RequestRefusal, match="covers nothing that this process wrote"):
        again.grant(TERMS, size=size - 1)
    again.grant(TERMS, size=size)
    use(again, 2)
    assert again.account.study(TERMS.hash).spend.reserved == 3
    assert kinds(again).count("started") == 2


def test_spend_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first = begun(path)
    approve(first)
    ready(first)
    use(first, 3)
    first.close()
    again = begun(path)
    assert again.largest_dimension == TERMS.dimension
    ready(again)
    with pytest.raises(BudgetRefusal, match="open a new attempt"):
        use(again, 3)
    use(again, 4)
    assert again.account.study(TERMS.hash).spend.reserved == 2


def test_a_crash_between_reserving_and_using_over_counts(tmp_path: Path) -> None:
    """L9: a process that dies after `reserve` has spent, and its number is used at most once."""
    path = tmp_path / "ledger.sqlite"
    for lives in range(1, 4):
        journal = begun(path)
        approve(journal)
        ready(journal, ahead=2 * lives)  # and dies here
        assert journal.account.study(TERMS.hash).spend.reserved == 2 * lives
        assert journal.account.rooms[1].spent_nano > 0
        journal.close()


def test_a_write_that_fails_changes_nothing_in_memory_either(tmp_path: Path) -> None:
    journal = begun(tmp_path / "ledger.sqlite")
    approve(journal)
    ready(journal)
    before = journal.account.study(TERMS.hash).spend
    reservation = Reservation(at_ms=START_MS, terms=TERMS.hash, first=2, count=1, nonce="0" * 32)

    def interrupted() -> None:
        with journal._log.writing() as transaction:
            journal._log.append(transaction, reservation)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert journal.account.study(TERMS.hash).spend == before
    use(journal, 1)


def test_a_second_study_waits_for_what_the_first_one_earmarked(tmp_path: Path) -> None:
    costly = make_terms(rounds=10, max_attempts=20, noise_multiplier=1.9)
    other = make_terms(rounds=10, max_attempts=19, noise_multiplier=1.9)
    journal = begun(tmp_path / "ledger.sqlite")
    approve(journal, costly)
    with pytest.raises(BudgetRefusal, match="budget over all studies does not cover them"):
        approve(journal, other)
    ready(journal, terms=costly)
    journal.finish(costly, "over")
    approve(journal, other)


def test_a_study_without_a_bound_is_refused(tmp_path: Path) -> None:
    journal = begun(tmp_path / "ledger.sqlite")
    for worst in (float("inf"), float("nan"), 1e308):
        with pytest.raises(BudgetRefusal, match="no bound"):
            journal.approve(
                TERMS, profile=dict.fromkeys(range(1, 6), worst), most_studies=1,
                signature=bytes(64),
            )  # fmt: skip


def test_terms_of_another_alliance_are_refused_with_what_to_set(tmp_path: Path) -> None:
    journal = begun(tmp_path / "ledger.sqlite")
    with pytest.raises(BudgetRefusal, match='set alliance = "elsewhere"'):
        approve(journal, TERMS.model_copy(update={"alliance": "elsewhere"}))


def test_the_rule_is_an_entry_and_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    journal = sqlite_journal(path)
    with pytest.raises(BudgetRefusal, match="no budget rule yet"):
        approve(journal)
    for _ in range(3):
        journal.adopt(Budget().rule())
    journal.adopt(Budget(epsilon=9.0).rule())
    journal.close()
    again = sqlite_journal(path)
    again.adopt(Budget(epsilon=9.0, orders=(3.5,)).rule())
    assert kinds(again) == ["opened", "rule", "rule", "rule"]
    assert [entry.epsilon_micro for entry in entries(again)[1:]] == [10**7, 9 * 10**6, 9 * 10**6]


def test_refusals_are_recorded_once_and_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_sdk.sqlite_journal.REFUSALS_A_DAY", 5)
    clock = Clock()
    journal = begun(tmp_path / "ledger.sqlite", clock=clock)
    journal.refuse("", "train.propose", "no")
    journal.refuse("", "train.propose", "no")
    journal.refuse("not a hash \ud800", "train.propose" * 100, "\ud800" + "x" * 1000)
    for number in range(10):
        journal.refuse(TERMS.hash, "train.contribute", f"no {number}")
    refused = [entry for entry in entries(journal) if isinstance(entry, Refusal)]
    assert [entry.sentence[:4] for entry in refused] == ["no", "?xxx", "no 0", "no 1", "no 2"]
    assert refused[1].terms == ""
    clock.now_ms += DAY_MS
    journal.refuse(TERMS.hash, "train.contribute", "no 2")  # it is what was recorded last
    journal.refuse(TERMS.hash, "train.contribute", "no 3")
    assert len([entry for entry in entries(journal) if isinstance(entry, Refusal)]) == 6


# Backups and copies.


def test_a_restored_backup_spends_nothing_and_its_newer_head_gives_it_away(tmp_path: Path) -> None:
    path, backup = tmp_path / "ledger.sqlite", tmp_path / "backup.sqlite"
    journal = begun(path)
    approve(journal)
    ready(journal)
    use(journal, 1)
    journal.close()
    shutil.copy(path, backup)
    journal = begun(path)
    ready(journal)
    use(journal, 2)
    newest = journal.store.note()
    journal.close()
    restored = begun(backup)
    restored.reserve(TERMS, ahead=1)
    with pytest.raises(BudgetRefusal, match="no quorum vouches yet"):
        use(restored, 2)  # whoever vouches holds the newer head first
    with pytest.raises((Rollback, Fork), match="restore the newest copy"):
        restored.store.check_head(newest)


def test_a_log_with_an_entry_that_no_member_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    journal = begun(path)
    approve(journal)
    bad = Reservation(at_ms=START_MS, terms=TERMS.hash, first=2, count=1, nonce="0" * 32)
    assert encode_entry(bad)
    journal.store.append(bad)
    with pytest.raises(LedgerError, match=r"entry 3: no member may write that"):
        use(journal, 1)
    journal.close()
    with pytest.raises(LedgerError, match=r"entry 3: no member may write that"):
        sqlite_journal(path)


# Periods.

RENEWING = Budget(renewal_days=30, renewal_column="seen")


def test_a_period_begins_at_a_start_when_it_is_due_and_old_processes_stop(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.sqlite", Clock()
    old = begun(path, RENEWING, clock)
    assert old.rows == RowPeriod("seen", None, START_MS)
    approve(old)
    ready(old, ahead=4)
    use(old, 1)
    clock.now_ms += 30 * DAY_MS - 1
    early = begun(path, RENEWING, clock)
    assert early.account.period == 1
    use(old, 2)
    clock.now_ms += 1
    new = begun(path, RENEWING, clock)
    assert new.rows == RowPeriod("seen", clock.now_ms, clock.now_ms)
    assert new.account.epsilon_micro(5) == 0 < new.account.lifetime_epsilon_micro(5)
    for stale in (old, early):
        for step in (
            lambda stale=stale: stale.reserve(TERMS, ahead=9),
            lambda stale=stale: use(stale, 3),
            lambda stale=stale: approve(stale, make_terms(max_attempts=15, noise_multiplier=4.0)),
        ):
            with pytest.raises(BudgetRefusal, match="restart its node"):
                step()
    ready(new, ahead=1)
    use(new, 3)
    spend = new.account.study(TERMS.hash).spend
    assert (spend.reserved, spend.contributions) == (5, 3)  # two were left behind, and are spent


def test_a_clock_set_back_or_forth_gives_no_budget(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.sqlite", Clock()
    journal = begun(path, RENEWING, clock)
    approve(journal)
    clock.now_ms += 31 * DAY_MS
    ready(journal)  # an entry from far ahead
    spent = journal.account.epsilon_micro(5)
    clock.now_ms -= DAY_MS
    assert begun(path, RENEWING, clock).account.period == 1
    clock.now_ms = 0
    again = begun(path, RENEWING, clock)
    assert (again.account.period, again.account.epsilon_micro(5)) == (1, spent)
    assert again.rows == RowPeriod("seen", None, 0)
    ready(again, ahead=2)
    clock.now_ms = START_MS + 31 * DAY_MS
    assert begun(path, RENEWING, clock).account.period == 2


# The file.


def test_the_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    begun(tmp_path / "ledger.sqlite")
    assert stat.S_IMODE((tmp_path / "ledger.sqlite").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        sqlite_journal(tmp_path / "nowhere" / "ledger.sqlite")


@pytest.mark.parametrize("used", [0, 19])
def test_two_processes_never_both_win_one_attempt(tmp_path: Path, used: int) -> None:
    """D4: they race for every attempt, or for the last one, and write one sound log."""
    path = tmp_path / "ledger.sqlite"
    journal = begun(path)
    approve(journal)
    for attempt in range(1, used + 1):
        ready(journal)
        use(journal, 1, attempt)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=race, args=(path, TERMS, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    won = [attempt for _ in processes for attempt in results.get(timeout=60)]
    for process in processes:
        process.join(timeout=60)
    assert len(won) == len(set(won))
    assert 1 <= len(won) <= 20 - used
    spend = sqlite_journal(path).account.study(TERMS.hash).spend
    assert spend.contributions == used + len(won) <= spend.reserved <= 20
    if used:
        assert len(won) == 1
