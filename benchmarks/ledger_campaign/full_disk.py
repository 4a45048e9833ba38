"""Fills the disk to the last byte under a writing process, with small file systems in memory."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
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
from privacy.errors import AllianceError, LedgerError

__all__ = ["can_mount", "full_disks"]

SMALLEST: Final = 16 << 10
STEP: Final = 4 << 10
"""Bytes by which disks differ, so that each runs full in another place."""
ROOM: Final = 64 << 20
MOST: Final = 100_000
"""Entries; a disk that holds more is not full."""


def can_mount() -> bool:
    """Whether this process may make file systems."""
    try:
        with TemporaryDirectory(prefix="full-") as folder, _disk(Path(folder), SMALLEST):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def full_disks(trials: Sequence[int]) -> Tally:
    """Each trial is one disk; the writer goes on until it is refused, and once more."""
    tally = Tally()
    for trial in trials:
        work = functools.partial(_fill, SMALLEST + trial * STEP, tally)
        tally.attempt(f"disk {trial}", work)
    return tally


def _fill(size: int, tally: Tally) -> None:
    with TemporaryDirectory(prefix="full-") as folder, _disk(Path(folder), size):
        path = Path(folder) / "log.sqlite"
        process, pipe = child(lambda descriptor: _write(path, descriptor))
        if os.waitpid(process, 0)[1]:
            raise Finding("the writer did not stop as it should")
        sizes = acknowledged(pipe)
        tally.counts["acknowledged"] += len(sizes)
        subprocess.run(
            ["mount", "-o", f"remount,size={ROOM}", folder], check=True, capture_output=True
        )
        left = check(path, max(sizes, default=0))
        with closing(open_store(path)) as store:
            if append(store, 1) != max(left, 1) + 1:
                raise Finding("the log does not go on")


def _write(path: Path, descriptor: int) -> None:
    try:
        store = open_store(path)
    except AllianceError:
        return
    with closing(store):
        try:
            for _ in range(MOST):
                acknowledge(descriptor, append(store, 1))
        except LedgerError:
            try:
                append(store, 1)
            except LedgerError as error:
                if "failed before" in str(error):
                    return
    raise Finding("a log took an entry after a write that failed")


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)
