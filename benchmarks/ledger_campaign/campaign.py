"""The campaign's rows: what runs and how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.ledger_campaign.backups import restored
from benchmarks.ledger_campaign.full_disk import can_mount, full_disks
from benchmarks.ledger_campaign.kills import hasty_kills, kills
from benchmarks.ledger_campaign.mutations import mutated
from benchmarks.ledger_campaign.races import appenders, careless_appenders, spenders
from benchmarks.ledger_campaign.syscalls import FAULTS, STEPS, calls, can_trace, faults
from benchmarks.secagg_campaign.tally import Job

__all__ = ["FULL", "QUICK", "Sizes", "control_jobs", "jobs", "left_out"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Trials of each row.

    Args:
        kills: of a writing process.
        backups: restored.
        races: between two nodes for a study's only attempt.
        appends: races between two bare writers.
        mutations: random alterations of a bundle.
        disks: that run full.
        steps: whose every system call fails once in each way.
        controls: trials of each control.
    """

    kills: int
    backups: int
    races: int
    appends: int
    mutations: int
    disks: int
    steps: tuple[str, ...]
    controls: int


FULL: Final = Sizes(10_000, 1000, 10_000, 10_000, 100_000, 150, tuple(STEPS), 300)
QUICK: Final = Sizes(200, 30, 100, 200, 500, 10, ("append",), 60)


def jobs(sizes: Sizes) -> Iterator[Job]:
    """Everything that must end without a loss."""
    for step in sizes.steps if can_trace() else ():
        row = f"every system call of `{step}` fails with EIO, ENOSPC, SIGKILL"
        for fault in FAULTS:
            for part in _parts(calls(step), 100):
                yield Job(row, faults, (step, part, fault))
    for part in _parts(range(sizes.disks), 50) if can_mount() else ():
        yield Job("disk full to the last byte", full_disks, (part,))
    for part in _parts(range(sizes.mutations), 1000):
        yield Job("random alterations of a bundle that an auditor misses", mutated, (part,))
    for part in _parts(range(sizes.kills), 500):
        yield Job("kill -9 of a writing process", kills, ("kill", part))
    for part in _parts(range(sizes.backups), 100):
        yield Job("restored backups", restored, ("backup", part))
    for part in _parts(range(sizes.races), 500):
        yield Job("races of two nodes for a study's only attempt", spenders, (part,))
    for part in _parts(range(sizes.appends), 1000):
        yield Job("races of two writers for the last entry", appenders, (part,))


def left_out() -> Iterator[str]:
    """Rows that this machine does not allow, and why."""
    if not can_trace():
        yield "every system call fails: strace is missing or may not attach"
    if not can_mount():
        yield "disk full to the last byte: this process may not mount file systems"


def control_jobs(sizes: Sizes) -> Iterator[Job]:
    """What must be seen to fail."""
    numbers = range(sizes.controls)
    yield Job("acknowledges before it is durable", hasty_kills, (numbers,))
    yield Job("looks before its transaction", careless_appenders, (numbers,))


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
