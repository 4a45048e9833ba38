"""Five faults that releases and canaries betray, each by a test of its own.

They find mistakes of those who mean well. A member or coordinator that knows of the audit can pass
all five: it may treat canaries otherwise than consumers.

| fault | what is tested | supposed of an honest run |
|---|---|---|
| too little noise | too many small coordinates | nothing about consumers (Anderson's inequality) |
| repeated noise | too many small differences between two releases; or noise too large in every combination of releases, as when members share a seed | a consumer's part does not bring back the noise of earlier releases; it varies in fewer dimensions than there are releases |
| no clipping | response of canaries of norm above C | - |
| no Poisson sampling | spread of the number of rounds that canaries took part in | - |
| private weights | response between releases, between members, and whether below 1 | - |

Each flags an honest run with probability at most ``FALSE_ALARM`` / 5.
"""  # noqa: E501 (a table)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import erf
from scipy.stats import binom, chi2, norm

from privacy.empirical.releases import Released
from privacy.empirical.response import Response
from privacy.empirical.scores import Scores
from privacy.fixedpoint import grid_step
from privacy.sampling import enrolment_cap
from privacy.terms import Terms

__all__ = [
    "FALSE_ALARM",
    "Finding",
    "little_noise",
    "no_clipping",
    "no_poisson_sampling",
    "private_weights",
    "repeated_noise",
]

FALSE_ALARM: Final = 1e-4
"""Probability that an honest run is flagged by any of the five."""
SHARE: Final = FALSE_ALARM / 5

COMPARED_FLOATS: Final = 1 << 25
MOST_COMPARED: Final = 64
"""Releases compared in pairs at most; 128 MiB of them."""

CLIP_ALLOWANCE: Final = 0.01
"""Rounding in float32 may lengthen a sum by 2^-7 (rule R6)."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one detector found.

    Args:
        fault: its name.
        p_value: probability of evidence this strong in an honest run; 1 if it was not tested.
        alarm: p-values below are flagged.
        power: probability that the planted fault of this detector would be flagged at this size,
            by normal approximation; 0 if it was not tested.
        tested: whether this run can show the fault at all.
        measured: the figure looked at.
        expected: the same in an honest run.
        sentence: what it means.
    """

    fault: str
    p_value: float
    power: float
    measured: float
    expected: float
    sentence: str
    alarm: float = SHARE
    tested: bool = True

    @property
    def flagged(self) -> bool:
        """Whether this is a finding."""
        return self.p_value < self.alarm


