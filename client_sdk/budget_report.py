"""A member's budget in plain words: limits, what is spent and earmarked, and each study."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client_sdk.config import NodeConfig
from client_sdk.process import ledger_path, open_journal
from privacy.budget import MEMBERS, Account, Room, StudyAccount
from privacy.errors import BudgetRefusal, ConfigurationError
from privacy.ledger.entry import Opened
from protos.config import read_config

__all__ = ["budget_report", "budget_text", "read_budget"]

NANO = 1_000_000_000
MICRO = 1_000_000


def read_budget(path: Path) -> tuple[str, Account]:
    """A member's name and its budget, from its ledger; as configured, if it has not begun one.

    Args:
        path: of the node's configuration.

    Raises:
        ConfigurationError: if a file or the configured budget is not usable.
        LedgerError: if the ledger cannot be read.
    """
    config = read_config(path, NodeConfig).relative_to(path.parent)
    if ledger_path(config).exists():
        journal = open_journal(config)
        try:
            account = journal.account
        finally:
            journal.close()
        if account.rule is not None:
            return config.member, account
    account = Account()
    account.apply(Opened(at_ms=0, origin=config.origin, key="0" * 64, software="not begun"))
    try:
        account.apply(config.policy.budget.rule())
    except BudgetRefusal as error:
        raise ConfigurationError(f"{path}: policy.budget: {error}") from error
    return config.member, account


def budget_report(member: str, account: Account) -> dict[str, Any]:
    """All there is to say, as JSON takes it. Epsilons are rounded up, limits down.

    Raises:
        BudgetRefusal: if no rule stands in the ledger yet.
    """
    rule = account.rule
    if rule is None:
        raise BudgetRefusal("this member has no budget rule yet; start its node once")
    return {
        "member": member,
        "rule": {
            "epsilon": rule.epsilon_micro / MICRO,
            "delta": rule.delta_billionths / NANO,
            "orders": [order / 1000 for order in rule.orders_thousandths],
            "renewal_days": rule.renewal_days,
            "renewal_column": rule.renewal_column,
        },
        "period": account.period,
        "period_from_ms": account.period_from_ms,
        "due_ms": account.due_ms,
        "limits": [_room(room) for room in account.rooms],
        "epsilon": {str(m): account.epsilon_micro(m) / MICRO for m in MEMBERS},
        "lifetime_epsilon": {str(m): account.lifetime_epsilon_micro(m) / MICRO for m in MEMBERS},
        "lifetime_delta": account.lifetime_delta_billionths / NANO,
        "studies": [_study(study) for study in account.studies],
    }


def budget_text(report: dict[str, Any]) -> str:
    """The same for a person."""
    rule = report["rule"]
    delta = f"delta {rule['delta']:g}"
    lifetime_delta = f"delta {report['lifetime_delta']:g}"
    return "\n".join(
        [
            f"{report['member']}: all studies together may cost epsilon {rule['epsilon']:g} at",
            f"  {delta}, for a consumer known to up to five members,",
            f"  {_renewal(report)}.",
            "What adds up is Rényi divergence at an order that was fixed beforehand:",
            *map(_room_line, report["limits"]),
            "Spent so far, read as epsilon (the promise is the limit above):",
            f"  in this period: {_epsilons(report['epsilon'])} at {delta}",
            f"  ever: {_epsilons(report['lifetime_epsilon'])} at {lifetime_delta}",
            "Studies:" if report["studies"] else "No study was accepted yet.",
            *map(_study_lines, report["studies"]),
        ]
    )


def _renewal(report: dict[str, Any]) -> str:
    if report["due_ms"] is None:
        return "for good: it never renews"
    return (
        f"in each period of {report['rule']['renewal_days']} days, for rows whose "
        f"{report['rule']['renewal_column']} is newer than its start; period {report['period']} "
        f"began on {_day(report['period_from_ms'])} and the next may on {_day(report['due_ms'])}"
    )


def _room(room: Room) -> dict[str, Any]:
    return {
        "order": room.order_thousandths / 1000,
        "members": room.members,
        "limit": room.limit_nano / NANO,
        "spent": room.spent_nano / NANO,
        "earmarked": room.earmarked_nano / NANO,
        "left": room.left_nano / NANO,
    }


def _study(study: StudyAccount) -> dict[str, Any]:
    spend = study.spend
    return {
        "study": study.label,
        "terms": study.hash,
        "attempts": spend.attempts,
        "reserved": spend.reserved,
        "used": spend.contributions,
        "finished": spend.finished,
        "epsilon_profile": _profile(study.profile_micro),
    }


def _profile(micro: Sequence[int]) -> dict[str, float]:
    return {str(members): value / MICRO for members, value in enumerate(micro, start=1)}


def _room_line(room: dict[str, Any]) -> str:
    whom = f"{room['members']} member{'s' if room['members'] > 1 else ' '}"
    return (
        f"  order {room['order']:g}, known to {whom}: {room['spent']:.4f} spent, "
        f"{room['earmarked']:.4f} earmarked, {room['left']:.4f} left of {room['limit']:.4f}"
    )


def _study_lines(study: dict[str, Any]) -> str:
    profile = ", ".join(
        f"epsilon({members}) {value:.3f}" for members, value in study["epsilon_profile"].items()
    )
    state = "over" if study["finished"] else "open"
    return (
        f"  {study['study']} ({state}): {study['reserved']} of {study['attempts']} attempts "
        f"reserved, {study['used']} used\n    by itself, if all are used: {profile}"
    )


def _epsilons(epsilons: dict[str, float]) -> str:
    return ", ".join(f"epsilon({members}) {value:.3f}" for members, value in epsilons.items())


def _day(at_ms: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # a clock far off
        return f"{at_ms} ms"
