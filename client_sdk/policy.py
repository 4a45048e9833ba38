"""What a member allows, whatever the coordinator proposes.

Three kinds of check, so that it is plain what a person may decide:
 - what must hold whoever approves: the roster names this member as it declared itself, and members
   it has reason to believe in; the contract is the one it brings (`check_terms`, `check_contract`);
 - rules that approve by themselves: recipe, purpose, columns, noise, cohort, cost (`check_rules`,
   `check_cost`). What they do not approve waits for a person, or is refused if the policy says so;
 - the budget over all studies, which its ledger holds: nobody approves beyond it.
"""

from __future__ import annotations

import fnmatch
import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from client_sdk.hours import Hours
from privacy.admission import check_admissions
from privacy.budget import (
    DEFAULT_DELTA,
    DEFAULT_EPSILON,
    LARGEST_EPSILON,
    LARGEST_ORDER,
    default_order,
)
from privacy.documents import StrictModel
from privacy.errors import PolicyRefusal
from privacy.identity import IdentityKey
from privacy.ledger.entry import Rule
from privacy.terms import Column, ColumnName, DataContract, IdentityText, Name, RosterEntry, Terms

if TYPE_CHECKING:
    from privacy.accounting import Projection

__all__ = ["Budget", "Policy"]


class Budget(StrictModel):
    """What all studies together may cost a consumer, whatever each of them costs.

    The limit holds for a consumer known to five members, and so for one known to fewer. By default
    it never renews: it is for everything this member will ever send.
    """

    epsilon: float = Field(default=DEFAULT_EPSILON, ge=1e-6, le=LARGEST_EPSILON)
    delta: float = Field(default=DEFAULT_DELTA, ge=1e-9, lt=0.01)
    orders: tuple[Annotated[float, Field(gt=1, le=LARGEST_ORDER)], ...] = Field(
        default=(), max_length=16
    )
    """Rényi orders that the sum is kept at; all must hold. By default one that suits epsilon and
    delta. They are fixed before the first study."""
    renewal_days: int = Field(default=0, ge=0, le=36_500)
    """A period's length: its budget begins at zero, for rows newer than its start alone."""
    renewal_column: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62})?$")
    """The column of dates, outside the data contract, that tells which rows those are."""

    def rule(self, at_ms: int = 0) -> Rule:
        """The same as the ledger holds it.

        Raises:
            BudgetRefusal: if no order suits epsilon and delta.
        """
        # Down to whole units; 1e-6 absorbs what a decimal fraction loses as a double.
        epsilon_micro = math.floor(self.epsilon * 1_000_000 + 1e-6)
        delta_billionths = math.floor(self.delta * 1_000_000_000 + 1e-6)
        orders = tuple(round(order * 1000) for order in self.orders)
        return Rule(
            at_ms=at_ms,
            epsilon_micro=epsilon_micro,
            delta_billionths=delta_billionths,
            orders_thousandths=orders
            or (default_order(epsilon_micro=epsilon_micro, delta_billionths=delta_billionths),),
            renewal_days=self.renewal_days,
            renewal_column=self.renewal_column,
        )


