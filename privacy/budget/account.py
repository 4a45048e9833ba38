"""What a member may still spend: a fold over the entries of its own ledger.

The node applies an entry before it appends it, an auditor applies all of them afterwards; the same
code refuses in both. What is checked, numbered as in the code:
 (1) `opened` comes first and once, and opens a member's log; only a member's entries follow;
 (2) a rule that can be kept comes before consent and renewal; its orders stay while anything was
     spent in this period or is earmarked, its renewal column stays once anything was ever spent;
 (3) a consent is to canonical terms of this alliance that name this member, once for each hash;
 (4) it earmarks all attempts of the terms, at what they cost for each order and both counts of
     members, as anybody recomputes it from the terms;
 (5) what is spent in this period, earmarked and new together stay within every limit;
 (6) a reservation turns earmark into spend: the next numbers, within the terms, and what is spent
     stays within every limit of the newest rule;
 (7) a contribution uses a reserved number of this period, once, for a later (round, attempt);
 (8) `finished` frees what was never reserved; nothing of that study follows;
 (9) a period begins as the newest rule says: at least its days after the last one began, not before
     any entry and not in the future. Its spend begins at zero, for newer rows alone;
 (10) `left` ends all studies and comes once; refusals and conflicts alone may follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from privacy.budget.limits import Limits, epsilon_micro, limits_of
from privacy.budget.rdp import (
    ATTO,
    NANO,
    THOUSANDTHS,
    attempt_costs,
    consumer_members,
    failure_atto,
)
from privacy.budget.room import MEMBERS, Room, StudyAccount, StudyCost
from privacy.budget.study import StudySpend
from privacy.errors import BudgetRefusal, TermsError
from privacy.ledger.entry import (
    Conflict,
    Consent,
    Contribution,
    Cost,
    Entry,
    Finished,
    Left,
    Opened,
    Refusal,
    Renewal,
    Reservation,
    Rule,
    Started,
)
from privacy.terms import Terms

__all__ = ["Account"]

DAY_MS: Final = 24 * 3600 * 1000
ATTO_PER_BILLIONTH: Final = 1_000_000_000


class Account:
    """A member's budget as its log leaves it.

    Guarantees:
        Unit: one consumer known to 1, or to at most 5 members; add/remove. At every moment all that
        left this member in a period is (epsilon, delta)-DP at the newest rule's, if no rule was
        lowered beneath what was spent; then nothing more is spent. Studies may be chosen in view of
        what came before. Each period is about rows that no other period used. `epsilon_micro` is
        the reading of the sums so far; the promise is the limit.
        An entry that is refused changes nothing.
    """

    def __init__(self) -> None:
        self.opened: Opened | None = None
        self.left: Left | None = None
        self.rule: Rule | None = None
        self.limits = Limits({}, 0)
        self.period = 1
        self.period_from_ms = 0
        self.newest_ms = 0
        self._studies: dict[str, StudyAccount] = {}
        self._spent: list[int] = []
        self._lifetime: list[int] = []
        self._failures = 0
        self._lifetime_failures = 0
        self._past_micro = [0] * len(MEMBERS)
        self._past_delta = 0

    def apply(self, entry: Entry, *, recompute: bool = False) -> None:
        """Takes in the log's next entry.

        Args:
            entry: of this member's log.
            recompute: whether a consent's costs are worked out again from its terms, instead of
                trusted because an equal account checked them before.

        Raises:
            BudgetRefusal: if such an entry is not allowed here.
        """
        if isinstance(entry, Opened) != (self.opened is None):  # (1)
            raise BudgetRefusal("a log has one `opened` entry, and it is the first")
        if not isinstance(entry, (Refusal, Conflict)):  # (10)
            self.expect_member()
        match entry:
            case Opened():
                self._open(entry)
            case Rule():
                self._set_rule(entry)
            case Consent():
                self._consent(entry, recompute)
            case Reservation():
                self._reserve(entry)
            case Contribution():
                self._contribute(entry)
            case Finished():
                study = self.study(entry.terms)
                self._keep(study, study.spend.finish())  # (8)
            case Renewal():
                self._renew(entry)
            case Left():
                self._leave(entry)
            case Started() | Refusal() | Conflict():
                pass
            case _:
                kind = getattr(entry, "kind", type(entry).__name__)
                raise BudgetRefusal(f"a member's log holds no {kind!r:.40} entry")
        self.newest_ms = max(self.newest_ms, entry.at_ms)

    # What there is.

    def expect_member(self) -> None:
        """Checks that this member has not left the alliance.

        Raises:
            BudgetRefusal: if it has.
        """
        if self.left is not None:
            raise BudgetRefusal(
                "this member has left the alliance; nothing is accepted or spent from its ledger "
                "any more"
            )

    @property
    def studies(self) -> tuple[StudyAccount, ...]:
        """All that were accepted, in that order."""
        return tuple(self._studies.values())

    @property
    def due_ms(self) -> int | None:
        """When the next period may begin, by the newest rule; None if the budget never renews."""
        days = self.rule.renewal_days if self.rule else 0
        return self.period_from_ms + days * DAY_MS if days else None

    def knows(self, terms_hash: str) -> bool:
        """Whether these terms were accepted."""
        return terms_hash in self._studies

    def study(self, terms_hash: str) -> StudyAccount:
        """One accepted study.

        Raises:
            BudgetRefusal: if it was not accepted.
        """
        if terms_hash not in self._studies:
            raise BudgetRefusal(f"terms {terms_hash[:12]} were not accepted here")
        return self._studies[terms_hash]

    @property
    def rooms(self) -> tuple[Room, ...]:
        """Every limit of the rule: by order, and for each of ``MEMBERS`` in turn."""
        return tuple(
            Room(order, members, self.limits.rdp_nano[order], spent, earmarked)
            for (order, members), spent, earmarked in zip(
                self._slots(), self._spent, self._earmarked(), strict=True
            )
        )

    @property
    def failure_left_atto(self) -> int:
        """What a new study may add to delta by failures, in 1e-18."""
        earmarked = sum(one.failure_atto * one.spend.unreserved for one in self.studies)
        return self.limits.failure_atto - self._failures - earmarked

    def epsilon_micro(self, members: int) -> int:
        """Epsilon of what was spent in this period, at the rule's delta, rounded up.

        Args:
            members: 1 or 5.
        """
        return self._epsilon(self._spent, members)

    def lifetime_epsilon_micro(self, members: int) -> int:
        """Epsilon of all that was ever spent, at `lifetime_delta_billionths`, rounded up."""
        past = self._past_micro[MEMBERS.index(members)]
        return past + self._epsilon(self._lifetime, members)

    @property
    def lifetime_delta_billionths(self) -> int:
        """Delta of that epsilon: the rule's, once for each set of orders there ever was, and what
        failures of several periods add beyond one period's share.
        """
        if self.rule is None or not any(self._lifetime):
            return self._past_delta
        excess = max(0, self._lifetime_failures - self.limits.failure_atto)
        return self._past_delta + self.rule.delta_billionths - (-excess // ATTO_PER_BILLIONTH)

    def projection(self, terms: Terms) -> StudyCost:
        """What a study would take, and whether it fits (check 5).

        Raises:
            BudgetRefusal: if there is no rule, or the terms cost more than can be recorded.
        """
        costs = tuple(
            cost.rdp_nano for cost in attempt_costs(terms, self._expect_rule().orders_thousandths)
        )
        return self._cost(terms, costs, failure_atto(terms))

    def usable(self, terms_hash: str) -> range:
        """Reserved numbers that a contribution of this period may still use."""
        spend = self.study(terms_hash).spend
        return range(spend.used + 1, spend.reserved + 1)

    # Entries.

    def _open(self, entry: Opened) -> None:
        if not _owner(entry):  # (1)
            raise BudgetRefusal(f"{entry.origin} is not a member's log")
        self.opened, self.period_from_ms = entry, entry.at_ms

    def _set_rule(self, rule: Rule) -> None:
        limits = limits_of(rule)  # (2)
        before = self.rule
        used = any(self._lifetime) or self._past_delta or self.period > 1
        if before is not None and used and before.renewal_column != rule.renewal_column:
            raise BudgetRefusal(
                "the renewal column cannot change once anything was spent: rows used so far are "
                f"told from newer ones by {before.renewal_column or 'no column'}"
            )
        if before is None or before.orders_thousandths != rule.orders_thousandths:
            if any(self._spent) or any(self._earmarked()):
                raise BudgetRefusal(
                    "orders are fixed before anything is spent; they may change at the beginning "
                    "of a period, when no study is open"
                )
            for at, members in enumerate(MEMBERS):
                self._past_micro[at] = self.lifetime_epsilon_micro(members)
            self._past_delta = self.lifetime_delta_billionths
            size = len(rule.orders_thousandths) * len(MEMBERS)
            self._spent, self._lifetime = [0] * size, [0] * size
            self._lifetime_failures = 0
        self.rule, self.limits = rule, limits

    def _consent(self, entry: Consent, recompute: bool) -> None:
        rule = self._expect_rule()
        terms = self._terms(entry)  # (3)
        places = [(cost.order_thousandths, cost.members) for cost in entry.costs]
        counts = consumer_members(terms)
        if entry.attempts != terms.privacy.max_attempts or places != [
            (order, members) for order in rule.orders_thousandths for members in counts
        ]:
            raise BudgetRefusal(f"consent to {terms.label}: is not of its attempts and orders")
        if recompute and (entry.costs, entry.failure_atto) != (  # (4)
            attempt_costs(terms, rule.orders_thousandths),
            failure_atto(terms),
        ):
            raise BudgetRefusal(f"consent to {terms.label}: its costs are not those of its terms")
        costs = _nano(entry.costs)
        cost = self._cost(terms, costs, entry.failure_atto)
        if not cost.fits:  # (5)
            raise BudgetRefusal(cost.shortage)
        self._studies[entry.hash] = StudyAccount(
            hash=entry.hash,
            label=terms.label,
            spend=StudySpend(terms.privacy.rounds, entry.attempts),
            costs_nano=costs,
            failure_atto=entry.failure_atto,
            profile_micro=entry.profile_micro,
        )

    def _terms(self, entry: Consent) -> Terms:
        """A consent's terms, check (3)."""
        if self.knows(entry.hash):
            raise BudgetRefusal(f"terms {entry.hash[:12]} were accepted before")
        try:
            terms = Terms.from_canonical(entry.terms)
        except TermsError as error:
            raise BudgetRefusal(f"consent to {entry.hash[:12]}: {error}") from error
        if terms.hash != entry.hash:
            raise BudgetRefusal(f"consent to {entry.hash[:12]}: its terms have another hash")
        alliance, member = _owner(self.opened) or ("", "")
        if terms.alliance != alliance:
            raise BudgetRefusal(
                f"terms {terms.label} are of alliance {terms.alliance}, this member's ledger is of "
                f'{alliance}; set alliance = "{terms.alliance}" in node.toml, with a state folder '
                "of its own"
            )
        if member not in {one.name for one in terms.roster}:
            raise BudgetRefusal(f"consent to {terms.label}: its roster does not name {member}")
        return terms

    def _reserve(self, entry: Reservation) -> None:
        study = self.study(entry.terms)
        spend = study.spend.reserve(entry.first, entry.count)  # (6)
        spent = _sums(self._spent, study.costs_nano, entry.count)
        failures = self._failures + study.failure_atto * entry.count
        limits = [self.limits.rdp_nano[order] for order, _ in self._slots()]
        if failures > self.limits.failure_atto or any(
            one > limit for one, limit in zip(spent, limits, strict=True)
        ):
            raise BudgetRefusal(
                f"{study.label}: {entry.count} more attempts would pass this member's budget, "
                "which is smaller than when it accepted the study; nothing more is spent"
            )
        self._spent, self._failures = spent, failures
        self._lifetime = _sums(self._lifetime, study.costs_nano, entry.count)
        self._lifetime_failures += study.failure_atto * entry.count
        self._keep(study, spend)

    def _contribute(self, entry: Contribution) -> None:
        study = self.study(entry.terms)
        spend = study.spend.use(  # (7)
            round_number=entry.round, attempt=entry.attempt, number=entry.number
        )
        self._keep(study, spend)

    def _renew(self, entry: Renewal) -> None:
        self._expect_rule()
        due_ms = self.due_ms
        if due_ms is None:  # (9)
            raise BudgetRefusal("the rule does not renew the budget")
        if entry.period != self.period + 1:
            raise BudgetRefusal(f"period {entry.period}: the next one is {self.period + 1}")
        if not max(due_ms, self.newest_ms) <= entry.from_ms <= entry.at_ms:
            raise BudgetRefusal(
                f"period {entry.period} may not begin at {entry.from_ms}: it is due at {due_ms}, "
                f"the newest entry is of {self.newest_ms}, and this one of {entry.at_ms}"
            )
        self.period, self.period_from_ms = entry.period, entry.from_ms
        self._spent, self._failures = [0] * len(self._spent), 0
        for study in self.studies:
            self._keep(study, study.spend.renewed())

    def _leave(self, entry: Left) -> None:
        self.left = entry
        for study in self.studies:
            if not study.spend.finished:
                self._keep(study, study.spend.finish())

    # Sums.

    def _keep(self, study: StudyAccount, spend: StudySpend) -> None:
        self._studies[study.hash] = replace(study, spend=spend)

    def _expect_rule(self) -> Rule:
        if self.rule is None:  # (2)
            raise BudgetRefusal("no rule limits this member's budget yet")
        return self.rule

    def _slots(self) -> list[tuple[int, int]]:
        orders = self.rule.orders_thousandths if self.rule else ()
        return [(order, members) for order in orders for members in MEMBERS]

    def _earmarked(self) -> list[int]:
        total = [0] * len(self._spent)
        for study in self.studies:
            if study.spend.unreserved:
                total = _sums(total, study.costs_nano, study.spend.unreserved)
        return total

    def _epsilon(self, sums: Sequence[int], members: int) -> int:
        at = MEMBERS.index(members)
        return epsilon_micro(sums[at :: len(MEMBERS)], self.rule) if self.rule else 0

    def _cost(self, terms: Terms, costs: Sequence[int], failure: int) -> StudyCost:
        attempts = terms.privacy.max_attempts
        takes = tuple(cost * attempts for cost in costs)
        short = [
            f"{takes_nano / NANO:.4g} of Rényi divergence at order "
            f"{room.order_thousandths / THOUSANDTHS:g} for a consumer known to {room.members} "
            f"member{'s' if room.members > 1 else ''}, of which {room.left_nano / NANO:.4g} of "
            f"{room.limit_nano / NANO:.4g} is left"
            for takes_nano, room in zip(takes, self.rooms, strict=True)
            if takes_nano > room.left_nano
        ]
        if failure * attempts > self.failure_left_atto:
            short.append(
                f"{failure * attempts / ATTO:.3g} of delta for failures, of which "
                f"{self.failure_left_atto / ATTO:.3g} is left"
            )
        shortage = (
            f"study {terms.study}: its {attempts} attempts would take {short[0]}; this member's "
            "budget over all studies does not cover them"
            if short
            else ""
        )
        return StudyCost(terms.label, attempts, takes, self.rooms, shortage)


def _nano(costs: Sequence[Cost]) -> tuple[int, ...]:
    return tuple(cost.rdp_nano for cost in costs)


def _sums(totals: Sequence[int], costs: Sequence[int], times: int) -> list[int]:
    return [total + cost * times for total, cost in zip(totals, costs, strict=True)]


def _owner(opened: Opened | None) -> tuple[str, str] | None:
    """Alliance and name in a member's origin."""
    parts = opened.origin.split("/") if opened else []
    return (parts[0], parts[2]) if len(parts) == 3 and parts[1] == "member" else None
