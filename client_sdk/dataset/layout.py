"""A member's rows checked against the contract and laid out by consumer, in fixed slots."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from client_sdk.batch import Batch
from client_sdk.dataset.source import DataSource, RowPeriod, Table, read_table
from privacy.errors import DataError
from privacy.terms import Column, DataContract

__all__ = ["Dataset", "load"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A member's consumers, each with its rows in fixed slots. One padded consumer at the end.

    Args:
        contract: what the table was checked against.
        consumer_ids: as text, in the order in which they first come.
        table: one block of shape (1, consumers + 1, rows, ...): the last consumer has no rows.
        left_out: rows of the table that are not of the budget's period.
        period: that period, if the budget renews.
    """

    contract: DataContract
    consumer_ids: Sequence[str]
    table: Batch
    left_out: int = 0
    period: RowPeriod | None = None

    def gather(self, slots: npt.NDArray[np.int64]) -> Batch:
        """The batch of the consumers in ``slots``; the work does not depend on how many there are.

        An empty slot is filled like any other, from the consumer without rows.

        Args:
            slots: int64, shape (blocks, consumers): positions in ``consumer_ids``, -1 where empty.
        """
        table = self.table  # position -1 is the consumer without rows
        return Batch(
            numbers=table.numbers[0][slots],
            categories=table.categories[0][slots],
            labels=table.labels[0][slots],
            present=table.present[0][slots],
        )


def load(source: DataSource, contract: DataContract, period: RowPeriod | None = None) -> Dataset:
    """Reads a member's table and checks all its rows against the contract.

    Only the contract's columns are read; others may be there. A consumer with more rows than
    ``rows_per_consumer`` keeps its first ones, in the order of the file or of the query's result.

    Args:
        source: where the table is.
        contract: columns, ranges, consumer id and label.
        period: which rows the member's budget is about, if it renews; others are left out, and
            only their dates are looked at.

    Raises:
        DataError: for the first problem found, with the file, the column and the number of rows.
    """
    table = read_table(source, contract, period)
    if table.rows == 0:
        raise DataError(f"{source.name}: has no rows; a member needs at least one consumer")
    everything = table.rows
    if period is not None:
        table = _of_period(table, period)
    consumer_ids, consumers = _consumers(table, contract.consumer_id)
    labels = _numbers(table, contract.label)
    wrong = (labels != 0) & (labels != 1)
    _refuse(table, contract.label, wrong, "have a label other than 0 or 1", "write 0 or 1")
    kept, rows = _first_rows(consumers, contract.rows_per_consumer)
    at = (consumers[kept], rows[kept])
    shape = (len(consumer_ids) + 1, contract.rows_per_consumer)
    numbers = np.zeros((*shape, len(contract.numbers)), dtype=np.float32)
    for index, column in enumerate(contract.numbers):
        numbers[(*at, index)] = _scaled(table, column)[kept]
    categories = np.zeros((*shape, len(contract.categories)), dtype=np.int64)
    for index, column in enumerate(contract.categories):
        categories[(*at, index)] = _codes(table, column)[kept]
    label_slots, present = np.zeros((2, *shape), dtype=np.float32)
    label_slots[at] = labels[kept]
    present[at] = 1.0
    slots = Batch(numbers[None], categories[None], label_slots[None], present[None])
    left_out = everything - table.rows
    return Dataset(contract, consumer_ids, slots, left_out, period)


def _of_period(table: Table, period: RowPeriod) -> Table:
    """The rows that are newer than the period's start and no later than they were read."""
    dates = np.ma.masked_array(table.dates)
    missing = np.ma.getmaskarray(dates)
    _refuse(table, period.column, missing, "have no date", "write dates such as 2026-11-30")
    taken = np.ma.getdata(dates) <= period.until_ms
    if period.after_ms is not None:
        taken &= np.ma.getdata(dates) > period.after_ms
    if not taken.any():
        raise DataError(
            f"{table.source}: column {period.column}: none of {table.rows} rows is of the budget's "
            "present period; bring newer rows, or wait for the next period"
        )
    return replace(
        table,
        rows=int(np.count_nonzero(taken)),
        texts={name: values[taken] for name, values in table.texts.items()},
        numbers={name: values[taken] for name, values in table.numbers.items()},
        filled={name: values[taken] for name, values in table.filled.items()},
        dates=None,
    )


