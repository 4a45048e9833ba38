"""A member's door to its data: CSV, Parquet or a DuckDB query, through the data contract.

Everything is checked before anything is used, and every problem is one sentence with the file, the
column and how many rows; values and ids are never printed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from client_sdk.batch import Batch
from privacy.errors import DataError
from privacy.terms import Column, DataContract, StrictModel

__all__ = ["DataSource", "Dataset", "load"]

Floats = npt.NDArray[np.float32]


class DataSource(StrictModel):
    """Where a member's table is: a CSV or Parquet file, or a query.

    A query may read the tables of a DuckDB ``database`` (opened read-only), or files by DuckDB's
    table functions; relative paths in it are those of the process.
    """

    path: Path | None = None
    query: str | None = None
    database: Path | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.path is None) == (self.query is None):
            raise ValueError("data needs either a path or a query")
        if self.database is not None and self.query is None:
            raise ValueError("data.database goes with data.query")
        return self

    def relative_to(self, folder: Path) -> DataSource:
        """The same with its paths resolved against ``folder``."""
        return DataSource(
            path=folder / self.path if self.path else None,
            query=self.query,
            database=folder / self.database if self.database else None,
        )

    @property
    def name(self) -> str:
        """What errors call it."""
        return str(self.path) if self.path else "the query"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A member's consumers, each with its rows in fixed slots. One padded consumer at the end.

    Args:
        contract: what the table was checked against.
        consumer_ids: as text, sorted.
        table: shape (1, consumers + 1, rows, ...): the last consumer has no rows.
    """

    contract: DataContract
    consumer_ids: Sequence[str]
    table: Batch

    def gather(self, slots: npt.NDArray[np.int64]) -> Batch:
        """The batch of the consumers in ``slots``; the work does not depend on how many there are.

        Args:
            slots: int64, shape (blocks, consumers): positions in ``consumer_ids``, -1 where empty.
        """
        table = self.table  # -1 is the padded consumer
        return Batch(
            numbers=table.numbers[0][slots],
            categories=table.categories[0][slots],
            labels=table.labels[0][slots],
            present=table.present[0][slots],
        )


def load(source: DataSource, contract: DataContract) -> Dataset:
    """Reads a member's table and checks it against the contract.

    Only the contract's columns are read; others may be there. A consumer with more rows than
    ``rows_per_consumer`` keeps its first ones.

    Args:
        source: where the table is.
        contract: columns, ranges, consumer id and label.

    Raises:
        DataError: with the file, the column and the number of rows concerned.
    """
    connection = _open(source)
    try:
        relation = _relation(connection, source)
        _check_columns(source, contract, relation.columns)
        columns = _columns(relation, contract)
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{source.name}: cannot be read: {first}") from error
    finally:
        connection.close()
    return _dataset(source, contract, columns)


def _open(source: DataSource) -> duckdb.DuckDBPyConnection:
    """A connection that fetches no extension and writes nothing."""
    config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    for path in (source.path, source.database):
        if path is not None and not path.is_file():
            raise DataError(f"{path}: no such file; name the data in the node's configuration")
    try:
        if source.database is not None:
            return duckdb.connect(str(source.database), read_only=True, config=config)
        return duckdb.connect(config=config)
    except duckdb.Error as error:
        raise DataError(f"{source.database}: cannot be opened as a DuckDB database") from error


def _relation(connection: duckdb.DuckDBPyConnection, source: DataSource) -> duckdb.DuckDBPyRelation:
    if source.query is not None:
        return connection.sql(source.query)
    if source.path is not None and source.path.suffix.lower() == ".parquet":
        return connection.read_parquet(str(source.path))
    if source.path is not None and source.path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return connection.read_csv(str(source.path), header=True, all_varchar=True)
    raise DataError(
        f"{source.name}: ends neither in .csv nor in .parquet; rename it or use a query"
    )


def _check_columns(source: DataSource, contract: DataContract, there: list[str]) -> None:
    names = [contract.consumer_id, contract.label, *(column.name for column in contract.columns)]
    missing = [name for name in names if name not in there]
    if missing:
        near = difflib.get_close_matches(missing[0], there, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(there[:10])}"
        raise DataError(
            f"{source.name}: {len(missing)} columns of the contract are missing: "
            f"{', '.join(missing[:10])}{hint}"
        )


