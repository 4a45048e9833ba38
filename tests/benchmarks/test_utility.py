"""The benchmark of what joining is worth: the quick simulation is the alliance, and its figures."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.demo.comparison import Scores
from benchmarks.utility.agreement import Alliance, paired
from benchmarks.utility.baselines import alone
from benchmarks.utility.campaign import Plan, measure, sizes
from benchmarks.utility.figures import cell_rows, equality_rows, member_rows, terminal, to_markdown
from benchmarks.utility.institution import ROUNDS, noise_multiplier
from benchmarks.utility.own import declared_contract, file_contract, own_table
from benchmarks.utility.picture import member_picture
from benchmarks.utility.results import ADAPTED, Results
from benchmarks.utility.study import study_terms
from benchmarks.utility.tables import Rows, Table, rows_of, split, subset
from benchmarks.utility.training import Clipper, Run, noise_scale, train_all
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.errors import ConfigurationError, DataError
from privacy.terms import DataContract, Terms

SIZES = [300, 150, 60]


def _frame(count: int = 800) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    spend, kind = rng.uniform(0, 100, count), rng.choice(["a", "b", "c"], count)
    chance = 1 / (1 + np.exp(-(spend - 50) / 15 - 2.0 * (kind == "a") + 1))
    return pd.DataFrame(
        {
            "spend": spend.round(2),
            "kind": kind,
            "bought": (rng.random(count) < chance).astype(int),
            "store": rng.choice(["north", "south", "west"], count),
        }
    )


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "customers.csv"
    _frame().to_csv(path, index=False)
    return path


def _contract(**changes: object) -> DataContract:
    arguments = {
        "label": "bought",
        "consumer_id": None,
        "numbers": ["spend=0:100"],
        "categories": ["kind=a,b,c"],
    }
    return declared_contract(**(arguments | changes))


@pytest.fixture(scope="module")
def table(csv: Path) -> Table:
    return own_table(csv, _contract(), None)


def _crossed(table: Table) -> Terms:
    """Terms with binned numbers and a cross of two columns."""
    terms = study_terms(table.contract, [4000, 4000, 4000], 8.0)
    assert terms.contract.numbers == ()
    settings = PropensitySettings.model_validate(terms.settings | {"crosses": ("spend*kind",)})
    size = dimension(terms.contract, settings)
    changes = {"settings": terms.settings | {"crosses": ("spend*kind",)}, "dimension": size}
    return terms.model_copy(update=changes)


def test_the_quick_sums_are_the_recipe_s_clipped_sums(table: Table) -> None:
    plain = study_terms(table.contract, [800, 800, 800], 1.0)
    tight = plain.model_copy(
        update={"privacy": plain.privacy.model_copy(update={"clipping_norm": 0.3})}
    )
    rng = np.random.default_rng(2)
    for study in (plain, tight, _crossed(table)):
        data = table.under(study.contract)
        parameters = rng.normal(0, 1, (2, study.dimension)).astype(np.float32)
        taken = rng.random((table.consumers, 2)) < 0.5
        sums = Clipper(study, data).sums(parameters, taken)
        for at in range(2):
            chosen = np.flatnonzero(taken[:, at])
            batch = data.gather(chosen[:, None])
            blocks = contribute(parameters[at], batch, terms=study)
            assert sums[at] == pytest.approx(blocks.sum(axis=0, dtype=np.float64), abs=1e-3)


@pytest.fixture(scope="module")
def alliance(table: Table) -> tuple[Alliance, np.ndarray]:
    parts = split(table, SIZES, 1)
    terms = study_terms(table.contract, SIZES, 2.0)
    members = {
        entry.name: subset(table.data, at)
        for entry, at in zip(terms.roster, parts.members.values(), strict=True)
    }
    return Alliance(terms, members, 3), parts.training


def test_the_quick_noise_has_the_variance_of_all_members_shares(
    alliance: tuple[Alliance, np.ndarray],
) -> None:
    """False alarms: 1e-6, by a chi-square's normal approximation at 5 standard deviations."""
    together, _ = alliance
    parameters = np.zeros(together.terms.dimension, dtype=np.float32)
    draws = [together.release(parameters, 1)[1] for _ in range(80)]
    found = np.concatenate(draws) / noise_scale(together.terms)
    assert abs(np.mean(found**2) - 1) < 5 * (2 / len(found)) ** 0.5


