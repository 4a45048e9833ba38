"""Epsilon of a study, from privacy loss distributions (PLD), always rounded against us.

One attempt's PLD is built once per terms and per number of members that know the consumer, and is
composed with itself for every query. The construction ("connect the dots"), the composition and
the conversion to epsilon are ``dp_accounting``'s; only the inverse of the mixture's privacy loss is
ours, because the library's bisects one value at a time and takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_gaussian_mechanism,
)
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, MixtureGaussianPrivacyLoss
from numpy.typing import NDArray

from privacy.errors import ConfigurationError, TermsError
from privacy.mechanism import (
    PROFILE_MEMBERS,
    accounted_member_noise_multiplier,
    accounted_noise_multiplier,
    dp_event,
    sampler_distance,
    shared_failure,
)
from privacy.terms import Terms

__all__ = ["Accountant", "Projection", "calibrate"]

COARSEST_DISCRETISATION = 1e-3
"""Width of a loss interval; finer with many attempts or a small epsilon."""

LARGEST_PLD = 200_000
"""Loss intervals of one attempt at most; beyond, intervals widen (still pessimistic)."""

ARITHMETIC_SLACK = 1e-12
"""Taken from delta for rounding errors in doubles, and the next constant again per attempt: the
FFT's spectrum is raised to that power. Against closed forms errors of delta are ten times smaller
(2e-15 at 400 attempts, 4e-12 at 200,000)."""

ARITHMETIC_SLACK_PER_ATTEMPT = 2.0**-52

STRICT_EPSILON = 30.0
"""Up to here the sampler's distance is charged with its full factor 1 + e^epsilon."""

EPSILON_UNIT = 1_000_000
"""Epsilon is rounded up to millionths."""

NEWTON_STEPS = 40
"""A bound for the loop; five steps reach double precision, as measured."""

LARGEST_SIGMA = 1_000_000
"""As in ``PrivacyTerms``."""


SIGMA_UNIT = 10_000
"""Calibrated noise multipliers are multiples of 1e-4."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What a study spends if all its attempts are used: what a member approves."""

    profile: Mapping[int, float]
    """epsilon(m) for a consumer known to m = 1..5 members."""
    local_profile: Mapping[int, float]
    """The same against whoever sees members' messages one by one (rule R13)."""
    delta: float
    attempts: int

    @property
    def epsilon_local(self) -> float:
        """Of a consumer known to one member: epsilon of that member's messages alone."""
        return self.local_profile[1]


