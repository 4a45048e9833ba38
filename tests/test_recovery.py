"""Kills of real processes: nothing is lost, counted twice, or spent unseen."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.local_alliance import LocalAlliance
from privacy.ledger.entry import Contribution, Release, decode_entry
from tests import postgres
from tests.test_alliance import local_alliance, terms


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "sqlite":
        yield None
        return
    if not postgres.available():
        pytest.skip(postgres.MISSING)
    with postgres.cluster() as cluster:
        yield cluster.url


def entries(state: Path) -> list[Any]:
    """The entries of a log, read past whoever holds it."""
    import sqlite3

    with sqlite3.connect(f"file:{state / 'ledger.sqlite'}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT data FROM leaf ORDER BY rowid").fetchall()
    connection.close()
    return [decode_entry(data, where="entry") for (data,) in rows]


def rounds_of(alliance: LocalAlliance) -> list[int]:
    found = entries(alliance.folder / "coordinator-state")
    return [entry.round for entry in found if isinstance(entry, Release)]


def test_a_killed_coordinator_goes_on_with_the_next_round(
    tmp_path: Path, database: str | None
) -> None:
    study = terms(rounds=12, spare=28)
    hows = {3: signal.SIGKILL, 6: signal.SIGKILL, 9: signal.SIGTERM}
    closed: list[int] = []
    with local_alliance(tmp_path, study, database=database) as alliance:
        for event in alliance.events():
            if event["event"] == "RoundClosed":
                closed.append(event["round"])
                if event["round"] in hows:
                    alliance.restart_coordinator(hows.pop(event["round"]))
        released = rounds_of(alliance)
        spent = {name: contributions(alliance.folder / f"{name}-state") for name in alliance.nodes}
    assert hows == {}
    assert released == list(range(1, 13))
    assert all(count == 1 for count in Counter(closed).values())
    for left in spent.values():
        made = [(one.round, one.attempt) for one in left]
        assert len(set(made)) == len(made)


def contributions(state: Path) -> list[Contribution]:
    return [entry for entry in entries(state) if isinstance(entry, Contribution)]


def test_status_says_where_a_coordinator_stands(tmp_path: Path) -> None:
    import subprocess
    import sys

    study = terms(rounds=3)
    with local_alliance(tmp_path, study) as alliance:
        list(alliance.events())
        config = alliance.folder / "coordinator.toml"
        program = "from coordinator.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "status", str(config), "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        shown = subprocess.run(
            [sys.executable, "-c", program, "status", str(config)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    status = json.loads(done.stdout)
    assert status["state"] == "finished"
    assert status["round"] == 3
    assert status["members"]["member-0"]["contributions"] == 3
    assert "3 of 3" in shown.stdout
