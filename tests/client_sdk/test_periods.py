"""Which rows a renewing budget lets a member use."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from client_sdk.dataset import DataSource, RowPeriod, load
from privacy.errors import DataError
from tests.client_sdk.test_dataset import Table, as_csv, as_parquet, as_query, good
from tests.conftest import make_contract

MOMENTS = [dt.datetime(2026, 3, day, 12, tzinfo=dt.UTC) for day in (1, 2, 3, 4, 5, 6, 7, 8)]


def ms(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


def dated(values: list[Any] | None = None) -> Table:
    texts = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in MOMENTS]
    return good() | {"seen": values if values is not None else texts}


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_query])
def test_rows_newer_than_the_start_and_no_later_than_the_reading_are_used(
    tmp_path: Path, write: Any
) -> None:
    period = RowPeriod("seen", ms(MOMENTS[1]), ms(MOMENTS[6]))
    dataset = load(write(tmp_path, dated()), make_contract(), period)
    assert dataset.left_out == 3  # the first two, and the last
    assert list(dataset.consumer_ids) == ["ann", "cy"]
    assert dataset.table.present[0].sum() == 1 + 3  # cy has four rows, the contract takes three
    assert load(write(tmp_path, dated()), make_contract()).left_out == 0


def test_the_first_period_has_no_start(tmp_path: Path) -> None:
    dataset = load(
        as_csv(tmp_path, dated()), make_contract(), RowPeriod("seen", None, ms(MOMENTS[6]))
    )
    assert dataset.left_out == 1
    assert list(dataset.consumer_ids) == ["ann", "bob", "cy"]


@pytest.mark.parametrize(
    "form",
    [
        lambda moment: moment.date(),
        lambda moment: moment.replace(tzinfo=None),
        lambda moment: moment,
        lambda moment: moment.astimezone(dt.timezone(dt.timedelta(hours=8))),
        lambda moment: f"{moment:%Y-%m-%d}",
        lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        lambda moment: f" {moment:%Y-%m-%d %H:%M:%S.000+00} ",
    ],
)
def test_dates_and_times_are_read_in_their_usual_forms(tmp_path: Path, form: Any) -> None:
    source = as_parquet(tmp_path, dated([form(moment) for moment in MOMENTS]))
    period = RowPeriod("seen", ms(MOMENTS[1] - dt.timedelta(hours=1)), ms(MOMENTS[7]))
    left_out = load(source, make_contract(), period).left_out
    date_only = not isinstance(form(MOMENTS[0]), dt.datetime) and len(str(form(MOMENTS[0]))) == 10
    assert left_out == (2 if date_only else 1)  # a day is its first moment


def test_a_row_of_the_very_moment_belongs_to_the_earlier_period(tmp_path: Path) -> None:
    source = as_parquet(tmp_path, dated())
    before = load(source, make_contract(), RowPeriod("seen", None, ms(MOMENTS[3])))
    after = load(source, make_contract(), RowPeriod("seen", ms(MOMENTS[3]), ms(MOMENTS[7])))
    assert before.left_out + after.left_out == len(MOMENTS)


@pytest.mark.parametrize("bad", ["", "soon", "12.5", "2026-13-01", "99999999999999999999"])
def test_rows_without_a_date_are_counted_and_not_quoted(tmp_path: Path, bad: str) -> None:
    values = [f"{moment:%Y-%m-%d}" for moment in MOMENTS]
    values[2] = bad
    with pytest.raises(DataError, match="column seen: 1 of 8 rows have no date") as said:
        load(as_csv(tmp_path, dated(values)), make_contract(), RowPeriod("seen", None, 2**50))
    assert not bad or bad not in str(said.value)


@pytest.mark.parametrize(
    ("column", "words"),
    [("nowhere", "column nowhere is missing"), ("spend", "is a column of the contract")],
)
def test_a_column_that_cannot_tell_is_refused(tmp_path: Path, column: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(as_csv(tmp_path, dated()), make_contract(), RowPeriod(column, None, 0))


def test_a_period_without_rows_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 8 rows is of the budget's present period"):
        load(as_csv(tmp_path, dated()), make_contract(), RowPeriod("seen", ms(MOMENTS[7]), 2**50))


def test_rows_that_are_left_out_are_not_looked_at(tmp_path: Path) -> None:
    table = dated()
    table["spend"] = [-5.0, *table["spend"][1:]]
    with pytest.raises(DataError, match="spend"):
        load(as_csv(tmp_path, table), make_contract())
    dataset = load(
        as_csv(tmp_path, table), make_contract(), RowPeriod("seen", ms(MOMENTS[0]), 2**50)
    )
    assert np.isfinite(dataset.table.numbers).all()


def test_infinite_dates_are_no_dates(tmp_path: Path) -> None:
    path = tmp_path / "visits.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.register("arrow", pa.table(dated()))
        connection.execute(
            "CREATE TABLE visits AS SELECT * REPLACE ('infinity'::timestamp AS seen) FROM arrow"
        )
    source = DataSource(query="SELECT * FROM visits", database=path)
    with pytest.raises(DataError, match="the query"):
        load(source, make_contract(), RowPeriod("seen", None, 2**50))
