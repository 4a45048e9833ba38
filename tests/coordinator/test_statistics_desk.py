"""What an operator is told of a statistics study; `tests/test_statistics` runs a whole one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from coordinator.statistics_desk import Result, as_csv, as_text, as_toml, look_up, report
from privacy.contract_table import ColumnTable
from privacy.errors import ConfigurationError
from tests.client_sdk.recipes.statistics.studies import answers, batch, contract, terms
from tests.coordinator.test_study_desk import Operator

STATISTICS = '[recipe]\nname = "statistics"\n\n[contract]'


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def result() -> Result:
    """Of twenty thousand consumers, without noise in the sum."""
    return Result(answers(terms(), batch((100, 200, 3), 1)), 1)


def test_a_study_that_learns_a_model_has_no_table(operator: Operator) -> None:
    operator.propose()
    with pytest.raises(ConfigurationError, match="by recipe propensity; name a study of stat"):
        operator.tried("result", "coupons")


def test_a_study_without_a_release_says_where_to_look(operator: Operator) -> None:
    operator.change("rounds = 40\n", "")
    operator.change("[contract]", STATISTICS)
    proposed = operator.propose()
    assert (proposed["rounds"], proposed["attempts"]) == (1, 2)
    with pytest.raises(ConfigurationError, match=r"has published nothing yet; .* study list"):
        operator.tried("edges", "coupons")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[contract]", STATISTICS, "rounds to 1 .* leave both out"),
        ("rounds = 40\n", '[recipe]\nname = "statistics"\nby = "knd"\n', "name one of kind"),
        ("rounds = 40\n", '[recipe]\nname = "statistics"\nbin = 3\n', "did you mean bins"),
        (
            "rounds = 40\n",
            '[recipe]\nname = "statistics"\n[privacy]\nepsilon = 0.05\n',
            r"the members declare 500; raise epsilon about [0-9.]+-fold",
        ),
    ],
)
def test_a_study_that_could_tell_nothing_is_not_proposed(
    operator: Operator, old: str, new: str, sentence: str
) -> None:
    operator.change(old, new)
    with pytest.raises(ConfigurationError, match=sentence):
        operator.propose()


def test_errors_are_projected_before_anybody_approves(operator: Operator) -> None:
    operator.change("rounds = 40\n", "")
    operator.change("[contract]", STATISTICS)
    file, declared = str(operator.folder / "study.toml"), ("--declared", "9000,4000,400,60")
    found = json.loads(operator.tried("project", file, *declared, "--json"))
    assert set(found["errors"]) == {"count", "category", "histogram", "shown_above"}
    assert found["rehearsal"] is None
    text = operator.tried("project", file, *declared)
    assert f"category: 95 of 100 counts within {found['errors']['category']:.0f} consumers" in text


def test_a_report_holds_every_line_and_the_cost(result: Result) -> None:
    said = report(result)
    assert json.loads(json.dumps(said)) == said
    assert said["epsilon"]["1"] < said["epsilon_at_most"]["1"]
    rows = as_csv(result).splitlines()
    assert rows[0] == "figure,column,cell,value,low,high"
    assert len(rows) == 1 + len(said["figures"])
    assert f"members  {', '.join(said['members'])}\n" in as_text(result)


def test_bins_are_toml_that_a_contract_takes(result: Result) -> None:
    parsed = tomllib.loads(as_toml(result, 4))["contract"]["columns"]
    assert list(parsed) == ["spend", "age", "trips"]
    for column in contract().numbers:
        read = ColumnTable.model_validate(parsed[column.name]).column(column.name)
        assert 2 <= len(read.edges) <= 3
        assert read.codes == len(read.edges) + 1
        same = {"edges": (), "meaning": column.meaning}
        assert read.model_copy(update=same) == column


def test_words_of_no_vocabulary_are_refused(result: Result, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(b"Lyon\n\n Graz \nLyon\n")
    found = look_up(result, "town", file)
    assert [one["word"] for one in found] == ["Lyon", "Graz"]
    assert all(one["value"] is None or np.isfinite(one["value"]) for one in found)
    with pytest.raises(ConfigurationError, match="is no category"):
        look_up(result, "spend", file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="no readable UTF-8"):
        look_up(result, "town", file)
    with pytest.raises(ConfigurationError, match="no readable UTF-8"):
        look_up(result, "town", tmp_path / "missing")
