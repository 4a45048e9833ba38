"""A member's table through the contract: what is read, what is refused and how that is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client_sdk.dataset import Dataset, DataSource, load
from privacy.errors import DataError
from privacy.terms import Column
from tests.conftest import make_contract

Table = dict[str, list[Any]]
Write = Callable[[Path, Table], DataSource]


def good() -> Table:
    """Ann has two rows, Bob one, Cy five: two more than the contract's three."""
    return {
        "household": ["ann", "bob", "ann", "cy", "cy", "cy", "cy", "cy"],
        "extra": ["private", "private", "x", "y", "z", "z", "z", "z"],
        "spend": [0.0, 1000.0, 30.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "trips": [0, 50, 25, 1, 2, 3, 4, 5],
        "kind": ["A", "C", "B", "A", "B", "C", "A", "B"],
        "responded": [0, 1, 1, 0, 1, 0, 1, 0],
    }


def as_csv(folder: Path, table: Table) -> DataSource:
    pa.csv.write_csv(pa.table(table), folder / "visits.csv")
    return DataSource(path=folder / "visits.csv")


def as_parquet(folder: Path, table: Table) -> DataSource:
    pa.parquet.write_table(pa.table(table), folder / "visits.parquet")
    return DataSource(path=folder / "visits.parquet")


def as_query(folder: Path, table: Table) -> DataSource:
    path = folder / "visits.duckdb"
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.register("arrow", pa.table(table))
        connection.execute("CREATE TABLE visits AS SELECT * FROM arrow")
    return DataSource(query="SELECT * FROM visits", database=path)


DOORS: list[Write] = [as_csv, as_parquet, as_query]
every_door = pytest.mark.parametrize("write", DOORS)


def everything(dataset: Dataset) -> Any:
    return dataset.gather(np.arange(len(dataset.consumer_ids))[None, :])


@every_door
def test_all_doors_lead_to_the_same_dataset(tmp_path: Path, write: Write) -> None:
    dataset = load(write(tmp_path, good()), make_contract())
    assert tuple(dataset.consumer_ids) == ("ann", "bob", "cy")
    batch = everything(dataset)
    assert batch.present.tolist() == [[[1, 1, 0], [1, 0, 0], [1, 1, 1]]]
    assert batch.labels.tolist() == [[[0, 1, 0], [1, 0, 0], [0, 1, 0]]]
    assert batch.categories[..., 0].tolist() == [[[0, 1, 0], [2, 0, 0], [0, 1, 2]]]
    assert batch.numbers[0, 0, :2, 1].tolist() == [0.0, 0.5]
    logs = [math.log1p(spend) / math.log1p(1000) for spend in (1, 2, 3)]
    np.testing.assert_allclose(batch.numbers[0, 2, :, 0], logs, rtol=1e-6)
    assert batch.numbers.shape == (1, 3, 3, 2)
    assert (batch.numbers.dtype, batch.categories.dtype) == (np.float32, np.int64)
    assert (batch.labels.dtype, batch.present.dtype) == (np.float32, np.float32)


def changed(column: str, *values: Any, all_text: bool = False) -> Table:
    """The good table with the first rows of one column replaced."""
    table = good()
    kept = table[column][len(values) :]
    table[column] = [*values, *(map(str, kept) if all_text else kept)]
    return table


BAD_ROWS = {
    "text_in_number": (changed("spend", "SECRET", "SECRET", all_text=True), "spend", 2),
    "null_number": (changed("trips", None), "trips", 1),
    "empty_text_as_number": (changed("trips", "", " ", all_text=True), "trips", 2),
    "not_finite": (changed("spend", math.nan, math.inf, -math.inf), "spend", 3),
    "above_range": (changed("spend", 1000.5, 2000.0), "spend", 2),
    "below_range": (changed("trips", -1), "trips", 1),
    "unknown_category": (changed("kind", "SECRET", "a"), "kind", 2),
    "null_category": (changed("kind", None, ""), "kind", 2),
    "missing_consumer_id": (changed("household", None, "  ", ""), "household", 3),
    "label_of_two": (changed("responded", 2), "responded", 1),
    "label_between": (changed("responded", 0.5, 0.25), "responded", 2),
    "null_label": (changed("responded", None), "responded", 1),
    "nan_label": (changed("responded", math.nan), "responded", 1),
    "text_label": (changed("responded", "SECRET", all_text=True), "responded", 1),
}


@every_door
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_bad_rows_are_refused_with_column_and_count(tmp_path: Path, write: Write, bad: str) -> None:
    table, column, count = BAD_ROWS[bad]
    source = write(tmp_path, table)
    with pytest.raises(DataError) as caught:
        load(source, make_contract())
    words = str(caught.value)
    assert words.startswith(f"{source.name}: column {column}: {count} of 8 rows ")
    assert "; " in words  # what happened; what to do
    assert_says_no_data(caught.value)


def assert_says_no_data(error: BaseException) -> None:
    """One line without a value of the table, in the error and in everything it shows with it."""
    assert "\n" not in str(error)
    shown: BaseException | None = error
    while shown is not None:
        assert not re.search(r"SECRET|private|\bann\b|\bbob\b", str(shown))
        shown = None if shown.__suppress_context__ else shown.__cause__ or shown.__context__


@every_door
def test_a_misspelt_column_is_named_with_the_nearest(tmp_path: Path, write: Write) -> None:
    table = good()
    table["responded_"] = table.pop("responded")
    with pytest.raises(DataError, match=r"column responded is missing.*rename responded_"):
        load(write(tmp_path, table), make_contract())


@every_door
def test_several_missing_columns_are_counted(tmp_path: Path, write: Write) -> None:
    table = {"household": ["ann"], "spend": [1.0]}
    with pytest.raises(DataError, match=r"responded is missing \(and 2 more\) among 2"):
        load(write(tmp_path, table), make_contract())


@every_door
def test_a_table_without_rows_is_refused(tmp_path: Path, write: Write) -> None:
    table: Table = {name: [] for name in good()}
    with pytest.raises(DataError, match="no rows"):
        load(write(tmp_path, table), make_contract())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for source in (
        DataSource(path=tmp_path / "nowhere.csv"),
        DataSource(query="SELECT 1", database=tmp_path / "nowhere.csv"),
    ):
        with pytest.raises(DataError, match=r"nowhere.csv: No such file .*configuration"):
            load(source, make_contract())
    with pytest.raises(DataError, match="Is a directory"):
        load(DataSource(path=tmp_path), make_contract())


@pytest.mark.parametrize("name", ["bad.parquet", "bad.duckdb", "bad.csv", "bad.tsv"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe SECRET\n" * 2000)
    source = DataSource(path=tmp_path / name)
    if name.endswith("duckdb"):
        source = DataSource(query="SELECT * FROM visits", database=tmp_path / name)
    with pytest.raises(DataError, match=name) as caught:
        load(source, make_contract())
    assert_says_no_data(caught.value)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "visits.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"none of .parquet, .csv and .tsv"):
        load(DataSource(path=tmp_path / "visits.xlsx"), make_contract())


LINES = "household;spend;trips;kind;responded\nann;1;1;A;0\n"


def load_text(folder: Path, content: str | bytes) -> Dataset:
    path = folder / "visits.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(DataSource(path=path), make_contract())


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.replace(";", ","),
        LINES.replace(";", "\t"),
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r"),
        "\ufeff" + LINES,
        LINES.rstrip("\n"),
        LINES.replace("spend", '"spend"').replace("ann", '"ann"'),
        LINES + "\n",
        "a;;A;a;" + LINES.replace("ann", '"a;\nb";;2;3;ann'),
    ],
)
def test_dialects_of_csv_are_read(tmp_path: Path, content: str) -> None:
    dataset = load_text(tmp_path, content)
    assert dataset.consumer_ids == ("ann",)
    assert everything(dataset).present.tolist() == [[[1, 0, 0]]]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "first line is empty"),
        ("\n" + LINES, "first line is empty"),
        ("SECRET" * 100_000, "first line is not UTF-8 text with the column names"),
        (LINES.replace("responded", "responded;trips"), "column trips comes twice"),
        (LINES.replace("spend", "Spend"), "spend is missing among 5 columns; rename Spend"),
        (LINES + "SECRET;1;1;A;0;9\nbob;1\n", "as many fields as the header: 2;"),
        (LINES.encode() + b"SECRET;1;1;\xe4;0\n", "not UTF-8 .*: 1;"),
        (LINES.replace("kind", "k\u00e4nd").encode("latin-1"), "first line is not UTF-8"),
        (LINES + '"SECRET;1;1;A;0\nbob;1;1;A;0\n', ": 1; mend .*quotes"),
    ],
)
def test_a_malformed_csv_is_refused(tmp_path: Path, content: str | bytes, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        load_text(tmp_path, content)
    assert_says_no_data(caught.value)


def test_a_file_without_header_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="household is missing") as caught:
        load_text(tmp_path, "household-SECRET,1,1,A,0\nann,1,1,A,0\n")
    assert_says_no_data(caught.value)


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("SELEC 1", "Parser Error.*mend the query"),
        ("SELECT * FROM visit", "Catalog Error.*mend the query"),
        ("SELECT spent FROM visits", "Binder Error.*mend the query"),
        ("SELECT kind::int AS spend, * EXCLUDE spend FROM visits", "fails on the data"),
        ("SELECT * FROM 'https://host.invalid/visits.csv'", "needs a DuckDB extension"),
        ("SELECT * FROM table_of_python", "Catalog Error"),
        ("SELECT *, 1 AS spend FROM visits", "column spend comes twice"),
        ("", "not one SELECT"),
        ("SELECT 1; SELECT 2", "not one SELECT"),
        ("COPY visits TO 'copied.csv'", "not one SELECT"),
        ("CREATE TABLE mine AS SELECT 1", "not one SELECT"),
        ("ATTACH 'other.duckdb'", "not one SELECT"),
    ],
)
def test_a_query_that_cannot_run_is_refused(tmp_path: Path, query: str, what: str) -> None:
    table_of_python = pa.table(good())
    source = as_query(tmp_path, changed("kind", "SECRET"))
    with pytest.raises(DataError, match=f"the query: .*{what}") as caught:
        load(source.model_copy(update={"query": query}), make_contract())
    assert_says_no_data(caught.value)
    assert len(table_of_python) == 8
    assert not Path("copied.csv").exists()


