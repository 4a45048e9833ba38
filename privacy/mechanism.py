"""What one private sum is to an accountant: terms -> noise multiplier, failure masses, DpEvent.

The steps from the code that runs to the continuous mechanism that is accounted, each costing a
little, none for free by assumption:

1. *float sums* (R6): one consumer changes one block sum by at most C (1 + eta), eta = b^2 2^-23.
2. *rounding* (R7): given the rounding offsets, which are independent of data, the integer update
   changes by a vector of norm at most Delta, except with probability beta over the offsets.
3. *discrete noise* (R8): the sum of H discrete Gaussians hides an integer shift at least as well
   as a continuous Gaussian of variance S^2 - 16 grid steps, S = 2^14 sqrt(H).
4. *sampling*: given who else was sampled, the release is N(mu) without the consumer and a mixture
   of N(mu + R) with it: R is 0 with probability 1 - q. A consumer known to m members is sampled
   by each independently; norms add up to at most j Delta with probability Binomial(m, q) at j.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from privacy.fixedpoint import FRACTION_BITS, SHARE_SCALE, grid_step
from privacy.sampling import OVERFLOW_PROBABILITY, batch_shape
from privacy.terms import Terms

if TYPE_CHECKING:  # loading it takes longer than a program that needs no accountant should wait
    from dp_accounting import dp_event as events

__all__ = [
    "BETA",
    "PROFILE_MEMBERS",
    "ROUNDING_WIDTH",
    "SAMPLER_DISTANCE",
    "accounted_member_noise_multiplier",
    "accounted_noise_multiplier",
    "dp_event",
    "local_dp_event",
    "rounded_sensitivity",
    "sampler_distance",
    "sensitivity",
    "shared_failure",
]

PROFILE_MEMBERS = 5
"""Profiles name epsilon(m) for m = 1 to this."""

BETA = 1e-15
"""Per attempt and member: that rounding lengthens a difference beyond Delta (rule R7)."""

ROUNDING_WIDTH = 4
"""Width r of the discrete Gaussian rounding that links discrete to continuous noise (rule R8)."""

SAMPLER_DISTANCE = 1e-32
"""Total variation between one noise sample and the discrete Gaussian: 3.6e-33 for the cut at 12
standard deviations, 2^-128 for each of at most 4e5 table entries."""


def sensitivity(terms: Terms) -> float:
    """Delta: how far one consumer moves one member's update, in the units of C.

    Guarantees:
        Holds for every member of the roster, except with probability ``BETA`` over the rounding
        offsets, if consumers' vectors have L2 norm at most C (as real numbers, after conversion to
        float32) and block sums are made as rule R6 says.

    Source:
        Rule R6: Higham (2002), Accuracy and Stability of Numerical Algorithms, section 4.2: with
        u = 2^-24, a float32 sum of b terms in any order is off by at most
        (b - 1) u / (1 - (b - 1) u) sum |x_i|. Two such sums, whose norms add up to at most b C
        each, are off by less than b^2 2^-23 C together as long as b^2 < 2^24.
    """
    privacy = terms.privacy
    step = grid_step(terms)
    block = max(batch_shape(terms, entry.name).consumers for entry in terms.roster)
    eta = block**2 * 2.0**-23
    # Before it is rounded, x / step is taken to float64 and to a multiple of 2^-FRACTION_BITS.
    norm = privacy.clipping_norm * (1 + eta + block * 2.0**-51)
    norm += math.sqrt(terms.dimension) * step * 2.0**-FRACTION_BITS
    return rounded_sensitivity(norm, terms.dimension, step)


def rounded_sensitivity(norm: float, dimension: int, step: float) -> float:
    """Norm that a difference of ``norm`` has after randomised rounding, but with ``BETA``.

    Args:
        norm: L2 norm before rounding.
        dimension: number of coordinates.
        step: width of the grid.

    Source:
        Kairouz, Liu, Steinke (2021), the bound on the norm after randomised rounding; the second
        bound holds always, since no coordinate moves by a whole step.
    """
    root = math.sqrt(dimension)
    probable = math.sqrt(
        norm**2
        + dimension * step**2 / 4
        + math.sqrt(2 * math.log(1 / BETA)) * step * (norm + step * root / 2)
    )
    return min(probable, norm + step * root)


def accounted_noise_multiplier(terms: Terms) -> float:
    """Noise multiplier of the continuous Gaussian that the release is accounted as.

    Guarantees:
        Let Z be the sum of H independent discrete Gaussians of scale s = 2^14 and S = s sqrt(H).

        (a) Z is within a factor e^(+-10 (H-1) exp(-pi^2 s^2)) of N_Z(0, S^2) pointwise; at
        s = 2^14 the exponent is below 1e-1000000000.

        (b) For any integer mean mu and any r < S, draw X from N(mu, S^2 - r^2) and then an integer
        Y with probability proportional to exp(-(Y - X)^2 / (2 r^2)). By Poisson summation the
        normaliser is the same for every X up to a factor 1 +- 2.1 exp(-2 pi^2 r^2), so Y is
        N_Z(mu, S^2) up to that factor: 1 +- 1.4e-137 per coordinate for r = 4.

        (c) Y given X does not depend on mu, so it is post-processing: any divergence between
        the discrete mechanism on two data sets, in any dimension and with any mixture over
        integer shifts, is at most that of the continuous one with variance S^2 - r^2.

        Hence multiplier sigma C / Delta * sqrt(1 - 16 / S^2). The factors in (a) and (b) change
        epsilon by less than 1e-120 in any study the terms allow and vanish in doubles.

    Source:
        (a) Kairouz, Liu, Steinke (2021), convolution of discrete Gaussians; (b) Canonne, Kamath,
        Steinke (2020), "The Discrete Gaussian for Differential Privacy", Poisson summation.
    """
    honest = terms.privacy.honest_survivors
    return _accounted(terms, terms.privacy.noise_multiplier, SHARE_SCALE**2 * honest)


def accounted_member_noise_multiplier(terms: Terms) -> float:
    """The same for one member's message alone, should every mask be broken (rule R13)."""
    return _accounted(terms, terms.privacy.member_noise_multiplier, SHARE_SCALE**2)


