from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from scipy.stats import chi2

from benchmarks.empirical.runs import audited_terms, enrol_everywhere
from privacy.empirical.canaries import signs
from privacy.empirical.releases import Released
from privacy.empirical.response import canary_energy, response
from privacy.empirical.scores import Scores, score

ROUNDS, DIMENSION, CANARIES, NOISE = 3, 8000, 500, 0.02
Q = 0.98
TERMS = audited_terms(
    members=5, declared=100, dimension=DIMENSION, rounds=ROUNDS, q=Q, sigma=0.3, dropouts=1
)
NAMES = tuple(entry.name for entry in TERMS.roster)


def scored(seed: int, *, size: float = 1.0, absent: tuple[int, ...] = ()) -> Scores:
    """Releases in which sampled canaries have norm ``size``; member 0 is absent from some."""
    rng = np.random.default_rng(seed)
    secrets, _ = enrol_everywhere(
        TERMS, CANARIES, key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest()
    )
    chosen = [
        (signs(secret.seeds(0, secret.count), DIMENSION) / np.sqrt(DIMENSION))[secret.included]
        for secret in secrets
    ]
    releases = []
    for number in range(1, ROUNDS + 1):
        total = NOISE * rng.standard_normal(DIMENSION)
        names = NAMES[1:] if number in absent else NAMES
        for name, vectors in zip(NAMES, chosen, strict=True):
            if name in names:
                total += size * (rng.random(len(vectors)) < Q) @ vectors
        releases.append(Released(number, 1, names, lambda total=total: total))
    return score(TERMS, secrets, releases)


def test_the_response_is_off_by_its_standard_error() -> None:
    """Twenty runs whose canaries are clear and not quite orthogonal; false alarm 1e-5.

    The control regresses each member on its own and must be off by more.
    """
    joint, apart = [], []
    for seed in range(20):
        scores = scored(seed)
        alone = dataclasses.replace(scores, gram=np.diag(np.diag(scores.gram)))
        for measured, off in ((response(scores), joint), (response(alone), apart)):
            off.append((measured.value - 1) / measured.error)
    assert np.square(joint).sum() < chi2.isf(1e-5, len(joint)) < np.square(apart).sum()


@pytest.mark.parametrize("size", [0.5, 10.0])
def test_the_response_is_what_a_canary_adds(size: float) -> None:
    measured = response(scored(1, size=size))
    assert measured.value == pytest.approx(size, rel=0.1)
    assert measured.error < 0.1 * size


def test_releases_without_the_member_count_nothing() -> None:
    """Values of member 0 there are not used; the others are those of a joint regression."""
    measured = response(scored(2, absent=(1, 3)))
    assert np.isinf(measured.errors[0, [0, 2]]).all()
    assert np.isfinite(measured.errors[1:]).all()
    assert np.isfinite(measured.errors[0, 1])
    off = (measured.values - 1) / measured.errors
    assert np.abs(off).max() < 5
    assert np.isinf(response(scored(2, absent=(1, 2, 3))).errors[0]).all()


def test_the_energy_that_canaries_add_is_expected() -> None:
    """Relative deviation of one release about 0.04; the mean of nine."""
    found, expected = [], []
    for seed in range(3):
        scores = scored(seed, absent=(2,))
        found += list(scores.mean_square * DIMENSION - NOISE**2 * DIMENSION)
        expected += list(canary_energy(scores))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.06)
    assert expected[1] < 0.9 * expected[0]
