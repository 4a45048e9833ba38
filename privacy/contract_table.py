"""A data contract as a person writes it: a short table in TOML, with defaults."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from privacy.documents import StrictModel, first_problem
from privacy.errors import ConfigurationError
from privacy.terms import Column, ColumnName, DataContract, Name

__all__ = ["ColumnTable", "ContractFile", "ContractTable"]


class ColumnTable(StrictModel):
    """One column: ``{ high = 5000.0 }`` is a number, ``["A", "B"]`` a category.

    ``{ buckets = 1000 }`` is a category whose values nobody agreed on beforehand.
    """

    low: float = 0.0
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    edges: tuple[float, ...] = ()
    """Where the bins of a number begin, from the second on."""
    bins: int | None = Field(default=None, ge=2, le=1000)
    """So many bins of equal width on the number's scale, instead of ``edges``."""
    values: tuple[str, ...] = ()
    buckets: int = Field(default=0, ge=0, le=1_000_000)
    meaning: str = ""

    @model_validator(mode="before")
    @classmethod
    def _category(cls, value: Any) -> Any:
        table = {"values": value} if isinstance(value, list) else value
        if isinstance(table, dict):
            lists = {key: tuple(item) for key, item in table.items() if isinstance(item, list)}
            return table | lists
        if not isinstance(table, dict):
            raise ValueError('is neither { high = 100 }, a number, nor ["A", "B"], a category')
        return table

    def column(self, name: str) -> Column:
        """The column as terms have it.

        Raises:
            ConfigurationError: if it is neither a number nor a category.
        """
        try:
            edges = self._edges(name)
            if self.values or self.buckets:
                return Column(
                    name=name, kind="category", values=self.values, buckets=self.buckets,
                    scale=self.scale, high=self.high, edges=edges, meaning=self.meaning,
                )  # fmt: skip
            return Column(
                name=name, kind="number", low=self.low, high=self.high, scale=self.scale,
                edges=edges, meaning=self.meaning,
            )  # fmt: skip
        except ValidationError as error:
            raise ConfigurationError(
                f"contract.columns.{name}: {first_problem(error).partition(': ')[2]}; write a "
                f'number as {name} = {{ low = 0, high = 100 }}, a category as {name} = ["A", "B"]'
            ) from error

    def _edges(self, name: str) -> tuple[float, ...]:
        """The edges as given, or those of equal bins to six digits: a function of the table alone.

        >>> ColumnTable(low=0.0, high=80.0, bins=4)._edges("age")
        (20.0, 40.0, 60.0)
        >>> ColumnTable(high=99.0, scale="log", bins=2)._edges("spend")
        (9.0,)
        """
        if self.bins is None:
            return self.edges
        if self.edges or self.values or self.high is None or not self.low < self.high:
            raise ConfigurationError(
                f"contract.columns.{name}: bins divide the range of a number, without edges; "
                f"write {name} = {{ low = 0, high = 100, bins = 16 }}"
            )
        width = self.high - self.low
        shares = [step / self.bins for step in range(1, self.bins)]
        if self.scale == "log":
            shares = [math.expm1(share * math.log1p(width)) / width for share in shares]
        edges = (float(f"{self.low + share * width:.6g}") for share in shares)
        return tuple(round(edge, 9) for edge in edges)


class ContractTable(StrictModel):
    """The table ``[contract]``: which columns every member brings."""

    name: Name | None = None
    """The study's name if it is not given."""
    version: int = Field(default=1, ge=1)
    consumer_id: ColumnName
    label: ColumnName
    rows_per_consumer: int = Field(default=10, ge=1, le=1000)
    columns: dict[ColumnName, ColumnTable] = Field(min_length=1, max_length=10_000)

    def contract(self, study: str) -> DataContract:
        """The contract as terms have it.

        Args:
            study: the study's name.

        Raises:
            ConfigurationError: naming the first column that is wrong, and how to write it.
        """
        columns = tuple(table.column(name) for name, table in self.columns.items())
        try:
            return DataContract(
                name=self.name or study,
                version=self.version,
                consumer_id=self.consumer_id,
                label=self.label,
                columns=columns,
                rows_per_consumer=self.rows_per_consumer,
            )
        except ValidationError as error:
            what = first_problem(error).removeprefix("document: ")
            raise ConfigurationError(f"contract: {what}") from error


class ContractFile(StrictModel):
    """What a member reads of a study's file: the contract, and the name it has by default."""

    model_config = ConfigDict(extra="ignore")

    study: Name
    contract: ContractTable
