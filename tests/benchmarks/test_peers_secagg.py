import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import PeerError
from benchmarks.peers.flower_secagg import measure_client, measure_server, protocol

STAGES = ["setup", "share_keys", "collect_masked_vectors", "unmask"]


@pytest.fixture
def here(monkeypatch):
    # The alliance's own environment has the same peer, so nothing is installed for a test.
    monkeypatch.setattr(protocol, "environment", lambda name, requirements: Path(sys.prefix))


@pytest.mark.usefixtures("here")
def test_the_peers_sum_is_that_of_the_survivors():
    cost = measure_server(200, 4, dropouts=1, trials=2, threshold=3, seed=5)
    vectors = [np.random.default_rng([5, i]).integers(-1000, 1001, 200) for i in range(4)]
    assert cost.survivors == (0, 1, 2)
    assert np.abs(cost.total - sum(vectors[:3])).max() < 1e-6
    assert np.abs(cost.total - sum(vectors)).max() > cost.quantisation_error
    assert list(cost.stages_ms) == list(cost.member_stages) == STAGES
    assert cost.unmask_ms > 0


@pytest.mark.usefixtures("here")
def test_a_member_sends_eight_bytes_per_coordinate():
    cost = measure_client(500, 3, trials=1)
    assert 8 * 500 < cost.masked_vector_bytes < 8 * 500 + 512
    assert list(cost.stages) == STAGES
    assert cost.wall_ms == pytest.approx(sum(stage.wall_ms for stage in cost.stages.values()))


@pytest.mark.usefixtures("here")
def test_a_peer_that_takes_too_long_is_stopped():
    with pytest.raises(PeerError, match="more than 0 s; give it fewer members"):
        measure_client(500, 3, timeout_s=0.01)


def test_a_peer_that_fails_is_quoted(here, monkeypatch, tmp_path):
    app = tmp_path / "app.py"
    app.write_text("raise SystemExit('no such protocol')")
    monkeypatch.setattr(protocol, "_APP", app)
    with pytest.raises(PeerError, match="ended with 1\nno such protocol"):
        measure_client(500, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"coordinates": 0, "members": 4}, "at least 1"),
        ({"coordinates": 9, "members": 2}, "3 to 1000"),
        ({"coordinates": 9, "members": 1024}, "3 to 1000"),
        ({"coordinates": 9, "members": 4, "dropouts": -1}, "not be negative"),
        ({"coordinates": 9, "members": 4, "dropouts": 2}, "threshold 3 must be 2 to 2"),
    ],
)
def test_a_round_that_cannot_work_is_refused_before_anything_runs(arguments, reason):
    with pytest.raises(PeerError, match=reason):
        measure_server(**arguments)