def little_noise(terms: Terms, scores: Scores, releases: Sequence[Released]) -> Finding:
    """Whether releases hold less noise than their contributors owe (planted: half of it).

    Guarantees:
        Noise is symmetric and unimodal in each coordinate, independently, so whatever is added
        makes a coordinate within one standard deviation of 0 less likely, not more. The number of
        such coordinates is thus at most binomial, for every behaviour of consumers and model. In
        differences of two releases, which see through what consumers add to both, it is so if
        that does not bring back the first one's noise in the second.

    Source:
        Anderson (1955), "The integral of a symmetric unimodal function", theorem 1.
    """
    norm_c, step = terms.privacy.clipping_norm, _relative_step(terms, scores)
    deviations = np.sqrt(scores.expected_variance)
    alone = pairs = 0
    last = np.zeros(scores.dimension)
    for at, release in enumerate(releases):
        vector = release.total() / norm_c
        alone += _small(vector, deviations[at])
        if at % 2:  # releases 1 and 2, 3 and 4, ...
            pairs += _small(vector - last, math.hypot(deviations[at], deviations[at - 1]))
        last = vector
    trials = scores.dimension * scores.releases
    tested = (
        (alone, trials),
        (pairs, scores.dimension * (scores.releases // 2)),
    )
    # A grid point within one deviation stands for half a step on either side.
    within, found = _within(1 + step), _within(2.0)
    limit = float(binom.isf(SHARE / 2, trials, within))
    return Finding(
        fault="too little noise",
        p_value=min(1.0, 2 * min(float(binom.sf(n - 1, of, within)) for n, of in tested)),
        power=_power(found * trials, limit, math.sqrt(trials * found * (1 - found))),
        measured=max(n / of for n, of in tested if of),
        expected=within,
        sentence="share of coordinates, in releases or in differences of two, within one standard "
        "deviation of the noise that their contributors owe; more than expected means less noise, "
        "and less than expected is what consumers add",
    )


def repeated_noise(
    terms: Terms, scores: Scores, measured: Response, releases: Sequence[Released]
) -> Finding:
    """Whether noise came twice: in two releases, or from two members (planted: one seed for all).

    Guarantees:
        Between releases: as in `little_noise`, for differences of two releases, if what consumers
        add does not bring back the noise of an earlier release; corrected for the pairs compared.
        Between members: equal noise adds up instead of cancelling. The least eigenvalue of the
        releases' Gram matrix is at most the energy of any one combination of them, which is
        chi-squared with d degrees of freedom plus what consumers and canaries are sampled to,
        if some combination leaves out the part of consumers that model and time move.
    """
    most = max(2, min(MOST_COMPARED, COMPARED_FLOATS // scores.dimension, scores.releases))
    chosen = releases[:most]
    if scores.releases < 2:
        return _untested("repeated noise", "needs two releases")
    deviations = np.sqrt(scores.expected_variance[:most])
    vectors = np.stack([release.total() / terms.privacy.clipping_norm for release in chosen])
    step = 2 * _relative_step(terms, scores)
    between_releases, share = _least_pair(vectors, deviations, step)
    between_members = _too_much(terms, scores, measured, vectors / deviations[:, None])
    pairs = most * (most - 1) // 2
    # Planted: every member's noise comes twice, so a difference is nothing but rounding.
    honest = _within(1.0)
    return Finding(
        fault="repeated noise",
        p_value=min(1.0, 2 * min(between_releases * pairs, between_members)),
        power=1.0 if honest**scores.dimension < SHARE / (2 * pairs) else 0.0,
        measured=share,
        expected=honest,
        sentence=f"largest share of small coordinates in a difference of two of {most} releases "
        f"(of {scores.releases}); too large means equal noise in both. The p-value also covers "
        "noise that is too large, as when members share a seed",
    )


def _least_pair(vectors: Floats, deviations: Floats, step: float) -> tuple[float, float]:
    """The least p-value over pairs of releases, and the largest share of small coordinates."""
    dimension = vectors.shape[1]
    shares = [_small(*pair) / dimension for pair in zip(vectors, deviations, strict=True)]
    # Where a release itself shows less noise than is owed, differences are measured by that much:
    # too little noise is another detector's business.
    shown = norm.ppf((1 + np.minimum(shares, 1 - 1e-9)) / 2)  # deviations per deviation owed
    noise = deviations / np.maximum(1, shown)
    share, least = 0.0, 1.0
    for later in range(1, len(vectors)):
        for earlier in range(later):
            deviation = math.hypot(noise[later], noise[earlier])
            small = _small(vectors[later] - vectors[earlier], deviation)
            least = min(least, float(binom.sf(small - 1, dimension, _within(1 + step))))
            share = max(share, small / dimension)
    return least, share


def _relative_step(terms: Terms, scores: Scores) -> float:
    """Half a grid step in standard deviations of the least noise; about 1e-5."""
    half_step = grid_step(terms) / terms.privacy.clipping_norm / 2
    return half_step / math.sqrt(scores.expected_variance.min())


def _too_much(terms: Terms, scores: Scores, measured: Response, normalised: Floats) -> float:
    """P-value of the least energy in a combination of releases, against too much noise."""
    if len(normalised) < 3:
        return 1.0
    dimension, q = scores.dimension, scores.sampling_probability
    least = float(np.linalg.eigvalsh(normalised @ normalised.T)[0])
    # Poisson sampling moves a sum of n fixed vectors of norm C by energy q (1 - q) n at most. Where
    # nobody clips they are longer, which is another detector's business.
    consumers = sum(enrolment_cap(entry.declared_consumers) for entry in terms.roster)
    length = max(1.0, measured.value)
    sampled = length**2 * q * (1 - q) * consumers / float(scores.expected_variance.min())
    deviation = math.sqrt(2 * (dimension + 2 * sampled))
    return float(norm.sf((least - dimension - sampled) / deviation))


def no_clipping(scores: Scores, measured: Response) -> Finding:
    """Whether canaries of norm above C move the sum by more than C (planted: norm 10 C)."""
    scale = min((member.scale for member in scores.members), default=0.0)
    if scale <= 1 + 2 * CLIP_ALLOWANCE:
        return _untested("no clipping", "needs canaries of norm above C: enrol with --scale 10")
    if not math.isfinite(measured.error):
        return _untested("no clipping", "needs a release with a canary's member in it")
    excess = measured.value - 1 - CLIP_ALLOWANCE
    # The sampling of larger canaries spreads their mean; an honest run has norm 1.
    error = measured.error / max(1.0, measured.value)
    return Finding(
        fault="no clipping",
        p_value=float(norm.sf(excess / error)),
        power=_power(scale - 1 - CLIP_ALLOWANCE, float(norm.isf(SHARE)) * error, measured.error),
        measured=measured.value,
        expected=1.0,
        sentence=f"response of canaries of norm {scale:g} C, in units of C",
    )


def no_poisson_sampling(scores: Scores, measured: Response) -> Finding:
    """Whether canaries take part as often as Poisson sampling says (planted: shuffling).

    The sum of a canary's scores over T releases has the variance of the noise and, where it takes
    part, a^2 T q (1 - q) more. Sampling without replacement over epochs leaves that out almost
    entirely; the same sample again and again multiplies it by T. The noise's part is known from
    the releases alone: random directions see the mean square of their sum.
    """
    q = scores.sampling_probability
    name = "no Poisson sampling"
    if q == 1:
        return _untested(name, "everybody is in every round at sampling probability 1")
    everywhere = [member for member in scores.members if member.present.all()]
    totals = [member.scores[member.included].sum(axis=1) for member in everywhere]
    count = sum(len(part) for part in totals)
    if count < 30:
        return _untested(name, "needs 30 canaries of members that are in every release")
    # Each around its member's own mean, so that members' weights do not pass for spread.
    squares = sum(float(((part - part.mean()) ** 2).sum()) for part in totals)
    trials = scores.releases * q * (1 - q)
    unit = measured.value**2 * trials
    variance = scores.total_square + unit
    relative = squares / (count - len(totals)) / variance
    deviation = _spread_of_variance(scores, measured, count, unit, variance)
    degrees = 2 / deviation**2
    tails = chi2.cdf(degrees * relative, degrees), chi2.sf(degrees * relative, degrees)
    left = scores.releases * q % 1
    shuffled = left * (1 - left) / trials
    threshold = float(norm.isf(SHARE / 2)) * deviation
    return Finding(
        fault=name,
        p_value=min(1.0, 2 * float(min(tails))),
        power=_power(abs(1 - shuffled) * unit / variance, threshold, deviation),
        measured=(relative * variance - scores.total_square) / unit,
        expected=1.0,
        sentence="variance of the number of rounds a canary took part in, over that of Poisson "
        "sampling; about 0 means shuffling",
    )


def _spread_of_variance(
    scores: Scores, measured: Response, count: int, unit: float, variance: float
) -> float:
    """Relative standard deviation of the sample variance of ``count`` canaries' totals.

    Directions are not quite orthogonal, which takes degrees of freedom: the mean of the squares of
    n Gaussian scores in d dimensions has relative variance 2 (1 + n / d) / n. Binomial numbers of
    rounds have excess kurtosis where q is far from 1/2, and the response is itself measured.
    """
    q = scores.sampling_probability
    excess = max(0.0, 1 - 6 * q * (1 - q)) * measured.value**2 * unit / variance**2
    gaussian = 2 * (1 + count / scores.dimension)
    from_response = 2 * measured.error / max(measured.value, 1e-9) * unit / variance
    return math.sqrt((gaussian + excess) / count + from_response**2)


def private_weights(measured: Response) -> Finding:
    """Whether contributions are weighted by something private (planted: by the batch's size).

    Three tests share the alarm: responses of releases, and of members, agree with their mean; and
    the mean is not below 1. A canary's response above 1 is `no_clipping`'s.
    """
    if not math.isfinite(measured.error):
        return _untested("private weights", "needs a release with a canary's member in it")
    weights = measured.errors**-2.0
    tested = [
        _agreement(measured.values, weights, axis) for axis in (0, 1) if weights.shape[1 - axis] > 1
    ]
    low = float(norm.cdf((measured.value - 1) / measured.error))
    threshold = float(norm.isf(SHARE / 3))
    return Finding(
        fault="private weights",
        p_value=min(1.0, 3 * min([low, *tested])),
        power=_power(0.25 / measured.error, threshold, 1.0),
        measured=measured.value,
        expected=1.0,
        sentence="mean response of canaries; it must be 1 and the same in every release and at "
        "every member. The power is against weights of 0.75 on average",
    )


def _agreement(values: Floats, weights: Floats, axis: int) -> float:
    """P-value of groups of responses against their common mean, chi-squared."""
    per_group = weights.sum(axis=axis)
    there = per_group > 0
    if there.sum() < 2:
        return 1.0
    means = (weights * values).sum(axis=axis)[there] / per_group[there]
    centre = float((per_group[there] * means).sum() / per_group[there].sum())
    statistic = float((per_group[there] * (means - centre) ** 2).sum())
    return float(chi2.sf(statistic, int(there.sum()) - 1))


def _small(vector: Floats, deviation: float) -> int:
    return int((np.abs(vector) <= deviation).sum())


def _within(deviations: float) -> float:
    """P(|N(0, 1)| <= deviations)."""
    return float(erf(deviations / math.sqrt(2)))


def _power(shift: float, threshold: float, error: float) -> float:
    """P(N(shift, error^2) > threshold)."""
    return float(norm.sf((threshold - shift) / max(error, 1e-300)))


def _untested(fault: str, why: str) -> Finding:
    return Finding(
        fault=fault, p_value=1.0, power=0.0, measured=math.nan, expected=math.nan,
        sentence=why, tested=False,
    )  # fmt: skip