class Accountant:
    """Epsilon of one study, at any number of attempts.

    Guarantees:
        Unit: one consumer known to m members; add/remove. Secure aggregation hides single messages,
        so all that leaves the members in k attempts is (epsilon(m, k), delta)-DP towards up to c
        members and the coordinator together; if it failed, epsilon_local would hold.
        delta covers rounding, overflow and arithmetic failures. It covers the distance
        between the noise sampler and the discrete Gaussian up to epsilon = 30; beyond, epsilon is
        that of a mechanism from which the real one is within ``sampler_distance``: 1e-22 for 100
        members, 1e6 coordinates and 100 attempts.
        Both statements are computational: AES and X25519 hold.

    The PLD of an attempt is discretised for the study's maximum attempts, at
    min(1e-3, 10 / attempts, epsilon / 100); at fewer attempts the same one is used, which is
    pessimistic too. Epsilon is infinite where delta is spent by the failures alone.

    Args:
        terms: of the study.

    Source:
        Doroshenko et al. (2022), "Connect the Dots", algorithm 1; Koskela et al. (2020) for
        composition by FFT.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._single: dict[int, PrivacyLossDistribution] = {}
        self._answers: dict[tuple[int, int], float] = {}

    def epsilon(self, *, members: int = 1, attempts: int | None = None) -> float:
        """Epsilon after ``attempts`` attempts for a consumer known to ``members`` members.

        Args:
            members: m, at least 1. A cohort has N members, so more than N count as N.
            attempts: at least 0 and at most the terms' maximum, which is meant if not given.

        Raises:
            ConfigurationError: if an argument is out of range.
        """
        if members < 1:
            raise ConfigurationError(f"epsilon({members}): a consumer is known to 1 member or more")
        return self._answer(min(members, self.terms.privacy.cohort_size), attempts)

    def profile(self, attempts: int | None = None) -> dict[int, float]:
        """epsilon(m) for m = 1..5; constant from m = N on."""
        return {
            members: self.epsilon(members=members, attempts=attempts)
            for members in range(1, PROFILE_MEMBERS + 1)
        }

    def epsilon_local(self, *, members: int = 1, attempts: int | None = None) -> float:
        """Epsilon against whoever sees members' messages one by one (rule R13).

        Each carries noise of sigma / sqrt(H) alone. A consumer known to m members is in the
        messages of m, which compose.

        Args:
            members: m, at least 1; more than N count as N.
            attempts: as in `epsilon`.

        Raises:
            ConfigurationError: if an argument is out of range.
        """
        if members < 1:
            raise ConfigurationError(f"a consumer is known to 1 member or more, not {members}")
        return self._answer(-min(members, self.terms.privacy.cohort_size), attempts)

    def projection(self) -> Projection:
        """What the terms spend if every attempt is used."""
        return Projection(
            profile=self.profile(),
            local_profile={
                members: self.epsilon_local(members=members)
                for members in range(1, PROFILE_MEMBERS + 1)
            },
            delta=self.terms.privacy.delta,
            attempts=self.terms.privacy.max_attempts,
        )

    def _answer(self, view: int, attempts: int | None) -> float:
        most = self.terms.privacy.max_attempts
        count = most if attempts is None else attempts
        if not 0 <= count <= most:
            raise ConfigurationError(f"{count} attempts: the terms allow 0 to {most}")
        if count == 0:
            return 0.0
        if view not in self._single:
            self._single[view], self._answers[view, most] = self._refined(view)
        if (view, count) not in self._answers:
            self._answers[view, count] = self._composed(self._single[view], view, count)
        return self._answers[view, count]

    def _refined(self, view: int) -> tuple[PrivacyLossDistribution, float]:
        """One attempt's PLD, fine enough for the epsilon that all attempts lead to; and that."""
        most = self.terms.privacy.max_attempts
        width = min(COARSEST_DISCRETISATION, 10 / most)
        while True:
            single = self._attempt(view, width)
            epsilon = self._composed(single, view, most)
            # epsilon is pessimistic; a finer width lowers it a little, hence the margin.
            if math.isinf(epsilon) or width <= max(epsilon / 100, 1 / EPSILON_UNIT):
                return single, epsilon
            width = max(epsilon / 110, 1 / EPSILON_UNIT)

    def _attempt(self, view: int, width: float) -> PrivacyLossDistribution:
        q = self.terms.privacy.sampling_probability
        if view < 0:  # the messages of -view members, one by one
            return _poisson_gaussian(accounted_member_noise_multiplier(self.terms), q, width)
        if view == 1:
            return _poisson_gaussian(accounted_noise_multiplier(self.terms), q, width)
        return _mixture(self.terms, view, width)

    def _composed(self, single: PrivacyLossDistribution, view: int, attempts: int) -> float:
        """Epsilon of ``attempts`` attempts, with delta reduced by what may fail."""
        members = abs(view)
        failure = ARITHMETIC_SLACK + ARITHMETIC_SLACK_PER_ATTEMPT * attempts
        failure += shared_failure(members=members, attempts=attempts)
        distance = sampler_distance(self.terms, attempts=attempts)
        delta = self.terms.privacy.delta - failure
        if delta <= 2 * distance:
            return math.inf
        composed = single.self_compose(attempts * max(1, -view))
        ceiling = 0.0
        while True:  # the ceiling grows by 1 or more each time and stops at STRICT_EPSILON
            left = delta - (1 + math.exp(ceiling)) * distance
            epsilon = composed.get_epsilon_for_delta(left) if left > 0 else math.inf
            if math.isinf(epsilon):
                return math.inf
            if epsilon <= ceiling or ceiling >= STRICT_EPSILON:
                return math.ceil(epsilon * EPSILON_UNIT) / EPSILON_UNIT
            ceiling = min(STRICT_EPSILON, epsilon + 1)


def calibrate(terms: Terms, epsilon: float) -> Terms:
    """The same terms with the smallest noise multiplier for which epsilon(1) <= ``epsilon``.

    Args:
        terms: complete but for the noise multiplier, whose value is ignored.
        epsilon: wanted at the terms' delta and maximum attempts.

    Returns:
        A copy; the noise multiplier is a multiple of 1e-4. The ring is not checked: see ``Grid``.

    Raises:
        TermsError: if no noise multiplier up to the largest allowed one reaches that epsilon.
    """
    if not epsilon > 0:
        raise TermsError(f"epsilon {epsilon}: must be above 0")

    def excess(units: int) -> float:
        """Log of how far above ``epsilon`` it is; nearly linear in the log of the noise."""
        reached = Accountant(_with_noise(terms, units)).epsilon()
        return math.log(reached / epsilon) if reached > 0 else -math.inf

    enough, below = SIGMA_UNIT, excess(SIGMA_UNIT)
    too_little, above = 0, math.inf
    while below > 0:
        too_little, above = enough, below
        enough *= 2
        if enough > LARGEST_SIGMA * SIGMA_UNIT:
            raise TermsError(
                f"epsilon {epsilon:g} at delta {terms.privacy.delta:g} is out of reach; "
                + _nearest(epsilon * math.exp(below))
                + "lower the sampling probability, the attempts or the dimension"
            )
        below = excess(enough)
    while too_little == 0 and enough > 1:
        half = excess(enough // 2)
        if half > 0:
            too_little, above = enough // 2, half
        else:
            enough, below = enough // 2, half
    step = 0
    while enough - too_little > 1:
        middle = _crossing(too_little, above, enough, below, halve=step % 4 == 3)
        value = excess(middle)
        if value > 0:
            too_little, above = middle, value
        else:
            enough, below = middle, value
        step += 1
    return _with_noise(terms, enough)


def _nearest(epsilon: float) -> str:
    """What would be within reach, as part of a sentence, rounded up."""
    if math.isinf(epsilon):
        return "raise delta, which is spent by what may fail, or "
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 1)
    return f"write {math.ceil(epsilon / unit) * unit:.2g} or more, or "


