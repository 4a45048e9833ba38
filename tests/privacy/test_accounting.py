"""Epsilon against closed forms and against three other accountants."""

import functools
import math
import time
import warnings
from dataclasses import FrozenInstanceError

import pytest
from dp_accounting import dp_event as events
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution
from scipy import optimize, stats

from privacy.accounting import (
    ARITHMETIC_SLACK,
    ARITHMETIC_SLACK_PER_ATTEMPT,
    Accountant,
    Projection,
    _mixture,
    calibrate,
)
from privacy.errors import ConfigurationError, TermsError
from privacy.mechanism import (
    accounted_member_noise_multiplier,
    accounted_noise_multiplier,
    dp_event,
    sampler_distance,
    shared_failure,
)
from tests.privacy.test_terms import make_terms

ROUNDS = 200


@functools.cache
def study(noise_multiplier: float = 1.0, q: float = 0.05, rounds: int = ROUNDS) -> Accountant:
    """One accountant for many tests: building its PLDs is what takes time."""
    terms = make_terms(
        noise_multiplier=noise_multiplier,
        sampling_probability=q,
        rounds=rounds,
        max_attempts=rounds,
    )
    return Accountant(terms)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Balle and Wang (2018), theorem 8: epsilon of a Gaussian, mu = shift / deviation."""

    def excess(epsilon: float) -> float:
        return float(
            stats.norm.cdf(mu / 2 - epsilon / mu)
            - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)
            - delta
        )

    return float(optimize.brentq(excess, 0, 500, xtol=1e-12))


@pytest.mark.parametrize("delta", [1e-5, 1e-9])
@pytest.mark.parametrize("attempts", [1, 50])
@pytest.mark.parametrize("noise_multiplier", [0.7, 5.0])
def test_epsilon_without_sampling_is_the_gaussian_closed_form(
    noise_multiplier: float, attempts: int, delta: float
) -> None:
    terms = make_terms(
        noise_multiplier=noise_multiplier,
        sampling_probability=1.0,
        declared=20,
        rounds=attempts,
        max_attempts=attempts,
        delta=delta,
    )
    accountant = Accountant(terms)
    for members in (1, 3):
        mu = members * math.sqrt(attempts) / accounted_noise_multiplier(terms)
        if mu > 8:
            continue
        exact = gaussian_epsilon(mu, delta)
        # 0.1 %, and room at delta = 1e-9 for the slack of 1e-12.
        assert exact <= accountant.epsilon(members=members) <= exact * 1.001 + 2e-6
    local = math.sqrt(attempts) / accounted_member_noise_multiplier(terms)
    if local < 8:
        exact = gaussian_epsilon(local, delta)
        assert exact <= accountant.epsilon_local() <= exact * 1.001 + 2e-6


@pytest.mark.parametrize(("noise_multiplier", "q"), [(1.0, 0.05), (2.0, 0.01), (0.8, 0.005)])
def test_rdp_is_never_tighter(noise_multiplier: float, q: float) -> None:
    accountant = study(noise_multiplier, q)
    for attempts in (1, 20, ROUNDS):
        second = rdp.RdpAccountant()
        second.compose(
            events.PoissonSampledDpEvent(
                q, events.GaussianDpEvent(accounted_noise_multiplier(accountant.terms))
            ),
            attempts,
        )
        upper = second.get_epsilon(accountant.terms.privacy.delta)
        assert accountant.epsilon(attempts=attempts) <= upper
        assert upper <= 2.5 * accountant.epsilon(attempts=attempts) + 1


@pytest.mark.parametrize(("noise_multiplier", "q"), [(1.0, 0.05), (2.0, 0.01)])
def test_opacus_prv_accountant_agrees(noise_multiplier: float, q: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.accountants import PRVAccountant

        accountant = study(noise_multiplier, q)
        second = PRVAccountant()
        second.history = [(accounted_noise_multiplier(accountant.terms), q, ROUNDS)]
        theirs = second.get_epsilon(accountant.terms.privacy.delta, eps_error=0.005)
    # PRV states an upper end at most eps_error above the truth, for removal only.
    assert accountant.epsilon() == pytest.approx(theirs, abs=0.006, rel=1e-3)


@pytest.mark.parametrize("members", [1, 2, 4])
@pytest.mark.parametrize(("noise_multiplier", "q"), [(3.0, 0.05), (4.0, 0.4), (5.0, 1.0)])
def test_mixture_is_the_librarys(noise_multiplier: float, q: float, members: int) -> None:
    terms = make_terms(noise_multiplier=noise_multiplier, sampling_probability=q)
    event = dp_event(terms, members=members).event
    theirs = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        event.standard_deviation,
        event.sensitivities,
        event.sampling_probs,
        value_discretization_interval=1e-2,
    )
    ours = _mixture(terms, members, 1e-2)
    for attempts in (1, 30):
        for delta in (1e-3, 1e-7):
            epsilon = ours.self_compose(attempts).get_epsilon_for_delta(delta)
            assert epsilon == pytest.approx(
                theirs.self_compose(attempts).get_epsilon_for_delta(delta), rel=1e-6, abs=1e-7
            )


@pytest.mark.parametrize("q", [0.02, 0.3])
def test_mixture_for_one_member_is_the_sampled_gaussian(q: float) -> None:
    terms = make_terms(noise_multiplier=1.5, sampling_probability=q)
    closed = privacy_loss_distribution.from_gaussian_mechanism(
        accounted_noise_multiplier(terms), sampling_prob=q, value_discretization_interval=1e-3
    )
    mixture = _mixture(terms, 1, 1e-3)
    for attempts in (1, 25):
        assert mixture.self_compose(attempts).get_epsilon_for_delta(1e-6) == pytest.approx(
            closed.self_compose(attempts).get_epsilon_for_delta(1e-6), rel=1e-8, abs=1e-9
        )


def test_epsilon_grows_with_members_and_attempts() -> None:
    accountant = study()
    for attempts in (1, 10, 100, ROUNDS):
        profile = accountant.profile(attempts)
        assert list(profile) == [1, 2, 3, 4, 5]
        values = list(profile.values())
        assert values == sorted(values)
        assert values[0] > 0
    for members in (1, 3):
        values = [accountant.epsilon(members=members, attempts=k) for k in range(0, ROUNDS, 20)]
        assert values == sorted(values)
        assert values[0] == 0


def test_naive_multiplication_by_members_would_promise_too_much() -> None:
    profile = study().profile()
    for members in (2, 3, 4, 5):
        assert profile[members] > members * profile[1]


def test_profile_is_constant_beyond_the_cohort() -> None:
    terms = make_terms(cohort_size=4, colluders=1, noise_multiplier=4.0, rounds=5, max_attempts=5)
    profile = Accountant(terms).profile()
    assert profile[3] < profile[4] == profile[5]


def test_one_message_alone_is_weaker_than_the_sum() -> None:
    accountant = study(2.0, 0.01)
    assert accountant.epsilon_local() > accountant.epsilon()
    assert accountant.epsilon_local(attempts=10) < accountant.epsilon_local()
    seen = [accountant.epsilon_local(members=members) for members in (1, 2, 5)]
    assert seen == sorted(seen)
    assert seen[0] < seen[1]
    # A consumer at two members is in twice as many messages.
    twice = study(2.0, 0.01, rounds=2 * ROUNDS)
    assert seen[1] == pytest.approx(twice.epsilon_local(), rel=2e-3)


def test_delta_pays_for_every_failure() -> None:
    """What is published holds: delta(epsilon) + failures <= delta, by the library's own delta."""
    accountant = study()
    terms = accountant.terms
    epsilon = accountant.epsilon(members=2)
    distance = sampler_distance(terms, attempts=ROUNDS)
    mixture = _mixture(terms, 2, 1e-3).self_compose(ROUNDS)
    charged = (
        mixture.get_delta_for_epsilon(epsilon)
        + ARITHMETIC_SLACK
        + ARITHMETIC_SLACK_PER_ATTEMPT * ROUNDS
        + shared_failure(members=2, attempts=ROUNDS)
        + (1 + math.exp(epsilon)) * distance
    )
    assert charged <= terms.privacy.delta
    assert charged > terms.privacy.delta * 0.99


