"""A study's life with real processes: proposed, approved by rules and by a person, run, paused over
a restart of the coordinator, stopped, and followed by another version.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks.local_alliance import LocalAlliance, LocalMember
from privacy.ledger.entry import Acceptance, Consent, Finished, Release
from privacy.terms import Terms
from tests.conftest import identity
from tests.test_alliance import account, write_csv
from tests.test_recovery import entries

PATIENCE_S = 240.0
"""A shared machine may be slow."""
MEMBERS = ("harbour", "meadow", "lantern", "orchard")
STUDY = """
study = "coupons"
purpose = "Which household will respond to which campaign"
rounds = 3000

[privacy]
epsilon = 0.9
spare_attempts = 3000

[contract]
name = "visits"
consumer_id = "household"
label = "responded"
rows_per_consumer = 3

[contract.columns]
spend = { high = 1000.0, scale = "log" }
trips = { high = 50.0 }
kind = ["A", "B", "C"]
"""


class Studies(LocalAlliance):
    """An alliance whose coordinator stays, and whose studies are what commands ask for."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "study.toml"
        self.file.write_text(STUDY)
        self.roster = folder / "alliance" / "roster.json"
        members = []
        for index, name in enumerate(MEMBERS):
            write_csv(folder / f"{name}.csv", index)
            policy: dict[str, Any] = {"most_epsilon_local": 20.0, "most_attempts": 6000}
            if name == "orchard":
                policy["most_epsilon"] = 0.5
            members.append(
                LocalMember(name, identity(name), 20, {"path": str(folder / f"{name}.csv")}, policy)
            )
        super().__init__(
            folder / "alliance", folder / "study.toml", members, alliance="test", propose=False
        )
        self.seen: list[dict[str, Any]] = []

    def _start_coordinator(self) -> None:
        super()._start_coordinator()
        assert self._coordinator is not None
        self._reader = Thread(target=self._follow, args=(self._coordinator,))
        self._reader.start()

    def stop_coordinator(self, how: signal.Signals = signal.SIGKILL) -> None:
        super().stop_coordinator(how)
        self._reader.join()

    def __exit__(self, *error: Any) -> None:
        self.stop_coordinator(signal.SIGTERM)
        super().__exit__(*error)

    def _follow(self, coordinator: subprocess.Popen[str]) -> None:
        assert coordinator.stdout is not None
        with coordinator.stdout:
            for line in coordinator.stdout:
                event = json.loads(line) if line.endswith("\n") else {"event": ""}
                if event["event"] == "Listening" and self.nodes:
                    self._listening(event["address"])
                self.seen.append(event)

    def do(self, side: str, *arguments: str) -> Any:
        """One command; what it says as JSON."""
        done = self.tried(side, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        if arguments[0] == "propose" and not self.nodes:
            # Before any study nobody is in a roster here, and a node that is told so ends.
            self._listening(self.wait("Listening")["address"])
        return json.loads(done.stdout)

    def tried(self, side: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        module = "coordinator" if side == "coordinator" else "client_sdk"
        program = f"from {module}.cli import main; main()"
        config = self.folder / f"{side}.toml"
        return subprocess.run(
            [sys.executable, "-c", program, "study", *arguments, "--config", str(config)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def wait(
        self, kind: str, holds: Callable[[dict[str, Any]], bool] = bool, since: int = 0
    ) -> dict[str, Any]:
        """The first event of that kind for which something holds."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for event in self.seen[since:]:
                if event["event"] == kind and holds(event):
                    return event
            if not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"no {kind}: {self.seen[-5:]} {self.log('coordinator')}")

    def approved_by_all(self) -> None:
        """Waits until every member's approval is at the coordinator."""
        until_s = time.monotonic() + PATIENCE_S
        while any(
            member["answer"] != "accepted"
            for member in self.do("coordinator", "list")[-1]["members"]
        ):
            assert time.monotonic() < until_s

    def standing(self, wanted: str) -> dict[str, Any]:
        """The newest study's report once it stands so."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            report: dict[str, Any] = self.do("coordinator", "list")[-1]
            if report["standing"] == wanted:
                return report
        raise AssertionError(report)

    def released(self) -> list[int]:
        found = entries(self.folder / "coordinator-state")
        return [entry.round for entry in found if isinstance(entry, Release)]


@pytest.fixture
def alliance(tmp_path: Path) -> Iterator[Studies]:
    with Studies(tmp_path) as here:
        yield here


@pytest.mark.timeout(4 * PATIENCE_S)
def test_a_study_is_approved_by_rule_and_by_a_person_runs_pauses_restarts_and_stops(
    alliance: Studies,
) -> None:
    roster = ("--roster", str(alliance.roster))
    proposed = alliance.do("coordinator", "propose", str(alliance.file), *roster)
    assert proposed["version"] == 1
    assert proposed["needed"] == 3
    assert 0.85 < proposed["epsilon"]["1"] <= 0.9
    waits = alliance.wait("MemberWaits")
    assert waits["member"] == "orchard"
    assert "this member's policy allows at most 0.5" in waits["sentence"]
    (row,) = alliance.do("orchard", "list")
    assert (row["standing"], row["terms_hash"]) == ("waiting", proposed["terms_hash"])
    assert [column["name"] for column in row["columns"]] == ["spend", "trips", "kind"]
    assert row["budget"]["fits"]
    shown = alliance.tried("orchard", "show", "coupons").stdout
    assert "spend from 0 to 1000; trips from 0 to 50; kind, one of 3 values" in shown
    assert "% of what is left for all studies" in shown
    assert proposed["terms_hash"] in shown
    time.sleep(1)
    assert alliance.released() == []  # offered and accepted, but not started

    wrong = alliance.tried("orchard", "approve", "coupons", "--terms", "0" * 64)
    assert wrong.returncode == 1
    assert "look at them again" in wrong.stderr
    approved = alliance.do("orchard", "approve", "coupons", "--terms", proposed["terms_hash"][:16])
    assert approved["terms_hash"] == proposed["terms_hash"]
    alliance.approved_by_all()
    assert alliance.do("coordinator", "start", "coupons")["wanted"] == "running"
    opened = alliance.wait("StudyOpened")
    assert sorted(opened["members"]) == sorted(MEMBERS)
    alliance.wait("RoundClosed", lambda event: "orchard" in event["contributors"])

    alliance.do("coordinator", "pause", "coupons")
    paused = alliance.standing("paused")
    assert {one["answer"] for one in paused["members"]} == {"accepted"}
    rounds = alliance.released()
    since = len(alliance.seen)
    alliance.restart_coordinator(signal.SIGKILL)
    for name in MEMBERS:
        alliance.wait("MemberJoined", lambda event, name=name: event["member"] == name, since)
    time.sleep(1)
    assert alliance.released() == rounds
    assert alliance.standing("paused")["version"] == 1
    alliance.do("coordinator", "start", "coupons")
    alliance.wait("RoundClosed", lambda event: event["round"] == rounds[-1] + 3)

    terms = Terms.from_json(json.dumps(document(alliance, "coordinator")))
    before = earmarked(alliance, "harbour")
    alliance.do("coordinator", "stop", "coupons")
    alliance.standing("stopped")
    again = alliance.tried("coordinator", "start", "coupons")
    assert "is stopped, which is final; propose another version" in again.stderr
    until_s = time.monotonic() + PATIENCE_S
    while any(not over(alliance, name, terms) for name in MEMBERS):
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert before > 0
    assert earmarked(alliance, "harbour") == 0
    numbers = alliance.released()
    assert numbers == list(range(1, len(numbers) + 1))

    changed(alliance)
    since = len(alliance.seen)
    second = alliance.do("coordinator", "propose", str(alliance.file), *roster, "--start")
    assert (second["version"], second["terms_hash"] != proposed["terms_hash"]) == (2, True)
    alliance.wait("MemberWaits", lambda event: event["study"] == second["label"])
    alliance.wait("StudyOpened", lambda event: event["terms_hash"] == second["terms_hash"])
    alliance.wait("RoundClosed", lambda event: event["round"] == 2, since)
    found = entries(alliance.folder / "coordinator-state")
    signers = {
        entry.member
        for entry in found
        if isinstance(entry, Acceptance) and entry.terms == second["terms_hash"]
    }
    asked = {
        name
        for entry in found
        if isinstance(entry, Release) and entry.terms == second["terms_hash"]
        for name in entry.members
    }
    assert asked == signers == set(MEMBERS) - {"orchard"}

    alliance.restart_coordinator(signal.SIGKILL)  # and who had not signed by then is asked again
    alliance.do("orchard", "approve", second["label"])
    alliance.wait(
        "RoundClosed", lambda event: "orchard" in event["contributors"], len(alliance.seen)
    )


def changed(alliance: Studies) -> None:
    """Another purpose: nothing else is different, and yet it is to be signed again."""
    text = alliance.file.read_text()
    alliance.file.write_text(text.replace("which campaign", "whichever campaign"))


def document(alliance: Studies, side: str) -> Any:
    found = entries(alliance.folder / f"{side}-state")
    return next(
        json.loads(Terms.from_canonical(entry.terms).model_dump_json())
        for entry in found
        if entry.kind == "proposal"
    )


def earmarked(alliance: Studies, name: str) -> int:
    return sum(room.earmarked_nano for room in account(alliance.folder, name).rooms)


def over(alliance: Studies, name: str, terms: Terms) -> bool:
    found = entries(alliance.folder / f"{name}-state")
    assert next(entry.hash for entry in found if isinstance(entry, Consent)) == terms.hash
    return any(isinstance(entry, Finished) and entry.terms == terms.hash for entry in found)
