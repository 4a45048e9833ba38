"""Anyone's own CSV: its contract from a file or from declared columns, and its table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from pydantic import ValidationError

from benchmarks.utility.tables import Table, through_the_door
from privacy.contract_table import ColumnTable, ContractFile, ContractTable
from privacy.documents import first_problem
from privacy.errors import ConfigurationError, DataError
from privacy.terms import DataContract
from protos.config import read_config

__all__ = ["declared_contract", "file_contract", "own_table"]

ROW_ID: Final = "row"
"""The consumer id of a table without one: every row is a consumer of its own."""


def file_contract(path: Path) -> DataContract:
    """The contract in a study's file, or in a file with ``study`` and ``[contract]`` alone.

    Raises:
        ConfigurationError: naming what is wrong.
    """
    file = read_config(path, ContractFile)
    return file.contract.contract(file.study)


def declared_contract(
    *,
    label: str,
    consumer_id: str | None,
    numbers: Sequence[str],
    categories: Sequence[str],
    rows_per_consumer: int | None = None,
) -> DataContract:
    """A contract of columns declared on the command line.

    >>> found = declared_contract(
    ...     label="bought", consumer_id=None, numbers=["spend=0:5000:log"], categories=["kind=a,b"]
    ... )
    >>> [(column.name, column.kind, column.scale) for column in found.columns]
    [('spend', 'number', 'log'), ('kind', 'category', 'linear')]

    Args:
        label: the column of 0 and 1.
        consumer_id: the column of ids; None if every row is another consumer.
        numbers: each ``NAME=LOW:HIGH`` or ``NAME=LOW:HIGH:log``.
        categories: each ``NAME=VALUE,VALUE,...``.
        rows_per_consumer: at most so many are used; 10 where there are ids and 1 where not.

    Raises:
        ConfigurationError: naming the first declaration that is wrong.
    """
    columns: dict[str, ColumnTable] = {}
    for text in numbers:
        name, range_, *_ = (*text.partition("=")[::2], "")
        parts = range_.split(":")
        try:
            low, high = float(parts[0]), float(parts[1])
            if parts[2:] not in ([], ["log"]):
                raise ValueError
        except (ValueError, IndexError) as error:
            raise ConfigurationError(
                f"--number {text}: write NAME=LOW:HIGH or NAME=LOW:HIGH:log, as in spend=0:5000:log"
            ) from error
        scale = "log" if parts[2:] else "linear"
        columns[name] = ColumnTable.model_validate({"low": low, "high": high, "scale": scale})
    for text in categories:
        name, _, values = text.partition("=")
        if not values:
            raise ConfigurationError(f"--category {text}: write NAME=VALUE,VALUE, as in kind=a,b")
        columns[name] = ColumnTable(values=tuple(values.split(",")))
    try:
        table = ContractTable(
            consumer_id=consumer_id or ROW_ID,
            label=label,
            rows_per_consumer=rows_per_consumer or (10 if consumer_id else 1),
            columns=columns,
        )
    except ValidationError as error:
        raise ConfigurationError(f"contract: {first_problem(error)}") from error
    return table.contract("own-data")


def own_table(path: Path, contract: DataContract, member_column: str | None) -> Table:
    """The table in a CSV file.

    Args:
        path: comma, semicolon or tab separated, with a header.
        contract: its columns; a consumer id that the file lacks numbers its rows.
        member_column: whose value is the member; a consumer belongs to that of its first row.

    Raises:
        DataError: naming the file, the column and what to do.
    """
    frame = _read(path)
    if contract.consumer_id == ROW_ID and ROW_ID not in frame:
        frame[ROW_ID] = np.arange(len(frame)).astype(str)
    wanted = [contract.consumer_id, contract.label, *(column.name for column in contract.columns)]
    for name in wanted + ([member_column] if member_column else []):
        if name not in frame:
            raise DataError(
                f"{path}: has no column {name}; its columns are {', '.join(frame.columns[:20])}"
            )
    try:
        data = through_the_door(frame[wanted], contract)
    except DataError as error:
        _, _, what = str(error).partition(": ")
        raise DataError(f"{path}: {what}") from error
    members = None
    if member_column:
        owners = frame.groupby(frame[contract.consumer_id].str.strip())[member_column].first()
        members = owners.loc[list(data.consumer_ids)].to_numpy(dtype=np.str_)
    return Table(name=path.stem, frame=frame[wanted], data=data, groups={}, members=members)


def _read(path: Path) -> pd.DataFrame:
    """The file as text; nothing about it is guessed but its separator."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
        separator = max(",;\t|", key=header.count)
        return pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name a readable CSV file") from error
    except (
        UnicodeDecodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        csv.Error,
    ) as error:
        raise DataError(
            f"{path}: is no UTF-8 CSV with a header ({error}); write it again"
        ) from error