def _consumers(table: Table, name: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Distinct ids in the order in which they first come, and each row's position among them."""
    ids = table.texts[name]
    missing = np.ma.getmaskarray(ids)
    _refuse(table, name, missing, "have no consumer id", "leave them out")
    positions: dict[str, int] = {}
    consumers = _coded(ids, lambda text: positions.setdefault(text, len(positions)))
    return tuple(positions), consumers


def _coded(texts: npt.NDArray[Any], code: Callable[[str], int]) -> npt.NDArray[np.int64]:
    """The code of every text; masked ones must have been refused."""
    return np.fromiter(map(code, np.ma.getdata(texts)), dtype=np.int64, count=len(texts))


def _first_rows(
    consumers: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which rows are among the first ``most`` of their consumer, and each row's number there."""
    order = np.argsort(consumers, kind="stable")
    starts = np.searchsorted(consumers[order], consumers)
    rows = np.empty(len(consumers), dtype=np.int64)
    rows[order] = np.arange(len(consumers))
    rows -= starts
    return rows < most, rows


def _numbers(table: Table, name: str) -> npt.NDArray[np.float64]:
    """A numeric column, all of it there and finite."""
    values, filled = table.numbers[name], table.filled[name]
    empty = np.ma.getmaskarray(values)
    plain = "write plain numbers such as 12.5"
    _refuse(table, name, empty & filled, "hold something other than a number", plain)
    _refuse(table, name, empty, "are empty", "fill them in or leave them out")
    data: npt.NDArray[np.float64] = np.ma.getdata(values).astype(np.float64)
    _refuse(table, name, ~np.isfinite(data), "hold NaN or infinity", plain)
    return data


def _scaled(table: Table, column: Column) -> npt.NDArray[np.float32]:
    """A numeric column in [0, 1] by its declared range (rule R5)."""
    values, low, high = _in_range(table, column)
    part, whole = values - low, high - low
    share = np.log1p(part) / np.log1p(whole) if column.scale == "log" else part / whole
    return share.clip(0.0, 1.0).astype(np.float32)


def _in_range(table: Table, column: Column) -> tuple[npt.NDArray[np.float64], float, float]:
    """A numeric column within its declared range, and the range."""
    values = _numbers(table, column.name)
    low, high = column.low or 0.0, column.high or 0.0  # the contract has both
    _refuse(
        table,
        column.name,
        (values < low) | (values > high),
        f"lie outside the declared {low:g} to {high:g}",
        "cap them there when the data is written",
    )
    return values, low, high


def _codes(table: Table, column: Column) -> npt.NDArray[np.int64]:
    """A categorical column as positions in its values, or as buckets; a binned one as its bins."""
    if column.binned:
        values, _, _ = _in_range(table, column)
        return np.searchsorted(np.array(column.edges), values, side="right").astype(np.int64)
    texts = table.texts[column.name]
    empty = np.ma.getmaskarray(texts)
    _refuse(table, column.name, empty, "are empty", "fill them in or leave them out")
    if column.buckets:
        return _coded(texts, functools.cache(column.bucket))
    declared = {value: code for code, value in enumerate(column.values)}
    codes = _coded(texts, lambda text: declared.get(text, -1))
    _refuse(
        table,
        column.name,
        codes < 0,
        "hold a value that the contract does not list",
        f"map them to its {len(declared)} values when the data is written, or agree on a contract "
        "that lists them",
    )
    return codes


def _refuse(
    table: Table, column: str, wrong: npt.NDArray[np.bool_], what: str, remedy: str
) -> None:
    """Raises if any row is wrong, and says how many are."""
    count = int(np.count_nonzero(wrong))
    if count:
        raise DataError(
            f"{table.source}: column {column}: {count} of {table.rows} rows {what}; {remedy}"
        )
