"""A member's rule, and the integers that it limits.

An epsilon over studies that are chosen as one goes along is not a sum of epsilons. What adds up is
Rényi divergence at an order that was fixed before the first study: while its sum stays below a
limit, whatever was chosen, the tight conversion at that order gives epsilon (a Rényi filter).
A tenth of delta pays for failures that both neighbours share, nine tenths for the conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from privacy.budget.rdp import (
    ATTO,
    LARGEST_EPSILON,
    LARGEST_ORDER,
    MICRO,
    NANO,
    THOUSANDTHS,
    epsilon_constant_nano,
)
from privacy.errors import BudgetRefusal
from privacy.ledger.entry import Rule

__all__ = [
    "DEFAULT_DELTA",
    "DEFAULT_EPSILON",
    "Limits",
    "default_order",
    "epsilon_micro",
    "limits_of",
]

DEFAULT_EPSILON: Final = 10.0
"""For a consumer known to five members, over all studies of a lifetime. The study of the demo
(epsilon(1) 0.98, epsilon(5) 6.0 at 82 attempts) fits twice, its third repetition does not; for a
consumer known to one member alone the same limit is 52 such studies away."""

DEFAULT_DELTA: Final = 1e-5

FAILURE_TENTHS: Final = 1
"""Tenths of delta for failures of randomness and of the noise sampler."""

BILLIONTHS: Final = 1_000_000_000

DELTA_BOUND_BILLIONTHS: Final = BILLIONTHS // 100
"""Delta is below 0.01, as in the terms."""

ORDERS: Final[tuple[int, ...]] = (
    *range(1250, 8000, 250),
    *range(8000, LARGEST_ORDER * THOUSANDTHS + 1, 1000),
)
"""From which `default_order` takes one, in thousandths."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rule limits, rounded down.

    Args:
        rdp_nano: sum of Rényi divergences by order in thousandths, in 1e-9; the same for m = 1 and
            for m = 5.
        failure_atto: sum of failure probabilities, in 1e-18.
    """

    rdp_nano: Mapping[int, int]
    failure_atto: int


def limits_of(rule: Rule) -> Limits:
    """The limits under a rule.

    Guarantees:
        If the sums of `attempt_costs` at one order and of `failure_atto` stay within them, all that
        left the member is (epsilon, delta)-DP at the rule's, for a consumer known to that many
        members, however studies were chosen.

    Raises:
        BudgetRefusal: if the rule cannot be kept, or does not say what it seems to.

    Source:
        Feldman and Zrnic (2021), "Individual Privacy Accounting via a Rényi Filter", theorem 3.1
        for a fixed order; conversion: see `epsilon_constant_nano`.
    """
    orders = rule.orders_thousandths
    if rule.epsilon_micro > LARGEST_EPSILON * MICRO:
        raise BudgetRefusal(f"the rule's epsilon is above {LARGEST_EPSILON}: it protects nobody")
    if rule.delta_billionths >= DELTA_BOUND_BILLIONTHS:
        raise BudgetRefusal("the rule's delta is 0.01 or more; name a smaller one")
    if list(orders) != sorted(set(orders)):
        raise BudgetRefusal("the rule's orders must be distinct and increase")
    if orders[0] <= THOUSANDTHS or orders[-1] > LARGEST_ORDER * THOUSANDTHS:
        raise BudgetRefusal(f"the rule's orders must be above 1 and at most {LARGEST_ORDER}")
    if rule.renewal_days and not rule.renewal_column:
        raise BudgetRefusal(
            "the rule renews the budget, but names no column by which rows are newer; "
            "name renewal_column"
        )
    rdp_nano = {}
    for order in orders:
        constant = epsilon_constant_nano(order, _conversion_atto(rule.delta_billionths))
        limit = rule.epsilon_micro * (NANO // MICRO) - constant
        if limit <= 0:
            raise BudgetRefusal(
                f"at order {order / THOUSANDTHS:g} nothing is left of the rule's epsilon "
                f"{rule.epsilon_micro / MICRO:g}; name a larger order"
            )
        rdp_nano[order] = limit
    failure = rule.delta_billionths * (ATTO // BILLIONTHS) * FAILURE_TENTHS // 10
    return Limits(rdp_nano, failure)


def default_order(*, epsilon_micro: int, delta_billionths: int) -> int:
    """The order, in thousandths, under whose limit the most Gaussian noise fits.

    It depends on the rule alone, so that it is fixed before the first study.

    Raises:
        BudgetRefusal: if no order leaves anything of such an epsilon.

    >>> default_order(epsilon_micro=10_000_000, delta_billionths=10_000)
    3500
    """
    delta = _conversion_atto(delta_billionths)
    spare = [
        (epsilon_micro * (NANO // MICRO) - epsilon_constant_nano(order, delta)) / order
        for order in ORDERS
    ]
    best = max(spare)
    if best <= 0:
        raise BudgetRefusal(
            f"epsilon {epsilon_micro / MICRO:g} is too small at delta "
            f"{delta_billionths / BILLIONTHS:g}; raise one of them"
        )
    return ORDERS[spare.index(best)]


def epsilon_micro(spent_nano: Sequence[int], rule: Rule) -> int:
    """Epsilon of Rényi sums, one for each order of the rule: the smallest, rounded up."""
    if not any(spent_nano):
        return 0
    delta = _conversion_atto(rule.delta_billionths)
    constants = [epsilon_constant_nano(order, delta) for order in rule.orders_thousandths]
    total: int = min(
        max(0, spent + more) for spent, more in zip(spent_nano, constants, strict=True)
    )
    return -(-total // (NANO // MICRO))


def _conversion_atto(delta_billionths: int) -> int:
    """What is left of delta for the conversion."""
    return delta_billionths * (ATTO // BILLIONTHS) * (10 - FAILURE_TENTHS) // 10
