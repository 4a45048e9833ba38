"""Fuzzes every parser of ours: a million inputs each, none of which may crash or hang.

Run with ``python -m benchmarks.fuzz --json fuzz.json``, at low priority: it takes three hours of
processor time. The choices of a run are fixed by its seed; keys in the valid inputs are fresh, so
what fails is kept as a file. ``ALLIANCE_FUZZ_INPUTS`` and ``ALLIANCE_FUZZ_SECONDS`` (for each
parser) make a smaller run, ``ALLIANCE_FUZZ_ONLY`` one of the parsers in whose names a regular
expression is found; ``ALLIANCE_FUZZ_KEEP`` names a folder for inputs that failed,
``ALLIANCE_FUZZ_SEED`` another seed.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.fuzz.campaign import CAP_BYTES, Outcome
from benchmarks.fuzz.parsers import every_parser, outcome_of
from benchmarks.report import Report, Row, main

FULL: Final = 1_000_000
QUICK: Final = 2_000


def fuzz(report: Report) -> None:
    """A row for each parser."""
    inputs = int(os.environ.get("ALLIANCE_FUZZ_INPUTS", QUICK if report.quick else FULL))
    for outcome in _outcomes(inputs):
        notes = [
            f"{outcome.read} read, {outcome.refused} refused",
            f"slowest {1000 * outcome.slowest_s:.0f} ms",
            f"memory {outcome.growth_bytes / 2**20:.0f} MiB",
            *(f"crash: {what}" for what in sorted(outcome.crashes)),
        ]
        if outcome.growth_bytes > 2 * CAP_BYTES:
            notes.append("more memory than twice the cap")
        report.add(
            Row(
                name=outcome.name,
                unit="failures",
                ours=outcome.failures,
                target=0,
                at="most",
                trials=outcome.inputs,
                failures=outcome.failures,
                note="; ".join(notes),
            )
        )
        _keep(outcome)


def _outcomes(inputs: int) -> Iterator[Outcome]:
    """Every parser, one a processor at a time."""
    seed = os.environ.get("ALLIANCE_FUZZ_SEED", "1")
    most_s = float(os.environ.get("ALLIANCE_FUZZ_SECONDS", "inf"))
    only = re.compile(os.environ.get("ALLIANCE_FUZZ_ONLY", ""))
    places = [place for place, one in enumerate(every_parser()) if only.search(one.name)]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh) as pool:
        arguments = ([value] * len(places) for value in (inputs, seed, most_s))
        yield from pool.map(outcome_of, places, *arguments)


def _keep(outcome: Outcome) -> None:
    folder = os.environ.get("ALLIANCE_FUZZ_KEEP")
    if folder is None or not outcome.failures:
        return
    kept = [*outcome.hangs, *(data for each in outcome.crashes.values() for data in each)]
    for data in [*kept, outcome.slowest]:
        name = f"{outcome.name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main("fuzz", __doc__ or "", fuzz)
