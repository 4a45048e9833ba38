"""Kills a writing process at random moments, and reads what it left."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.ledger_campaign.writer import (
    acknowledge,
    acknowledged,
    append,
    check,
    child,
    open_store,
)
from benchmarks.secagg_campaign.protocol import Finding
from benchmarks.secagg_campaign.tally import Tally

__all__ = ["hasty_kills", "kills"]

SOON_S: Final = 0.02
LATE_S: Final = 0.15
"""Most writers live up to the first, some up to the second, long enough for the write-ahead log to
be moved into the file."""
Writer = Callable[[Path, int, random.Random], None]

SLOWEST_S: Final = 10.0
"""For a restart, after any kill."""

LIVES: Final = 100
"""Writers on one file after each other, from its making on."""


def kills(name: str, trials: Sequence[int]) -> Tally:
    """Each trial is one writer, killed; the next one goes on with the file."""
    return _kills(name, trials, _write)


def hasty_kills(trials: Sequence[int]) -> Tally:
    """The same with a writer that acknowledges before it is durable; a trial that sees it fails."""
    return _kills("hasty", trials, _write_hastily)


def _kills(name: str, trials: Sequence[int], write: Writer) -> Tally:
    tally = Tally()
    with TemporaryDirectory(prefix="kills-") as folder:
        for trial in trials:
            path = Path(folder) / f"{trial // LIVES}.sqlite"
            work = functools.partial(_kill, f"{name} {trial}", path, tally, write)
            tally.attempt(f"kill {trial}", work)
    return tally


def _kill(seed: str, path: Path, tally: Tally, write: Writer) -> None:
    draw = random.Random(seed)
    process, pipe = child(lambda descriptor: write(path, descriptor, draw))
    time.sleep(draw.uniform(0, LATE_S if draw.random() < 0.05 else SOON_S))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    sizes = acknowledged(pipe)
    started = time.perf_counter()
    size = check(path, sizes[-1] if sizes else 0)
    if time.perf_counter() - started > SLOWEST_S:
        raise Finding(f"it took more than {SLOWEST_S} s to open {size} entries again")
    tally.counts["acknowledged"] += len(sizes)
    tally.counts["unacknowledged but there"] += bool(sizes) and size > sizes[-1]
    tally.counts["nothing made yet"] += size == 0


def _write(path: Path, descriptor: int, draw: random.Random) -> None:
    """Appends one entry, or a few, keeps heads, closes and opens again, until it is killed."""
    while True:
        with closing(open_store(path)) as store:
            acknowledge(descriptor, store.size)
            while (choice := draw.random()) > 0.05:
                if choice < 0.1:
                    store.keep_note(store.note())
                else:
                    acknowledge(
                        descriptor, append(store, 1 if choice < 0.8 else draw.randint(2, 9))
                    )


def _write_hastily(path: Path, descriptor: int, draw: random.Random) -> None:
    with closing(open_store(path)) as store:
        while draw.random() >= 0:
            acknowledge(descriptor, store.size + 1)
            append(store, 1)
