"""A member leaves a running alliance of real processes over TLS; the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client_sdk.cli import app as node_app
from coordinator.cli import app as coordinator_app
from privacy.ledger.entry import Contribution, Left, Release, Reservation
from tests.test_joining import FOUNDERS, PATIENCE_S, Operator, event
from tests.test_recovery import entries

MEMBERS = (*FOUNDERS, "newcomer")
APPS = {"coordinator": coordinator_app, "client_sdk": node_app}


class Desk(Operator):
    """An operator whose commands before the study run in this process, which takes less time."""

    def do(self, side: str, *arguments: str, cwd: Path) -> str:
        with chdir(cwd):
            done = CliRunner().invoke(APPS[side], arguments)
        if done.exception is not None:
            raise done.exception
        return done.stdout.strip()

    def leave(self, home: Path) -> dict[str, Any]:
        """In a process of its own, beside the node's."""
        said: dict[str, Any] = json.loads(
            super().do("client_sdk", "leave", "node.toml", "--yes", "--json", cwd=home)
        )
        return said


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Desk]:
    here = Desk(tmp_path)
    try:
        yield here
    finally:
        here.stop()


def status(operator: Desk) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(operator.coordinator("status", "coordinator.toml", "--json"))
    return said


@pytest.mark.timeout(PATIENCE_S * 2)
def test_a_running_alliance_goes_on_without_a_member_that_left(operator: Desk) -> None:
    homes = {name: operator.init(name) for name in MEMBERS}
    serving = operator.start("coordinator", "enrolment", "--json", cwd=operator.folder)
    assert serving.stdout is not None
    assert json.loads(serving.stdout.readline())["event"] == "EnrolmentListening"
    for name, home in homes.items():
        operator.node("join", operator.coordinator("invite", name), cwd=home)
    terms = operator.propose()
    coordinator = operator.start(
        "coordinator", "run", "coordinator.toml", "--json", cwd=operator.folder
    )
    assert coordinator.stdout is not None
    lines = iter(coordinator.stdout.readline, "")
    event(lines, "Listening")
    nodes = {
        name: operator.start("client_sdk", "run", "node.toml", cwd=home)
        for name, home in homes.items()
    }
    while event(lines, "RoundClosed")["round"] < 5:
        pass

    home = homes["lantern"]
    left = operator.leave(home)
    assert left["told"] is True
    event(lines, "MemberDeparted", member="lantern")
    assert nodes["lantern"].wait(PATIENCE_S) == 0
    assert "this member left the alliance" in (home / "run.log").read_text()
    kept = entries(home / "state")
    ended = next(index for index, one in enumerate(kept) if isinstance(one, Left))
    assert not [one for one in kept[ended:] if isinstance(one, (Reservation, Contribution))]

    while "lantern" in (closed := event(lines, "RoundClosed"))["contributors"]:
        pass
    assert sorted(closed["contributors"]) == ["harbour", "meadow", "newcomer"]
    seen = status(operator)["members"]["lantern"]
    assert (seen["left"], seen["connected"]) == (True, False)
    assert "left" in operator.coordinator("status", "coordinator.toml")

    again = subprocess.run(
        [sys.executable, "-c", "from client_sdk.cli import main; main()", "run", "node.toml"],
        cwd=home, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    assert "lantern has left the alliance, so its node does not run" in again.stderr
    assert entries(home / "state") == kept

    # What it is told contains it is what the coordinator released with it.
    (model,) = json.loads(operator.node("models", "node.toml", "--json", cwd=home))["models"]
    released = {
        one.round: one.next_model
        for one in entries(operator.folder / "state")
        if isinstance(one, Release) and "lantern" in {part.member for part in one.contributions}
    }
    said = {one["round"]: one["model"] for one in model["states"]}
    assert (model["study"], model["terms"]) == (terms.label, terms.hash)
    assert said.items() <= released.items()
    assert released.keys() <= said.keys() | set(model["unproven_rounds"])
    (told,) = left["models"]  # receipts for the last rounds may have come since
    assert {*told["rounds"], *told["unproven_rounds"]} == {*said, *model["unproven_rounds"]}
