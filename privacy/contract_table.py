"""A data contract as a person writes it: a short table in TOML, with defaults."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from privacy.errors import ConfigurationError
from privacy.terms import Column, ColumnName, DataContract, Name, StrictModel, first_problem

__all__ = ["ColumnTable", "ContractFile", "ContractTable"]


class ColumnTable(StrictModel):
    """One column: ``{ high = 5000.0 }`` is a number, ``["A", "B"]`` a category."""

    low: float = 0.0
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    values: tuple[str, ...] = ()
    meaning: str = ""

    @model_validator(mode="before")
    @classmethod
    def _category(cls, value: Any) -> Any:
        table = {"values": value} if isinstance(value, list) else value
        if isinstance(table, dict) and isinstance(table.get("values"), list):
            return table | {"values": tuple(table["values"])}
        if not isinstance(table, dict):
            raise ValueError('is neither { high = 100 }, a number, nor ["A", "B"], a category')
        return table

    def column(self, name: str) -> Column:
        """The column as terms have it.

        Raises:
            ConfigurationError: if it is neither a number nor a category.
        """
        try:
            if self.values:
                return Column(
                    name=name, kind="category", values=self.values, scale=self.scale,
                    high=self.high, meaning=self.meaning,
                )  # fmt: skip
            return Column(
                name=name, kind="number", low=self.low, high=self.high, scale=self.scale,
                meaning=self.meaning,
            )  # fmt: skip
        except ValidationError as error:
            raise ConfigurationError(
                f"contract.columns.{name}: {first_problem(error).partition(': ')[2]}; write a "
                f'number as {name} = {{ low = 0, high = 100 }}, a category as {name} = ["A", "B"]'
            ) from error


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
