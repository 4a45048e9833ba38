"""The campaign: lives on both databases until enough processes were killed, and what came of them.

A life is written down when it is over; a run that is given the same file goes on after the last.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import local_postgres
from benchmarks.crash_campaign.faults import FAULTS, can_mount
from benchmarks.crash_campaign.life import Life, Lived, live

__all__ = ["DATABASES", "FULL", "QUICK", "Sizes", "databases", "left_out", "lives", "quantile"]

DATABASES: Final = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Args:
        kills: processes killed on each database, at least, unless the lives run out.
        lives: on each database, at most.
        rounds: of one life's study.
        kills_each: in one life, at most.
    """

    kills: int
    lives: int
    rounds: int
    kills_each: int


FULL: Final = Sizes(kills=500, lives=60, rounds=500, kills_each=50)
QUICK: Final = Sizes(kills=8, lives=1, rounds=100, kills_each=8)


def databases() -> list[str]:
    """Those that this machine has the programs for."""
    return [name for name in DATABASES if name == "sqlite" or local_postgres.available()]


def left_out() -> Iterator[str]:
    """What this machine does not allow, and why."""
    if not local_postgres.available():
        yield f"postgresql, and `database server crashed`: {local_postgres.MISSING}"
    if not can_mount():
        yield "disk full: this process may not mount file systems"


def lives(database: str, sizes: Sizes, records: Path | None) -> Iterator[Lived]:
    """Lives on one database, those first that an earlier run wrote down.

    Args:
        database: which.
        sizes: until when.
        records: JSON lines; None keeps nothing.
    """
    killed, number = 0, 0
    for lived in _earlier(records, database):
        killed, number = killed + lived.killed, lived.number + 1
        yield lived
    while killed < sizes.kills and number < sizes.lives:
        lived, _ = live(Life(number, database, sizes.rounds, sizes.kills_each))
        if records is not None:
            with records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(lived)) + "\n")
        killed, number = killed + lived.killed, number + 1
        yield lived


def _earlier(records: Path | None, database: str) -> Iterator[Lived]:
    if records is None or not records.exists():
        return
    for line in records.read_text(encoding="utf-8").splitlines():
        lived = Lived(**json.loads(line))
        if lived.database == database:
            yield lived


def quantile(values: Iterable[float], share: float) -> float:
    """The least value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else float("nan")


def phases(lived: Iterable[Lived]) -> Counter[str]:
    """Processes killed, by side and step; one that was in two steps counts in both."""
    return Counter(
        f"{'coordinator' if side == 'coordinator' else 'member'} {step}"
        for one in lived
        for kill in one.kills
        for side, steps in kill["died"]
        for step in steps
    )


def others(lived: Iterable[Lived]) -> dict[str, list[float | None]]:
    """By name of a fault that killed nobody, the times to the next release."""
    found: dict[str, list[float | None]] = {name: [] for name in FAULTS}
    for one in lived:
        for other in one.others:
            found[other["name"]].append(other["recovery_s"])
    return {name: times for name, times in found.items() if times}
