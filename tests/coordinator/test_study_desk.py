"""What an operator's commands write down, and what they say to what cannot be."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.config import CoordinatorConfig
from coordinator.store import Answer, Status, StudyStore, Wanted
from coordinator.study_desk import StudyDesk
from privacy.errors import AllianceError, ConfigurationError
from protos.config import read_config
from tests.coordinator.test_study_file import EVERYBODY, SHORTEST


class Operator:
    """A coordinator's folder; commands run in this process, and no coordinator does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "coordinator.toml"
        self.config.write_text('alliance = "test"\nstate = "state"\n')
        (folder / "study.toml").write_text(SHORTEST)
        rows = [
            {
                "member": entry.name, "identity": entry.identity, "vouches": 0, "revoked": None,
                "declared_consumers": entry.declared_consumers, "left": False,
            }
            for entry in EVERYBODY
        ]  # fmt: skip
        (folder / "roster.json").write_text(json.dumps(rows))

    def tried(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["study", *arguments, "--config", str(self.config)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    def do(self, *arguments: str) -> Any:
        return json.loads(self.tried(*arguments, "--json"))

    def propose(self, *more: str) -> Any:
        roster = ("--roster", str(self.folder / "roster.json"))
        return self.do("propose", str(self.folder / "study.toml"), *roster, *more)

    def change(self, old: str, new: str) -> None:
        text = (self.folder / "study.toml").read_text()
        assert old in text
        (self.folder / "study.toml").write_text(text.replace(old, new))

    def store(self) -> StudyStore:
        config = read_config(self.config, CoordinatorConfig).relative_to(self.folder)
        return StudyStore(config.database_url)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_commands_keep_what_is_wanted_beside_a_running_coordinator(operator: Operator) -> None:
    proposed = operator.propose()
    assert (proposed["standing"], proposed["version"], proposed["needed"]) == ("proposed", 1, 4)
    assert 0.9 < proposed["epsilon"]["1"] <= 1.0
    with operator.store() as running:  # holds the lock that only one coordinator has
        assert operator.do("start", "coupons")["standing"] == "waiting"
        running.start(proposed["terms_hash"])
        assert operator.do("list")[0]["standing"] == "running"
        assert operator.do("pause", "coupons")["standing"] == "pausing"
        running.set_status(proposed["terms_hash"], Status.PAUSED)
        assert operator.do("list")[0]["standing"] == "paused"
        assert operator.do("stop", "coupons")["standing"] == "stopping"
        assert running.studies()[0].wanted is Wanted.STOPPED


def test_a_changed_file_is_another_version_and_takes_the_place_of_one_only_offered(
    operator: Operator,
) -> None:
    first = operator.propose()
    assert operator.propose()["version"] == 1  # the same terms
    operator.change("rounds = 40", "rounds = 41")
    second = operator.propose("--start")
    assert (second["version"], second["wanted"]) == (2, "running")
    assert first["terms_hash"] != second["terms_hash"]
    assert [one["wanted"] for one in operator.do("list")] == ["stopped", "running"]
    assert operator.do("show", "coupons")["version"] == 2
    assert operator.do("show", first["label"])["version"] == 1
    assert operator.do("show", first["terms_hash"][:8])["version"] == 1
    operator.change("rounds = 41", "rounds = 42")
    operator.propose()
    with pytest.raises(ConfigurationError, match=r"version 2 of coupons is waiting; stop it first"):
        operator.do("start", "coupons")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("start", "cupons"), "there is no such study; did you mean coupons"),
        (("show", "churn"), "there is no such study; alliance-coordinator study list"),
        (("pause", "coupons"), "was not started, so there is nothing to pause; stop withdraws it"),
        (("propose", "nowhere.toml"), "keeps no registry of members"),
    ],
)
def test_what_cannot_be_is_said_with_what_to_do(
    operator: Operator, arguments: tuple[str, ...], words: str
) -> None:
    operator.propose()
    with pytest.raises(ConfigurationError, match=words):
        operator.tried(*arguments)


def test_what_is_over_stays_over(operator: Operator) -> None:
    label = operator.propose()["label"]
    operator.do("stop", "coupons")
    for command in ("start", "pause", "stop"):
        with pytest.raises(ConfigurationError, match=f"{label} is stopped, which is final"):
            operator.do(command, "coupons")


@pytest.mark.parametrize(
    ("roster", "words"),
    [
        ("{", "is no roster; write a list like"),
        ('{"a": 1}', "is no roster"),
        ("[1]", "is no roster"),
        ('[{"member": "a", "identity": "b", "declared_consumers": 1}]', "identity"),
        ('[{"member": "a"}]', "entry 0.identity"),
    ],
)
def test_a_roster_that_is_none_is_refused(operator: Operator, roster: str, words: str) -> None:
    (operator.folder / "roster.json").write_text(roster)
    with pytest.raises(ConfigurationError, match=words):
        operator.propose()


def test_members_that_were_revoked_or_left_are_in_no_new_study(operator: Operator) -> None:
    path = operator.folder / "roster.json"
    rows = json.loads(path.read_text())
    rows[0]["revoked"], rows[1]["left"] = "it was bought by another house", True
    path.write_text(json.dumps(rows))
    assert [one["member"] for one in operator.propose()["members"]] == [
        "lantern", "orchard", "newcomer",
    ]  # fmt: skip


def test_what_members_said_is_shown(operator: Operator) -> None:
    proposed = operator.propose()
    with operator.store() as running:
        running.answered(proposed["terms_hash"], "meadow", Answer.REFUSED, "not before the audit")
        running.answered(proposed["terms_hash"], "meadow", Answer.WAITING, "too costly")
        running.answered(proposed["terms_hash"], "harbour", Answer.ACCEPTED, "")
    said = {one["member"]: one["answer"] for one in operator.do("list")[0]["members"]}
    assert said["meadow"] == "waiting"
    assert said["harbour"] == "accepted"
    assert said["orchard"] == "not heard of"
    shown = operator.tried("show", "coupons")
    assert "meadow               waiting  too costly" in shown
    assert "1 of 4 needed approved" in operator.tried("list")
    contract = json.loads(operator.tried("show", "coupons", "--contract"))
    assert [column["name"] for column in contract["columns"]] == ["spend", "kind"]


def test_an_alliance_has_one_name(operator: Operator) -> None:
    operator.config.write_text('state = "state"\n')
    with pytest.raises(AllianceError, match='names no alliance; write a line alliance = "NAME"'):
        operator.propose()


def test_a_database_from_before_has_its_studies_running(operator: Operator) -> None:
    """As the version before left it: its coordinator's configuration had started them."""
    proposed = operator.propose()
    path = operator.folder / "state" / "coordinator.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE answer")
        database.execute("ALTER TABLE study DROP COLUMN wanted")
        database.execute("ALTER TABLE study DROP COLUMN wanted_ms")
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    database.close()
    config = read_config(operator.config, CoordinatorConfig).relative_to(operator.folder)
    with StudyDesk(config) as desk:
        (record,) = desk.store.studies()
    assert record.wanted is Wanted.RUNNING
    assert record.terms.hash == proposed["terms_hash"]
