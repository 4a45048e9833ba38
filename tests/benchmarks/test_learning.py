"""The benchmark of private learning: what its variants pay, and that its sums know crosses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.learning import DATA_SETS, EARLIER, VARIANTS, DataSet, study_of
from benchmarks.utility.tables import Table, through_the_door
from benchmarks.utility.training import Clipper
from client_sdk.recipes.propensity.contribute import contribute
from privacy.accounting import Accountant
from privacy.contract_table import ColumnTable, ContractTable

CONTRACT = ContractTable(
    consumer_id="customer",
    label="bought",
    rows_per_consumer=1,
    columns={
        "spend": ColumnTable(high=100.0, scale="log"),
        "age": ColumnTable(low=18.0, high=80.0),
        "kind": ColumnTable(values=("a", "b", "c")),
    },
).contract("visits")


@pytest.fixture(scope="module")
def table() -> Table:
    draw, count = np.random.default_rng(1), 900
    frame = pd.DataFrame(
        {
            "customer": np.arange(count),
            "bought": (draw.random(count) < 0.3).astype(int),
            "spend": draw.uniform(0, 100, count),
            "age": draw.integers(18, 81, count),
            "kind": draw.choice(["a", "b", "c"], count),
        }
    )
    return Table("Visits", frame, through_the_door(frame, CONTRACT), groups={})


CROSSED = DataSet(lambda folder: pytest.fail("is not read"), ("age*kind",), "")


def test_every_variant_pays_one_epsilon_in_all(table: Table) -> None:
    """Private quantiles pay a tenth before; two of the others stand for all."""
    for title, left in (
        ("16 private quantile bins", 0.9),
        ("16 equal bins and crosses", 1.0),
        (EARLIER, 1.0),
    ):
        terms, _, _ = study_of(title, CROSSED, table, 1)
        assert left - 0.01 < Accountant(terms).epsilon() <= left


def test_private_quantiles_are_edges_of_the_grid_and_differ_by_seed(table: Table) -> None:
    first, _, _ = study_of("16 private quantile bins", CROSSED, table, 1)
    second, _, _ = study_of("16 private quantile bins", CROSSED, table, 2)
    grid = ColumnTable(high=100.0, scale="log", bins=256).column("spend").edges
    spend = {column.name: column for column in first.contract.columns}["spend"]
    assert set(spend.edges) <= set(grid)
    assert 2 <= spend.codes <= 16
    assert first.contract != second.contract


def test_quick_sums_know_bins_and_crosses(table: Table) -> None:
    terms, training, test = study_of("16 equal bins and crosses", CROSSED, table, 1)
    assert len(training) + len(test) == table.consumers
    assert terms.dimension == 16 + 16 + 3 + 16 * 3 + 1
    data = table.under(terms.contract)
    parameters = np.random.default_rng(2).normal(0, 1, (1, terms.dimension)).astype(np.float32)
    quick = Clipper(terms, data).sums(parameters, None)[0]
    batch = data.gather(np.arange(table.consumers)[:, None])
    slow = contribute(parameters[0], batch, terms=terms).sum(axis=0, dtype=np.float64)
    assert quick == pytest.approx(slow, abs=1e-3)


def test_what_is_kept_is_plain_bins_and_crosses() -> None:
    kept = [title for title, variant in VARIANTS.items() if variant.kept]
    assert kept == ["logistic, this plan", "16 equal bins", "16 equal bins and crosses"]
    for data_set in DATA_SETS.values():
        assert all(cross.count("*") == 1 for cross in data_set.crosses)
