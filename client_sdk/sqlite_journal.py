"""A member's journal on its own ledger: one SQLite file that outlives every process."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from client_sdk.dataset import RowPeriod
from client_sdk.journal import too_many_studies, unknown_terms
from client_sdk.own_log import DAY_MS, OwnLog
from privacy.budget import Account, attempt_costs, failure_atto
from privacy.errors import BudgetRefusal, RequestRefusal
from privacy.identity import Identity, IdentityKey
from privacy.ledger.entry import (
    Consent,
    Contribution,
    Finished,
    Left,
    Refusal,
    Renewal,
    Reservation,
    Rule,
    Started,
)
from privacy.terms import LARGEST_INTEGER, Terms, TermsHash

__all__ = ["SqliteJournal"]

REFUSALS_A_DAY: Final = 1000
"""More are not recorded, so that nobody fills the disk with them."""

HASH: Final = re.compile("[0-9a-f]{64}")

LONGEST_TEXT: Final = 500
"""Of a sentence in an entry."""


class SqliteJournal:
    """A journal on a ledger in one SQLite file.

    Guarantees:
        Every entry was allowed by the account of all entries before it, those of other processes
        on the same file included: the transaction decides, and the last attempt has one winner.
        Whatever is reserved was on the disk before `reserve` returned. Nothing reserved by an
        earlier process is used before a quorum vouched for a log with an entry of this one.

    Args:
        path: the file; made if it is not there, readable by its owner only.
        origin: of the log: ``ALLIANCE/member/NAME``.
        key: signs its heads.
        software: what writes it.
        now_ms: milliseconds since 1970.

    Raises:
        ConfigurationError: if the file cannot be made.
        LedgerError: if it cannot be used, or holds what no member may have written.
    """

    def __init__(
        self,
        path: Path,
        *,
        origin: str,
        key: Identity,
        software: str = "alliance",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._log = OwnLog(path, origin=origin, key=key, software=software, now_ms=now_ms)
        self.store = self._log.store
        self._software = software
        self._now_ms = now_ms
        self._started: int | None = None
        self._granted: dict[str, int] = {}
        self._rows: RowPeriod | None = None
        self._rows = self._rows_now()

    @property
    def ledger_key(self) -> IdentityKey:
        """See `Journal.ledger_key`."""
        return self.store.key

    @property
    def account(self) -> Account:
        """The budget as all entries leave it; not to be changed."""
        self._log.follow()
        return self._log.account

    @property
    def rows(self) -> RowPeriod | None:
        """Which rows this process may spend on; None for all, where the rule knows no dates."""
        return self._rows

    @property
    def largest_dimension(self) -> int:
        """Of all accepted terms: the longest public state a task may carry; 0 before any."""
        return max((terms.dimension for terms in self.accepted), default=0)

    @property
    def accepted(self) -> tuple[Terms, ...]:
        """All accepted terms."""
        return tuple(self._log.terms.values())

    def close(self) -> None:
        """Lets go of the file."""
        self.store.close()

    # Leaving.

    def leave(self, sentence: str) -> Left:
        """Stops all spend for good, in every process; durable when it returns, again is the same.

        Args:
            sentence: why, in the member's own words.

        Returns:
            The entry, which may be of an earlier call.
        """
        with self._log.writing() as transaction:
            left = self._log.account.left
            if left is None:
                left = Left(at_ms=self._now(), sentence=_text(sentence))
                self._log.append(transaction, left)
            return left

    # The member's own rule.

    def adopt(self, rule: Rule) -> None:
        """Makes this the member's rule from now on, if it is not; its time is that of the clock.

        As with `renew`, the caller reads its data afterwards.

        Raises:
            BudgetRefusal: if the rule cannot be kept, or changes what is fixed.
        """
        with self._log.writing() as transaction:
            before = self._log.account.rule
            if before is None or before.model_copy(update={"at_ms": rule.at_ms}) != rule:
                self._log.append(transaction, rule.model_copy(update={"at_ms": self._now()}))
            self._rows = self._rows_now()

    def renew(self) -> RowPeriod | None:
        """Begins the next period if it is due; which rows may be used in the one that runs.

        The caller reads its data afterwards: rows of an earlier period must not be spent on again.
        Another process that read them before spends nothing from here on.
        """
        with self._log.writing() as transaction:
            now_ms = self._now()
            due_ms = self._log.account.due_ms
            # Not before the newest entry: a clock that was set back begins nothing.
            if due_ms is not None and max(due_ms, self._log.account.newest_ms) <= now_ms:
                period = self._log.account.period + 1
                self._log.append(transaction, Renewal(at_ms=now_ms, period=period, from_ms=now_ms))
            self._rows = self._rows_now()
            return self._rows

    # What a study takes.

    def approve(
        self, terms: Terms, *, profile: Mapping[int, float], most_studies: int, signature: bytes
    ) -> None:
        """See `Journal.approve`."""
        with self._log.writing() as transaction:
            self._log.account.expect_member()
            if self._log.account.knows(terms.hash):
                return
            accepted = len(self._log.account.studies)
            if accepted >= most_studies:
                raise too_many_studies(accepted)
            self._expect_rows()
            if self._log.account.rule is None:
                raise BudgetRefusal("this member has no budget rule yet; start its node once")
            if not max(profile.values()) * 1_000_000 < LARGEST_INTEGER:
                raise BudgetRefusal(f"study {terms.study}: its epsilon has no bound")
            consent = Consent(
                at_ms=self._now(),
                terms=json.loads(terms.canonical()),
                hash=terms.hash,
                attempts=terms.privacy.max_attempts,
                # Projections are whole millionths, rounded up before.
                profile_micro=tuple(round(profile[m] * 1_000_000) for m in sorted(profile)),
                costs=attempt_costs(terms, self._log.account.rule.orders_thousandths),
                failure_atto=failure_atto(terms),
                signature=signature.hex(),
            )
            self._log.append(transaction, consent)

    def consented(self, terms: Terms) -> bool:
        """See `Journal.consented`; another process may have written the consent."""
        account = self.account
        if not account.knows(terms.hash):
            return False
        account.study(terms.hash).spend.expect_open()
        return True

    def terms(self, terms_hash: TermsHash) -> Terms:
        """See `Journal.terms`."""
        with self._log.lock:
            if terms_hash not in self._log.terms:  # another process may have accepted them
                self._log.follow()
            if terms_hash not in self._log.terms:
                raise unknown_terms(terms_hash)
            return self._log.terms[terms_hash]

    def reserve(self, terms: Terms, *, ahead: int) -> int:
        """See `Journal.reserve`. Begins with `started`, once per process."""
        self.terms(terms.hash)
        self._begin()
        with self._log.writing() as transaction:
            self._log.account.expect_member()
            self._expect_rows()
            spend = self._log.account.study(terms.hash).spend
            unused = len(self._log.account.usable(terms.hash))
            wanted = min(ahead - unused, spend.unreserved)
            if wanted > 0 or (ahead > 0 and (unused == 0 or spend.finished)):
                reservation = Reservation(
                    at_ms=self._now(),
                    terms=terms.hash,
                    first=spend.reserved + 1,
                    count=max(wanted, 1),  # one too many is refused with the reason
                    nonce=secrets.token_hex(16),
                )
                self._log.append(transaction, reservation)
            return transaction.size

    def grant(self, terms: Terms, *, size: int) -> None:
        """See `Journal.grant`."""
        self.terms(terms.hash)
        with self._log.lock:
            if self._started is None or size <= self._started:
                raise RequestRefusal(
                    "the head covers nothing that this process wrote; reserve before granting"
                )
            covered = [last for index, last in self._log.reserved[terms.hash] if index < size]
            self._granted[terms.hash] = max([self._granted.get(terms.hash, 0), *covered])
            self._log.reserved[terms.hash] = [
                (index, last) for index, last in self._log.reserved[terms.hash] if index >= size
            ]

    def check(self, terms: Terms, *, round_number: int, attempt: int) -> None:
        """See `Journal.check`."""
        self.terms(terms.hash)
        with self._log.lock:
            self._log.follow()
            self._log.account.expect_member()
            self._expect_rows()
            spend = self._log.account.study(terms.hash).spend
            spend.expect_later(round_number=round_number, attempt=attempt)
            self._next(terms)

    def use(
        self,
        terms: Terms,
        *,
        round_number: int,
        attempt: int,
        key_set: int,
        sha256: str,
        signature: bytes,
    ) -> None:
        """See `Journal.use`."""
        self.terms(terms.hash)
        with self._log.writing() as transaction:
            self._log.account.expect_member()
            self._expect_rows()
            contribution = Contribution(
                at_ms=self._now(),
                terms=terms.hash,
                round=round_number,
                attempt=attempt,
                number=self._next(terms),
                key_set=key_set,
                sha256=sha256,
                signature=signature.hex(),
            )
            self._log.append(transaction, contribution)

    def finish(self, terms: Terms, sentence: str) -> None:
        """See `Journal.finish`."""
        self.terms(terms.hash)
        with self._log.writing() as transaction:
            if not self._log.account.study(terms.hash).spend.finished:
                entry = Finished(at_ms=self._now(), terms=terms.hash, sentence=_text(sentence))
                self._log.append(transaction, entry)

    def refuse(self, terms_hash: str, task: str, sentence: str) -> None:
        """See `Journal.refuse`; at most ``REFUSALS_A_DAY``."""
        with self._log.writing() as transaction:
            now_ms = self._now()
            entry = Refusal(
                at_ms=now_ms,
                terms=terms_hash if HASH.fullmatch(terms_hash) else "",
                task=_text(task),
                sentence=_text(sentence),
            )
            last, (day, count) = self._log.last_refusal, self._log.refusals
            same = last is not None and last.model_copy(update={"at_ms": now_ms}) == entry
            if not same and (day != now_ms // DAY_MS or count < REFUSALS_A_DAY):
                self._log.append(transaction, entry)

    # The log.

    def _begin(self) -> None:
        """Marks in the log that this process took it over."""
        with self._log.lock:
            if self._started is not None:
                return
            with self._log.writing() as transaction:
                self._expect_rows()
                nonce = secrets.token_hex(16)
                entry = Started(at_ms=self._now(), software=_text(self._software), nonce=nonce)
                index = self._log.append(transaction, entry)
            self._started = index

    def _next(self, terms: Terms) -> int:
        """The reserved number that the next contribution uses."""
        numbers = self._log.account.usable(terms.hash)
        if not numbers:
            raise BudgetRefusal(f"study {terms.study}: no attempt is reserved; reserve one first")
        if numbers[0] > self._granted.get(terms.hash, 0):
            raise BudgetRefusal(
                f"study {terms.study}: no quorum vouches yet for a ledger that reserves attempt "
                f"{numbers[0]} since this node started"
            )
        return numbers[0]

    # Rows and time.

    def _now(self) -> int:
        """The clock, but not before the moment up to which rows were read."""
        return max(self._now_ms(), self._rows.until_ms if self._rows is not None else 0)

    def _rows_now(self) -> RowPeriod | None:
        """Which rows the present period is about; None if the rule knows no dates."""
        rule = self._log.account.rule
        if rule is None or not rule.renewal_column:
            return None
        first = self._log.account.period == 1
        after_ms = None if first else self._log.account.period_from_ms
        return RowPeriod(rule.renewal_column, after_ms, self._now())

    def _expect_rows(self) -> None:
        """Refuses to spend on rows that were read for another period."""
        if _window(self._rows) != _window(self._rows_now()):
            raise BudgetRefusal(
                "a new period of this member's budget began; restart its node, so that it reads "
                "newer rows only"
            )


def _window(rows: RowPeriod | None) -> tuple[str, int | None] | None:
    """What must stay the same while rows are spent on."""
    return (rows.column, rows.after_ms) if rows is not None else None


def _text(text: str) -> str:
    """A sentence as entries hold it."""
    return text.encode("utf-8", "replace").decode()[:LONGEST_TEXT]
