"""The campaign of crashes: kills in all phases, stops, bad lines, full disks, and controls.

Run with ``python -m benchmarks.crash_campaign --json campaign.json``, at low priority; it takes
hours on two busy cores. Each life is added to campaign.jsonl when it is over, and another run with
the same name goes on after them. Faults are drawn from fixed seeds, but what a process was doing
when it died differs from run to run: it is counted.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from benchmarks.crash_campaign.campaign import (
    FULL,
    QUICK,
    databases,
    left_out,
    lives,
    others,
    phases,
    quantile,
)
from benchmarks.crash_campaign.controls import CONTROLS, flagged
from benchmarks.crash_campaign.life import Life, Lived, live
from benchmarks.report import Report, Row, main

SLOWEST_S = 10.0

PROBLEMS = {
    "round": "rounds lost, or counted otherwise than once",
    "spend": "spend under-counted",
    "model": "models published twice, or not as the log says",
    "log": "entries lost that were there",
    "audit": "bundles in which an auditor finds something",
    "stuck": "studies that did not go on",
}


def run(report: Report) -> None:
    """Lives on each database, then what the judge must see."""
    sizes = QUICK if report.quick else FULL
    records: Path | None = report.path.with_suffix(".jsonl") if report.path else None
    for row in left_out():
        print(f"left out: {row}")
    for database in databases():
        lived: list[Lived] = []
        try:
            for one in lives(database, sizes, records):
                lived.append(one)
                print(
                    f"  {database} life {one.number}: {one.killed} kills, {one.rounds} rounds, "
                    f"{len(one.problems)} problems, {one.seconds:.0f} s",
                    flush=True,
                )
        except KeyboardInterrupt:
            print(f"{database}: ended early; the rows are of what was done")
        if lived:
            add(report, database, lived)
    control(report)


def add(report: Report, database: str, lived: list[Lived]) -> None:
    """The rows of one database."""
    killed = sum(one.killed for one in lived)
    found = Counter(problem["kind"] for one in lived for problem in one.problems)
    words = [problem["what"] for one in lived for problem in one.problems][:3]
    rounds = sum(one.rounds for one in lived)
    notes = {
        "round": f"{len(lived)} lives, {rounds} releases; killed: {_listed(phases(lived))}",
    }
    for kind, name in PROBLEMS.items():
        report.add(
            Row(
                name=f"{database}: {name}",
                unit="problems",
                ours=found[kind],
                target=0,
                at="most",
                trials=len(lived) if kind in ("audit", "stuck") else killed,
                failures=found[kind],
                note="; ".join([*filter(None, [notes.get(kind)]), *(words if found[kind] else [])])
                or None,
            )
        )
    times = [kill["recovery_s"] for one in lived for kill in one.kills]
    there = [one for one in times if one is not None]
    for share, name, target in ((0.5, "median", None), (0.99, "99th percentile", SLOWEST_S)):
        report.add(
            Row(
                name=f"{database}: from a kill to the next release, {name}",
                unit="s",
                ours=quantile(there, share),
                target=target,
                at="most" if target else None,
                trials=len(times),
                failures=len(times) - len(there),
            )
        )
    for fault, healed in others(lived).items():
        back = [one for one in healed if one is not None]
        report.add(
            Row(
                name=f"{database}: {fault}, longest time to the next release",
                unit="s",
                ours=max(back, default=float("nan")),
                trials=len(healed),
                failures=len(healed) - len(back),
            )
        )


def control(report: Report) -> None:
    """What must be seen, planted into the evidence of a life without faults."""
    _, evidence = live(Life(0, "sqlite", 20, 0))
    for name in CONTROLS:
        seen = flagged(name, evidence)
        report.add(
            Row(
                name=f"control: {name}",
                unit="seen",
                ours=int(seen),
                target=1,
                at="least",
                trials=1,
                failures=int(not seen),
            )
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it started
    main("crash_campaign", __doc__ or "", run)