class Policy(StrictModel):
    """Limits a member sets on the studies it takes part in.

    The defaults are cautious; a member loosens what it means to.
    """

    otherwise: Literal["ask", "refuse"] = "ask"
    """What becomes of a study that the rules below do not approve: a person decides
    (`alliance-node study`), or it is refused."""
    recipes: tuple[str, ...] = ("propensity",)
    purposes: tuple[str, ...] = ()
    """Patterns such as ``*coupon*``, one of which a study's purpose must match; none: any."""
    columns: tuple[ColumnName, ...] | None = None
    """Columns, the label among them, that a study may read; all of the contract if not given."""
    hours: tuple[str, ...] = ()
    """When this node answers, such as ``22:00-06:00`` or ``mon-fri 18:30-24:00``; none: always.
    Outside them it has no stream and counts as absent."""
    zone: str = "UTC"
    """The time zone of ``hours``, such as ``Asia/Shanghai``."""
    most_epsilon: float = Field(default=1.0, gt=0)
    """On epsilon(1), the whole study's projected cost for a consumer known to one member."""
    most_epsilon_local: float = Field(default=3.0, gt=0)
    """On epsilon_local: what would hold if secure aggregation failed and somebody saw this member's
    messages alone (rule R13)."""
    most_studies: int = Field(default=100, ge=1)
    """Studies this node accepts in all; what they may cost together, the budget says."""
    budget: Budget = Budget()
    """Over all studies."""
    most_delta: float = Field(default=1e-5, gt=0, lt=0.01)
    most_clipping_norm: float = Field(default=10.0, gt=0)
    least_noise_multiplier: float = Field(default=0.3, gt=0)
    least_member_noise_multiplier: float = Field(default=0.0, ge=0)
    """Floor on the noise in this member's own message (rule R13)."""
    least_cohort: int = Field(default=4, ge=3)
    most_attempts: int = Field(default=10_000, ge=1)
    admission: Literal["pinned", "countersigned"] | None = None
    """How this member must know whom a roster names: ``pinned``: each is in ``known_members``;
    ``countersigned``: or more than c of those vouch for it (`privacy.admission`). Without it,
    ``pinned`` where there are any known members."""
    known_members: dict[Name, IdentityText] = Field(default_factory=dict)
    """Identity keys this member knows from elsewhere. Where there are any, a roster may name nobody
    else: then the coordinator cannot fill a cohort with members it made up."""
    auditor_keys: tuple[IdentityText, ...] = ()
    """Auditors that may enrol canaries here (`client_sdk.canaries`); nobody by default."""

    @model_validator(mode="after")
    def _hours(self) -> Self:
        self.windows  # noqa: B018  (raises here, not when the node runs)
        return self

    @property
    def windows(self) -> Hours:
        """When this node answers."""
        return Hours.of(self.hours, self.zone)

    def check_terms(self, terms: Terms, *, own_entry: RosterEntry) -> None:
        """Refuses terms that nobody here may approve, before anything is computed or touched.

        Args:
            terms: as proposed.
            own_entry: how the roster must name this member.

        Raises:
            PolicyRefusal: naming what does not hold.
        """
        if terms.entry(own_entry.name) != own_entry:
            raise PolicyRefusal(
                f"study {terms.study}: the roster's entry for {own_entry.name} is not the one "
                "this member declared"
            )
        pinned = self.admission == "pinned" or (self.known_members and self.admission is None)
        for entry in terms.roster if pinned else ():
            if entry != own_entry and self.known_members.get(entry.name) != entry.identity:
                raise PolicyRefusal(
                    f"study {terms.study}: {entry.name} with identity {entry.identity[:16]} is not "
                    "among this member's known_members; compare keys with it, then add it"
                )

    def check_contract(self, terms: Terms, contract: DataContract) -> None:
        """Refuses terms whose data contract is not the one that this member's table keeps.

        Args:
            terms: as proposed.
            contract: the table this member brings.

        Raises:
            PolicyRefusal: naming the first difference, and the remedy.
        """
        if terms.contract == contract:
            return
        raise PolicyRefusal(
            f"study {terms.study}: its data contract {_difference(terms.contract, contract)}; if "
            f"the data fits, take it over: alliance-node study show {terms.label} --contract, then "
            "alliance-node check and a restart"
        )

    def check_rules(self, terms: Terms) -> None:
        """Whether the rules approve terms, as far as that is seen without working out their cost.

        Args:
            terms: within `check_terms`.

        Raises:
            PolicyRefusal: naming the first rule that does not.
        """
        privacy = terms.privacy
        _check_limits(
            terms,
            ("delta", privacy.delta, self.most_delta, True),
            ("clipping norm", privacy.clipping_norm, self.most_clipping_norm, True),
            ("noise multiplier", privacy.noise_multiplier, self.least_noise_multiplier, False),
            (
                "member noise multiplier",
                privacy.member_noise_multiplier,
                self.least_member_noise_multiplier,
                False,
            ),
            ("cohort size", privacy.cohort_size, self.least_cohort, False),
            ("attempts", privacy.max_attempts, self.most_attempts, True),
        )
        if terms.recipe not in self.recipes:
            raise PolicyRefusal(
                f"study {terms.study}: recipe {terms.recipe} is not one this member allows"
            )
        purpose = terms.purpose.lower()
        if self.purposes and not any(
            fnmatch.fnmatchcase(purpose, pattern.lower()) for pattern in self.purposes
        ):
            raise PolicyRefusal(
                f"study {terms.study}: its purpose is not one this member allows by rule"
            )
        read = [*(column.name for column in terms.contract.columns), terms.contract.label]
        beyond = [name for name in read if self.columns is not None and name not in self.columns]
        if beyond:
            raise PolicyRefusal(
                f"study {terms.study}: it reads {', '.join(beyond[:10])}, which this member's "
                "policy does not allow by rule"
            )

    def check_admissions(self, terms: Terms, admissions: bytes, *, own: IdentityKey) -> None:
        """Refuses a roster with members that nobody whom this one knows vouches for.

        Args:
            terms: as proposed.
            admissions: the vouches that came with them.
            own: this member's identity.

        Raises:
            PolicyRefusal: naming the first such member.
        """
        if self.admission == "countersigned":
            check_admissions(terms, admissions, own=own, known=self.known_members)

    def check_cost(self, terms: Terms, projection: Projection) -> None:
        """Whether the rules approve what terms would cost.

        Args:
            terms: within `check_rules`, so that their projection was affordable.
            projection: this member's own.

        Raises:
            PolicyRefusal: naming the first limit that is exceeded.
        """
        _check_limits(
            terms,
            ("epsilon(1)", projection.profile[1], self.most_epsilon, True),
            ("epsilon_local", projection.epsilon_local, self.most_epsilon_local, True),
        )