def test_a_query_may_read_files_without_a_database(tmp_path: Path) -> None:
    path = as_parquet(tmp_path, good()).path
    query = f"FROM read_parquet('{path}') WHERE household = 'cy' ORDER BY spend DESC;"
    dataset = load(DataSource(query=query), make_contract())
    assert dataset.consumer_ids == ("cy",)
    assert everything(dataset).numbers[0, 0, 0, 1] == pytest.approx(5 / 50)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_pattern_in_a_file_name_matches_that_file_only(tmp_path: Path, ending: str) -> None:
    write = as_csv if ending == "csv" else as_parquet
    as_other = write(tmp_path, changed("household", "other"))
    assert as_other.path is not None
    as_other.path.rename(tmp_path / f"a1.{ending}")
    written = write(tmp_path, good()).path
    assert written is not None
    odd = written.rename(tmp_path / f"a[1].{ending}")
    assert "other" not in load(DataSource(path=odd), make_contract()).consumer_ids


def test_the_folder_of_a_parquet_file_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "spend=7"
    folder.mkdir()
    table = good()
    del table["spend"]
    with pytest.raises(DataError, match="spend is missing"):
        load(as_parquet(folder, table), make_contract())


def test_a_source_is_either_a_path_or_a_query() -> None:
    for values in ({}, {"path": Path("a.csv"), "query": "SELECT 1"}):
        with pytest.raises(ValidationError, match="either a path or a query"):
            DataSource(**values)
    with pytest.raises(ValidationError, match=r"goes with data\.query"):
        DataSource(path=Path("a.csv"), database=Path("b"))


