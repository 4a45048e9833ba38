"""Epsilon of Gaussian releases, rounded down: what a measured signal amounts to."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_gaussian_mechanism,
)
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm

__all__ = ["LARGEST_MU", "gaussian_epsilon", "gaussian_mu", "sampled_epsilon"]

LARGEST_MU: Final = 20.0

LOSS_WIDTH: Final = 1e-4
"""Loss intervals of the optimistic PLD; one composition loses at most this much of epsilon."""


def sampled_epsilon(mu: float, q: float, releases: int, delta: float) -> float:
    """Epsilon of Poisson-sampled Gaussian releases of mean mu and deviation 1; rounded down."""
    if mu <= 0:
        return 0.0
    if q == 1:
        return gaussian_epsilon(mu * math.sqrt(releases), delta)
    loss: PrivacyLossDistribution = from_gaussian_mechanism(
        1 / min(mu, LARGEST_MU),
        sampling_prob=q,
        value_discretization_interval=max(LOSS_WIDTH, mu / 1000),
        pessimistic_estimate=False,
        use_connect_dots=False,
    )
    with np.errstate(over="ignore"):  # in the library, where epsilon is above 700
        return max(0.0, float(loss.self_compose(releases).get_epsilon_for_delta(delta)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of N(0, 1) against N(mu, 1).

    Source:
        Balle and Wang (2018), "Improving the Gaussian Mechanism", theorem 8.

    >>> round(gaussian_epsilon(0.5, 1e-5), 3)
    1.993
    """
    if mu <= 0 or _gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * 40
    return float(brentq(lambda epsilon: _gaussian_delta(mu, epsilon) - delta, 0.0, high))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The inverse of `gaussian_epsilon` in mu; 0 if no mu above 0 is as small."""
    if epsilon <= 0:
        return 0.0
    return float(
        brentq(lambda mu: _gaussian_delta(mu, epsilon) - delta, 1e-6, LARGEST_MU, xtol=1e-9)
    )


def _gaussian_delta(mu: float, epsilon: float) -> float:
    # e^epsilon times the tail, in logarithms: neither may overflow.
    second = epsilon + float(norm.logcdf(-mu / 2 - epsilon / mu))
    return float(ndtr(mu / 2 - epsilon / mu)) - math.exp(second)
