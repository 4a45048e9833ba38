"""The READMEs' backup and restore commands, executed as they stand, against real processes."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from coordinator.registry import Registry
from privacy.errors import AllianceError
from privacy.terms import Terms
from tests.coordinator.test_registry import NOW, request
from tests.test_alliance import local_alliance, terms
from tests.test_recovery import contributions, database, rounds_of

__all__ = ["database"]

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    shutil.which("sqlite3") is None,
    reason="sqlite3 is not on this machine: apt-get install sqlite3",
)


def quiet_terms(*, rounds: int) -> Terms:
    """Long enough to be interrupted, and with so much noise that it is affordable."""
    study = terms(rounds=rounds, spare=100, members=4)
    privacy = study.privacy.model_copy(update={"noise_multiplier": 60.0})
    return study.model_copy(update={"privacy": privacy})


def commands(package: str, kind: str) -> str:
    """The one block of commands in a README that has all these words and no others of them."""
    section = (ROOT / package / "README.md").read_text().partition("## Backups\n")[2]
    blocks = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    words = {"mkdir backup\n", "mv state", "pg_", "coordinator.sqlite", "registry.sqlite"}
    wanted = {
        "backup": {"mkdir backup\n", "coordinator.sqlite"},
        "backup postgresql": {"mkdir backup\n", "pg_"},
        "backup node": {"mkdir backup\n"},
        "backup members": {"registry.sqlite"},
        "restore": {"mv state"},
        "restore postgresql": {"mv state", "pg_"},
    }[kind]
    (block,) = [one for one in blocks if {word for word in words if word in one} == wanted]
    return block


def do(block: str, folder: Path, *, state: str = "state", url: str | None = None) -> None:
    """Executes a block; ``state`` is what this alliance calls that folder."""
    where = os.environ | ({"DATABASE": url.replace("+psycopg", "")} if url else {})
    done = subprocess.run(
        ["bash", "-euc", re.sub(r"\bstate\b", state, block)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=where,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_coordinator_goes_on_from_its_newest_copy_and_not_from_an_older_one(
    tmp_path: Path, database: str | None
) -> None:
    study = quiet_terms(rounds=400)
    alliance = local_alliance(tmp_path, study, database=database)
    folder, kind = alliance.folder, " postgresql" if database else ""
    closed: list[int] = []
    older = tmp_path / "older"

    def back_up() -> None:
        block = commands("coordinator", "backup" + kind)
        do(block, folder, state="coordinator-state", url=database)

    def restore() -> None:
        block = commands("coordinator", "restore" + kind)
        do(block, folder, state="coordinator-state", url=database)
        shutil.rmtree(folder / "coordinator-state.lost")

    def follow() -> None:
        copied = 0
        for event in alliance.events():
            if event["event"] != "RoundClosed":
                continue
            closed.append(event["round"])
            if copied == 0 and event["round"] >= 2:  # beside the running coordinator
                copied = 1
                back_up()
                shutil.move(folder / "backup", older)
            elif copied == 1 and event["round"] >= 6:
                copied = 2
                alliance.stop_coordinator(signal.SIGTERM)
                back_up()
                restore()
                shutil.rmtree(folder / "backup")
                closed.clear()
                released = rounds_of(alliance)
                alliance.restart_coordinator()
            elif copied == 2 and event["round"] > released[-1] + 5:
                copied = 3
                alliance.stop_coordinator()
                assert rounds_of(alliance) == list(range(1, rounds_of(alliance)[-1] + 1))
                shutil.move(older, folder / "backup")
                restore()
                before.extend(rounds_of(alliance))
                alliance.restart_coordinator()

    before: list[int] = []
    with alliance, pytest.raises(AllianceError, match="restore the newest copy"):
        follow()
    assert rounds_of(alliance) == before  # nothing was released from the older one
    assert 1 <= before[-1] < closed[0]


def test_a_node_goes_on_from_its_newest_copy_and_not_from_an_older_one(tmp_path: Path) -> None:
    study = quiet_terms(rounds=1000)
    alliance = local_alliance(tmp_path, study)
    folder, state, older = alliance.folder, "member-2-state", tmp_path / "older"
    refused: list[str] = []
    step, since = 0, 0

    def back_up() -> None:
        do(commands("client_sdk", "backup node"), folder, state=state)

    def restore() -> None:
        do(commands("client_sdk", "restore"), folder, state=state)
        shutil.rmtree(folder / f"{state}.lost")

    with alliance:
        node = alliance.nodes
        for event in alliance.events():
            if event["event"] == "MemberRefused" and event["member"] == "member-2":
                refused.append(event["sentence"])
                if step == 3 and "older than a head" in refused[-1]:
                    break
            if event["event"] != "RoundClosed":
                continue
            if step == 0 and event["round"] >= 2:  # beside the running node
                step = 1
                back_up()
                shutil.move(folder / "backup", older)
            elif step == 1 and event["round"] >= 6:
                step, since = 2, event["round"]
                node["member-2"].terminate()
                node["member-2"].wait()
                made = len(contributions(folder / state))
                back_up()
                restore()
                shutil.rmtree(folder / "backup")
                assert len(contributions(folder / state)) == made
                alliance.restart_node("member-2")
            elif step == 2 and event["round"] > since + 30 and "member-2" in event["contributors"]:
                assert len(contributions(folder / state)) > made
                step = 3
                node["member-2"].kill()
                node["member-2"].wait()
                shutil.move(older, folder / "backup")
                restore()
                kept = contributions(folder / state)
                alliance.restart_node("member-2")
        words = alliance.log("member-2", lines=200)
    assert step == 3
    assert "older than a head" in refused[-1]
    assert "older than a head" in words
    assert contributions(folder / state) == kept
    assert len(kept) < made


def test_members_and_authority_come_back(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.admit(*request("a"), now=NOW)
    (tmp_path / "authority").mkdir(mode=0o700)
    (tmp_path / "authority" / "key.pem").write_text("a key")
    (tmp_path / "authority" / "key.pem").chmod(0o600)
    do(commands("coordinator", "backup members"), tmp_path)
    registry.admit(*request("b"), now=NOW + dt.timedelta(hours=1))
    copied = Registry(tmp_path / "backup-members" / "registry.sqlite").members()
    assert [*copied] == ["a"]
    assert copied["a"] == registry.members()["a"]
    for path in (tmp_path / "backup-members").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "backup-members" / "authority" / "key.pem").read_text() == "a key"
