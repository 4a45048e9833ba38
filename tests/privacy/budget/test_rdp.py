from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from privacy.accounting import Accountant
from privacy.budget import attempt_costs, failure_atto, mixture_rdp
from privacy.budget.rdp import ATTO, NANO, epsilon_constant_nano
from privacy.errors import BudgetRefusal
from privacy.mechanism import accounted_noise_multiplier, dp_event, local_dp_event
from tests.conftest import make_terms

NOISES, PROBABILITIES = (0.3, 0.5, 1.0, 2.0, 8.0), (0.001, 0.1, 0.25, 0.5, 0.9, 1.0)


def log_ratio(x: mpmath.mpf, s: float, q: float, members: int) -> mpmath.mpf:
    return mpmath.log(
        mpmath.fsum(
            math.comb(members, j) * mpmath.mpf(q) ** j * (1 - mpmath.mpf(q)) ** (members - j)
            * mpmath.exp(j * (2 * x - j) / (2 * mpmath.mpf(s) ** 2))
            for j in range(members + 1)
        )
    )  # fmt: skip


def oracle(order: float, s: float, q: float, members: int) -> float:
    """Both directions by mpmath's adaptive quadrature in 30 digits."""
    with mpmath.workdps(30):
        found = []
        for power in (mpmath.mpf(order), 1 - mpmath.mpf(order)):
            low = min(0, power * members) - 14 * s
            high = max(0, power * members) + 14 * s

            def integrand(x: mpmath.mpf, power: mpmath.mpf = power) -> mpmath.mpf:
                exponent = power * log_ratio(x, s, q, members) - x**2 / (2 * mpmath.mpf(s) ** 2)
                return mpmath.exp(exponent) / (s * mpmath.sqrt(2 * mpmath.pi))

            cuts = mpmath.linspace(low, high, max(3, int((high - low) / s)))
            found.append(mpmath.log(mpmath.quad(integrand, cuts)) / (order - 1))
        return float(max(found))


@pytest.mark.parametrize(
    ("order", "s", "q", "members"),
    [
        (3.5, 2.0, 0.25, 5), (1.25, 0.7, 0.1, 3), (6.0, 1.3, 0.5, 1), (3.5, 8.84, 0.25, 5),
        (2.0, 0.5, 0.9, 2),
    ],
)  # fmt: skip
def test_the_divergence_is_that_of_quadrature_in_thirty_digits(
    order: float, s: float, q: float, members: int
) -> None:
    assert mixture_rdp(order, s, q, members) == pytest.approx(
        oracle(order, s, q, members), rel=1e-10, abs=1e-14
    )


def test_for_one_member_it_is_the_librarys_at_whole_orders_and_below_its_bound_elsewhere() -> None:
    compared = 0
    for s in NOISES:
        for q in PROBABILITIES:
            for order in (2, 3, 5, 16, 64):
                library = library_rdp(s, q, order)
                assert mixture_rdp(order, s, q, 1) == pytest.approx(library, rel=1e-9, abs=1e-14)
                compared += 1
            for order in (4.5, 8.25, 31.5):  # an upper bound there: it adds magnitudes of terms
                assert mixture_rdp(order, s, q, 1) <= library_rdp(s, q, order) * (1 + 1e-9) + 1e-14
    assert compared == 150


def library_rdp(s: float, q: float, order: float) -> float:
    event = PoissonSampledDpEvent(q, GaussianDpEvent(s))
    return float(RdpAccountant([order]).compose(event)._rdp[0])


def test_the_larger_direction_counts() -> None:
    """For a mixture no theorem says which it is; both are found, and the larger one is taken."""
    order, s, q, members = 2.0, 1.0, 0.3, 4

    def log_density(x: float, weights: list[float]) -> float:
        return math.log(
            sum(
                weight * math.exp(-((x - j) ** 2) / (2 * s * s)) for j, weight in enumerate(weights)
            )
        )

    mixture = [math.comb(members, j) * q**j * (1 - q) ** (members - j) for j in range(5)]
    found = []
    for p, r in ((mixture, [1.0]), ([1.0], mixture)):
        value, _ = integrate.quad(
            lambda x, p=p, r=r: math.exp(
                order * log_density(x, p) + (1 - order) * log_density(x, r)
            ),
            -12, 24, epsabs=1e-13, limit=400,
        )  # fmt: skip
        found.append(math.log(value / (s * math.sqrt(2 * math.pi))) / (order - 1))
    assert found[0] != pytest.approx(found[1], rel=0.01)
    assert mixture_rdp(order, s, q, members) == pytest.approx(max(found), rel=1e-9)