def test_every_step_of_the_alliance_ends_where_a_curator_of_equal_noise_does(
    alliance: tuple[Alliance, np.ndarray], table: Table
) -> None:
    together, training = alliance
    ours, curator = paired(together, subset(table.data, training))
    assert np.abs(ours).max() > 0.5
    assert ours == pytest.approx(curator, abs=1e-3)


def test_runs_of_one_seed_share_their_noise_and_side_by_side_changes_nothing(
    table: Table,
) -> None:
    terms = study_terms(table.contract, [800, 800, 800], 1.0)
    scale = noise_scale(terms)
    runs = [Run(terms, scale, 1), Run(terms, scale, 2), Run(terms, scale, 1)]
    first, other, again = train_all(runs, table.data)
    (by_itself,) = train_all(runs[:1], table.data)
    assert first == pytest.approx(again)
    assert first == pytest.approx(by_itself, abs=1e-4)
    assert np.abs(first - other).max() > 1e-2


def test_a_split_deals_everybody_once(table: Table) -> None:
    parts = split(table, SIZES, 4)
    assert [len(at) for at in parts.members.values()] == SIZES
    everybody = np.concatenate([parts.training, parts.test])
    assert sorted(everybody.tolist()) == list(range(table.consumers))
    assert not np.array_equal(parts.test, split(table, SIZES, 5).test)


def test_members_named_by_a_column_keep_their_consumers(csv: Path) -> None:
    table = own_table(csv, _contract(), "store")
    parts = split(table, [], 1)
    frame = _frame()
    for name, at in parts.members.items():
        assert set(frame["store"][at]) == {name}
    assert len(parts.test) == pytest.approx(table.consumers / 4, abs=1)


def test_a_member_chooses_on_its_own_rows_and_one_label_is_no_model(table: Table) -> None:
    rows = rows_of(table.data, np.arange(200))
    test = rows_of(table.data, np.arange(200, 800))
    choice, found = alone(table.contract, rows, test, 1)
    assert choice in ("logistic regression", "boosted trees")
    assert found.auc > 0.8
    one_label = Rows(rows.numbers, rows.categories, np.zeros_like(rows.labels))
    assert alone(table.contract, one_label, test, 1)[0] == "none: one label"


def test_institutions_noise_is_that_of_one_gaussian_release() -> None:
    """Balle and Wang's mechanism at epsilon 1, delta 1e-5 has a multiplier of 3.7304."""
    assert noise_multiplier(1.0, 1e-5) / ROUNDS**0.5 == pytest.approx(3.7304, abs=2e-3)


@pytest.fixture(scope="module")
def results(table: Table) -> Results:
    plan = Plan(
        sizes=SIZES, epsilons=(1.0, 8.0), seeds=(1, 2), every_step=(8.0,), adapted=(8.0,), ebm=False
    )
    return measure(table, plan)


def test_more_epsilon_is_more_use_and_less_noise_than_local(results: Results) -> None:
    assert results.mean("alliance", 8.0, "auc").value > 0.8
    local = results.mean("local DP at each member", 1.0, "auc").value
    assert results.mean("alliance", 1.0, "auc").value > local


def test_what_is_reported_is_what_was_measured(results: Results) -> None:
    alliance = results.mean("alliance", 8.0, "auc")
    rows = {row.name: row for row in cell_rows(results)}
    assert rows["customers: AUC, alliance, epsilon 8"].ours == alliance.value
    gaps = [row for row in equality_rows(results, 8.0) if "equal noise" in row.name]
    assert gaps[0].document()["holds"]
    gains = list(member_rows(results, 8.0, targets=True))
    first = next(row for row in gains if "gain in AUC of member-1" in row.name)
    base = results.mean("alone: member-1", None, "auc").value
    assert first.ours == pytest.approx(alliance.value / base - 1)
    adapted = results.mean(f"{ADAPTED}member-1", 8.0, "auc").value
    theirs = next(row for row in gains if "AUC of member-1 " in row.name and "adapted" in row.name)
    assert theirs.ours == pytest.approx(adapted / base - 1)
    worst = next(row for row in gains if "AUC of the member that fares worst, adapted" in row.name)
    assert worst.ours <= theirs.ours
    assert worst.target is not None
    text = to_markdown([results], [*gaps, *gains])
    assert f"| alliance | {results.mean('alliance', 1.0, 'auc').text()} |" in text
    assert alliance.text() in terminal(results)


