"""Scores: how far each release points into each canary's direction.

Releases are taken in units of C. The score of canary i in a release is the inner product with its
unit direction: about 1 where it took part, about 0 where it did not, with the noise's standard
deviation. Directions are made again from their seeds, some at a time, so that neither all
directions nor all releases are in memory at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.empirical.canaries import CanarySecret, signs
from privacy.empirical.releases import Released
from privacy.terms import Terms

__all__ = ["MemberScores", "Scores", "log_likelihood_ratios", "score"]

FLOATS_AT_ONCE = 1 << 25
"""Directions held at a time, and releases held at a time: 128 MiB each."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MemberScores:
    """Scores of one member's canaries.

    Args:
        member: where they are enrolled.
        included: the coins, bool, shape (count,).
        scores: float64, shape (count, releases).
        present: whether the member is in a release, bool, shape (releases,).
        scale: norm of a canary's vector before clipping, in units of C.
    """

    member: str
    included: npt.NDArray[np.bool_]
    scores: Floats
    present: npt.NDArray[np.bool_]
    scale: float

    @property
    def taking_part(self) -> int:
        """How many canaries the member got."""
        return int(self.included.sum())


@dataclass(frozen=True, slots=True)
class Scores:
    """All scores of a study.

    Args:
        members: one for each secret.
        dimension: of the releases.
        sampling_probability: q.
        expected_variance: of the noise in a coordinate of each release, by the terms and its
            contributors, in units of C^2; shape (releases,).
        mean_square: of the coordinates of each release, same unit and shape.
        total_square: mean square of the coordinates of the sum of all releases.
        gram: inner products of members' sums of included unit directions, shape (members,
            members); about how many take part on the diagonal.
    """

    members: tuple[MemberScores, ...]
    dimension: int
    sampling_probability: float
    expected_variance: Floats
    mean_square: Floats
    total_square: float
    gram: Floats

    @property
    def releases(self) -> int:
        """How many there are."""
        return len(self.mean_square)


def score(terms: Terms, secrets: Sequence[CanarySecret], releases: Sequence[Released]) -> Scores:
    """Scores of all canaries in all releases.

    Args:
        terms: of the study.
        secrets: the auditor's, of distinct members.
        releases: in order, at least one.
    """
    privacy = terms.privacy
    some = max(1, FLOATS_AT_ONCE // terms.dimension)
    parts: list[list[Floats]] = [[] for _ in secrets]
    sums = np.zeros((len(secrets), terms.dimension), dtype=np.float32)
    squares: list[float] = []
    total = np.zeros(terms.dimension)
    for first in range(0, len(releases), some):
        chunk = releases[first : first + some]
        vectors = np.empty((terms.dimension, len(chunk)), dtype=np.float32)
        for at, release in enumerate(chunk):
            vector = release.total() / privacy.clipping_norm
            squares.append(float(vector @ vector) / terms.dimension)
            total += vector
            vectors[:, at] = vector
        for part, whole, secret in zip(parts, sums, secrets, strict=True):
            part.append(_inner_products(secret, vectors, whole if first == 0 else None))
    member_variance = privacy.noise_multiplier**2 / privacy.honest_survivors
    return Scores(
        members=tuple(
            MemberScores(
                member=secret.member,
                included=secret.included,
                scores=np.concatenate(part, axis=1),
                present=np.array([secret.member in release.contributors for release in releases]),
                scale=secret.scale,
            )
            for secret, part in zip(secrets, parts, strict=True)
        ),
        dimension=terms.dimension,
        sampling_probability=privacy.sampling_probability,
        expected_variance=np.array(
            [len(release.contributors) * member_variance for release in releases]
        ),
        mean_square=np.array(squares),
        total_square=float(total @ total) / terms.dimension,
        gram=_gram(sums),
    )


def _gram(sums: npt.NDArray[np.float32]) -> Floats:
    """Inner products of sums of signs, in unit directions; exact integers are added in doubles."""
    members, dimension = sums.shape
    gram = np.zeros((members, members))
    step = max(1, FLOATS_AT_ONCE // members)
    for start in range(0, dimension, step):
        part = sums[:, start : start + step].astype(np.float64)
        gram += part @ part.T
    gram /= dimension
    return gram


def _inner_products(
    secret: CanarySecret, vectors: npt.NDArray[np.float32], whole: npt.NDArray[np.float32] | None
) -> Floats:
    """Scores of one member's canaries; adds the included directions into ``whole``.

    Args:
        secret: the auditor's.
        vectors: releases in units of C, shape (dimension, releases).
        whole: sum of the included signs, or None if it is there already.
    """
    dimension, releases = vectors.shape
    result = np.empty((secret.count, releases))
    included = secret.included.astype(np.float32)
    step = max(1, FLOATS_AT_ONCE // dimension)
    for start in range(0, secret.count, step):
        stop = min(secret.count, start + step)
        directions = signs(secret.seeds(start, stop), dimension)
        result[start:stop] = directions @ vectors
        if whole is not None:
            whole += included[start:stop] @ directions
    result /= math.sqrt(dimension)
    return result


def log_likelihood_ratios(scores: Scores) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How much likelier each canary's scores are with it than without, and all coins.

    Under the Gaussian hypothesis no other weighting of the rounds tells included canaries from
    others better: the sum over releases of log(1 - q + q exp((s - a / 2) a / V)), where s is the
    score, a the norm after clipping and V the release's mean square.

    Source:
        Neyman and Pearson (1933), the lemma, for the mixture that Poisson sampling makes.

    Returns:
        float64 and bool, shape (canaries,), members one after another.
    """
    q = scores.sampling_probability
    ratios = []
    for member in scores.members:
        norm = min(member.scale, 1.0)
        gains = (member.scores - norm / 2) * norm / scores.mean_square
        per_release = gains if q == 1 else np.logaddexp(math.log1p(-q), math.log(q) + gains)
        ratios.append((per_release * member.present).sum(axis=1))
    included = [member.included for member in scores.members]
    return np.concatenate(ratios), np.concatenate(included)