@settings(max_examples=40)
@given(st.floats(1.01, 200), st.floats(0.05, 50), st.floats(1e-6, 1), st.integers(1, 5))
def test_it_grows_with_the_order_and_members_and_stays_below_the_unsampled_gaussian(
    order: float, s: float, q: float, members: int
) -> None:
    value = mixture_rdp(order, s, q, members)
    slack = 1e-9 * value + 1e-12 / (order - 1)
    assert 0 <= value <= order * members**2 / (2 * s * s) * (1 + 1e-9)
    assert value <= mixture_rdp(order * 1.2, s, q, members) + slack
    assert value <= mixture_rdp(order, s, q, members + 1) + slack


def test_an_integral_beyond_the_points_at_hand_costs_as_much_as_without_sampling() -> None:
    assert mixture_rdp(1000.0, 0.002, 0.25, 5) == pytest.approx(1000 * 25 / (2 * 0.002**2))


def test_costs_are_rounded_up_and_named_by_order_and_members() -> None:
    terms = make_terms(members=4)
    costs = attempt_costs(terms, (2000, 3500))
    assert [(cost.order_thousandths, cost.members) for cost in costs] == [
        (2000, 1), (2000, 4), (3500, 1), (3500, 4)
    ]  # fmt: skip
    s, q = accounted_noise_multiplier(terms), terms.privacy.sampling_probability
    for cost in costs:
        exact = mixture_rdp(cost.order_thousandths / 1000, s, q, cost.members) * NANO
        assert exact < cost.rdp_nano <= exact + 1.01


@pytest.mark.parametrize("noise", [1e-9, 1e-6])
def test_a_cost_beyond_what_a_ledger_records_is_refused(noise: float) -> None:
    with pytest.raises(BudgetRefusal, match="raise the noise multiplier"):
        attempt_costs(make_terms(noise_multiplier=noise), (3500,))


def test_failures_cover_five_members_and_the_samplers_distance() -> None:
    terms = make_terms()
    # 5 members, 2e-15 each; 5 members' noise on 6 coordinates at 1e-32 each, 1 + e^30 times.
    assert failure_atto(terms) == math.ceil(10_000 + 30 * 1e-14 * (1 + math.exp(30)))


def test_the_tight_conversion_is_that_of_the_library_and_rounds_up() -> None:
    for order in (1250, 3500, 64_000):
        alpha, delta = order / 1000, 1e-5
        exact = math.log1p(-1 / alpha) - math.log(delta * alpha) / (alpha - 1)
        found = epsilon_constant_nano(order, ATTO // 100_000)
        assert exact * NANO <= found <= exact * NANO + 1.01
    accountant = RdpAccountant([3.5]).compose(local_dp_event(make_terms()))
    rho = float(accountant._rdp[0])
    constant = epsilon_constant_nano(3500, ATTO // 100_000) / NANO
    assert accountant.get_epsilon(1e-5) == pytest.approx(rho + constant, rel=1e-6)


@pytest.mark.parametrize("noise", [2.0, 6.0])
def test_epsilon_by_renyi_divergence_is_never_below_that_by_pld(noise: float) -> None:
    terms = make_terms(noise_multiplier=noise, sampling_probability=0.25)
    attempts = terms.privacy.max_attempts
    for at, members in enumerate((1, 5)):
        by_pld = Accountant(terms).epsilon(members=members)
        by_rdp = min(
            attempts * costs[at].rdp_nano / NANO
            + epsilon_constant_nano(order, ATTO // 100_000) / NANO
            for order in range(1500, 40_000, 500)
            if (costs := attempt_costs(terms, (order,)))
        )
        assert by_pld <= by_rdp <= 1.6 * by_pld


def test_the_mechanism_is_the_one_that_is_accounted() -> None:
    """The same mixture, from the description that the other accountant gets."""
    terms = make_terms(sampling_probability=0.3)
    event = dp_event(terms, members=3).event
    weights, sizes = np.array(event.sampling_probs), np.array(event.sensitivities)
    s = event.standard_deviation
    x = np.linspace(-12 * s, 12 * s + 12, 200_001)
    ratio = (weights[:, None] * np.exp(sizes[:, None] * (2 * x - sizes[:, None]) / (2 * s**2))).sum(
        0
    )
    density = np.exp(-(x**2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
    moment = float(np.trapezoid(ratio**2 * density, x))
    assert mixture_rdp(2.0, s, 0.3, 3) == pytest.approx(math.log(moment), rel=1e-9)
