"""The audit for people: one HTML file in English and Chinese, without scripts or anything outside.

The same bundle, seed and options give the same report, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from privacy.ledger.audit_result import NEVER, Audit, MemberView, StudyView
from privacy.ledger.audit_study import MICRO
from privacy.ledger.findings import CHECKS
from privacy.ledger.obligations import OBLIGATIONS
from privacy.ledger.plots import Line, step_plot
from privacy.ledger.software import code_hash, software

__all__ = ["render_report"]

MOST_PLOTS: Final = 60
"""Members with a plot of their own; all of them are in the table."""
LARGEST_ODDS: Final = 1e6


@dataclass(frozen=True, slots=True)
class _Guarantee:
    """What one figure means for one consumer.

    Args:
        members: that know the consumer.
        spent: epsilon of what was released so far.
        whole: of all that the terms allow.
        second: the same by the second accountant.
        odds: by what an attacker's odds are multiplied at most.
        sure: how sure somebody can be who was undecided, in percent.
    """

    members: int
    spent: str
    whole: str
    second: str
    odds: str
    sure: str


@dataclass(frozen=True, slots=True)
class _StudyPage:
    view: StudyView
    guarantees: tuple[_Guarantee, ...]
    plot: Markup


@dataclass(frozen=True, slots=True)
class _MemberPage:
    view: MemberView
    spent: tuple[str, str]
    lifetime: tuple[str, str]
    limit: str
    left: str
    plot: Markup


def render_report(audit: Audit) -> str:
    """The report's HTML.

    Args:
        audit: of a bundle.
    """
    environment = Environment(
        loader=PackageLoader("privacy.ledger", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        audit=audit,
        checks=CHECKS,
        never=NEVER,
        obligations=OBLIGATIONS,
        studies=[_study_page(one) for one in audit.studies],
        members=[_member_page(one, at < MOST_PLOTS) for at, one in enumerate(audit.members)],
        software=software(),
        code=code_hash(),
    )


def _study_page(view: StudyView) -> _StudyPage:
    guarantees = tuple(
        _Guarantee(
            members=members,
            spent=_epsilon(spent),
            whole=_epsilon(whole),
            second=_epsilon(second),
            odds=_odds(spent),
            sure=_sure(spent),
        )
        for members, (spent, whole, second) in enumerate(
            zip(view.spent, view.whole, view.second, strict=True), start=1
        )
    )
    points = [(at, float(count)) for count, at in enumerate(view.points, start=1)]
    if view.points:
        points[-1] = (view.points[-1], float(view.attempts))
    plot = step_plot(
        [Line("one", points)],
        title=f"attempts of {view.terms.label} over time",
        limit=float(view.terms.privacy.max_attempts),
    )
    return _StudyPage(view, guarantees, Markup(plot))  # noqa: S704  (escaped where it is made)


def _member_page(view: MemberView, plotted: bool) -> _MemberPage:
    plot = ""
    if plotted:
        plot = step_plot(
            [
                Line("five", [(point.at_ms, point.five / MICRO) for point in view.points]),
                Line("one", [(point.at_ms, point.one / MICRO) for point in view.points]),
            ],
            title=f"epsilon that {view.name} spent over time",
            limit=view.rule.epsilon_micro / MICRO if view.rule else None,
        )
    return _MemberPage(
        view=view,
        spent=(_epsilon(view.spent[0]), _epsilon(view.spent[1])),
        lifetime=(_epsilon(view.lifetime[0]), _epsilon(view.lifetime[1])),
        limit=f"{view.rule.epsilon_micro / MICRO:g}" if view.rule else "–",
        left=_day(view.left_ms) if view.left_ms is not None else "",
        plot=Markup(plot),  # noqa: S704  (escaped where it is made)
    )


def _day(at_ms: int) -> str:
    """A day by the writer's clock, which may say anything."""
    try:
        return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"


def _epsilon(micro: int) -> str:
    """Rounded up, so that no reader is told less than was recorded."""
    if micro >= 2**53 - 1:
        return "∞"
    return f"{math.ceil(micro / 1000) / 1000:.3f}"


def _odds(micro: int) -> str:
    factor = math.exp(min(micro / MICRO, 700))
    if factor > LARGEST_ODDS:
        return "> 1,000,000"
    return f"{math.ceil(factor * 100) / 100:,.2f}" if factor < 100 else f"{math.ceil(factor):,}"


def _sure(micro: int) -> str:
    epsilon = min(micro / MICRO, 700)
    percent = 100 / (1 + math.exp(-epsilon))
    return f"{min(math.ceil(percent * 10) / 10, 100):.1f}"
