from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.simulated_alliance import MEMBERS, ROUNDS

ROOT = Path(__file__).parent.parent


def test_twenty_members_learn_under_flowers_simulation_engine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulated_alliance"],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_worker_niceness": "0",  # by default a busy machine starves its members
            "FLWR_HOME": str(tmp_path / "flwr"),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    kinds = [event["event"] for event in events]
    assert kinds == ["StudyOpened", *["RoundClosed"] * ROUNDS, "StudyFinished", "Kept"]
    closed = [event for event in events if event["event"] == "RoundClosed"]
    assert all(len(event["contributors"]) == MEMBERS for event in closed)
    spent = [event["epsilon"] for event in closed]
    assert spent == sorted(spent)
    assert events[0]["epsilon_profile"]["1"] == spent[-1]
    assert events[-1]["models"] == MEMBERS
