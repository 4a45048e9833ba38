"""Entries of a member's log, as tests need them."""

from __future__ import annotations

import json
from typing import Any

from privacy.budget import Account, attempt_costs, failure_atto
from privacy.ledger.entry import (
    Consent,
    Contribution,
    Finished,
    Left,
    Opened,
    Renewal,
    Reservation,
    Rule,
)
from privacy.terms import Terms

START_MS = 1_800_000_000_000
DAY_MS = 24 * 3600 * 1000
ORIGIN = "test/member/member-0"


def opened(origin: str = ORIGIN) -> Opened:
    return Opened(at_ms=START_MS, origin=origin, key="ab" * 32, software="test")


def rule(**changes: Any) -> Rule:
    values: dict[str, Any] = {
        "at_ms": START_MS,
        "epsilon_micro": 10_000_000,
        "delta_billionths": 10_000,
        "orders_thousandths": (3500,),
        "renewal_days": 0,
        "renewal_column": "",
    }
    return Rule(**(values | changes))


def consent(
    agreed: Terms,
    /,
    orders: tuple[int, ...] = (3500,),
    at_ms: int = START_MS,
    **changes: Any,
) -> Consent:
    values: dict[str, Any] = {
        "at_ms": at_ms,
        "terms": json.loads(agreed.canonical()),
        "hash": agreed.hash,
        "attempts": agreed.privacy.max_attempts,
        "profile_micro": (1, 2, 3, 4, 5),
        "costs": attempt_costs(agreed, orders),
        "failure_atto": failure_atto(agreed),
        "signature": "cd" * 64,
    }
    return Consent(**(values | changes))


def reservation(terms: Terms, first: int, count: int = 1, at_ms: int = START_MS) -> Reservation:
    return Reservation(at_ms=at_ms, terms=terms.hash, first=first, count=count, nonce="0" * 32)


def contribution(
    terms: Terms, number: int, round_number: int | None = None, attempt: int = 1
) -> Contribution:
    return Contribution(
        at_ms=START_MS, terms=terms.hash, round=number if round_number is None else round_number,
        attempt=attempt, number=number, key_set=number, sha256="ef" * 32, signature="cd" * 64,
    )  # fmt: skip


def finished(terms: Terms) -> Finished:
    return Finished(at_ms=START_MS, terms=terms.hash, sentence="done")


def left() -> Left:
    return Left(at_ms=START_MS, sentence="we sell no groceries any more")


def renewal(period: int, from_ms: int, at_ms: int | None = None) -> Renewal:
    return Renewal(at_ms=from_ms if at_ms is None else at_ms, period=period, from_ms=from_ms)


def account(*entries: Any, **changes: Any) -> Account:
    """An account with a rule, and with further entries."""
    result = Account()
    for entry in (opened(), rule(**changes), *entries):
        result.apply(entry, recompute=True)
    return result
