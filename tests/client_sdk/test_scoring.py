"""What a member does with a published model by itself."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from client_sdk.dataset import Dataset, DataSource, load
from client_sdk.recipes.model_file import save_model
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from client_sdk.scoring import adapt_model, assessment_text, score_rows
from privacy.errors import ConfigurationError, DataError, RecipeError
from privacy.terms import Column, DataContract, Terms
from tests.conftest import make_contract, make_terms

CONSUMERS = 1500
CONTRACT = make_contract(
    columns=(
        Column(name="spend", kind="number", low=0.0, high=10.0, edges=(5.0,)),
        Column(name="kind", kind="category", values=("A", "B")),
    )
)


def terms(contract: DataContract = CONTRACT) -> Terms:
    return make_terms(contract=contract, dimension=dimension(contract, PropensitySettings()))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who spends between 2 and 4 responds at this member, which the alliance's bins do not tell."""
    random = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("data") / "visits.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["household", "spend", "kind", "responded"])
        for consumer in range(CONSUMERS):
            spend, kind = random.random() * 10, random.choice(["A", "B"])
            logit = -2 + 4 * (2 <= spend < 4) + (kind == "B")
            writer.writerow([f"c{consumer}", spend, kind, int(random.random() < expit(logit))])
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """It knows that B responds more, and nothing of spending."""
    path = tmp_path / "published.safetensors"
    parameters = np.zeros(terms().dimension, dtype=np.float32)
    parameters[3] = 1.0
    save_model(path, terms(), parameters, round_number=3)
    return path


def read(source: DataSource) -> Dataset:
    return load(source, CONTRACT)


def scores(path: Path) -> list[float]:
    with path.open(encoding="utf-8") as file:
        return [float(row["probability"]) for row in csv.DictReader(file)]


def silent(_: str) -> None:
    """Nobody looks."""


def test_an_adapted_model_scores_better_where_it_was_adapted(
    tmp_path: Path, table: Path, model: Path
) -> None:
    source = DataSource(path=table)
    data, adapted = read(source), tmp_path / "adapted.safetensors"
    found = adapt_model(model, source, data, adapted, silent)
    assert found.consumers == CONSUMERS
    assert found.trees > 0
    assert found.adapted.auc > found.alliance.auc + 0.1
    labels = data.table.labels[0, :-1, 0]
    aucs = []
    for file in (model, adapted):
        output = tmp_path / f"{file.stem}.csv"
        assert score_rows(file, source, data, output) == CONSUMERS
        aucs.append(roc_auc_score(labels, scores(output)))
    assert aucs[0] == pytest.approx(found.alliance.auc)
    assert aucs[1] > aucs[0] + 0.1
    assert np.mean(scores(tmp_path / "adapted.csv")) == pytest.approx(labels.mean(), abs=0.03)
    text = assessment_text("toko", found, adapted)
    assert f"adapted: {found.trees} own trees count for" in text
    assert "knows these consumers; keep it here" in text


def test_few_consumers_keep_the_alliances_model(tmp_path: Path, table: Path, model: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join(table.read_text().splitlines(keepends=True)[:200]))
    source, adapted = DataSource(path=few), tmp_path / "adapted.safetensors"
    data = read(source)
    found = adapt_model(model, source, data, adapted, silent)
    text = assessment_text("toko", found, adapted)
    assert "kept as it is: fewer than 100 who responded or than 100 who did not" in text
    for file in (model, adapted):
        score_rows(file, source, data, tmp_path / f"{file.stem}.csv")
    assert scores(tmp_path / "adapted.csv") == scores(tmp_path / "published.csv")


def test_a_published_model_is_not_written_over(table: Path, model: Path) -> None:
    source = DataSource(path=table)
    with pytest.raises(ConfigurationError, match="is there and no adapted model"):
        adapt_model(model, source, read(source), model, silent)
    with pytest.raises(ConfigurationError, match="its folder is not there"):
        adapt_model(model, source, read(source), model.parent / "no" / "where", silent)


def test_rows_of_one_consumer_that_change_places_are_noticed(tmp_path: Path, table: Path) -> None:
    """All of one household, with one label: only the columns tell, of rows enough (2^-64)."""
    contract = CONTRACT.model_copy(update={"rows_per_consumer": 64})
    parameters = np.zeros(terms(contract).dimension, dtype=np.float32)
    save_model(tmp_path / "published.safetensors", terms(contract), parameters, round_number=3)
    text = f"SELECT 'c' AS household, spend, kind, 1 AS responded FROM read_csv('{table}')"  # noqa: S608
    source = DataSource(query=f"{text} ORDER BY random()")
    data, output = load(source, contract), tmp_path / "adapted.safetensors"
    with pytest.raises(DataError, match="let the query end with ORDER BY"):
        adapt_model(tmp_path / "published.safetensors", source, data, output, silent)


def test_a_query_without_an_order_is_told_apart(tmp_path: Path, table: Path, model: Path) -> None:
    query = f"SELECT * FROM read_csv('{table}') ORDER BY random()"  # noqa: S608  (ours)
    source = DataSource(query=query)
    with pytest.raises(DataError, match="let the query end with ORDER BY"):
        adapt_model(model, source, read(source), tmp_path / "adapted.safetensors", silent)


def test_a_model_of_another_contract_is_refused(tmp_path: Path, table: Path) -> None:
    other = terms(CONTRACT.model_copy(update={"version": 2}))
    path = tmp_path / "other.safetensors"
    save_model(path, other, np.zeros(other.dimension, dtype=np.float32), round_number=1)
    source = DataSource(path=table)
    with pytest.raises(RecipeError, match="another data contract"):
        score_rows(path, source, read(source), tmp_path / "scores.csv")


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path, table: Path, model: Path) -> None:
    source = DataSource(path=table)
    with pytest.raises(ConfigurationError, match="No such file"):
        score_rows(model, source, read(source), tmp_path / "nowhere" / "scores.csv")
