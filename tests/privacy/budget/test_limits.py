from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.budget import default_order, epsilon_micro, limits_of
from privacy.budget.rdp import NANO
from privacy.errors import BudgetRefusal
from tests.privacy.budget.entries import rule


def test_a_tenth_of_delta_is_kept_for_failures_and_the_rest_converts() -> None:
    limits = limits_of(rule())
    assert limits.failure_atto == 10**18 // 1_000_000  # a tenth of 1e-5
    order, delta = 3.5, 0.9e-5
    exact = 10 - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)
    assert exact * NANO - 1.01 <= limits.rdp_nano[3500] <= exact * NANO


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon_micro": 30_000_001}, "above 30"),
        ({"delta_billionths": 10_000_000}, "0.01 or more"),
        ({"orders_thousandths": (1000,)}, "above 1"),
        ({"orders_thousandths": (1,)}, "above 1"),
        ({"orders_thousandths": (1_024_001,)}, "at most 1024"),
        ({"orders_thousandths": (4000, 3000)}, "increase"),
        ({"orders_thousandths": (4000, 4000)}, "distinct"),
        ({"orders_thousandths": (2000,)}, "name a larger order"),
        ({"orders_thousandths": (2000, 4000)}, "at order 2 nothing is left"),
        ({"epsilon_micro": 1}, "nothing is left"),
        ({"renewal_days": 365}, "name renewal_column"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BudgetRefusal, match=words):
        limits_of(rule(**changes))


@given(
    st.integers(300_000, 30_000_000),
    st.integers(10, 9_999_999),
    st.integers(0, 1000),
)
def test_what_fits_a_limit_reads_as_at_most_the_rules_epsilon(
    epsilon: int, delta: int, beyond: int
) -> None:
    order = default_order(epsilon_micro=epsilon, delta_billionths=delta)
    made = rule(epsilon_micro=epsilon, delta_billionths=delta, orders_thousandths=(order,))
    limit = limits_of(made).rdp_nano[order]
    assert epsilon_micro([limit], made) == epsilon
    assert epsilon_micro([limit + 1000 + beyond], made) > epsilon


def test_nothing_spent_reads_as_zero_and_of_several_orders_the_best_counts() -> None:
    made = rule(orders_thousandths=(3500, 16_000))
    assert epsilon_micro([0, 0], made) == 0
    alone = [
        epsilon_micro([spent], rule(orders_thousandths=(order,)))
        for order, spent in ((3500, 10**8), (16_000, 5 * 10**8))
    ]
    assert epsilon_micro([10**8, 5 * 10**8], made) == min(alone)


def test_the_default_order_leaves_room_for_the_most_gaussian_noise() -> None:
    def room(order: int) -> float:
        return limits_of(rule(orders_thousandths=(order,))).rdp_nano[order] / order

    best = default_order(epsilon_micro=10_000_000, delta_billionths=10_000)
    assert best == 3500
    assert room(best) >= max(room(order) for order in (2250, 3000, 3250, 3750, 4000, 8000, 64_000))


def test_an_epsilon_too_small_for_its_delta_is_said() -> None:
    with pytest.raises(BudgetRefusal, match="raise one of them"):
        default_order(epsilon_micro=10, delta_billionths=1)
