"""What joining is worth: alone against alliance over epsilon, on real data or on one's own.

    python -m benchmarks.utility --data FOLDER --json figures.json
    python -m benchmarks.utility --csv my.csv --label bought --number spend=0:5000:log
      --category kind=a,b --members 5 --pictures pictures/

The first runs four public data sets, the second anyone's own table; its file never leaves the
machine, and nothing is taken from it but what is declared. Members' own models and pooled ones are
not private and are for comparison; epsilon is that of the whole study for a consumer that one
member knows.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.peers import PeerError
from benchmarks.report import Report, Row
from benchmarks.utility.campaign import Plan, measure, sizes
from benchmarks.utility.datasets import DATASETS
from benchmarks.utility.figures import (
    cell_rows,
    equality_rows,
    member_rows,
    target_rows,
    terminal,
    to_markdown,
)
from benchmarks.utility.own import declared_contract, file_contract, own_table
from benchmarks.utility.picture import member_picture
from benchmarks.utility.results import FIGURES, Results
from benchmarks.utility.tables import Table
from privacy.errors import AllianceError, ConfigurationError

EPSILONS: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
SEEDS: Final = (1, 2, 3, 4, 5)
SIZES: Final = {
    "bank": sizes(12000, 100, 10),
    "adult": sizes(12000, 100, 10),
    "credit": [],
    "retail": sizes(650, 50, 10),
}
"""Members of each data set; those of the credit clients are published."""
QUICK_SIZES: Final = sizes(600, 50, 10)
"""Of any data set whose members are dealt, with ``--quick``."""
CROWDS: Final = {"bank-100": 100, "bank-1000": 1000}
"""Members among whom Bank Marketing's training consumers are dealt evenly as well."""
LEAST: Final = 20
"""Consumers of the smallest member of one's own table: fewer cannot hold out any."""
RATIO: Final = 20
"""Of the largest to the smallest member, where they are dealt."""


