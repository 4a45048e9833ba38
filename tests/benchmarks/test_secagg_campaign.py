"""A slice of the campaign; the whole of it is ``python -m benchmarks.secagg_campaign``."""

import random

import numpy as np
import pytest

from benchmarks.secagg_campaign import campaign, controls, dropouts, one_hot, protocol, studies
from benchmarks.secagg_campaign.brute_force import two_masks

SMALL = [case for members in (3, 4) for case in studies.admissible(members)]


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_every_pattern_of_few_members_ends_as_the_readme_says(case):
    tally = dropouts.all_patterns(case, 0, 1)
    assert (tally.trials, tally.reasons) == (7**case.members, [])
    assert tally.counts["completed"] > 0


def test_random_patterns_end_as_the_readme_says():
    tally = dropouts.random_patterns("test", range(100), 3, 9)
    assert tally.reasons == []
    assert 30 < tally.counts["completed"] < 100


def test_contributions_are_counted_once():
    tally = one_hot.runs("test", range(25))
    assert (tally.trials, tally.reasons) == (25, [])
    assert tally.counts["completed"] >= 25


@pytest.mark.parametrize("fault", one_hot.FAULTS)
def test_a_sum_with_a_fault_is_noticed(fault):
    assert campaign.one_hot_control(fault, 5).failures == 0


@pytest.mark.parametrize("row", campaign.ATTACKS)
def test_attacks_get_nothing(row):
    tally = campaign.attack_trials(row, range(25))
    assert (tally.trials, tally.reasons) == (25, [])


@pytest.mark.parametrize(
    "row", sorted(controls.CONTROLS.keys() - {"A11, mask seeds cut to 28 bits"})
)
def test_controls_are_broken(row):
    tally = campaign.control_trials(row, range(3))
    assert (tally.trials, tally.failures) == (3, 0)


def test_cut_seeds_are_found():
    assert two_masks(random.Random(1), controls.CutSeeds, None)


def test_seeds_of_other_upper_bits_are_not_found():
    assert not two_masks(random.Random(1), controls.CutSeeds, (0, 0), bits=8)


def test_an_attempt_that_ends_otherwise_is_a_failure(monkeypatch):
    monkeypatch.setattr(dropouts, "expected", lambda setup, leaves: False)
    tally = dropouts.all_patterns(studies.Case(3, 1, 0), 0, 1)
    assert tally.failures == 1  # the one pattern that completes


def test_a_sum_that_is_one_off_is_a_finding():
    vector = studies.noised(np.arange(4))
    outcome = protocol.Outcome(None, (1,), vector.ring)
    outcome.check_sum({1: vector})
    outcome.total[2] += 1
    with pytest.raises(protocol.Finding, match="sum"):
        outcome.check_sum({1: vector})
