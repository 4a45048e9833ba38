"""What one attempt costs at a Rényi order, and what a Rényi sum is as epsilon. Integers leave.

For a consumer known to m members the accounted mechanism is N(0, s^2) without and a mixture of
N(j, s^2), j ~ Binomial(m, q), with the consumer (`privacy.mechanism`). Both directions are
integrals over one real variable of a function that is analytic in a strip, where the trapezoidal
rule converges exponentially; the number of points is doubled until nothing changes any more.
"""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np

from privacy.errors import BudgetRefusal
from privacy.ledger.entry import Cost
from privacy.mechanism import (
    PROFILE_MEMBERS,
    accounted_noise_multiplier,
    sampler_distance,
    shared_failure,
)
from privacy.terms import LARGEST_INTEGER, Terms

__all__ = [
    "ATTO",
    "LARGEST_EPSILON",
    "LARGEST_ORDER",
    "MICRO",
    "NANO",
    "THOUSANDTHS",
    "attempt_costs",
    "consumer_members",
    "epsilon_constant_nano",
    "failure_atto",
    "mixture_rdp",
]

NANO: Final = 1_000_000_000
MICRO: Final = 1_000_000
ATTO: Final = 10**18
THOUSANDTHS: Final = 1000

LARGEST_ORDER: Final = 1024
"""Beyond it nothing is gained; a Gaussian's best order for epsilon 0.05 at delta 1e-9 is 900."""

SPREAD: Final = 12.0
"""Standard deviations beyond the outermost peak; what is left out is below e^-72 of the peak."""

FIRST_POINTS: Final = 64
MOST_POINTS: Final = 1 << 20
"""If they do not suffice, the closed-form bound without sampling stands in: it is larger."""

AGREEMENT: Final = 1e-13
"""Relative to the integral: two numbers of points agree this well."""

SLACK: Final = 1e-10
"""Relative; and absolute, in units of 1 / (order - 1), a thousandth of it: rounding errors."""

LARGEST_EPSILON: Final = 30
"""Of a rule; up to here the sampler's distance is charged in full, as in `privacy.accounting`."""


@functools.lru_cache(maxsize=1024)
def mixture_rdp(order: float, multiplier: float, q: float, members: int) -> float:
    """Rényi divergence of one attempt, the larger of both directions, not yet rounded.

    Args:
        order: above 1.
        multiplier: s, standard deviation of the noise over the sensitivity of one member's update.
        q: sampling probability.
        members: m, how many members know the consumer.

    Returns:
        At most ``order * members^2 / (2 s^2)``, the divergence without sampling.

    Source:
        Rényi divergence is quasi-convex in its first and second argument (van Erven and Harremoës
        2014, theorem 13), which gives the bound. Trapezoidal rule: Trefethen and Weideman (2014).
        For m = 1: Mironov, Talwar, Zhang (2019), sections 3.1 and 3.3.
    """
    if q == 1:
        return order * members**2 / (2 * multiplier**2)
    bound = order * members**2 / (2 * multiplier**2)
    # remove: E_Q[(P/Q)^a]; add: E_Q[(P/Q)^(1 - a)], both over Q = N(0, s^2).
    moments = [_log_moment(power, multiplier, q, members) for power in (order, 1 - order)]
    largest = max(math.inf if moment is None else moment for moment in moments)
    return min(bound, max(0.0, largest) / (order - 1))


def _log_moment(power: float, multiplier: float, q: float, members: int) -> float | None:
    """log E_Q[(P/Q)^power], or nothing if ``MOST_POINTS`` are too few."""
    reach = SPREAD * multiplier
    low, high = min(0.0, power * members) - reach, max(0.0, power * members) + reach
    before = math.nan
    points = FIRST_POINTS
    # Below a quarter of the distance to the nearest singularity, pi s^2, and of s, it converges.
    while points < (high - low) / min(multiplier, multiplier**2):
        points *= 2
    while points <= MOST_POINTS:
        places = np.linspace(low, high, points + 1)
        exponents = power * _log_ratio(places, multiplier, q, members)
        exponents -= places**2 / (2 * multiplier**2)
        top = float(exponents.max())
        total = math.log(math.fsum(np.exp(exponents - top))) + top
        value = total + math.log((high - low) / points / (multiplier * math.sqrt(2 * math.pi)))
        if abs(value - before) <= AGREEMENT * (1 + abs(value)):
            return value
        before, points = value, 2 * points
    return None


