"""The ledger's benchmark measures what it says: its log is sound, and its oracle is right."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks import ledger
from benchmarks.report import Report
from privacy.budget import Account
from privacy.ledger.entry import Contribution, Opened


def test_the_long_log_is_one_that_a_member_may_write():
    account = Account()
    account.apply(Opened(at_ms=1, origin=ledger.ORIGIN, key=ledger.KEY.public, software="x"))
    entries = list(islice(ledger.member_log(400), 300))
    for entry in entries:
        account.apply(entry, recompute=True)
    assert sum(isinstance(entry, Contribution) for entry in entries) > 250
    assert account.studies[0].spend.reserved >= 272


def test_a_quick_audit_is_of_the_whole_log_and_finds_nothing():
    report = Report("ledger", quick=True)
    ledger.audit(report)
    audited, _ = report.rows
    assert "20,000 entries" in audited.name
    assert audited.failures == 0


def test_the_closed_form_is_the_gaussian_s():
    # Balle and Wang (2018): at mu = 1, epsilon = 1 the exact delta is 0.1269.
    assert ledger.gaussian(1.0, 0.126936737507) == pytest.approx(1.0, abs=1e-6)