@pytest.mark.parametrize(("mu", "attempts"), [(0.2, 400), (0.005, 200_000)])
def test_composition_in_doubles_stays_within_its_slack(mu: float, attempts: int) -> None:
    """Against the closed form at tiny delta, where rounding errors show."""
    slack = ARITHMETIC_SLACK + ARITHMETIC_SLACK_PER_ATTEMPT * attempts
    composed = privacy_loss_distribution.from_gaussian_mechanism(
        1 / mu, value_discretization_interval=min(1e-3, 10 / attempts)
    ).self_compose(attempts)
    whole = mu * math.sqrt(attempts)
    for deviations in (6, 7, 8, 9, 10):
        epsilon = whole**2 / 2 + deviations * whole
        exact = stats.norm.cdf(whole / 2 - epsilon / whole) - math.exp(epsilon) * stats.norm.cdf(
            -whole / 2 - epsilon / whole
        )
        computed = composed.get_delta_for_epsilon(epsilon)
        assert -slack <= computed - exact <= slack + 0.02 * exact


def test_epsilon_is_infinite_where_failures_spend_delta() -> None:
    terms = make_terms(delta=1e-9, rounds=2, max_attempts=2)
    assert Accountant(terms).epsilon() < math.inf
    hopeless = terms.model_copy(
        update={"privacy": terms.privacy.model_copy(update={"delta": 1e-12})}
    )
    assert Accountant(hopeless).projection().profile[1] == math.inf
    assert Accountant(hopeless).epsilon_local() == math.inf


