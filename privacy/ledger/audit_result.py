"""What an audit says, for programs and for readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from privacy.ledger.audit_log import Log
from privacy.ledger.audit_member import MemberAudit, Spent
from privacy.ledger.audit_study import MICRO
from privacy.ledger.entry import Rule
from privacy.ledger.findings import CHECKS, Finding
from privacy.terms import Terms

__all__ = ["NEVER", "Audit", "MemberView", "StudyView"]

NEVER: Final = (
    (
        "that a member really sampled, clipped and noised its own data as the terms say",
        "成员是否确实按条款对自身数据进行了抽样、裁剪与加噪",
    ),
    (
        "that keys and masks said to be deleted are deleted",
        "声称已删除的密钥与掩码是否确已删除",
    ),
    (
        "that no more members collude with the coordinator than the terms assume",
        "与协调方串通的成员是否不超过条款所假设的数量",
    ),
    (
        "the time: clocks are each writer's own and claim nothing",
        "时间：时钟由各记录方自行给出，不具证明力",
    ),
    (
        "that a consumer is known to no more members than the figure that is read for it",
        "某消费者所涉成员数是否不超过所引用数字对应的成员数",
    ),
)
"""What no bytes show, in English and in Chinese."""


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study for the reader; figures in millionths.

    Args:
        terms: of the study.
        members: that accepted.
        releases: rounds that were released.
        attempts: that were made.
        points: when attempts ended, in milliseconds.
        spent: epsilon(1..5) of the attempts that were made.
        whole: of all that the terms allow.
        second: the same by the second accountant.
        publications: how many models were published.
    """

    terms: Terms
    members: tuple[str, ...]
    releases: int
    attempts: int
    points: tuple[int, ...]
    spent: tuple[int, ...]
    whole: tuple[int, ...]
    second: tuple[int, ...]
    publications: int


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member's budget for the reader.

    Args:
        entries: of its log.
        rule: its newest; None if it has none.
        period: of its budget.
        spent: epsilon in this period, in millionths, for 1 and for 5 members.
        lifetime: of all periods together.
        lifetime_delta_billionths: at which that holds.
        points: for a plot.
        studies: label, attempts reserved, used and allowed, and whether it is over here.
        left_ms: when it left the alliance, by its own clock; None while it is a member.
    """

    name: str
    entries: int
    rule: Rule | None
    period: int
    spent: tuple[int, int]
    lifetime: tuple[int, int]
    lifetime_delta_billionths: int
    points: tuple[Spent, ...]
    studies: tuple[tuple[str, int, int, int, bool], ...]
    left_ms: int | None

    @classmethod
    def of(cls, audit: MemberAudit, log: Log) -> MemberView:
        """What the reader is shown of a member's log."""
        account = audit.account
        now = Spent(account.newest_ms, account.epsilon_micro(1), account.epsilon_micro(5))
        return cls(
            name=audit.name,
            entries=log.size,
            rule=account.rule,
            period=account.period,
            spent=(account.epsilon_micro(1), account.epsilon_micro(5)),
            lifetime=(account.lifetime_epsilon_micro(1), account.lifetime_epsilon_micro(5)),
            lifetime_delta_billionths=account.lifetime_delta_billionths,
            points=(*audit.points, now),
            studies=tuple(
                (
                    one.label,
                    one.spend.reserved,
                    one.spend.contributions,
                    one.spend.attempts,
                    one.spend.finished,
                )
                for one in account.studies
            ),
            left_ms=account.left.at_ms if account.left else None,
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit says.

    Args:
        bundle: name of the folder.
        manifest: SHA-256 of the manifest: names the bundle.
        signer: the log whose key signed it.
        findings: what does not hold.
        more: findings beyond those that are kept.
        checked: by number, how much was looked at.
        unchecked: what could have been checked and could not, from these bytes.
        entries: of all logs together.
        seed: by which rounds and samples were drawn.
    """

    bundle: str
    manifest: str
    signer: str
    findings: tuple[Finding, ...]
    more: int
    checked: dict[int, int]
    unchecked: tuple[str, ...]
    entries: int
    seed: str
    studies: tuple[StudyView, ...]
    members: tuple[MemberView, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def document(self) -> dict[str, Any]:
        """The audit for `--json`."""
        return {
            "sound": self.sound,
            "bundle": self.bundle,
            "manifest": self.manifest,
            "signer": self.signer,
            "entries": self.entries,
            "seed": self.seed,
            "findings": [finding.document() for finding in self.findings],
            "more_findings": self.more,
            "checked": [
                {"check": number, "what": check.title, "count": self.checked.get(number, 0)}
                for number, check in CHECKS.items()
            ],
            "unchecked": list(self.unchecked),
            "never_from_bytes": [english for english, _ in NEVER],
            "studies": [
                {
                    "study": one.terms.label,
                    "terms": one.terms.hash,
                    "members": list(one.members),
                    "attempts": one.attempts,
                    "releases": one.releases,
                    "publications": one.publications,
                    "delta": one.terms.privacy.delta,
                    "epsilon_spent": [value / MICRO for value in one.spent],
                    "epsilon_most": [value / MICRO for value in one.whole],
                    "epsilon_second_accountant": [value / MICRO for value in one.second],
                }
                for one in self.studies
            ],
            "members": [
                {
                    "member": one.name,
                    "entries": one.entries,
                    "limit": one.rule.epsilon_micro / MICRO if one.rule else None,
                    "epsilon_spent": [value / MICRO for value in one.spent],
                    "epsilon_lifetime": [value / MICRO for value in one.lifetime],
                    "attempts": {label: reserved for label, reserved, *_ in one.studies},
                    "left_ms": one.left_ms,
                }
                for one in self.members
            ],
        }