def _log_ratio(
    places: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    multiplier: float,
    q: float,
    members: int,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """log P/Q at ``places``."""
    result = np.full(places.shape, members * math.log1p(-q))
    for count in range(1, members + 1):
        weight = math.log(math.comb(members, count)) + count * math.log(q)
        weight += (members - count) * math.log1p(-q)
        term = weight + count * (2 * places - count) / (2 * multiplier**2)
        result = np.logaddexp(result, term)
    return result


def consumer_members(terms: Terms) -> tuple[int, int]:
    """For how many members a consumer's costs are recorded: 1, and 5 or all of a cohort."""
    return 1, min(PROFILE_MEMBERS, terms.privacy.cohort_size)


def attempt_costs(terms: Terms, orders_thousandths: tuple[int, ...]) -> tuple[Cost, ...]:
    """What one attempt costs at each order, for each of `consumer_members`, rounded up.

    Guarantees:
        Unit: one consumer known to m members; add/remove. No Rényi divergence of the accounted
        mechanism, in either direction, is larger. Processors whose exponentials differ in the last
        place agree on the rounded value, but for about one cost in a million.

    Args:
        terms: of the study.
        orders_thousandths: each above 1000.

    Raises:
        BudgetRefusal: if a cost is larger than a ledger can record, or the terms give no noise.
    """
    multiplier, q = accounted_noise_multiplier(terms), terms.privacy.sampling_probability
    costs = []
    for thousandths in orders_thousandths:
        for members in consumer_members(terms):
            order = thousandths / THOUSANDTHS
            try:
                exact = mixture_rdp(order, multiplier, q, members)
            except (OverflowError, ZeroDivisionError):
                exact = math.inf
            scaled = exact * (1 + SLACK) * NANO
            if not scaled < LARGEST_INTEGER - 1:
                raise BudgetRefusal(
                    f"study {terms.study}: one attempt costs more at order {order:g} than any "
                    "budget; raise the noise multiplier"
                )
            slack = SLACK / THOUSANDTHS / (order - 1) * NANO
            costs.append(
                Cost(
                    order_thousandths=thousandths,
                    members=members,
                    rdp_nano=math.ceil(scaled + slack),
                )
            )
    return tuple(costs)


def failure_atto(terms: Terms) -> int:
    """What one attempt adds to delta: shared failures and the sampler's distance, rounded up.

    The distance counts with its full factor for the largest epsilon a rule may name, so that a rule
    changed later makes no study dearer.
    """
    members = consumer_members(terms)[-1]
    distance = (1 + math.exp(LARGEST_EPSILON)) * sampler_distance(terms, attempts=1)
    mass = shared_failure(members=members, attempts=1) + distance
    return math.ceil(mass * (1 + SLACK) * ATTO)


def epsilon_constant_nano(order_thousandths: int, delta_atto: int) -> int:
    """What the tight conversion adds to a Rényi sum at one order to make it epsilon, rounded up.

    Source:
        Canonne, Kamath, Steinke (2020), proposition 12: (a, rho)-RDP implies (epsilon, delta)-DP
        with epsilon = rho + log((a - 1) / a) - (log delta + log a) / (a - 1).
    """
    order = order_thousandths / THOUSANDTHS
    log_delta = math.log(delta_atto) - math.log(ATTO)
    constant = math.log1p(-1 / order) - (log_delta + math.log(order)) / (order - 1)
    return math.ceil(constant * NANO + abs(constant) * NANO * SLACK / THOUSANDTHS + SLACK)
