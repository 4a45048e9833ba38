"""The response: how far a canary that takes part moves the releases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.empirical.scores import Scores

__all__ = ["Response", "canary_energy", "response"]

LEAST_NOISE: Final = 1e-6
"""Share of a release's mean square that is noise at least; rounding alone leaves more."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Response:
    """How far a sampled canary moves the releases, in units of C; 1 for one of norm C or more.

    Args:
        value: mean over canaries and releases, weighted by precision.
        error: its standard error; infinite where no canary's member is in any release.
        values: per member and release, shape (members, releases).
        errors: their standard errors; infinite where the member is not in the release.
    """

    value: float
    error: float
    values: Floats
    errors: Floats


def response(scores: Scores) -> Response:
    """The canaries' response, by regression of each release on the members' included directions.

    A canary that is sampled with probability q adds q times its direction on average. So a
    release is q times the responses times the sums of each member's included directions, plus
    noise of variance V a coordinate; with G the Gram matrix of these sums, least squares has
    variance V / q^2 times the diagonal of G^-1. Which of a member's n included canaries were
    sampled adds a^2 (1 - q) / (q n). The regression is joint: sums of different members are not
    quite orthogonal, and what one adds to another's would be the same in every release.
    """
    q = scores.sampling_probability
    taking_part = np.array([member.taking_part for member in scores.members])
    present = np.stack([member.present for member in scores.members]) & (taking_part > 0)[:, None]
    sums = np.stack([member.scores[member.included].sum(axis=0) for member in scores.members])
    values, inverses = np.zeros(present.shape), np.full(present.shape, np.inf)
    for pattern in np.unique(present, axis=1).T:
        inverse = np.linalg.pinv(scores.gram[np.ix_(pattern, pattern)], hermitian=True)
        same = np.flatnonzero((present == pattern[:, None]).all(axis=0))
        here = np.ix_(pattern, same)
        values[here] = inverse @ sums[here] / q
        inverses[here] = np.diag(inverse)[:, None] / q**2
    if not present.any():
        return Response(0.0, math.inf, values, inverses)
    explained = q**2 * _together(scores) / scores.dimension
    value, total, errors = 1.0, 0.0, inverses
    for _ in range(3):  # the weights depend on the response, a little
        noise = np.maximum(
            scores.mean_square - value**2 * explained, LEAST_NOISE * scores.mean_square
        )
        participation = value**2 * (1 - q) / (q * np.maximum(1, taking_part))
        errors = np.sqrt(inverses * noise + participation[:, None])
        weights = errors**-2.0
        total = float(weights.sum())
        value = float((weights * values).sum()) / total
    return Response(value, total**-0.5, values, errors)


def canary_energy(scores: Scores) -> Floats:
    """Expected squared norm of what canaries add to each release, for a response of 1."""
    q = scores.sampling_probability
    number = sum(member.present * float(member.taking_part) for member in scores.members)
    energy: Floats = q * number + q**2 * (_together(scores) - number)
    return energy


def _together(scores: Scores) -> Floats:
    """Squared norm of the sum of all included directions of each release's members."""
    present = np.stack([member.present for member in scores.members]).astype(np.float64)
    together: Floats = np.einsum("mt,mn,nt->t", present, scores.gram, present)
    return together
