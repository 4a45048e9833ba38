"""Each detector against its planted fault and against honest runs.

All five together flag an honest run with probability at most 1e-4; the 8 honest runs below would
give a false alarm with probability 8e-4, were their seeds not fixed.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.empirical.runs import Member, honest, seeded, with_vectors
from client_sdk.canaries import Canaries
from privacy.empirical.faults import FALSE_ALARM, SHARE, Finding
from privacy.empirical.measurement import Measurement
from privacy.fixedpoint import SHARE_SCALE
from tests.privacy.empirical.studies import (
    LOUD,
    QUIET,
    honest_member,
    measured,
    weighted,
    with_consumers,
)

FAULTS = (
    "too little noise",
    "repeated noise",
    "no clipping",
    "no Poisson sampling",
    "private weights",
)


def flagged(measurement: Measurement) -> set[str]:
    return {finding.fault for finding in measurement.findings if finding.flagged}


def finding(measurement: Measurement, fault: str) -> Finding:
    return next(one for one in measurement.findings if one.fault == fault)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("terms", [QUIET, LOUD], ids=["quiet", "loud"])
@pytest.mark.parametrize("make", [honest_member, with_consumers])
def test_an_honest_run_is_not_flagged(seed: int, terms, make) -> None:
    result = measured(terms, make, scale=10.0, seed=f"honest {seed}")
    assert flagged(result) == set()
    assert tuple(one.fault for one in result.findings) == FAULTS
    assert all(one.tested for one in result.findings)
    assert result.sound


def test_the_five_detectors_share_the_false_alarm_rate() -> None:
    result = measured(LOUD, honest_member)
    assert {one.alarm for one in result.findings} == {SHARE}
    assert SHARE * len(result.findings) == pytest.approx(FALSE_ALARM)


@pytest.mark.parametrize("make", [honest_member, with_consumers])
def test_half_the_noise_is_flagged(make) -> None:
    def half(canaries: Canaries, index: int) -> Member:
        return Member(blocks=make(canaries, index).blocks, noise_scale=SHARE_SCALE / 2)

    result = measured(LOUD, half)
    assert "too little noise" in flagged(result)
    assert finding(result, "too little noise").power > 0.999


def test_half_the_noise_at_one_member_of_five_is_flagged() -> None:
    def one_half(canaries: Canaries, index: int) -> Member:
        scale = SHARE_SCALE / 2 if index == 3 else SHARE_SCALE
        return Member(blocks=honest(canaries).blocks, noise_scale=scale)

    assert flagged(measured(LOUD, one_half)) == {"too little noise"}


def test_canaries_of_ten_times_the_norm_show_that_nobody_clips() -> None:
    def unclipped(canaries: Canaries, index: int) -> Member:
        def sampled(number: int, count: int) -> np.ndarray:
            return seeded("sample", index, number).uint32(count) < np.uint32(1 << 31)

        return Member(blocks=with_vectors(canaries, QUIET, sampled))

    result = measured(QUIET, unclipped, scale=10.0)
    assert flagged(result) == {"no clipping"}
    assert finding(result, "no clipping").measured == pytest.approx(10, rel=0.1)
    assert finding(result, "no clipping").power > 0.999
    assert not result.sound


def test_canaries_of_norm_one_say_that_clipping_was_not_tested() -> None:
    result = measured(QUIET, honest_member)
    assert not finding(result, "no clipping").tested
    assert any("no clipping: not tested: needs canaries of norm" in one for one in result.words())


def test_a_member_that_repeats_its_noise_is_flagged() -> None:
    def repeats(canaries: Canaries, index: int) -> Member:
        fixed = None if index else (lambda _: seeded("always the same"))
        return Member(blocks=honest(canaries).blocks, noise_stream=fixed)

    result = measured(LOUD, repeats)
    assert "repeated noise" in flagged(result)
    assert finding(result, "repeated noise").power > 0.999


@pytest.mark.parametrize("sharing", [2, 5])
def test_members_that_share_a_seed_are_flagged(sharing: int) -> None:
    def shares(canaries: Canaries, index: int) -> Member:
        shared = (lambda number: seeded("of all", number)) if index < sharing else None
        return Member(blocks=honest(canaries).blocks, noise_stream=shared)

    assert flagged(measured(LOUD, shares)) == {"repeated noise"}


def test_shuffling_is_not_poisson_sampling() -> None:
    def shuffles(canaries: Canaries, index: int) -> Member:
        rng = np.random.default_rng(index)
        first = np.zeros(0, bool)

        def sampled(number: int, count: int) -> np.ndarray:
            nonlocal first
            if number % 2:  # an epoch of two rounds, half of the canaries in each
                first = rng.permutation(count) < count // 2
            return first if number % 2 else ~first

        return Member(blocks=with_vectors(canaries, QUIET, sampled))

    result = measured(QUIET, shuffles)
    assert flagged(result) == {"no Poisson sampling"}
    assert finding(result, "no Poisson sampling").measured < 0.3
    assert finding(result, "no Poisson sampling").power > 0.999


def test_the_same_sample_in_every_round_is_not_poisson_sampling() -> None:
    def stays(canaries: Canaries, index: int) -> Member:
        def sampled(number: int, count: int) -> np.ndarray:
            return seeded("sample", index).uint32(count) < np.uint32(1 << 31)

        return Member(blocks=with_vectors(canaries, QUIET, sampled))

    assert "no Poisson sampling" in flagged(measured(QUIET, stays))


def test_weights_by_private_counts_are_flagged() -> None:
    """Members divide by their batch where the terms' constant belongs; declared was 300."""
    consumers = (260, 280, 300, 340, 349)

    def weighs(canaries: Canaries, index: int) -> Member:
        batch = np.random.default_rng(index)
        return weighted(canaries, lambda _: 150 / batch.binomial(consumers[index], 0.5))

    result = measured(QUIET, weighs)
    assert flagged(result) == {"private weights"}
    assert finding(result, "private weights").power > 0.999


def test_a_weight_that_is_too_small_everywhere_is_flagged() -> None:
    assert "private weights" in flagged(
        measured(QUIET, lambda canaries, _: weighted(canaries, lambda _: 0.75))
    )
