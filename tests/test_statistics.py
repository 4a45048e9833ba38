"""A statistics study as its user runs it: proposed, approved, summed over TLS, read and audited."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.local_alliance import LocalAlliance, LocalMember
from client_sdk.recipes.model_file import load_model
from coordinator.cli import app
from privacy.errors import AllianceError
from privacy.terms import Column
from tests.conftest import identity

STUDY = """
study = "customers"
purpose = "What the members' customers look like"

[recipe]
name = "statistics"
bins = 32
by = "kind"

[deadlines]  # a shared machine may be slow
keys_s = 120
contribute_s = 120
unmask_s = 120
grace_s = 60

[contract]
consumer_id = "household"
label = "responded"
rows_per_consumer = 2

[contract.columns]
spend = { high = 1000, scale = "log", meaning = "dollars a month" }
age = { low = 18, high = 98 }
kind = ["A", "B", "C", "never"]
town = { buckets = 64 }
"""
TOWNS = ("Lyon", "Graz", "上海", "Oslo")
CONSUMERS = 400
ALL_FIVE = [f"member-{at}" for at in range(5)]


def write(folder: Path) -> list[dict[str, str]]:
    """Each member's consumers, every other one with two equal rows; all consumers once."""
    draw = np.random.default_rng(3)
    everybody = []
    for name in ALL_FIVE:
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["household", "responded", "spend", "age", "kind", "town"])
            for at in range(CONSUMERS):
                share = draw.beta(2, 3)
                age = int(18 + 80 * share)
                spend = round(float(np.expm1(6.9 * draw.beta(2, 2))), 2)
                kind = "ABC"[min(2, int(3 * share))]
                town = TOWNS[int(draw.choice(4, p=[0.5, 0.3, 0.18, 0.02]))]
                row = [f"h{at}", int(draw.random() < share), spend, age, kind, town]
                writer.writerows([row] * (1 + at % 2))
                keys = ("id", "responded", "spend", "age", "kind", "town")
                everybody.append(dict(zip(keys, map(str, row), strict=True)))
    return everybody


class Run:
    """A finished study: what its consumers were, and its coordinator's commands."""

    def __init__(self, folder: Path) -> None:
        self.consumers = write(folder)
        (folder / "study.toml").write_text(STUDY, encoding="utf-8")
        members = [
            LocalMember(
                name, identity(name), CONSUMERS, {"path": str(folder / f"{name}.csv")},
                {"recipes": ["statistics"]},
            )
            for name in ALL_FIVE
        ]  # fmt: skip
        with LocalAlliance(
            folder / "alliance", folder / "study.toml", members, alliance="test",
            deadlines={"assemble_s": 240.0}, forked=True,
        ) as alliance:  # fmt: skip
            self.events = list(alliance.events())
            self.folder, self.terms = alliance.folder, alliance.terms

    def said(self, *arguments: str) -> str:
        """What a command prints, or the error that ends it."""
        config = str(self.folder / "coordinator.toml")
        done = CliRunner().invoke(app, ["study", *arguments, "--config", config])
        if done.exception is not None:
            assert isinstance(done.exception, AllianceError)
            return str(done.exception)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.said(*arguments, "--json"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("statistics"))


def test_the_table_holds_the_exact_figures_within_its_errors(study: Run) -> None:
    """Intervals twice as wide fail all together with probability below 0.02."""
    report = study.json("result", "customers")
    assert (report["members"], report["missing"]) == (ALL_FIVE, [])
    assert report["attempts"] == 1
    assert report["epsilon"]["1"] < report["epsilon_at_most"]["1"] <= 1.0
    assert list(report["epsilon"]) == ["1", "2", "3", "4", "5"]
    rows = study.consumers
    town = next(one for one in study.terms.contract.columns if one.name == "town")
    exact: dict[tuple[str, str, str], float] = {("consumers", "", ""): len(rows)}
    exact["share", "responded", "1"] = np.mean([int(row["responded"]) for row in rows])
    exact["mean", "age", ""] = np.mean([int(row["age"]) for row in rows])
    logs = [np.log1p(float(row["spend"])) for row in rows]
    exact["log mean", "spend", ""] = np.expm1(np.mean(logs))
    for kind, count in Counter(row["kind"] for row in rows).items():
        exact["count", "kind", kind] = count
    for name, count in Counter(town.bucket(row["town"]) for row in rows).items():
        exact["count", "town", f"bucket {name}"] = count
    for share in (0.1, 0.5, 0.9):
        ages = np.quantile([int(row["age"]) for row in rows], share)
        exact["quantile", "age", f"{share:g}"] = float(ages)
    found = {(one["figure"], one["column"], one["cell"]): one for one in report["figures"]}
    compared = 0
    for key, value in exact.items():
        if key not in found:
            continue
        compared += 1
        one = found[key]
        half = (one["high"] - one["low"]) / 2
        assert abs(value - (one["low"] + half)) <= 2 * half, key
    assert compared >= 10
    assert ("count", "kind", "never") not in found
    assert report["suppressed"]["kind"]["cells"] >= 1
    assert ("correlation", "age", "spend") in found
    assert ("share of responded", "kind", "B") in found


