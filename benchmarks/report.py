"""One format for every benchmark: rows printed as a table and written as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Report", "Row", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured figure. ``target``, ``at`` and ``holds`` stand together or not at all.

    Args:
        at: whether the target bounds the figure from above (``most``) or below (``least``).
        bounds: what the target bounds: ``ours`` or ``ratio``.
    """

    name: str
    unit: str
    ours: float
    trials: int
    peer_name: str | None = None
    peer: float | None = None
    ratio: float | None = None
    target: float | None = None
    at: Literal["most", "least"] | None = None
    bounds: Literal["ours", "ratio"] = "ours"
    failures: int | None = None
    note: str | None = None

    def document(self) -> dict[str, Any]:
        """The row as it is written: without what is not there, with ``holds`` worked out."""
        row = {key: value for key, value in asdict(self).items() if value is not None}
        if self.bounds == "ours":
            del row["bounds"]
        if self.target is not None:
            figure = self.ours if self.bounds == "ours" else self.ratio
            if figure is None or self.at is None:
                raise ValueError(f"row {self.name!r}: a target needs `at` and the figure it bounds")
            row["holds"] = figure <= self.target if self.at == "most" else figure >= self.target
        return row


@dataclass(slots=True)
class Report:
    """Rows of one benchmark run, printed as they come.

    Args:
        benchmark: its name.
        quick: smaller sizes.
        path: where the rows will be written, if anywhere.
        data: the folder of data sets, for those that read some.
    """

    benchmark: str
    quick: bool
    path: Path | None = None
    data: Path = Path()
    started: float = field(default_factory=time.perf_counter)
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keeps a row and prints it."""
        self.rows.append(row)
        document = row.document()
        line = f"{row.name}: {row.ours:.4g} {row.unit}"
        if row.peer is not None:
            line += f"; {row.peer_name}: {row.peer:.4g} {row.unit}"
        if row.ratio is not None:
            line += f"; ratio {row.ratio:.3g}"
        if "holds" in document:
            verdict = "holds" if document["holds"] else "DOES NOT HOLD"
            line += f"; target at {row.at} {row.target:g} ({row.bounds}): {verdict}"
        if row.failures is not None:
            line += f"; {row.failures} failures"
        print(f"{line} ({row.trials} trials)" + (f" [{row.note}]" if row.note else ""), flush=True)

    def write(self, path: Path) -> None:
        """Writes the report as JSON."""
        document = {
            "benchmark": self.benchmark,
            "quick": self.quick,
            "seconds": round(time.perf_counter() - self.started, 1),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, "
            f"Python {platform.python_version()}",
            "rows": [row.document() for row in self.rows],
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main(
    benchmark: str,
    description: str,
    measure: Callable[[Report], None],
    *,
    reads_data: bool = False,
) -> None:
    """Command line of a benchmark: ``--json FILE``, ``--quick``, and ``--data DIR`` where it reads.

    Args:
        benchmark: the module's name after ``benchmarks.``.
        description: one sentence for ``--help``.
        measure: adds rows to the report; looks at ``report.quick`` for smaller sizes.
        reads_data: whether it reads data sets, from ``report.data``.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}", description=description
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    if reads_data:
        parser.add_argument(
            "--data", type=Path, required=True, metavar="DIR", help="the folder of data sets"
        )
    options = parser.parse_args()
    report = Report(benchmark, options.quick, options.json, getattr(options, "data", Path()))
    measure(report)
    if options.json:
        report.write(options.json)