def test_relative_paths_are_resolved_against_the_folder() -> None:
    folder = Path("/srv")
    assert DataSource(path=Path("a.csv")).relative_to(folder).path == folder / "a.csv"
    assert DataSource(path=Path("/a.csv")).relative_to(folder).path == Path("/a.csv")
    query = DataSource(query="SELECT 1", database=Path("b")).relative_to(folder)
    assert (query.query, query.database) == ("SELECT 1", folder / "b")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bounds=st.lists(
        st.floats(-1e12, 1e12, allow_subnormal=False), min_size=2, max_size=2, unique=True
    ),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    scale=st.sampled_from(["linear", "log"]),
)
def test_numbers_lie_in_the_unit_interval_and_keep_their_order(
    tmp_path: Path, bounds: list[float], shares: Sequence[float], scale: Any
) -> None:
    low, high = sorted(bounds)
    values = sorted(min(high, low + share * (high - low)) for share in [0.0, *shares, 1.0])
    values[-1] = high
    table: Table = {"household": ["ann"] * len(values), "spend": values}
    table["responded"] = [0] * len(values)
    column = Column(name="spend", kind="number", low=low, high=high, scale=scale)
    contract = make_contract(columns=(column,), rows_per_consumer=len(values))
    scaled = everything(load(as_parquet(tmp_path, table), contract)).numbers[0, 0, :, 0]
    assert scaled[0] == 0
    assert scaled[-1] == 1
    assert np.all((scaled >= 0) & (scaled <= 1))
    assert np.all(np.diff(scaled) >= 0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(as_parquet(tmp_path_factory.mktemp("good"), good()), make_contract())


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    choices=st.lists(st.integers(-1, 2), min_size=20, max_size=20),
)
def test_gather_has_the_shape_of_the_slots(
    dataset: Dataset, shape: tuple[int, int], choices: list[int]
) -> None:
    slots = np.array(choices[: shape[0] * shape[1]], dtype=np.int64).reshape(shape)
    batch = dataset.gather(slots)
    assert batch.numbers.shape == (*shape, 3, 2)
    assert batch.categories.shape == (*shape, 3, 1)
    assert batch.labels.shape == batch.present.shape == (*shape, 3)
    for array in (batch.numbers, batch.categories, batch.labels, batch.present):
        assert not array[slots == -1].any()
    rows = np.array([2, 1, 3, 0])[slots]  # the last is the empty slot's
    assert np.array_equal(batch.present.sum(axis=-1), rows)


