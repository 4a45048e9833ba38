"""Reading a member's table with DuckDB: the contract's columns of a file or a query's result."""

from __future__ import annotations

import csv
import difflib
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from privacy.documents import StrictModel
from privacy.errors import DataError
from privacy.terms import DataContract

__all__ = ["DataSource", "RowPeriod", "Table", "read_table"]

# No extension is fetched, and a query cannot see this process's variables as tables.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}

_ABOUT_THE_QUERY = (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException)
"""Raised before a row is read: what they say is about the query's text and the tables' columns."""

_SEPARATORS = {".csv": (",", ";", "\t", "|"), ".tsv": ("\t",)}


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


@dataclass(frozen=True, slots=True)
class RowPeriod:
    """Which rows a period of the member's budget is about, by a column of dates.

    Args:
        column: dates or times; without a time zone they are taken as UTC.
        after_ms: rows up to then belong to earlier periods; None in the first one.
        until_ms: rows later than this are for a later one: when the data was read.
    """

    column: str
    after_ms: int | None
    until_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The contract's columns by name, as they are read.

    Args:
        source: what errors call it.
        rows: how many there are.
        texts: consumer id and categories, masked where empty.
        numbers: label and numbers, masked where there is no number.
        filled: of label and numbers: where there is anything, be it a number or not.
        dates: of the period's column: milliseconds since 1970, masked where there is no date.
    """

    source: str
    rows: int
    texts: dict[str, npt.NDArray[Any]]
    numbers: dict[str, npt.NDArray[Any]]
    filled: dict[str, npt.NDArray[np.bool_]]
    dates: npt.NDArray[Any] | None = None


def read_table(
    source: DataSource, contract: DataContract, period: RowPeriod | None = None
) -> Table:
    """Reads the contract's columns, and the period's; others may be there.

    Raises:
        DataError: if the source cannot be read or lacks a column.
    """
    names = [contract.consumer_id, contract.label, *(column.name for column in contract.columns)]
    if period is not None:
        if period.column in names:
            raise DataError(
                f"renewal_column {period.column} is a column of the contract; name another one"
            )
        names.append(period.column)
    try:
        with _open(source) as connection:
            relation = _relation(connection, source, names)
            _check_columns(source, names, relation.columns)
            table = _columns(relation, source, contract, period)
            _check_lines(connection, source)
    except duckdb.Error as error:
        raise DataError(f"{source.name}: {_said(error, source)}") from None
    return table


def _said(error: duckdb.Error, source: DataSource) -> str:
    """What DuckDB complains about, without the rows that its message may quote."""
    if source.path is None and isinstance(error, _ABOUT_THE_QUERY):
        return f"{str(error).strip().splitlines()[0]}; mend the query"
    if "requires the extension" in str(error):
        return "needs a DuckDB extension, and none is fetched; copy the data to this machine"
    kind = type(error).__name__.removesuffix("Exception")
    if source.path is None:
        return f"fails on the data (DuckDB: {kind}); run it in DuckDB to see where"
    return f"cannot be read (DuckDB: {kind}); write it again as a whole CSV (UTF-8) or Parquet file"


def _open(source: DataSource) -> duckdb.DuckDBPyConnection:
    """A connection that fetches no extension and writes to no database."""
    for path in (source.path, source.database):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}; name a readable file in the node's configuration"
            ) from error
    if source.database is None:
        return duckdb.connect(config=_CONFIG)
    try:
        return duckdb.connect(str(source.database), read_only=True, config=_CONFIG)
    except duckdb.Error as error:
        raise DataError(
            f"{source.database}: cannot be opened as a DuckDB database; name another file, "
            "or close the program that writes to it"
        ) from error


def _relation(
    connection: duckdb.DuckDBPyConnection, source: DataSource, needed: Sequence[str]
) -> duckdb.DuckDBPyRelation:
    """The table, not yet read."""
    if source.path is None:
        statements = connection.extract_statements(source.query or "")
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise DataError(f"{source.name}: is not one SELECT statement; a query only reads")
        return connection.sql(statements[0].query)
    file = glob.escape(str(source.path))  # a * in its name is no pattern
    ending = source.path.suffix.lower()
    if ending == ".parquet":
        return connection.read_parquet(file, hive_partitioning=False)
    if ending not in _SEPARATORS:
        raise DataError(
            f"{source.name}: ends in none of .parquet, .csv and .tsv; rename it or use a query"
        )
    names, separator = _header(source.path, needed)
    # Nothing is guessed from the rows: one odd row would change how all others are read.
    return connection.read_csv(
        file,
        columns=dict.fromkeys(names, "VARCHAR"),
        auto_detect=False,
        header=True,
        sep=separator,
        quotechar='"',
        escapechar='"',
        ignore_errors=True,  # they are counted instead: see _check_lines
        store_rejects=True,
    )


def _header(path: Path, needed: Sequence[str]) -> tuple[list[str], str]:
    """Columns by the first line, and the separator under which most of their names are known."""
    with path.open("rb") as file:
        line = file.readline(1 << 20).partition(b"\r")[0].removesuffix(b"\n")
    known = set(needed)
    try:
        text = line.decode("utf-8-sig")
        splits = [
            (next(csv.reader([text], delimiter=separator), []), separator)
            for separator in _SEPARATORS[path.suffix.lower()]
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: its first line is not UTF-8 text with the column names; write it again as CSV"
        ) from error
    names, separator = max(splits, key=lambda split: (len(known & set(split[0])), len(split[0])))
    if not text:
        raise DataError(f"{path}: its first line is empty; it must name the columns")
    _check_columns(DataSource(path=path), needed, names)
    # Other columns may have any names, even equal ones.
    return [name if name in known else f" {at}" for at, name in enumerate(names)], separator


def _check_lines(connection: duckdb.DuckDBPyConnection, source: DataSource) -> None:
    """Refuses a CSV file with lines that do not fit its header."""
    if source.path is None or source.path.suffix.lower() not in _SEPARATORS:
        return
    lines = connection.execute("SELECT DISTINCT line FROM reject_errors").fetchall()
    if lines:
        raise DataError(
            f"{source.name}: rows that are not UTF-8 text with as many fields as the header: "
            f"{len(lines)}; mend their separators and quotes"
        )


def _check_columns(source: DataSource, needed: Sequence[str], there: Sequence[str]) -> None:
    """Refuses a table that lacks a column or has it twice."""
    missing = [name for name in needed if name not in there]
    twice = [name for name in needed if list(there).count(name) > 1]
    if twice:
        raise DataError(f"{source.name}: column {twice[0]} comes twice; rename one of them")
    if not missing:
        return
    # Without a header the first row stands for it, so only what looks like a name is repeated.
    names = [name for name in there if re.fullmatch(r"[A-Za-z_][A-Za-z_ ]{0,62}", name)]
    near = difflib.get_close_matches(missing[0], names, n=1)
    others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    raise DataError(
        f"{source.name}: column {missing[0]} is missing{others} among {len(there)} columns; "
        + (f"rename {near[0]}, or " if near else "")
        + "write a table with the contract's column names"
    )


def _columns(
    relation: duckdb.DuckDBPyRelation,
    source: DataSource,
    contract: DataContract,
    period: RowPeriod | None,
) -> Table:
    """The contract's columns. Text is stripped, and empty text is nothing at all."""
    texts, numbers = [contract.consumer_id], [contract.label]
    for column in contract.columns:
        (numbers if column.kind == "number" else texts).append(column.name)
    parts = [f"{_stripped(name)} as text{at}" for at, name in enumerate(texts)]
    for at, name in enumerate(numbers):
        parts.append(f"try_cast({_quoted(name)} as double) as number{at}")
        parts.append(f"{_stripped(name)} is not null as filled{at}")
    if period is not None:
        parts.append(f"epoch_ms(try_cast({_stripped(period.column)} as timestamp)) as dates")
    arrays = relation.project(", ".join(parts)).fetchnumpy()
    return Table(
        source=source.name,
        rows=len(arrays["text0"]),
        texts={name: arrays[f"text{at}"] for at, name in enumerate(texts)},
        numbers={name: arrays[f"number{at}"] for at, name in enumerate(numbers)},
        filled={name: np.asarray(arrays[f"filled{at}"], bool) for at, name in enumerate(numbers)},
        dates=arrays.get("dates"),
    )


def _stripped(name: str) -> str:
    return f"nullif(trim({_quoted(name)}::varchar), '')"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
