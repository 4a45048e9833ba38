"""What a member allows, whatever the coordinator proposes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from privacy.accounting import Projection
from privacy.admission import check_admissions
from privacy.budget import (
    DEFAULT_DELTA,
    DEFAULT_EPSILON,
    LARGEST_EPSILON,
    LARGEST_ORDER,
    default_order,
)
from privacy.errors import PolicyRefusal
from privacy.identity import IdentityKey
from privacy.ledger.entry import Rule
from privacy.terms import DataContract, IdentityText, Name, RosterEntry, StrictModel, Terms

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

    recipes: tuple[str, ...] = ("propensity",)
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

    def check_terms(self, terms: Terms, *, own_entry: RosterEntry, contract: DataContract) -> None:
        """Refuses terms that exceed this policy, before anything is computed or touched.

        Args:
            terms: as proposed.
            own_entry: how the roster must name this member.
            contract: the table this member brings.

        Raises:
            PolicyRefusal: naming the first limit that is exceeded.
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
        if terms.contract != contract:
            raise PolicyRefusal(
                f"study {terms.study}: its data contract is not {contract.name} version "
                f"{contract.version} as this member holds it"
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
        """Refuses terms whose projected cost exceeds this policy.

        Args:
            terms: within `check_terms`, so that their projection was affordable.
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
