"""Counts trials and failures, in one process or over all cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from benchmarks.secagg_campaign.protocol import Finding
from privacy.errors import AllianceError

__all__ = ["Job", "Tally", "gather"]

PROGRESS_S = 30.0
"""A line of progress at most this often."""
KEPT = 5
"""Descriptions of failures kept per row."""


@dataclass(slots=True)
class Tally:
    """What came of many trials.

    Args:
        trials: how many.
        failures: of them.
        reasons: the first few failures, in words.
        counts: what else is worth counting, by name.
    """

    trials: int = 0
    failures: int = 0
    reasons: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def attempt(self, what: str, trial: Callable[[], Any], *, weight: int = 1) -> Any:
        """Runs one trial; a finding or an error nobody named is a failure.

        Args:
            what: names the trial in a failure's description.
            trial: raises `Finding` if it saw what must not happen.
            weight: how many trials it stands for.
        """
        self.trials += weight
        try:
            return trial()
        except (Finding, AllianceError, ValueError, TypeError, LookupError, OverflowError) as error:
            self.fail(f"{what}: {type(error).__name__}: {error}", weight=weight)
            return None

    def fail(self, reason: str, *, weight: int = 1) -> None:
        """Notes a failure."""
        self.failures += weight
        if len(self.reasons) < KEPT:
            self.reasons.append(reason)

    def add(self, other: Tally) -> None:
        """Takes another tally in."""
        self.trials += other.trials
        self.failures += other.failures
        self.reasons = [*self.reasons, *other.reasons][:KEPT]
        self.counts += other.counts


@dataclass(frozen=True, slots=True)
class Job:
    """A part of one row's trials, for one process."""

    row: str
    work: Callable[..., Tally]
    arguments: tuple[Any, ...]


def gather(jobs: Iterable[Job], *, processes: int | None = None) -> dict[str, Tally]:
    """Runs jobs over all cores; by row what came of them.

    Args:
        jobs: in the order in which they start.
        processes: how many; as many as there are cores if None, none of its own if 0.
    """
    tallies: dict[str, Tally] = {}
    todo = list(jobs)
    for job in todo:
        tallies.setdefault(job.row, Tally())
    if processes == 0:
        for job in todo:
            tallies[job.row].add(job.work(*job.arguments))
        return tallies
    started = shown = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=context) as pool:
        running = {pool.submit(job.work, *job.arguments): job for job in todo}
        for done, future in enumerate(as_completed(running), start=1):
            tallies[running[future].row].add(future.result())
            now = time.perf_counter()
            if now - shown > PROGRESS_S:
                shown = now
                failures = sum(tally.failures for tally in tallies.values())
                print(
                    f"  {done} of {len(todo)} parts, {failures} failures, {now - started:.0f} s",
                    flush=True,
                )
    return tallies