def _accounted(terms: Terms, multiplier: float, variance: int) -> float:
    relative = terms.privacy.clipping_norm / sensitivity(terms)
    return multiplier * relative * math.sqrt(1 - ROUNDING_WIDTH**2 / variance)


def shared_failure(*, members: int, attempts: int) -> float:
    """Mass added to delta once: failures of randomness that both neighbours share.

    The offsets of the rounding and the other consumers' samples have one distribution, with or
    without this consumer. Given that they are good (no rounded difference beyond Delta, no overflow
    of the consumer's block) the accounted mechanism is the real one; so delta grows by the
    probability that they are not, without a factor e^epsilon. Only the ``members`` that know
    the consumer count: at all others both neighbours do the same.

    Args:
        members: m, how many members know the consumer.
        attempts: private sums in all.
    """
    return attempts * members * (BETA + OVERFLOW_PROBABILITY)


def sampler_distance(terms: Terms, *, attempts: int) -> float:
    """Total variation between all noise of a study as sampled and as accounted.

    It counts every member and coordinate. A mechanism within tau of one that is
    (epsilon, delta)-DP is (epsilon, delta + (1 + e^epsilon) tau)-DP.
    """
    return attempts * terms.privacy.cohort_size * terms.dimension * SAMPLER_DISTANCE


def dp_event(
    terms: Terms, *, members: int = 1, attempts: int | None = None
) -> events.SelfComposedDpEvent:
    """All of a study's releases, as ``dp_accounting`` describes them.

    Guarantees:
        Unit: one consumer, add/remove, known to ``members`` members. Covers all releases of the
        study together with what up to c members and the coordinator know, up to the failure
        masses above, for uniform bits and unbroken masks.

    Args:
        terms: of the study.
        members: m, how many members know the consumer.
        attempts: private sums charged; all that the terms allow if not given.

    Source:
        Choquette-Choo, Ganesh, Steinke, Thakurta (2023), "Privacy Amplification for Matrix
        Mechanisms" (arXiv:2310.15526), corollary 4.7: vector mixtures are dominated by the scalar
        mixture of their norms.
    """
    from dp_accounting import dp_event as events

    q = terms.privacy.sampling_probability
    weights = {
        count: math.comb(members, count) * q**count * (1 - q) ** (members - count)
        for count in range(members + 1)
    }
    # Dropping what underflows to zero would break the sum; only q = 1 gives exact zeros.
    present = {count: weight for count, weight in weights.items() if weight > 0}
    return events.SelfComposedDpEvent(
        events.MixtureOfGaussiansDpEvent(
            accounted_noise_multiplier(terms),
            [float(count) for count in present],
            list(present.values()),
        ),
        terms.privacy.max_attempts if attempts is None else attempts,
    )


def local_dp_event(terms: Terms, *, attempts: int | None = None) -> events.SelfComposedDpEvent:
    """One member's messages alone, without masks: Poisson-sampled Gaussians at sigma / sqrt(H)."""
    from dp_accounting import dp_event as events

    return events.SelfComposedDpEvent(
        events.PoissonSampledDpEvent(
            terms.privacy.sampling_probability,
            events.GaussianDpEvent(accounted_member_noise_multiplier(terms)),
        ),
        terms.privacy.max_attempts if attempts is None else attempts,
    )