def _columns(
    relation: duckdb.DuckDBPyRelation, contract: DataContract
) -> dict[str, npt.NDArray[Any]]:
    """The contract's columns as masked or plain arrays; ``raw.X`` says where X had a value."""
    texts = [contract.consumer_id, *(column.name for column in contract.categories)]
    numbers = [contract.label, *(column.name for column in contract.numbers)]
    parts = [f"nullif(trim({_quoted(name)}::varchar), '') as {_quoted(name)}" for name in texts]
    for name in numbers:
        parts.append(f"try_cast({_quoted(name)} as double) as {_quoted(name)}")
        parts.append(
            f"nullif(trim({_quoted(name)}::varchar), '') is not null as {_quoted('raw.' + name)}"
        )
    arrays: dict[str, npt.NDArray[Any]] = relation.project(", ".join(parts)).fetchnumpy()
    return arrays


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _dataset(
    source: DataSource, contract: DataContract, columns: dict[str, npt.NDArray[Any]]
) -> Dataset:
    """Checks every column, then lays the rows out by consumer."""
    ids = columns[contract.consumer_id]
    if len(ids) == 0:
        raise DataError(f"{source.name}: has no rows; a member needs at least one consumer")
    _refuse(source, contract.consumer_id, np.ma.getmaskarray(ids), "have no consumer id")
    labels = _numbers(source, contract.label, columns)
    _refuse(source, contract.label, ~np.isin(labels, (0.0, 1.0)), "have a label other than 0 or 1")
    names, consumers = np.unique(np.ma.getdata(ids).astype(str), return_inverse=True)
    order = np.argsort(consumers, kind="stable")
    starts = np.searchsorted(consumers[order], np.arange(len(names)))
    rows = np.empty(len(ids), dtype=np.int64)
    rows[order] = np.arange(len(ids)) - starts[consumers[order]]
    kept = rows < contract.rows_per_consumer
    at = (consumers[kept], rows[kept])
    shape = (len(names) + 1, contract.rows_per_consumer)
    numbers = np.zeros((*shape, len(contract.numbers)), dtype=np.float32)
    for index, column in enumerate(contract.numbers):
        numbers[(*at, index)] = _scaled(source, column, columns)[kept]
    categories = np.zeros((*shape, len(contract.categories)), dtype=np.int64)
    for index, column in enumerate(contract.categories):
        categories[(*at, index)] = _codes(source, column, columns)[kept]
    padded = np.zeros((2, *shape), dtype=np.float32)
    padded[0][at] = labels[kept]
    padded[1][at] = 1.0
    table = Batch(numbers[None], categories[None], padded[0][None], padded[1][None])
    return Dataset(contract=contract, consumer_ids=names.tolist(), table=table)


def _numbers(
    source: DataSource, name: str, columns: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.float64]:
    """A numeric column, all of it there and finite."""
    values, raw = columns[name], np.ma.getdata(columns["raw." + name]).astype(bool)
    empty = np.ma.getmaskarray(values)
    _refuse(source, name, empty & raw, "hold text where a number is due")
    _refuse(source, name, empty, "are empty")
    data: npt.NDArray[np.float64] = np.ma.getdata(values).astype(np.float64)
    _refuse(source, name, ~np.isfinite(data), "are not finite numbers")
    return data


def _scaled(source: DataSource, column: Column, columns: dict[str, npt.NDArray[Any]]) -> Floats:
    """A numeric column in [0, 1] by its declared range (rule R5)."""
    values = _numbers(source, column.name, columns)
    if column.low is None or column.high is None:
        raise DataError(f"column {column.name}: the contract declares no range")
    outside = (values < column.low) | (values > column.high)
    _refuse(source, column.name, outside, f"lie outside {column.low:g} to {column.high:g}")
    part, whole = values - column.low, column.high - column.low
    if column.scale == "log":
        return (np.log1p(part) / np.log1p(whole)).astype(np.float32)
    return (part / whole).astype(np.float32)


def _codes(
    source: DataSource, column: Column, columns: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.int64]:
    """A categorical column as positions in its declared values."""
    values = columns[column.name]
    _refuse(source, column.name, np.ma.getmaskarray(values), "are empty")
    texts = np.ma.getdata(values).astype(str)
    declared = np.array(column.values)
    order = np.argsort(declared)
    places = np.searchsorted(declared, texts, sorter=order).clip(max=len(declared) - 1)
    codes = order[places]
    _refuse(
        source, column.name, declared[codes] != texts, "hold a value the contract does not list"
    )
    found: npt.NDArray[np.int64] = codes.astype(np.int64)
    return found


def _refuse(source: DataSource, column: str, wrong: npt.NDArray[np.bool_], what: str) -> None:
    """Raises if any row is wrong, and says how many are."""
    count = int(np.count_nonzero(wrong))
    if count:
        raise DataError(
            f"{source.name}: column {column}: {count} of {len(wrong)} rows {what}; "
            "mend the file, or agree on another contract"
        )
