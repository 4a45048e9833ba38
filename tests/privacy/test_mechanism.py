"""From terms to the accounted mechanism (rules R6, R7, R8), against exact enumeration."""

import math

import numpy as np
import pytest
from dp_accounting.pld import pld_privacy_accountant
from scipy import stats

from privacy.errors import TermsError
from privacy.fixedpoint import SHARE_SCALE, grid_step
from privacy.mechanism import (
    BETA,
    ROUNDING_WIDTH,
    SAMPLER_DISTANCE,
    accounted_member_noise_multiplier,
    accounted_noise_multiplier,
    dp_event,
    local_dp_event,
    rounded_sensitivity,
    sampler_distance,
    sensitivity,
    shared_failure,
)
from privacy.noise import CUT, DiscreteGaussian
from privacy.sampling import OVERFLOW_PROBABILITY, batch_shape
from tests.privacy.test_terms import make_terms

EPSILONS = np.linspace(0, 6, 61)


def discrete_gaussian(scale: float, reach: int) -> np.ndarray:
    """Exact probabilities on -reach..reach."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * scale**2))
    return weights / weights.sum()


def sum_of(count: int, scale: float) -> np.ndarray:
    """Exact law of a sum of independent discrete Gaussians, by convolution."""
    single = discrete_gaussian(scale, math.ceil(14 * scale))
    law = single
    for _ in range(count - 1):
        law = np.convolve(law, single)
    return law


def hockey_stick(first: np.ndarray, second: np.ndarray, epsilon: float) -> float:
    return float(np.maximum(first - math.exp(epsilon) * second, 0).sum())


def shifted(law: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The law and its copy moved by some steps, on one support."""
    return np.pad(law, (0, steps)), np.pad(law, (steps, 0))


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Balle and Wang (2018), theorem 8, for shift over standard deviation mu."""
    return float(
        stats.norm.cdf(mu / 2 - epsilon / mu)
        - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)
    )


@pytest.mark.parametrize(("count", "scale"), [(4, 4.0), (2, 6.0), (9, 3.0)])
@pytest.mark.parametrize("steps", [1, 3, 10, 25])
def test_discrete_noise_hides_no_less_than_the_continuous_noise_it_is_accounted_as(
    count: int, scale: float, steps: int
) -> None:
    """Rule R8 in one dimension, by exact enumeration of the sum of discrete Gaussians."""
    variance = count * scale**2
    mu = steps / math.sqrt(variance - ROUNDING_WIDTH**2)
    first, second = shifted(sum_of(count, scale), steps)
    for epsilon in EPSILONS:
        continuous = gaussian_delta(mu, epsilon)
        assert hockey_stick(first, second, epsilon) <= continuous * (1 + 1e-9) + 1e-14
        assert hockey_stick(second, first, epsilon) <= continuous * (1 + 1e-9) + 1e-14


def test_the_enumeration_would_notice_too_much_credit() -> None:
    """Positive control: at variance S^2 + 16 the same comparison fails."""
    first, second = shifted(sum_of(4, 4.0), 10)
    mu = 10 / math.sqrt(64 + ROUNDING_WIDTH**2)
    assert any(
        hockey_stick(first, second, epsilon) > gaussian_delta(mu, epsilon) * 1.01
        for epsilon in EPSILONS
    )


def test_discrete_noise_in_two_dimensions_with_sampling() -> None:
    """Rule R8 for a mixture over a two-dimensional shift (3, 4): norm 5, sampled at q = 0.2."""
    law, q = sum_of(4, 3.0), 0.2
    without = np.outer(np.pad(law, (0, 3)), np.pad(law, (0, 4)))
    moved = np.outer(np.pad(law, (3, 0)), np.pad(law, (4, 0)))
    mixed = (1 - q) * without + q * moved
    deviation = math.sqrt(36 - ROUNDING_WIDTH**2)
    grid = np.linspace(-40, 50, 200_001)
    width = grid[1] - grid[0]
    plain = stats.norm.pdf(grid, 0, deviation) * width
    mixture = (1 - q) * plain + q * stats.norm.pdf(grid, 5, deviation) * width
    for epsilon in np.linspace(0, 1.5, 16):
        for exact, continuous in (
            (hockey_stick(mixed, without, epsilon), hockey_stick(mixture, plain, epsilon)),
            (hockey_stick(without, mixed, epsilon), hockey_stick(plain, mixture, epsilon)),
        ):
            assert exact <= continuous + 1e-7


@pytest.mark.parametrize(("count", "scale"), [(2, 0.8), (2, 1.0), (4, 1.0), (3, 1.2)])
def test_sums_of_discrete_gaussians_are_as_near_to_one_as_stated(count: int, scale: float) -> None:
    """Part (a) of rule R8, at scales so small that the difference can be seen."""
    law = sum_of(count, scale)
    middle = len(law) // 2
    reach = math.floor(6 * scale * math.sqrt(count))
    whole = discrete_gaussian(scale * math.sqrt(count), middle)
    ratio = np.log(law / whole)[middle - reach : middle + reach + 1]
    bound = 10 * (count - 1) * math.exp(-(math.pi**2) * scale**2)
    assert np.abs(ratio).max() <= bound
    assert np.abs(ratio).max() > 1e-9  # there is something to see


@pytest.mark.parametrize("width", [0.8, 1.0, 1.3])
def test_normaliser_of_the_rounding_is_as_even_as_stated(width: float) -> None:
    """Part (b) of rule R8, at widths so small that the unevenness can be seen."""
    integers = np.arange(-60, 61)
    sums = [
        np.exp(-((integers - offset) ** 2) / (2 * width**2)).sum()
        for offset in np.linspace(0, 1, 101)
    ]
    unevenness = max(abs(total / (width * math.sqrt(2 * math.pi)) - 1) for total in sums)
    assert 1e-16 < unevenness <= 2.1 * math.exp(-2 * math.pi**2 * width**2) + 1e-15
    assert 2.1 * math.exp(-2 * math.pi**2 * ROUNDING_WIDTH**2) < 1.5e-137


def test_sensitivity_is_rule_r7_over_rule_r6() -> None:
    terms = make_terms(dimension=100_000)
    step, clip = grid_step(terms), terms.privacy.clipping_norm
    block = batch_shape(terms, "member-0").consumers
    norm = clip * (1 + block**2 * 2.0**-23)
    expected = math.sqrt(
        norm**2
        + 100_000 * step**2 / 4
        + math.sqrt(2 * math.log(1e15)) * step * (norm + step * math.sqrt(100_000) / 2)
    )
    assert expected <= sensitivity(terms) <= expected * (1 + 1e-6)
    assert clip < sensitivity(terms) < 1.01 * clip


def test_sensitivity_takes_the_largest_block_of_the_roster() -> None:
    small, large = make_terms(declared=100), make_terms(declared=90_000)
    assert sensitivity(small) < sensitivity(large)


def test_sensitivity_of_one_coordinate_is_never_more_than_a_step_beyond() -> None:
    assert rounded_sensitivity(5.0, 1, 1.0) <= 6.0
    assert rounded_sensitivity(0.0, 4, 1.0) == 2.0


def test_accounted_multiplier_is_a_little_below_the_nominal_one() -> None:
    terms = make_terms(noise_multiplier=1.25)
    honest = terms.privacy.honest_survivors
    relative = terms.privacy.clipping_norm / sensitivity(terms)
    assert accounted_noise_multiplier(terms) == pytest.approx(
        1.25 * relative * math.sqrt(1 - 16 / (SHARE_SCALE**2 * honest)), rel=1e-15
    )
    assert 1.23 < accounted_noise_multiplier(terms) < 1.25
    local = accounted_member_noise_multiplier(terms)
    assert local == pytest.approx(accounted_noise_multiplier(terms) / math.sqrt(honest), rel=1e-6)
    assert local < accounted_noise_multiplier(terms) / math.sqrt(honest)


def test_more_colluders_or_dropouts_leave_the_central_noise_and_cut_nobodys_share() -> None:
    few, many = make_terms(colluders=1, dropouts=0), make_terms(colluders=3, dropouts=2)
    assert accounted_noise_multiplier(few) == pytest.approx(
        accounted_noise_multiplier(many), rel=1e-4
    )
    assert accounted_member_noise_multiplier(few) < accounted_member_noise_multiplier(many)


def test_failure_masses_count_members_attempts_and_coordinates() -> None:
    assert shared_failure(members=3, attempts=7) == pytest.approx(
        21 * (BETA + OVERFLOW_PROBABILITY), rel=1e-12
    )
    terms = make_terms(dimension=500)
    assert sampler_distance(terms, attempts=7) == pytest.approx(
        7 * 8 * 500 * SAMPLER_DISTANCE, rel=1e-12
    )


def test_sampler_distance_covers_cut_and_table() -> None:
    cut = 2 * float(stats.norm.sf(CUT))
    weights, _ = DiscreteGaussian(SHARE_SCALE).weights()
    assert cut + 2 * len(weights) * 2.0**-128 < SAMPLER_DISTANCE


def test_event_is_a_binomial_mixture() -> None:
    terms = make_terms(sampling_probability=0.1)
    event = dp_event(terms, members=3)
    assert event.count == terms.privacy.max_attempts
    assert event.event.sensitivities == [0.0, 1.0, 2.0, 3.0]
    assert event.event.sampling_probs == pytest.approx(stats.binom.pmf(range(4), 3, 0.1))
    assert event.event.standard_deviation == accounted_noise_multiplier(terms)
    whole = dp_event(make_terms(sampling_probability=1.0), members=2, attempts=4)
    assert (whole.event.sensitivities, whole.event.sampling_probs) == ([2.0], [1.0])
    assert whole.count == 4


def test_events_are_understood_by_the_librarys_own_accountant() -> None:
    terms = make_terms(rounds=3, max_attempts=3, noise_multiplier=3.0)
    spent = []
    for event in (dp_event(terms), dp_event(terms, members=2), local_dp_event(terms)):
        accountant = pld_privacy_accountant.PLDAccountant(value_discretization_interval=1e-2)
        accountant.compose(event)
        spent.append(accountant.get_epsilon(1e-6))
    assert 0 < spent[0] < spent[1]
    assert spent[0] < spent[2]


def test_terms_without_the_member_are_named() -> None:
    with pytest.raises(TermsError, match="stranger"):
        batch_shape(make_terms(), "stranger")
