import numpy as np
import pytest

from benchmarks.secagg.costs import (
    STAGES,
    MemberScene,
    ServerScene,
    WrongResult,
    library_keystream,
    masking,
    medians,
    study,
    vector,
)
from benchmarks.secagg.loopback import measure_rounds


def test_every_stage_of_a_member_is_timed_and_its_cohort_sums_up():
    scene = MemberScene(4, 300, colluders=1, dropouts=1)
    trials = [scene.trial() for _ in range(3)]
    assert all(set(trial) == set(STAGES) for trial in trials)
    assert all(cost > 0 for cost in medians(trials).values())
    scene.check()


def test_a_member_with_a_hundred_neighbours_is_on_the_complete_graph():
    assert MemberScene(100, 10, colluders=50, dropouts=20).setup.graph.degree is None
    with pytest.raises(WrongResult, match="sparse"):
        MemberScene(100, 10, colluders=1, dropouts=1)


@pytest.mark.parametrize("dropped", [0, 1])
def test_the_unmasked_sum_is_that_of_the_survivors(dropped):
    scene = ServerScene(study(5, 1, 1, 300), dropped=dropped, seed=3)
    assert scene.unmask().removal_ms > 0
    assert scene.unmask().checks_ms > 0  # the same messages can be taken again
    expected = sum(vector(3, place, 300) for place in range(5 - dropped))
    np.testing.assert_array_equal(scene.expected, expected)


def test_a_wrong_sum_is_flagged():
    scene = ServerScene(study(5, 1, 1, 300))
    scene.expected[7] += 1
    with pytest.raises(WrongResult, match="unmasked sum"):
        scene.unmask()


def test_masks_and_raw_key_stream_have_a_speed():
    assert masking(10_000, 4) > 0
    assert library_keystream(1 << 20) > 0


@pytest.mark.parametrize(("members", "dimension"), [(5, 300_000), (9, 1_000_000), (34, 250_000)])
def test_whole_rounds_over_tls_are_measured_and_checked(members, dimension):
    """All cleared at once in chunks, cleared one by one, cleared though one frame would do."""
    costs = measure_rounds(members, dimension, colluders=1, dropouts=1, models=[True, False])
    assert [cost.with_model for cost in costs] == [True, False]
    for cost in costs:
        assert 0 < cost.model_s < cost.collect_s < cost.seconds
        assert cost.consent_s + cost.removal_s < cost.seconds
        assert cost.server_cpu_s > 0
        assert cost.members_cpu_s > 0
        assert cost.idle_bytes > 1 << 20
