"""Lower bounds on epsilon from one run, each with the error probability it is asked to keep.

All take the study's delta. `guessed` assumes nothing but fair coins; `guessed_gaussian` supposes
that the mechanism is a Gaussian one; `fitted_gaussian` supposes also that every canary moves the
releases alike, and measures by how much.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom, norm

from privacy.empirical.gaussian import LARGEST_MU, gaussian_epsilon, sampled_epsilon
from privacy.empirical.response import canary_energy, response
from privacy.empirical.scores import Scores

__all__ = [
    "Guesses",
    "fitted_gaussian",
    "guessed",
    "guessed_gaussian",
    "plan_guesses",
]

LARGEST_EPSILON = 20.0
TOLERANCE = 1e-6

MAIN_SHARE = 0.8
"""Of the error probability, for the number of guesses that is best if the claim is true; numbers
for very different truths share the rest."""

OTHER_FRACTIONS = (1.0, 1 / 4, 1 / 16, 1 / 64)
"""Of the canaries."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Guesses:
    """How often to guess, fixed before any score is seen.

    Args:
        count: guesses; about all other canaries the auditor says nothing.
        error: share of the bound's error probability.
    """

    count: int
    error: float


def plan_guesses(
    count: int, error: float, *, best: Callable[[int, int, float], float], claimed_mu: float
) -> tuple[Guesses, ...]:
    """Numbers of guesses for ``count`` canaries, and how the error probability is split.

    Guarantees:
        Depends on public numbers only, so the union bound over the plan is valid: all bounds of
        the plan hold together but with probability ``error``, and so does their maximum.

    Args:
        count: canaries.
        error: probability with which the maximum may be too high.
        best: bound from (guesses, correct guesses, error).
        claimed_mu: of the Gaussian mechanism with the claimed epsilon.
    """
    main = min(count, max(1, count // 10))
    reached = 0.0
    for step in range(4 * int(math.log2(max(2, count))) + 1):
        guesses = max(1, round(count * 2 ** (-step / 4)))
        correct = math.floor(guesses * _accuracy(claimed_mu, guesses / count))
        bound = best(guesses, correct, MAIN_SHARE * error)
        if bound > reached:
            main, reached = guesses, bound
    others = sorted({max(1, round(count * part)) for part in OTHER_FRACTIONS} - {main})
    rest = (1 - MAIN_SHARE) * error / max(1, len(others))
    return (Guesses(main, MAIN_SHARE * error), *(Guesses(other, rest) for other in others))


def _accuracy(mu: float, share: float) -> float:
    """Share of right guesses about the ``share`` of canaries with the clearest scores.

    Scores are N(mu / 2, 1) with the canary and N(-mu / 2, 1) without.
    """
    if share >= 1:
        return float(ndtr(mu / 2))
    clear = brentq(
        lambda z: ndtr(mu / 2 - z) + ndtr(-mu / 2 - z) - share, 0, LARGEST_MU + 40, xtol=1e-9
    )
    return float(ndtr(mu / 2 - clear) / share)


def _correct(ratios: Floats, included: Bools, guesses: int) -> int:
    """Right guesses about the canaries with the clearest log-likelihood ratios."""
    clearest = np.argsort(-np.abs(ratios), kind="stable")[:guesses]
    return int(((ratios[clearest] > 0) == included[clearest]).sum())


def guessed(
    ratios: Floats, included: Bools, *, delta: float, error: float, claimed_mu: float
) -> float:
    """The assumption-free bound: how often the coins were guessed.

    Guarantees:
        If the coins are fair and independent of each other and of everything else, and the whole
        run is (epsilon, delta)-DP towards adding or removing one canary, then this returns more
        than epsilon with probability at most ``error``, whatever the scores are.

    Source:
        Steinke, Nasr, Jagielski (2023), "Privacy Auditing with One (1) Training Run", theorem 5.2
        and appendix D: P(v of r guesses right) is at most P(B >= v) +
        2 m delta max_i P(v > B >= v - i) / i, where B is the number of successes in r trials of
        probability e^epsilon / (1 + e^epsilon).

    Args:
        ratios: what to guess by, shape (canaries,): included if above 0, clearest first.
        included: the coins.
        delta: of the study.
        error: 1 - confidence.
        claimed_mu: decides beforehand how many guesses are made.
    """
    count = len(ratios)

    def best(guesses: int, correct: int, share: float) -> float:
        return _guessed(count, guesses, correct, delta, share)

    plan = plan_guesses(count, error, best=best, claimed_mu=claimed_mu)
    return max(best(one.count, _correct(ratios, included, one.count), one.error) for one in plan)


@functools.lru_cache(maxsize=4096)
def _guessed(count: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """The largest epsilon that ``correct`` right guesses refute."""

    def excess(epsilon: float) -> float:
        return guess_probability(count, guesses, correct, epsilon, delta) - error

    if excess(0.0) > 0:
        return 0.0
    if excess(LARGEST_EPSILON) <= 0:
        return LARGEST_EPSILON
    return max(0.0, float(brentq(excess, 0.0, LARGEST_EPSILON, xtol=TOLERANCE)) - TOLERANCE)


def guess_probability(
    count: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """Bound on the probability of ``correct`` or more right guesses, as in `guessed`."""
    if correct == 0:
        return 1.0
    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, accuracy))
    below = np.arange(1, correct + 1)
    masses = np.cumsum(binom.pmf(correct - below, guesses, accuracy))
    return min(1.0, tail + 2 * count * delta * float((masses / below).max()))


def guessed_gaussian(
    ratios: Floats, included: Bools, *, delta: float, error: float, claimed_mu: float
) -> float:
    """The bound from guesses if the run is some Gaussian mechanism, at q = 1.

    Guarantees:
        If the coins are as in `guessed` and the whole run is mu-Gaussian-DP for some mu, this
        returns more than the epsilon of that mu at ``delta`` with probability at most ``error``.

    Source:
        Mahloujifar, Melis, Chaudhuri (2024), "Auditing f-Differential Privacy in One Run",
        theorem 3.2 and algorithm 3, for f = the trade-off curve of N(0, 1) against N(mu, 1).

    Args:
        ratios: as in `guessed`.
        included: the coins.
        delta: of the study.
        error: 1 - confidence.
        claimed_mu: decides beforehand how many guesses are made.
    """
    count = len(ratios)

    def best(guesses: int, correct: int, share: float) -> float:
        return _refuted_mu(count, guesses, correct, share)

    plan = plan_guesses(count, error, best=best, claimed_mu=claimed_mu)
    mu = max(best(one.count, _correct(ratios, included, one.count), one.error) for one in plan)
    return gaussian_epsilon(mu, delta)


@functools.lru_cache(maxsize=4096)
def _refuted_mu(count: int, guesses: int, correct: int, error: float) -> float:
    """The largest mu that ``correct`` right guesses refute."""
    low, high = 0.0, 8.0
    while high - low > TOLERANCE * 100:
        middle = (low + high) / 2
        if _refutes(middle, count, guesses, correct, error):
            low = middle
        else:
            high = middle
    return low


def _refutes(mu: float, count: int, guesses: int, correct: int, error: float) -> bool:
    """Whether P(``correct`` or more right guesses) < ``error`` under mu-Gaussian-DP.

    With R_i (W_i) the expected share of canaries guessed rightly (wrongly) while i or more guesses
    are right, R_(i+1) <= 1 - f(W_i) for every i and R_0 + W_0 = guesses / canaries. Supposing the
    probability were ``error``, the least R and W are worked out from the top down.
    """
    right = error * correct / count
    wrong = error * (guesses - correct) / count
    for more in range(correct - 1, -1, -1):
        least = max(wrong, float(ndtr(ndtri(right) - mu)))
        right += more / (guesses - more) * (least - wrong)
        wrong = least
        if right + wrong > guesses / count:
            return True
    return False


def fitted_gaussian(scores: Scores, *, delta: float, error: float) -> tuple[float, float]:
    """The bound and the estimate if noise and responses are Gaussian: measure, then account.

    The null is known exactly (a direction that did not take part has mean 0), so only the included
    canaries' mean is uncertain, and the noise's variance, measured in all d coordinates.

    Guarantees:
        If releases are the canaries' vectors, each times one response a where it was sampled,
        independently with probability q, plus Gaussian noise of one variance V per release,
        this returns more than the epsilon of these releases with probability at most ``error``, up
        to the normal approximation of means over included canaries. What consumers add counts as
        noise and lowers the bound.

    Source:
        Andrew et al. (2023), "One-shot Empirical Privacy Estimation for Federated Learning",
        section 4 and algorithm 2, with the null's law and the estimate's error taken into account.

    Args:
        scores: of the run.
        delta: of the study.
        error: 1 - confidence.

    Returns:
        Lower bound and point estimate of epsilon.
    """
    q = scores.sampling_probability
    measured = response(scores)
    if not math.isfinite(measured.error):
        return 0.0, 0.0
    variance = _noise_variance(scores, measured.value)
    slack = float(norm.isf(error))
    # The variance's own error, from d coordinates a release, is added to the response's.
    relative = math.sqrt(1 / (2 * scores.dimension * scores.releases))
    spread = math.hypot(measured.error, measured.value * relative)
    # Cohorts of different sizes differ in noise; the largest stands for all, but at q = 1, where
    # means add up exactly.
    scale = float(np.mean(1 / variance) ** -0.5 if q == 1 else np.sqrt(variance.max()))
    most = max(int(member.present.sum()) for member in scores.members)
    return (
        sampled_epsilon((measured.value - slack * spread) / scale, q, most, delta),
        sampled_epsilon(measured.value / scale, q, most, delta),
    )


def _noise_variance(scores: Scores, value: float) -> Floats:
    """Mean square of each release's coordinates less what the canaries add to it."""
    added = value**2 * canary_energy(scores) / scores.dimension
    floor: Floats = np.maximum(scores.mean_square - added, 1e-12)
    return floor