@every_door
def test_a_binned_number_has_the_code_of_its_bin(tmp_path: Path, write: Write) -> None:
    trips = Column(name="trips", kind="number", low=0.0, high=50.0, edges=(1.0, 4.0, 25.0, 50.0))
    contract = make_contract()
    contract = make_contract(columns=(contract.columns[0], trips, contract.columns[2]))
    dataset = load(write(tmp_path, good()), contract)
    codes, there = dataset.table.categories[0], dataset.table.present[0] > 0
    assert codes.shape[-1] == 2
    assert codes[..., 0][there].tolist() == [0, 3, 4, 1, 1, 1]
    assert codes[..., 1][there].tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.table.numbers.shape[-1] == 1


def test_a_binned_number_out_of_its_range_is_refused(tmp_path: Path) -> None:
    trips = Column(name="trips", kind="number", low=0.0, high=24.0, edges=(4.0,))
    contract = make_contract(columns=(trips,))
    with pytest.raises(DataError, match="column trips: 2 of 8 rows lie outside the declared 0 to"):
        load(as_csv(tmp_path, good()), contract)


@every_door
def test_any_text_finds_its_bucket(tmp_path: Path, write: Write) -> None:
    """None is refused; an empty one still is."""
    kind = Column(name="kind", kind="category", buckets=5)
    contract = make_contract()
    contract = make_contract(columns=(*contract.columns[:2], kind))
    table = good() | {"kind": ["上海", "C", " 上海 ", "A", "B", "C", "A", "B"]}
    dataset = load(write(tmp_path, table), contract)
    there = dataset.table.present[0] > 0
    wanted = [kind.bucket(value) for value in ("上海", "上海", "C", "A", "B", "C")]
    assert dataset.table.categories[0][..., 0][there].tolist() == wanted
    with pytest.raises(DataError, match="column kind: 1 of 8 rows are empty"):
        load(write(tmp_path, table | {"kind": [*table["kind"][:7], ""]}), contract)
