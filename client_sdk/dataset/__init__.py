"""A member's door to its data: CSV, Parquet or a DuckDB query, through the data contract.

Everything is checked before anything is used. A problem is one sentence with the file, the column,
how many rows and what to do; values and ids are never printed, nor is DuckDB's message where it
may quote them.
"""

from __future__ import annotations

from client_sdk.dataset.layout import Dataset, load
from client_sdk.dataset.source import DataSource, RowPeriod

__all__ = ["DataSource", "Dataset", "RowPeriod", "load"]