def test_epsilon_is_finite_far_beyond_use() -> None:
    terms = make_terms(noise_multiplier=0.2, rounds=50, max_attempts=50)
    accountant = Accountant(terms)
    assert 30 < accountant.epsilon() < accountant.epsilon_local() < math.inf


def test_epsilon_is_a_multiple_of_a_millionth() -> None:
    epsilon = study().epsilon(attempts=7)
    assert epsilon * 1e6 == pytest.approx(round(epsilon * 1e6), abs=1e-6)


def test_arguments_out_of_range_are_refused() -> None:
    accountant = study()
    for attempts in (-1, ROUNDS + 1):
        with pytest.raises(ConfigurationError, match="terms allow 0 to 200"):
            accountant.epsilon(attempts=attempts)
    with pytest.raises(ConfigurationError, match="1 member or more"):
        accountant.epsilon(members=0)


def test_more_colluders_do_not_change_the_central_guarantee() -> None:
    few = Accountant(make_terms(colluders=1, rounds=5, max_attempts=5))
    many = Accountant(make_terms(colluders=4, rounds=5, max_attempts=5))
    assert few.epsilon() == pytest.approx(many.epsilon(), rel=1e-3)
    assert few.epsilon_local() > many.epsilon_local()


def test_projection_is_the_accountant_at_all_attempts() -> None:
    accountant = study(2.0, 0.01)
    projection = accountant.projection()
    assert projection == Projection(
        profile=accountant.profile(),
        local_profile={m: accountant.epsilon_local(members=m) for m in range(1, 6)},
        delta=1e-6,
        attempts=ROUNDS,
    )
    with pytest.raises(FrozenInstanceError):
        projection.delta = 1e-5  # type: ignore[misc]


@pytest.mark.parametrize("epsilon", [0.02, 0.5, 3.0, 12.0])
def test_calibrated_noise_is_the_smallest_that_suffices(epsilon: float) -> None:
    terms = make_terms(rounds=20, max_attempts=25)
    calibrated = calibrate(terms, epsilon)
    sigma = calibrated.privacy.noise_multiplier
    assert calibrated == terms.model_copy(
        update={"privacy": terms.privacy.model_copy(update={"noise_multiplier": sigma})}
    )
    assert sigma == round(sigma, 4)
    assert Accountant(calibrated).epsilon() <= epsilon
    less = make_terms(rounds=20, max_attempts=25, noise_multiplier=round(sigma - 1e-4, 4))
    assert Accountant(less).epsilon() > epsilon
    assert calibrated.hash


def test_epsilon_out_of_reach_is_refused() -> None:
    with pytest.raises(TermsError, match="above 0"):
        calibrate(make_terms(), 0.0)
    with pytest.raises(TermsError, match="out of reach"):
        # The grid grows with the noise: with so many coordinates rounding never gets small.
        calibrate(make_terms(dimension=100_000_000, cohort_size=4, colluders=2, dropouts=0), 1e-3)


def test_projection_and_live_epsilon_are_fast() -> None:
    """Generous limits (5 s, 200 ms a query); on one idle core 1 s and 20 ms are seen."""
    start = time.perf_counter()
    accountant = Accountant(study().terms)
    accountant.profile()
    accountant.epsilon_local()
    assert time.perf_counter() - start < 5
    start = time.perf_counter()
    for attempts in range(1, 11):
        accountant.epsilon(attempts=attempts)
    assert time.perf_counter() - start < 2