def main() -> None:
    """The command."""
    parser = _parser()
    options = parser.parse_args()
    if (options.data is None) == (options.csv is None):
        parser.error("write either --data FOLDER, for the public data sets, or --csv FILE")
    torch.set_num_threads(1)  # tables are small: threads would only wait for each other
    report = Report("utility", options.quick, options.json)
    try:
        every = _own(options) if options.csv else _public(options)
    except (AllianceError, PeerError) as error:
        sys.exit(f"utility: {error}")
    _report(report, every, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.utility",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="where the public data sets lie")
    add("--only", choices=[*DATASETS, *CROWDS], nargs="+", help="of the public data sets")
    add("--csv", type=Path, metavar="FILE", help="your own table, with a header")
    add("--contract", type=Path, metavar="TOML", help="its data contract, as in a study's file")
    add("--label", metavar="COLUMN", help="its column of 0 and 1, without a --contract")
    add("--id", metavar="COLUMN", help="its consumer ids; without, each row is a consumer")
    add("--rows", type=int, metavar="COUNT", help="rows used of one consumer (10 with --id)")
    add("--number", action="append", default=[], metavar="NAME=LOW:HIGH[:log]",
        help="a column of numbers and its public range")  # fmt: skip
    add("--category", action="append", default=[], metavar="NAME=A,B,C",
        help="a column of categories and its public values")  # fmt: skip
    add("--members", type=int, default=5, metavar="N",
        help="deal consumers to N members, the largest 20 times the smallest; 5")  # fmt: skip
    add("--member-column", metavar="COLUMN", help="or take the member from this column")
    add("--epsilon", type=float, nargs="+", metavar="E", help="default 0.1 0.5 1 2 4 8")
    add("--seeds", type=int, default=None, metavar="COUNT", help="runs (default 5)")
    add("--no-ebm", action="store_true", help="leave DP-EBM out: it needs a package index once")
    add("--no-every-step", action="store_true",
        help="leave the members' whole code out, which takes most of the time")  # fmt: skip
    add("--pictures", type=Path, metavar="FOLDER", help="write one SVG for each member there")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")
    add("--cache", type=Path, metavar="FILE", help="keep scores that no study changes there")
    add("--json", type=Path, metavar="FILE", help="write the rows there")
    add("--quick", action="store_true", help="one data set, small members, two seeds and epsilons")
    return parser


def _plan(options: argparse.Namespace, members: Sequence[int], *, every_step: bool) -> Plan:
    epsilons = tuple(sorted(options.epsilon or ((0.5, 1.0) if options.quick else EPSILONS)))
    if not all(math.isfinite(epsilon) and 0 < epsilon <= 100 for epsilon in epsilons):
        raise ConfigurationError("--epsilon: write numbers above 0 and at most 100")
    count = options.seeds or (2 if options.quick else len(SEEDS))
    return Plan(
        sizes=members,
        epsilons=epsilons,
        seeds=range(1, count + 1),
        every_step=() if options.no_every_step or not every_step else (_headline(epsilons),),
        adapted=(_headline(epsilons),),
        ebm=not (options.no_ebm or options.quick),
        cache=options.cache,
    )


def _headline(epsilons: Sequence[float]) -> float:
    """The epsilon that targets and gains are told at: 1, or the nearest there is."""
    return min(epsilons, key=lambda epsilon: abs(math.log(epsilon)))


def _public(options: argparse.Namespace) -> list[Results]:
    """The public data sets, and Bank Marketing among many members."""
    names = options.only or (["bank"] if options.quick else [*DATASETS, *CROWDS])
    every = []
    for name in names:
        try:
            table = DATASETS["bank" if name in CROWDS else name](options.data)
        except OSError as error:
            sys.exit(f"utility: {error}; --data names the folder that holds the public data sets")
        if name in CROWDS:
            count = CROWDS[name]
            each = [sum(SIZES["bank"]) // count] * count
            plan = _plan(options, each, every_step=True)
            plan = replace(plan, baselines=False, adapted=(), ebm=False)
            every.append(measure(table, plan, f"{table.name}, {count} members"))
        else:
            members = QUICK_SIZES if options.quick and SIZES[name] else SIZES[name]
            every.append(measure(table, _plan(options, members, every_step=True)))
        print(terminal(every[-1]), flush=True)
    return every


def _own(options: argparse.Namespace) -> list[Results]:
    """Anyone's own table."""
    if options.contract:
        if options.number or options.category or options.label or options.id:
            raise ConfigurationError(
                "--contract names label, id and columns itself; leave --label, --id, --number and "
                "--category out"
            )
        contract = file_contract(options.contract)
    else:
        if not options.label or not (options.number or options.category):
            raise ConfigurationError(
                "a table of your own needs --label and its columns, each with a public range: "
                "--number spend=0:5000:log, --category kind=a,b; or a --contract file"
            )
        contract = declared_contract(
            label=options.label,
            consumer_id=options.id,
            numbers=options.number,
            categories=options.category,
            rows_per_consumer=options.rows,
        )
    table = own_table(options.csv, contract, options.member_column)
    members = _dealt(table, options.members)
    results = measure(table, _plan(options, members, every_step=False))
    print(terminal(results), flush=True)
    return [results]


def _dealt(table: Table, members: int) -> list[int]:
    """Sizes of the members of one's own table; three quarters of its consumers are dealt."""
    dealt = table.consumers * 3 // 4
    if table.members is not None:
        names, counts = np.unique(table.members, return_counts=True)
        if len(names) < 3 or counts.min() < LEAST:
            raise ConfigurationError(
                f"{table.name}: {len(names)} members, the smallest with {counts.min()} consumers; "
                f"an alliance needs 3 members, and here {LEAST} consumers each: merge small ones"
            )
        return []
    if members < 3:
        raise ConfigurationError("--members: an alliance needs at least 3")
    shape = sizes(RATIO * 1000, 1000, members)
    found = [max(1, dealt * part // sum(shape)) for part in shape]
    if found[-1] < LEAST:
        raise ConfigurationError(
            f"{table.name}: {table.consumers} consumers are too few for {members} members: the "
            f"smallest would have {found[-1]} of at least {LEAST}; write fewer --members"
        )
    return found


def _rows(results: Results) -> list[Row]:
    """Rows that a reader looks for first: targets where the data set has some."""
    epsilon = _headline(results.epsilons)
    rows = list(equality_rows(results, epsilon))
    if any(model.startswith("pooled") for model, _ in results.scores):
        bank = results.name == "Bank Marketing"
        retail = results.name == "Online Retail"
        ratio = 0.99 if bank or results.name.startswith(("Adult", "Default")) else None
        rows.extend(target_rows(results, epsilon, ratio=ratio))
        if retail and 2.0 in results.epsilons:
            rows.extend(target_rows(results, 2.0, gap=0.01))
        rows.extend(member_rows(results, epsilon, targets=bank))
    return rows


def _report(report: Report, every: Sequence[Results], options: argparse.Namespace) -> None:
    told = [row for results in every for row in _rows(results)]
    if options.quick:  # targets are for members and seeds of the whole run
        told = [replace(row, target=None, at=None, bounds="ours") for row in told]
    for row in told:
        report.add(row)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for results in every:
            _draw(results, options.pictures)
    if options.markdown:
        options.markdown.write_text(to_markdown(every, told), encoding="utf-8")
    if options.json:
        report.rows.extend(row for results in every for row in cell_rows(results))
        report.write(options.json)


def _draw(results: Results, folder: Path) -> None:
    """One picture for each member: precision, which is what a campaign is paid in."""
    figure, called = FIGURES[1]
    for member in results.members:
        if (f"alone: {member}", None) in results.scores:
            stem = f"{results.name} {member}".lower().replace(" ", "-").replace("/", "-")
            picture = member_picture(results, member, figure, called)
            (folder / f"{stem}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