def _check_limits(terms: Terms, *limits: tuple[str, float, float, bool]) -> None:
    """Each limit: what, asked, allowed, and whether that is the most (or the least) allowed."""
    for what, asked, allowed, within in limits:
        if not (asked <= allowed if within else asked >= allowed):  # refuses NaN as well
            bound = "at most" if within else "at least"
            raise PolicyRefusal(
                f"study {terms.study}: the terms' {what} is {asked:g}, "
                f"this member's policy allows {bound} {allowed:g}"
            )


def _difference(theirs: DataContract, ours: DataContract) -> str:
    """The first thing in which a study's contract is not this member's."""
    held = f"{ours.name} version {ours.version} as this member holds it"
    for what, asked, here in (
        ("the consumer's id", theirs.consumer_id, ours.consumer_id),
        ("the label", theirs.label, ours.label),
    ):
        if asked != here:
            return f"has {what} in {asked}, {held} in {here}"
    columns = {column.name: column for column in ours.columns}
    for column in theirs.columns:
        if column.name not in columns:
            return f"needs the column {_declared(column)}, which {held} lacks"
        if column != columns[column.name]:
            there = _declared(columns[column.name])
            if there == _declared(column):
                return f"declares {column.name} otherwise than {held}"
            return f"declares {_declared(column)}, {held} {there}"
    if len(theirs.columns) < len(ours.columns):
        asked_names = {column.name for column in theirs.columns}
        more = next(column.name for column in ours.columns if column.name not in asked_names)
        return f"does not have the column {more} of {held}"
    if theirs.rows_per_consumer != ours.rows_per_consumer:
        return (
            f"uses {theirs.rows_per_consumer} rows of a consumer, {held} {ours.rows_per_consumer}"
        )
    return f"is {theirs.name} version {theirs.version} and not {held}, or orders columns otherwise"


def _declared(column: Column) -> str:
    if column.kind == "number":
        bins = f", {column.codes} bins" if column.binned else ""
        return f"{column.name} ({column.low:g} to {column.high:g}, {column.scale}{bins})"
    what = f"in {column.buckets} buckets" if column.buckets else f"one of {column.codes} values"
    return f"{column.name} ({what})"