def test_a_gain_is_of_means_and_its_error_of_pairs() -> None:
    results = Results("made up", members={"one": 10})
    for ours, alone_ in ((0.6, 0.5), (0.8, 0.5)):
        results.add("alliance", 1.0, Scores(ours, ours))
        results.add("alone: one", None, Scores(alone_, alone_))
    gain = results.gain("one", 1.0, "auc")
    assert gain.value == pytest.approx(0.4)
    assert gain.error == pytest.approx(0.2)


def test_who_loses_more_than_the_standard_error_does_not_stay() -> None:
    """One member loses within its error, the other by little and surely: the second is told."""
    results = Results("made up", members={"one": 1000, "two": 900}, choices={"one": [], "two": []})
    for noisy, sure in ((0.55, 0.499), (0.43, 0.499)):
        results.add("alliance", 1.0, Scores(0.6, 0.6))
        for name, score in (("one", noisy), ("two", sure)):
            results.add(f"alone: {name}", None, Scores(0.5, 0.5))
            results.add(f"{ADAPTED}{name}", 1.0, Scores(score, score))
    rows = list(member_rows(results, 1.0, targets=True))
    worst = next(row for row in rows if "AUC of the member that fares worst, adapted" in row.name)
    assert worst.ours == pytest.approx(-0.002)
    assert not worst.document()["holds"]


def test_a_picture_is_one_file_whose_text_is_text(results: Results) -> None:
    picture = member_picture(results, "member-1", "precision_at_10pct", "precision")
    root = ElementTree.fromstring(picture)  # noqa: S314  (our own)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "customers: member-1, 300 consumers" in texts
    assert {"1", "8"} <= set(texts)
    assert "href" not in picture


def test_what_is_wrong_with_one_s_own_table_is_said(csv: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"numbers": ["spend"]}, "write NAME=LOW:HIGH"),
        ({"numbers": ["spend=0:100:cubic"]}, "write NAME=LOW:HIGH"),
        ({"numbers": ["spend=9:1"]}, "low < high"),
        ({"categories": ["kind"]}, "write NAME=VALUE,VALUE"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            _contract(**changes)
    for changes, said in (
        ({"numbers": ["spent=0:100"]}, "has no column spent; its columns are spend, kind"),
        ({"numbers": ["spend=0:50"]}, "customers.csv: column spend: .* outside the declared"),
        ({"categories": ["kind=a,b"]}, "a value that the contract does not list"),
        ({"label": "store"}, "customers.csv: column store"),
    ):
        with pytest.raises(DataError, match=said):
            own_table(csv, _contract(**changes), None)
    with pytest.raises(DataError, match="no column shop"):
        own_table(csv, _contract(), "shop")
    with pytest.raises(DataError, match="name a readable CSV"):
        own_table(tmp_path / "none.csv", _contract(), None)


def test_a_contract_file_is_a_study_s(csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'study = "mine"\n[contract]\nconsumer_id = "row"\nlabel = "bought"\n'
        'rows_per_consumer = 1\n[contract.columns]\nspend = { high = 100 }\nkind = ["a","b","c"]\n'
    )
    assert own_table(csv, file_contract(path), None).consumers == 800


def test_the_command_says_what_is_wrong_in_one_sentence(csv: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.utility", "--csv", str(csv), "--label", "bought"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("utility: a table of your own needs --label and its columns")
    assert "Traceback" not in done.stderr


def test_sizes_fall_in_equal_steps() -> None:
    found = sizes(12000, 100, 10)
    assert (found[0], found[-1], len(found)) == (12000, 100, 10)
    steps = np.array(found[:-1]) / found[1:]
    assert steps == pytest.approx(np.full(9, steps[0]), rel=0.02)
