"""A table of consumers, read through the members' own door, and its splits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from client_sdk.batch import Batch
from client_sdk.dataset import Dataset, DataSource, load
from privacy.terms import DataContract

__all__ = ["Indices", "Rows", "Split", "Table", "rows_of", "split", "subset", "through_the_door"]

Indices = npt.NDArray[np.int64]
"""Positions of consumers in a table's dataset."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A data set under its contract.

    Args:
        name: what reports call it.
        frame: the contract's columns, numbers capped to their ranges.
        data: every consumer's rows, checked and scaled by the contract.
        groups: by name, each consumer's value, shape (consumers,): for fairness, not for training.
        test: which consumers the publisher holds out; None where seeds draw them.
        members: the member of each consumer; None where seeds draw them.
        crosses: pairs of category columns that the study reads together, ``first*second``:
            declared by who knows what the columns mean.
    """

    name: str
    frame: pd.DataFrame
    data: Dataset
    groups: Mapping[str, npt.NDArray[np.str_]]
    test: npt.NDArray[np.bool_] | None = None
    members: npt.NDArray[np.str_] | None = None
    crosses: tuple[str, ...] = ()

    @property
    def contract(self) -> DataContract:
        """What the table was checked against."""
        return self.data.contract

    def under(self, contract: DataContract) -> Dataset:
        """The same consumers, in the same order, under another contract of the same columns."""
        return self.data if contract == self.contract else through_the_door(self.frame, contract)

    @property
    def consumers(self) -> int:
        """How many there are."""
        return len(self.data.consumer_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows without empty slots.

    Args:
        numbers: float32, shape (rows, number columns), scaled to [0, 1].
        categories: int64, shape (rows, category columns).
        labels: float32, shape (rows,).
    """

    numbers: npt.NDArray[np.float32]
    categories: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One seed's members and hold-out.

    Args:
        members: consumers of each member, in roster order: largest first.
        test: consumers that nobody trains on.
    """

    members: dict[str, Indices]
    test: Indices

    @property
    def training(self) -> Indices:
        """The consumers of all members."""
        return np.concatenate(list(self.members.values()))


def through_the_door(frame: pd.DataFrame, contract: DataContract) -> Dataset:
    """The frame as a member's node would read it: every range and category is checked.

    Raises:
        DataError: naming the column that breaks the contract.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        frame.to_parquet(path, index=False)
        return load(DataSource(path=path), contract)


def subset(data: Dataset, consumers: Indices) -> Dataset:
    """The same contract's dataset with these consumers alone, and the padded one at the end."""
    at = np.append(consumers, len(data.consumer_ids))
    batch = Batch(
        numbers=data.table.numbers[:, at],
        categories=data.table.categories[:, at],
        labels=data.table.labels[:, at],
        present=data.table.present[:, at],
    )
    ids = tuple(data.consumer_ids[place] for place in consumers)
    return Dataset(contract=data.contract, consumer_ids=ids, table=batch)


def rows_of(data: Dataset, consumers: Indices) -> Rows:
    """All rows of these consumers, in their order."""
    batch = data.gather(consumers[None, :])
    there = batch.present > 0
    return Rows(batch.numbers[there], batch.categories[there], batch.labels[there])


def split(table: Table, sizes: Sequence[int], seed: int) -> Split:
    """Members and hold-out by seed; what the publisher fixed stays as it is.

    Members of a table that names them keep all their training consumers. Otherwise consumers are
    dealt at random to members of ``sizes``, and who is left over is held out where the table
    does not say who is.

    Args:
        table: whose consumers they are.
        sizes: consumers of each member, largest first; ignored where the table names members.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(table.consumers).astype(np.int64)
    held_out = np.zeros(table.consumers, bool) if table.test is None else table.test
    training = order[~held_out[order]]
    if table.members is not None:
        if table.test is None:
            kept = len(training) - len(training) // 4
            training, test = training[:kept], training[kept:]
        else:
            test = order[held_out[order]]
        owners = table.members[training]
        names = sorted(set(owners.tolist()), key=lambda name: (-np.sum(owners == name), name))
        return Split({name: training[owners == name] for name in names}, test)
    ends = np.cumsum(sizes)
    if ends[-1] > len(training):
        raise ValueError(f"{table.name}: {ends[-1]} consumers wanted, {len(training)} there")
    parts = np.split(training[: ends[-1]], ends[:-1])
    names = [f"member-{place:0{len(str(len(sizes)))}d}" for place in range(1, len(sizes) + 1)]
    test = training[ends[-1] :] if table.test is None else order[held_out[order]]
    return Split(dict(zip(names, parts, strict=True)), test)
