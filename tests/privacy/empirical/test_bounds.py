"""The bounds against closed forms, and against mechanisms whose epsilon is known.

Statistical tests: a bound at error 0.05 is above the truth in more than 24 of 200 runs with
probability below 1e-4; seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from privacy.empirical.bounds import (
    _refuted_mu,
    _refutes,
    fitted_gaussian,
    guess_probability,
    guessed,
    guessed_gaussian,
    plan_guesses,
)
from privacy.empirical.gaussian import gaussian_epsilon, gaussian_mu
from privacy.empirical.scores import MemberScores, Scores, log_likelihood_ratios

RUNS, ERROR, MOST_ABOVE = 200, 0.05, 24
DELTA = 1e-6


def test_the_number_of_runs_above_the_truth_has_the_stated_false_alarm_rate() -> None:
    assert binom.sf(MOST_ABOVE, RUNS, ERROR) < 1e-4


def synthetic(
    rng: np.random.Generator, *, count: int, mu: float, q: float = 1.0, releases: int = 1
) -> Scores:
    """Scores as the Gaussian hypothesis has them, in more dimensions than canaries disturb."""
    included = rng.random(count) < 0.5
    sampled = included[:, None] & (rng.random((count, releases)) < q)
    scores = sampled + rng.standard_normal((count, releases)) / mu
    member = MemberScores(
        member="a",
        included=included,
        scores=scores,
        present=np.ones(releases, bool),
        scale=1.0,
    )
    variance = np.full(releases, mu**-2)
    gram = np.array([[float(included.sum())]])
    return Scores((member,), 10**9, q, variance, variance, releases / mu**2, gram)


@pytest.mark.parametrize(("mu", "delta"), [(0.3, 1e-6), (0.5, 1e-5), (2.0, 1e-5), (3.0, 1e-9)])
def test_epsilon_of_a_gaussian_agrees_with_the_accountant(mu: float, delta: float) -> None:
    loss = from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4)
    assert gaussian_epsilon(mu, delta) == pytest.approx(loss.get_epsilon_for_delta(delta), rel=1e-3)
    assert gaussian_mu(gaussian_epsilon(mu, delta), delta) == pytest.approx(mu, rel=1e-6)


def test_no_mean_has_no_epsilon() -> None:
    assert gaussian_epsilon(0.0, DELTA) == gaussian_epsilon(-1.0, DELTA) == 0.0
    assert gaussian_mu(0.0, DELTA) == 0.0


def test_guess_probability_follows_the_published_sum() -> None:
    """Steinke et al. (2023), appendix D, term by term."""
    for count, guesses, correct, epsilon in ((50, 20, 15, 0.3), (1000, 100, 80, 1.0)):
        accuracy = math.exp(epsilon) / (1 + math.exp(epsilon))
        tail = sum(binom.pmf(k, guesses, accuracy) for k in range(correct, guesses + 1))
        worst = max(
            sum(binom.pmf(k, guesses, accuracy) for k in range(correct - i, correct)) / i
            for i in range(1, correct + 1)
        )
        expected = tail + 2 * count * DELTA * worst
        probability = guess_probability(count, guesses, correct, epsilon, DELTA)
        assert probability == pytest.approx(expected, rel=1e-9)


def test_one_guess_about_one_canary_refutes_what_its_accuracy_refutes() -> None:
    """Under mu-Gaussian-DP one coin is guessed with probability at most Phi(mu / 2)."""
    mu = 2 * float(ndtri(0.9))
    assert _refuted_mu(1, 1, 1, 0.9) == pytest.approx(mu, abs=2e-4)


def test_independent_gaussians_are_not_refuted_at_their_own_mu() -> None:
    """P(v or more right guesses), exact, never exceeds what the recursion allows."""
    count, mu = 400, 0.6
    accuracy = float(ndtr(mu / 2))
    for correct in range(240, 320, 5):
        exact = float(binom.sf(correct - 1, count, accuracy))
        assert not _refutes(mu, count, count, correct, exact * 0.999)


def test_randomised_response_is_bounded_by_its_epsilon() -> None:
    rng, epsilon, count = np.random.default_rng(1), 1.0, 400
    bounds = []
    for _ in range(RUNS):
        included = rng.random(count) < 0.5
        honest = rng.random(count) < 1 / (1 + math.exp(-epsilon))
        ratios = np.where(included == honest, 1.0, -1.0) + 0.1 * rng.random(count)
        bounds.append(guessed(ratios, included, delta=0.0, error=ERROR, claimed_mu=3.0))
    assert sum(bound > epsilon for bound in bounds) <= MOST_ABOVE
    assert np.mean(bounds) > 0.6 * epsilon


@pytest.mark.parametrize("q", [1.0, 0.5])
def test_gaussian_runs_are_bounded_by_their_epsilon(q: float) -> None:
    rng, mu, releases = np.random.default_rng(2), 0.7, 2
    loss = from_gaussian_mechanism(1 / mu, sampling_prob=q, value_discretization_interval=1e-3)
    epsilon = loss.self_compose(releases).get_epsilon_for_delta(DELTA)
    free, fitted, estimates = [], [], []
    for _ in range(RUNS if q == 1 else 12):
        scores = synthetic(rng, count=2000, mu=mu, q=q, releases=releases)
        ratios, included = log_likelihood_ratios(scores)
        claimed_mu = gaussian_mu(epsilon, DELTA)
        free.append(guessed(ratios, included, delta=DELTA, error=ERROR, claimed_mu=claimed_mu))
        bound, estimate = fitted_gaussian(scores, delta=DELTA, error=ERROR)
        fitted.append(bound)
        estimates.append(estimate)
    assert sum(bound > epsilon for bound in free) == 0
    assert sum(bound > epsilon for bound in fitted) <= MOST_ABOVE * len(fitted) / RUNS + 3
    assert np.mean(estimates) == pytest.approx(epsilon, rel=0.03)
    assert np.mean(fitted) > 0.8 * epsilon
    assert np.mean(free) > 0.2 * epsilon


def test_guesses_bound_a_gaussian_mechanism_better_than_any_other() -> None:
    rng, mu = np.random.default_rng(3), 1.0
    epsilon = gaussian_epsilon(mu, DELTA)
    for _ in range(10):
        ratios, included = log_likelihood_ratios(synthetic(rng, count=2000, mu=mu))
        asked = {"delta": DELTA, "error": 1e-3, "claimed_mu": mu}
        bound = guessed_gaussian(ratios, included, **asked)
        assert guessed(ratios, included, **asked) < bound < epsilon


def test_scores_of_nothing_bound_nothing() -> None:
    rng = np.random.default_rng(4)
    included, ratios = rng.random(1000) < 0.5, rng.standard_normal(1000)
    asked = {"delta": DELTA, "error": 1e-3, "claimed_mu": 1.0}
    assert guessed(ratios, included, **asked) == 0.0
    assert guessed_gaussian(ratios, included, **asked) == 0.0


def test_perfect_guesses_bound_a_broken_mechanism_high() -> None:
    rng = np.random.default_rng(5)
    included = rng.random(1000) < 0.5
    ratios = np.where(included, 1.0, -1.0)
    assert guessed(ratios, included, delta=0.0, error=1e-3, claimed_mu=0.5) > 4


def test_the_plan_spends_exactly_the_error_and_sees_no_score() -> None:
    plan = plan_guesses(1000, 1e-3, best=lambda guesses, *_: float(guesses == 500), claimed_mu=0.5)
    assert plan[0].count == 500
    assert sum(one.error for one in plan) == pytest.approx(1e-3)
    assert len({one.count for one in plan}) == len(plan)