def _crossing(low: int, above: float, high: int, below: float, *, halve: bool) -> int:
    """A whole number between two, near where the line through both logarithms is zero.

    Args:
        low: where the value is positive.
        above: that value; may be infinite.
        high: where it is not.
        below: that value; may be minus infinity.
        halve: takes the middle instead, so that every few steps at least halve the interval.
    """
    if halve or low == 0 or math.isinf(above) or math.isinf(below):
        return (low + high) // 2
    share = above / (above - below)
    crossing = round(math.exp(math.log(low) + share * math.log(high / low)))
    return min(max(crossing, low + 1), high - 1)


def _with_noise(terms: Terms, units: int) -> Terms:
    privacy = terms.privacy.model_copy(update={"noise_multiplier": units / SIGMA_UNIT})
    return terms.model_copy(update={"privacy": privacy})


def _width_that_fits(multiplier: float, members: int, width: float) -> float:
    """The width, or a larger one where losses within ten standard deviations need too many."""
    span = 2 * (members / 2 + 11 * multiplier) * members / multiplier**2
    return max(width, span / LARGEST_PLD)


def _poisson_gaussian(multiplier: float, q: float, width: float) -> PrivacyLossDistribution:
    """One attempt for a consumer of one member."""
    return from_gaussian_mechanism(
        multiplier,
        sampling_prob=q,
        value_discretization_interval=_width_that_fits(multiplier, 1, width),
    )


def _mixture(terms: Terms, members: int, width: float) -> PrivacyLossDistribution:
    """One attempt for a consumer of several members."""
    event = dp_event(terms, members=members).event
    width = _width_that_fits(event.standard_deviation, members, width)
    return PrivacyLossDistribution(
        *(
            _connected_dots(
                _MixtureLoss(
                    event.standard_deviation,
                    event.sensitivities,
                    event.sampling_probs,
                    adjacency_type=adjacency,
                ),
                width,
            )
            for adjacency in (AdjacencyType.REMOVE, AdjacencyType.ADD)
        )
    )


def _connected_dots(loss: MixtureGaussianPrivacyLoss, width: float) -> pld_pmf.PLDPmf:
    """What ``from_mixture_gaussian_mechanism`` does with a loss, for a loss of our own."""
    bounds = loss.connect_dots_bounds()
    lower = math.floor(bounds.epsilon_lower / width)
    upper = math.ceil(bounds.epsilon_upper / width)
    deltas = loss.get_delta_for_epsilon(np.arange(lower, upper + 1) * width)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(width, lower, upper, deltas)


class _MixtureLoss(MixtureGaussianPrivacyLoss):  # type: ignore[misc]
    """The library's mixture loss with a vectorised inverse, exact to double precision.

    With L the log of sum_i p_i exp((s_i y - s_i^2 / 2) / v), the loss at x is L at y = -x (remove)
    and minus L at y = x (add). Without its constant term, log(e^L - p_0) is a convex function of y
    whose slopes lie within a factor m of each other, so Newton's method from the right converges
    monotonically in a few steps.
    """

    def inverse_privacy_losses(
        self, privacy_losses: NDArray[np.float64], precision: float = 0.0
    ) -> NDArray[np.float64]:
        """Where the privacy loss takes these values; ``precision`` is not needed."""
        sign = -1.0 if self.adjacency_type == AdjacencyType.REMOVE else 1.0
        level = -sign * np.asarray(privacy_losses, dtype=np.float64)
        probabilities, sizes = np.asarray(self.sampling_probs), np.asarray(self.sensitivities)
        constant = float(probabilities[sizes == 0].sum())
        if constant > 0:
            gap = -np.expm1(math.log(constant) - level)
            level = level + np.log(np.maximum(gap, np.finfo(float).tiny))
        variance = self._variance
        moving = sizes > 0
        slopes = (sizes[moving] / variance)[:, None]
        starts = (np.log(probabilities[moving]) - sizes[moving] ** 2 / (2 * variance))[:, None]
        point = ((level - starts) / slopes).min(axis=0)
        for _ in range(NEWTON_STEPS):
            exponents = starts + slopes * point
            top = exponents.max(axis=0)
            weights = np.exp(exponents - top)
            total = weights.sum(axis=0)
            slope = (weights * slopes).sum(axis=0) / total
            change = (top + np.log(total) - level) / slope
            point -= change
            if len(point) == 0 or np.abs(change).max() < 1e-13 * (1 + np.abs(point).max()):
                break
        inverse: NDArray[np.float64] = sign * point
        return inverse
