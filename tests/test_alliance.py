"""Whole alliances of real processes: one coordinator, five nodes, TLS, files, signals."""

from __future__ import annotations

import csv
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.local_alliance import LocalAlliance, LocalMember
from client_sdk.recipes.model_file import load_model
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.budget import Account
from privacy.errors import AllianceError
from privacy.ledger.entry import decode_entry
from privacy.terms import Terms
from tests.conftest import identity, make_contract, make_terms

ROOT = Path(__file__).parent.parent
SETTINGS = {"model": "logistic", "learning_rate": 1.0}
DEADLINES = {"keys_s": 10.0, "contribute_s": 10.0, "unmask_s": 10.0, "grace_s": 2.0}


def terms(rounds: int = 5, spare: int = 2, **changes: Any) -> Terms:
    size = dimension(make_contract(), PropensitySettings.model_validate(SETTINGS))
    return make_terms(
        dimension=size,
        declared=20,
        settings=SETTINGS,
        rounds=rounds,
        max_attempts=rounds + spare,
        noise_multiplier=6.0,
        deadlines=DEADLINES,
        **changes,
    )


def write_csv(path: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["household", "responded", "spend", "trips", "kind"])
        for consumer in range(20):
            for _ in range(2):
                spend = round(float(rng.uniform(0, 1000)), 2)
                trips, kind = int(rng.integers(0, 50)), "ABC"[int(rng.integers(3))]
                writer.writerow([f"h{consumer}", int(spend > 400), spend, trips, kind])


def local_alliance(
    folder: Path,
    study: Terms,
    policies: dict[str, dict[str, Any]] | None = None,
    *,
    database: str | None = None,
    forked: bool = True,
    assemble_s: float = 60.0,
) -> LocalAlliance:
    members = []
    for index, entry in enumerate(study.roster):
        data = folder / f"{entry.name}.csv"
        if not data.exists():
            write_csv(data, index)
        policy = {"most_epsilon": 5.0, "most_epsilon_local": 20.0} | (policies or {}).get(
            entry.name, {}
        )
        members.append(
            LocalMember(entry.name, identity(entry.name), 20, {"path": str(data)}, policy)
        )
    return LocalAlliance(
        folder / "alliance",
        study,
        members,
        deadlines={"assemble_s": assemble_s},
        database=database,
        forked=forked,
    )


def account(folder: Path, name: str) -> Account:
    """A member's budget, from its ledger alone."""
    with sqlite3.connect(folder / f"{name}-state" / "ledger.sqlite") as ledger:
        entries = [data for (data,) in ledger.execute("SELECT data FROM leaf ORDER BY idx")]
    ledger.close()
    result = Account()
    for data in entries:
        result.apply(decode_entry(data, where=name), recompute=True)
    return result


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def test_a_study_runs_from_proposal_to_published_model(tmp_path: Path) -> None:
    study = terms()
    with local_alliance(tmp_path, study, forked=False) as alliance:
        events = list(alliance.events())
        folder = alliance.folder
        time.sleep(0.5)
    closed = of_kind(events, "RoundClosed")
    assert [event["round"] for event in closed] == [1, 2, 3, 4, 5]
    assert all(len(event["contributors"]) == 5 for event in closed)
    (opened,) = of_kind(events, "StudyOpened")
    assert sorted(opened["epsilon_profile"]) == ["1", "2", "3", "4", "5"]
    assert "nothing of a single one" in opened["transport"]
    assert opened["epsilon_local"] > opened["epsilon_profile"]["1"] >= closed[-1]["epsilon"]
    models = f"models/{study.study}.safetensors"
    kept_terms, parameters, round_number = load_model(folder / "coordinator-state" / models)
    assert kept_terms == study
    assert round_number == 5
    assert np.isfinite(parameters).all()
    for entry in study.roster:  # every member has the model, and its journal the spend
        own = load_model(folder / f"{entry.name}-state" / models)[1]
        np.testing.assert_array_equal(own, parameters)
        spend = account(folder, entry.name).study(study.hash).spend
        assert (spend.contributions, spend.finished) == (5, True)
        assert 5 <= spend.reserved <= study.privacy.max_attempts


