"""From an empty directory to answered tasks, with the commands of the README, as real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.admission import fingerprint
from privacy.terms import RosterEntry, Terms
from tests.conftest import make_contract, make_terms
from tests.test_alliance import write_csv

PATIENCE_S = 240.0
"""A shared machine may be slow; alone it takes ten to twenty seconds."""
FOUNDERS = ("harbour", "meadow", "lantern")
SETTINGS = {"model": "logistic", "learning_rate": 1.0}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Operator:
    """The operator's machine and everybody else's, as folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.enrolment_port = free_port(), free_port()
        self.running: list[subprocess.Popen[str]] = []
        (folder / "coordinator.toml").write_text(
            f'listen = "127.0.0.1:{self.port}"\nstate = "state"\n\n'
            f'[enrolment]\nlisten = "127.0.0.1:{self.enrolment_port}"\n'
            f'address = "localhost:{self.enrolment_port}"\n'
            'hosts = ["localhost"]\napart = true\n\n[deadlines]\nassemble_s = 120.0\n'
        )
        self.coordinator("authority", "init", "authority", "--alliance", "test")

    def do(self, side: str, *arguments: str, cwd: Path) -> str:
        program = f"from {side}.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def coordinator(self, *arguments: str) -> str:
        return self.do("coordinator", *arguments, cwd=self.folder)

    def node(self, *arguments: str, cwd: Path) -> str:
        return self.do("client_sdk", *arguments, cwd=cwd)

    def start(self, side: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        log = (cwd / f"{arguments[0]}.log").open("w")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from {side}.cli import main; main()", *arguments],
                cwd=cwd, stdout=subprocess.PIPE, stderr=log, text=True, stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self.running.append(process)
        return process

    def init(self, name: str, *known: str) -> Path:
        """The first of a member's commands, in an empty directory."""
        home = self.folder / name
        home.mkdir()
        write_csv(home / "offers.csv")
        (home / "contract.json").write_text(make_contract().model_dump_json())
        self.node(
            "init", ".", "--alliance", "test", "--member", name,
            "--coordinator", f"localhost:{self.port}",
            "--enrolment", f"localhost:{self.enrolment_port}",
            "--consumers", "20", "--data", "offers.csv",
            *[part for one in known for part in ("--known", f"{one}={self.identity(one)}")],
            cwd=home,
        )  # fmt: skip
        return home

    def identity(self, name: str) -> str:
        request = json.loads((self.folder / name / "request.json").read_bytes())
        identity: str = request["request"]["identity"]
        return identity

    def vouch(self, by: str, about: str) -> None:
        read_out = fingerprint(alliance="test", member=about, identity=self.identity(about))
        self.node(
            "vouch", f"../{about}/request.json", "--fingerprint", read_out,
            cwd=self.folder / by,
        )  # fmt: skip

    def propose(self) -> Terms:
        """Terms with a roster from the registry."""
        roster = tuple(
            RosterEntry(
                name=one["member"],
                identity=one["identity"],
                declared_consumers=one["declared_consumers"],
            )
            for one in json.loads(self.coordinator("members", "--json"))
        )
        size = dimension(make_contract(), PropensitySettings.model_validate(SETTINGS))
        terms = make_terms(
            members=4, dimension=size, declared=20, settings=SETTINGS, rounds=3000,
            max_attempts=3100, noise_multiplier=60.0,
        ).model_copy(update={"roster": roster})  # fmt: skip
        (self.folder / "terms.json").write_text(terms.model_dump_json())
        self.coordinator("study", "propose", "terms.json", "--start")
        return terms

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    here = Operator(tmp_path)
    try:
        yield here
    finally:
        here.stop()


def event(lines: Iterator[str], kind: str, **values: Any) -> dict[str, Any]:
    """The next event of that kind and with those values; no attempt may fail meanwhile."""
    for line in lines:
        said: dict[str, Any] = json.loads(line)
        assert said["event"] not in ("AttemptFailed", "MemberFaulted"), said
        if said["event"] == kind and values.items() <= said.items():
            return said
    raise AssertionError(f"the coordinator ended before {kind}")


@pytest.mark.timeout(PATIENCE_S * 2)
def test_a_newcomer_joins_with_three_commands_rotates_in_mid_study_and_another_is_revoked(
    operator: Operator,
) -> None:
    serving = operator.start("coordinator", "enrolment", "--json", cwd=operator.folder)
    assert serving.stdout is not None
    assert json.loads(serving.stdout.readline())["event"] == "EnrolmentListening"
    homes = {name: operator.init(name) for name in FOUNDERS}
    for name, home in homes.items():
        operator.node("join", operator.coordinator("invite", name), cwd=home)
        config = (home / "node.toml").read_text()
        known = [f'{one} = "{operator.identity(one)}"' for one in FOUNDERS if one != name]
        config = config.replace("# admission =", "admission =")
        (home / "node.toml").write_text(config + "\n".join(known) + "\n")

    began_s = time.monotonic()
    home = operator.init("newcomer", "harbour", "meadow")  # 1
    invitation = operator.coordinator("invite", "newcomer")
    operator.node("join", invitation, cwd=home)  # 2
    joined_s = time.monotonic() - began_s
    for voucher in ("harbour", "meadow"):
        for about in ("lantern", "newcomer"):
            operator.vouch(voucher, about)
    operator.propose()
    coordinator = operator.start(
        "coordinator", "run", "coordinator.toml", "--json", cwd=operator.folder
    )
    assert coordinator.stdout is not None
    lines = iter(coordinator.stdout.readline, "")
    event(lines, "Listening")
    nodes = {
        name: operator.start("client_sdk", "run", "node.toml", cwd=one)
        for name, one in homes.items()
    }
    began_s = time.monotonic()
    nodes["newcomer"] = operator.start("client_sdk", "run", "node.toml", cwd=home)  # 3
    opened = event(lines, "StudyOpened")
    taken_s = joined_s + time.monotonic() - began_s
    assert taken_s < PATIENCE_S
    print(f"from an empty directory to the first answered task: {taken_s:.1f} s")
    assert "newcomer" in opened["members"]
    while "newcomer" not in event(lines, "RoundClosed")["contributors"]:
        pass

    operator.node("rotate", "tls", cwd=home)
    event(lines, "MemberJoined", member="newcomer")
    while "newcomer" not in event(lines, "RoundClosed")["contributors"]:
        pass

    operator.coordinator("revoke", "lantern", "--reason", "it was bought by another house")
    event(lines, "MemberLeft", member="lantern")
    assert nodes["lantern"].wait(PATIENCE_S) == 1
    log = (operator.folder / "lantern" / "run.log").read_text()
    assert "lantern was revoked: it was bought by another house; ask the operator" in log
    while "lantern" in (closed := event(lines, "RoundClosed"))["contributors"]:
        pass
    assert len(closed["contributors"]) == 3
