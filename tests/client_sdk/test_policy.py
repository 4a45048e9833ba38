from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.demo.study import demo_identities, demo_terms
from client_sdk.policy import Budget, Policy
from privacy.accounting import Projection
from privacy.budget import Account, limits_of
from privacy.errors import BudgetRefusal, PolicyRefusal, TermsError
from privacy.ledger.entry import Opened
from privacy.terms import Column, Terms
from tests.conftest import make_contract, make_terms

GENEROUS = Policy(most_epsilon=2.0)
OWN = make_terms().roster[0]
AGE = Column(name="age", kind="number", low=0.0, high=120.0)
SPEND = Column(name="spend", kind="number", low=0.0, high=500.0, scale="log")


def projection(epsilon: float = 0.9) -> Projection:
    profile = {members: epsilon * members for members in range(1, 6)}
    local = {members: 3.0 * members for members in range(1, 6)}
    return Projection(profile=profile, local_profile=local, delta=1e-5, attempts=12)


def check(terms: Terms, policy: Policy = GENEROUS, **changes: Any) -> None:
    values: dict[str, Any] = {"own_entry": OWN, "contract": make_contract()}
    cost = changes.pop("projection", projection())
    values |= changes
    policy.check_terms(terms, own_entry=values["own_entry"])
    policy.check_contract(terms, values["contract"])
    policy.check_rules(terms)
    policy.check_cost(terms, cost)


def test_terms_within_policy_pass() -> None:
    check(make_terms())
    check(make_terms(), Policy(purposes=("*CAMPAIGN*",)))
    check(make_terms(), Policy(columns=("spend", "trips", "kind", "responded", "more")))


@pytest.mark.parametrize(
    ("terms", "policy", "words"),
    [
        ({}, Policy(most_epsilon=0.5), r"epsilon\(1\) is 0.9, .* at most 0.5"),
        ({}, Policy(most_epsilon_local=2.9), "epsilon_local is 3, .* at most 2.9"),
        ({"delta": 1e-3}, GENEROUS, "delta is 0.001"),
        ({"clipping_norm": 1e5}, GENEROUS, "clipping norm is 100000"),
        ({"noise_multiplier": 0.2}, GENEROUS, "noise multiplier is 0.2"),
        ({}, Policy(least_member_noise_multiplier=1.2), "member noise multiplier is 1.1547"),
        ({}, Policy(least_cohort=6), "cohort size is 5, .* at least 6"),
        ({"rounds": 2, "max_attempts": 20_000}, GENEROUS, "attempts is 20000"),
        ({}, Policy(recipes=("demand",)), "recipe propensity is not one"),
        ({"declared": 200}, GENEROUS, "not the one this member declared"),
        ({}, Policy(purposes=("*churn*", "coupons")), "purpose is not one this member allows"),
        ({}, Policy(columns=("spend", "trips", "kind")), "it reads responded, which this member's"),
        ({}, Policy(columns=("trips", "responded")), "it reads spend, kind, which this member's"),
        ({"contract": make_contract(version=2)}, GENEROUS, "is visits version 2 and not visits v"),
        ({"contract": make_contract(rows_per_consumer=9)}, GENEROUS, "uses 9 rows .* as this memb"),
        ({"contract": make_contract(label="other")}, GENEROUS, "the label in other, .* in respond"),
        ({"contract": make_contract(consumer_id="x")}, GENEROUS, "id in x, .* in household"),
        (
            {"contract": make_contract(columns=(AGE, *make_contract().columns))},
            GENEROUS,
            r"needs the column age \(0 to 120, linear\), which visits .* lacks; if the data fits",
        ),
        (
            {"contract": make_contract(columns=make_contract().columns[:2])},
            GENEROUS,
            "does not have the column kind of visits version 1",
        ),
        (
            {"contract": make_contract(columns=(SPEND, *make_contract().columns[1:]))},
            GENEROUS,
            r"declares spend \(0 to 500, log\), visits .* spend \(0 to 1000, log\)",
        ),
    ],
)
def test_terms_beyond_policy_are_refused(terms: dict[str, Any], policy: Policy, words: str) -> None:
    with pytest.raises(PolicyRefusal, match=words):
        check(make_terms(**terms), policy)


@pytest.mark.parametrize("epsilon", [float("inf"), float("nan")])
def test_an_unbounded_projection_is_refused(epsilon: float) -> None:
    with pytest.raises(PolicyRefusal, match=r"epsilon\(1\)"):
        check(make_terms(), projection=projection(epsilon))


def test_a_roster_without_this_member_is_refused() -> None:
    stranger = OWN.model_copy(update={"name": "somebody-else"})
    with pytest.raises(TermsError, match="somebody-else: not in the roster"):
        check(make_terms(), own_entry=stranger)


def test_the_default_budget_fits_two_studies_like_the_demos_and_not_three() -> None:
    study = demo_terms(demo_identities())
    account = Account()
    origin = f"{study.alliance}/member/{study.roster[0].name}"
    account.apply(Opened(at_ms=0, origin=origin, key="0" * 64, software="test"))
    account.apply(Budget().rule())
    (one, five) = account.projection(study).takes_nano
    room = account.rooms[1].left_nano
    assert 2 * five <= room < 3 * five
    assert 50 * one <= room


@pytest.mark.parametrize(
    "values",
    [
        {"epsilon": float("nan")}, {"epsilon": float("inf")}, {"epsilon": 1e308}, {"epsilon": -1.0},
        {"epsilon": 0.0}, {"epsilon": 31.0}, {"delta": 0.0}, {"delta": -1e-5}, {"delta": 0.01},
        {"delta": 1e-10}, {"delta": float("nan")}, {"renewal_days": -1}, {"renewal_days": 1.5},
        {"renewal_column": "a b"}, {"unknown": 1},
    ],
)  # fmt: skip
def test_budgets_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Budget(**values)


def test_a_budget_becomes_the_whole_units_below_it() -> None:
    rule = Budget(epsilon=2.0000019, delta=1.0e-5, renewal_days=365, renewal_column="seen").rule(7)
    assert (rule.epsilon_micro, rule.delta_billionths, rule.at_ms) == (2_000_001, 10_000, 7)
    assert (rule.renewal_days, rule.renewal_column) == (365, "seen")
    for epsilon in (0.3, 1.1, 4.35, 9.7):
        assert Budget(epsilon=epsilon).rule().epsilon_micro == round(epsilon * 1e6)
    assert Budget(orders=(2.5, 3.125)).rule().orders_thousandths == (2500, 3125)


@pytest.mark.parametrize("order", [0.0, -1.0, 1.0, float("nan"), float("inf"), 1e308, 2000.0])
def test_orders_out_of_range_are_refused(order: float) -> None:
    def limits() -> None:
        limits_of(Budget(orders=(order,)).rule())

    with pytest.raises((ValidationError, BudgetRefusal)):
        limits()
