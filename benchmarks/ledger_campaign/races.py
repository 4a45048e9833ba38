"""Lets two processes race for the last unit of a budget, again and again."""

from __future__ import annotations

import functools
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.ledger_campaign.writer import KEY, append, check, child, entry, open_store
from benchmarks.secagg_campaign.protocol import Finding
from benchmarks.secagg_campaign.studies import Case, study
from benchmarks.secagg_campaign.tally import Tally
from client_sdk.sqlite_journal import SqliteJournal
from privacy.budget import Account
from privacy.errors import BudgetRefusal
from privacy.ledger.entry import Rule, decode_entry
from privacy.ledger.store import LedgerStore
from privacy.terms import Terms

__all__ = ["appenders", "careless_appenders", "spenders"]

RACERS: Final = 2
NUMBER: Final = struct.Struct("<Q")
WON, LOST = b"+", b"-"
STUDIES: Final = 100
"""Studies of one attempt each on one ledger."""

MEMBER: Final = "member-1"
RULE: Final = Rule(
    at_ms=0,
    epsilon_micro=30_000_000,
    delta_billionths=10_000,
    orders_thousandths=(3500,),
    renewal_days=0,
    renewal_column="",
)

Take = Callable[[int], bool]
"""Takes the unit of that number if nobody else has; whether it did."""
Opened = Callable[[Path], AbstractContextManager[Take]]


def spenders(trials: Sequence[int]) -> Tally:
    """Two nodes on one ledger reserve and use the only attempt of a study.

    Afterwards the account of the ledger's entries, folded anew, must have one attempt spent and
    one contribution for each study.
    """
    tally = Tally()
    for start in range(0, len(trials), STUDIES):
        numbers = trials[start : start + STUDIES]
        with TemporaryDirectory(prefix="races-") as folder:
            path = Path(folder) / "ledger.sqlite"
            _accept(path, numbers)
            _races(tally, path, _spender, numbers)
            tally.attempt("the account", functools.partial(_recount, path, numbers), weight=0)
    return tally


def appenders(trials: Sequence[int]) -> Tally:
    """Two processes append to one log of limited size."""
    return _append_races(trials, _appender)


def careless_appenders(trials: Sequence[int]) -> Tally:
    """The same where each looks before the transaction instead of in it; must be seen to fail."""
    return _append_races(trials, _careless_appender)


def _append_races(trials: Sequence[int], opened: Opened) -> Tally:
    tally = Tally()
    with TemporaryDirectory(prefix="races-") as folder:
        path = Path(folder) / "log.sqlite"
        with closing(open_store(path)) as store:
            append(store, 1)
        _races(tally, path, opened, range(2, len(trials) + 2))
        tally.attempt("what is left", lambda: check(path, len(trials) + 2), weight=0)
    return tally


class _Racer:
    """A process that takes a unit each time it is told which."""

    def __init__(self, path: Path, opened: Opened) -> None:
        reading, self._start = os.pipe()
        start = self._start

        def race(descriptor: int) -> None:
            os.close(start)
            with opened(path) as take:
                while told := os.read(reading, NUMBER.size):
                    os.write(descriptor, WON if take(*NUMBER.unpack(told)) else LOST)

        self._process, self._answer = child(race)
        os.close(reading)

    def start(self, number: int) -> None:
        """Lets it go."""
        os.write(self._start, NUMBER.pack(number))

    def won(self) -> bool:
        """Whether it took the unit."""
        answer = os.read(self._answer, 1)
        if not answer:
            raise Finding("a process died")
        return answer == WON

    def stop(self) -> None:
        """Lets it end; a racer that was started later holds the earlier one's pipe too."""
        os.close(self._start)

    def wait(self) -> None:
        """Until it has ended."""
        os.waitpid(self._process, 0)
        os.close(self._answer)


def _races(tally: Tally, path: Path, opened: Opened, numbers: Sequence[int]) -> None:
    racers = [_Racer(path, opened) for _ in range(RACERS)]
    for number in numbers:
        work = functools.partial(_race, racers, number, tally.counts)
        tally.attempt(f"race {number}", work)
    for racer in racers:
        racer.stop()
    for racer in reversed(racers):
        racer.wait()


def _race(racers: list[_Racer], number: int, counts: Counter[str]) -> None:
    order = racers if number % 2 else racers[::-1]
    for racer in order:
        racer.start(number)
    wins = [racer.won() for racer in order]
    counts["won by the one that was told second"] += wins == [False, True]
    if sum(wins) != 1:
        raise Finding(f"{sum(wins)} winners")


# Nodes.


@functools.cache
def _study(number: int) -> Terms:
    """The study of that number: one attempt, with noise enough for a hundred of them."""
    terms = study(Case(5, 1, 1)).terms
    privacy = {"rounds": 1, "max_attempts": 1, "noise_multiplier": 400.0}
    changed = terms.privacy.model_copy(update=privacy)
    return terms.model_copy(update={"study": f"study-{number}", "privacy": changed})


def _journal(path: Path) -> SqliteJournal:
    return SqliteJournal(path, origin=f"{_study(0).alliance}/member/{MEMBER}", key=KEY)


def _accept(path: Path, numbers: Sequence[int]) -> None:
    with closing(_journal(path)) as journal:
        journal.adopt(RULE)
        for number in numbers:
            journal.approve(
                _study(number),
                profile=dict.fromkeys(range(1, 6), 0.1),
                most_studies=len(numbers),
                signature=bytes(64),
            )


@contextmanager
def _spender(path: Path) -> Iterator[Take]:
    with closing(_journal(path)) as journal:

        def take(number: int) -> bool:
            terms = _study(number)
            try:
                journal.grant(terms, size=journal.reserve(terms, ahead=1))
                journal.check(terms, round_number=1, attempt=1)
                journal.use(
                    terms,
                    round_number=1,
                    attempt=1,
                    key_set=1,
                    sha256="0" * 64,
                    signature=bytes(64),
                )
            except BudgetRefusal:
                return False
            return True

        yield take


def _recount(path: Path, numbers: Sequence[int]) -> None:
    account = Account()
    with closing(_journal(path)) as journal:
        contributions: Counter[str] = Counter()
        for data in journal.store.entries():
            read = decode_entry(data, where="the ledger")
            account.apply(read, recompute=True)
            if read.kind == "contribution":
                contributions[read.terms] += 1
    for number in numbers:
        terms = _study(number)
        spent = account.study(terms.hash).spend.reserved
        if (spent, contributions[terms.hash]) != (1, 1):
            raise Finding(f"{spent} spent, {contributions[terms.hash]} contributions")


# Bare logs.


@contextmanager
def _appender(path: Path) -> Iterator[Take]:
    with closing(open_store(path)) as store:
        yield functools.partial(_take, store)


@contextmanager
def _careless_appender(path: Path) -> Iterator[Take]:
    with closing(open_store(path)) as store:
        yield functools.partial(_take_carelessly, store)


def _take(store: LedgerStore, number: int) -> bool:
    with store.transaction() as transaction:
        if transaction.size > number:
            return False
        transaction.execute("INSERT INTO spent VALUES (?)", (transaction.size,))
        transaction.append(entry(transaction.size))
        return True


def _take_carelessly(store: LedgerStore, number: int) -> bool:
    if store.size > number:
        return False
    append(store, 1)
    return True