def test_a_member_scores_its_own_rows_with_the_published_model(tmp_path: Path) -> None:
    study = terms(rounds=2)
    with local_alliance(tmp_path, study) as alliance:
        list(alliance.events())
        model = alliance.folder / "coordinator-state" / "models" / f"{study.study}.safetensors"
        config, output = alliance.folder / "member-1.toml", tmp_path / "scores.csv"
        done = subprocess.run(
            [sys.executable, "-c", "from client_sdk.cli import main; main()", "score"]
            + [str(model), str(config), "--output", str(output)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert all(0.0 <= float(row["probability"]) <= 1.0 for row in rows)


def test_a_killed_member_costs_its_place_and_not_the_study(tmp_path: Path) -> None:
    study = terms(rounds=6)
    events = []
    with local_alliance(tmp_path, study) as alliance:
        for event in alliance.events():
            events.append(event)
            if event["event"] == "RoundClosed" and event["round"] == 2:
                alliance.nodes["member-3"].kill()
    closed = of_kind(events, "RoundClosed")
    assert [event["round"] for event in closed] == [1, 2, 3, 4, 5, 6]
    assert closed[-1]["missing"] == ["member-3"]
    assert len(closed[-1]["contributors"]) == 4


def test_too_few_members_release_nothing(tmp_path: Path) -> None:
    study = terms(rounds=50)
    events = []
    alliance = local_alliance(tmp_path, study, assemble_s=20.0)

    def follow() -> None:
        for event in alliance.events():
            events.append(event)
            if event["event"] == "RoundClosed" and event["round"] == 2:
                alliance.nodes["member-3"].kill()
                alliance.nodes["member-4"].kill()

    with alliance, pytest.raises(AllianceError, match="the terms demand 4"):
        follow()
    closed = of_kind(events, "RoundClosed")
    assert all(len(event["contributors"]) >= 4 for event in closed)
    assert of_kind(events, "StudyFinished") == []


def test_a_member_refuses_terms_beyond_its_policy_and_says_why(tmp_path: Path) -> None:
    study = terms(rounds=3)
    policies = {"member-4": {"most_epsilon": 0.01, "otherwise": "refuse"}}
    with local_alliance(tmp_path, study, policies) as alliance:
        events = list(alliance.events())
    (refused,) = of_kind(events, "MemberRefused")
    assert refused["member"] == "member-4"
    assert "this member's policy allows at most 0.01" in refused["sentence"]
    assert all(event["missing"] == ["member-4"] for event in of_kind(events, "RoundClosed"))


def test_bad_data_stays_at_the_member_and_nothing_is_sent(tmp_path: Path) -> None:
    value = "8675309.25"
    (tmp_path / "member-0.csv").write_text(
        f"household,responded,spend,trips,kind\nh-4711,1,{value},3,A\nh-4712,0,5,3,A\n"
    )
    study = terms(rounds=2)
    with local_alliance(tmp_path, study, assemble_s=20.0) as alliance:
        events = list(alliance.events())
        words = alliance.log("member-0")
        code = alliance.nodes["member-0"].wait(10)
    assert code == 1
    assert "member-0.csv: column spend: 1 of 2 rows" in words
    assert value not in words
    assert "4711" not in words
    assert "member-0" not in [event["member"] for event in of_kind(events, "MemberJoined")]
    assert all(event["missing"] == ["member-0"] for event in of_kind(events, "RoundClosed"))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.demo", "--folder", str(tmp_path / "run")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_demo_ends_every_process_it_started(
    demo: subprocess.Popen[str], number: signal.Signals
) -> None:
    started: set[psutil.Process] = set()
    deadline = time.monotonic() + 90
    while len(started) < 6 and time.monotonic() < deadline:
        started |= set(psutil.Process(demo.pid).children(recursive=True))
        time.sleep(0.2)
    assert len(started) >= 6
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=40)
    assert demo.returncode == 130
    assert "every process it started has ended" in errors
    _, alive = psutil.wait_procs(started, timeout=5)
    assert alive == []


def test_the_demo_says_in_one_sentence_that_its_folder_cannot_be_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--folder", str(blocked / "run")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"demo: {blocked / 'run'}: cannot be written (Not a directory); name another with --folder"
    ]


def test_configurations_that_are_wrong_are_said_in_one_sentence(tmp_path: Path) -> None:
    def run(command: str, document: str) -> str:
        path = tmp_path / "config.toml"
        path.write_text(document)
        done = subprocess.run(
            [sys.executable, "-c", f"from {command}.cli import main; main()", "run", str(path)],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
            env=os.environ,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        return line

    assert "not TOML" in run("coordinator", "listen = ")
    assert "state: Field required" in run("coordinator", 'listen = "127.0.0.1:0"\n')
    line = run("coordinator", "study = 'terms.json'\nstate = 's'\n")
    assert "studies are not configured but proposed" in line
    assert "neither [enrolment] nor [tls]" in run("coordinator", "state = 's'\n")
    tls = '[tls]\nkey = "k"\ncertificate = "c"\nauthority = "a"\n'
    assert "no such file" in run("coordinator", f"state = 's'\n{tls}")