def test_members_have_the_same_release_and_their_ledgers_its_cost(study: Run) -> None:
    models = f"models/{study.terms.study}.safetensors"
    _, published, _ = load_model(study.folder / "coordinator-state" / models)
    for name in ALL_FIVE:
        np.testing.assert_array_equal(
            load_model(study.folder / f"{name}-state" / models)[1], published
        )


def test_an_operator_reads_a_table(study: Run) -> None:
    text = study.said("result", "customers")
    for line in ("consumers", "kind; ", "town; ", "not shown", "share of responded by kind"):
        assert line in text
    assert "cost     epsilon by how many members know a consumer: 1: 0." in text
    assert "quantile 0.5" in text
    assert "age, spend" in text
    table = list(csv.DictReader(io.StringIO(study.said("result", "customers", "--csv"))))
    assert {row["figure"] for row in table} >= {"consumers", "histogram", "correlation"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in table)


def test_bins_are_printed_as_a_contract_takes_them(study: Run) -> None:
    text = study.said("edges", "customers", "--bins", "5")
    assert study.terms.hash in text
    columns = tomllib.loads(text)["contract"]["columns"]
    assert list(columns) == ["spend", "age"]
    age = columns["age"]
    edges = age["edges"]
    assert edges == sorted(set(edges))
    assert age["low"] < edges[0] < edges[-1] < age["high"]
    exact = np.quantile([int(row["age"]) for row in study.consumers], [0.2, 0.4, 0.6, 0.8])
    assert np.abs(np.array(edges) - exact).max() < 6
    spend = columns["spend"]
    assert spend["scale"] == "log"
    assert spend["meaning"] == f"dollars a month; bins by {study.terms.label}"
    Column(
        name="spend", kind="number", low=spend["low"], high=spend["high"], meaning=spend["meaning"]
    )
    assert "ask for 2 to 32" in study.said("edges", "customers", "--bins", "99")


def test_candidates_are_looked_up_in_the_hashed_vocabulary(study: Run, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\n".join([*TOWNS, "Nowhere"]), encoding="utf-8")
    found = {one["word"]: one for one in study.json("words", "customers", "town", str(file))}
    exact = Counter(row["town"] for row in study.consumers)
    assert abs(found["Lyon"]["value"] - exact["Lyon"]) < 200
    assert found["Nowhere"]["value"] is None
    assert "is no category that" in study.said("words", "customers", "age", str(file))


def test_an_auditor_folds_the_release_again(study: Run, tmp_path: Path) -> None:
    def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = "from privacy.ledger.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )

    state, bundle = study.folder / "coordinator-state", tmp_path / "bundle"
    named = [
        part for name in ALL_FIVE for part in ("--member", f"{name}={study.folder}/{name}-state")
    ]
    done = audit(
        "export",
        str(bundle),
        "--coordinator",
        str(state),
        *named,
        "--key",
        str(state / "ledger.pem"),
    )
    assert done.returncode == 0, done.stderr
    done = audit("verify", str(bundle))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not installed" not in done.stdout
    passport = state / "models" / "customers.passport.json"
    done = audit(
        "passport", str(passport), "--model", str(passport.with_name("customers.safetensors"))
    )
    assert done.returncode == 0, done.stderr
    assert "Recipe statistics" in done.stdout


def test_what_has_no_result_says_so(study: Run, tmp_path: Path) -> None:
    assert "there is no such study; did you mean customers?" in study.said("result", "customer")
