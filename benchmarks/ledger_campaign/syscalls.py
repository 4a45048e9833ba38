"""Lets every system call of an append fail once, with strace, and reads what is left.

The writer is attached to just before the append, so that the calls are counted from there. After
a fault it tries another append, as a careless caller would.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
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
from privacy.errors import AllianceError

__all__ = ["BEFORE", "FAULTS", "STEPS", "Call", "calls", "can_trace", "faults", "traced"]

FAULTS: Final = ("error=EIO", "error=ENOSPC", "signal=SIGKILL")
CALL: Final = re.compile(r"^(?:\d+ +)?(\w+)\(")
BEFORE: Final = 3
"""Entries in the log before."""
TRACER: Final = 0x59616D61
"""PR_SET_PTRACER: lets a process that is not our parent attach."""


@dataclass(frozen=True, slots=True)
class Call:
    """The ``count``th call of a name, from 1."""

    name: str
    count: int


def can_trace() -> bool:
    """Whether strace is here and may attach."""
    if shutil.which("strace") is None:
        return False
    try:
        with TemporaryDirectory(prefix="strace-") as folder:
            return bool(_calls("append", Path(folder)))
    except Finding:
        return False


def calls(step: str) -> list[Call]:
    """All system calls of a step, in order."""
    with TemporaryDirectory(prefix="strace-") as folder:
        return _calls(step, Path(folder))


def faults(step: str, chosen: Sequence[Call], fault: str) -> Tally:
    """Each trial is one call that fails or kills.

    Args:
        step: a name in `STEPS`.
        chosen: of `calls`.
        fault: of `FAULTS`.
    """
    tally = Tally()
    for call in chosen:
        with TemporaryDirectory(prefix="strace-") as folder:
            what = f"{step}, {call.name} number {call.count}, {fault}"
            work = functools.partial(_fault, step, call, fault, Path(folder), tally)
            tally.attempt(what, work)
    return tally


def _calls(step: str, folder: Path) -> list[Call]:
    sizes, trace = traced(step, folder, ())
    if not sizes or not trace:
        raise Finding(f"{step} does not work under strace")
    seen: Counter[str] = Counter()
    found = []
    for line in trace:
        if match := CALL.match(line):
            name = match.group(1)
            seen[name] += 1
            found.append(Call(name, seen[name]))
    return [call for call in found if call.name != "exit_group"]


def _fault(step: str, call: Call, fault: str, folder: Path, tally: Tally) -> None:
    injection = ("-e", f"inject={call.name}:{fault}:when={call.count}")
    sizes, trace = traced(step, folder, injection)
    path = folder / "log.sqlite"
    if any("(INJECTED)" in line or "killed by SIGKILL" in line for line in trace):
        tally.counts["struck"] += 1
    size = check(path, max(sizes, default=0))
    with closing(open_store(path)) as store:
        if append(store, 1) != max(size, 1) + 1:
            raise Finding("the log does not go on")
    check(path, max(size, 1) + 1)
    tally.counts["acknowledged in spite of it"] += len(sizes) > 0


def traced(step: str, folder: Path, injection: Sequence[str]) -> tuple[list[int], list[str]]:
    """The sizes that the writer acknowledged, and the trace of it."""
    path, output = folder / "log.sqlite", folder / "trace"
    if step != "make":
        with closing(open_store(path)) as store:
            append(store, BEFORE - 1)
    go, start = os.pipe()
    ready, steady = os.pipe()

    def work(descriptor: int) -> None:
        ctypes.CDLL(None).prctl(TRACER, ctypes.c_ulong(-1), 0, 0, 0)
        STEPS[step](path, descriptor, lambda: (os.write(steady, b"."), os.read(go, 1)))

    process, pipe = child(work)
    os.close(go)
    os.close(steady)
    os.read(ready, 1)
    command = ["strace", "-o", str(output), "-p", str(process), *injection]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = tracer.stderr.readline() if tracer.stderr else ""
    os.write(start, b".")
    os.waitpid(process, 0)
    tracer.communicate()
    os.close(start)
    os.close(ready)
    if "attached" not in said:
        raise Finding(f"strace cannot attach: {said.strip()}")
    return acknowledged(pipe), output.read_text(errors="replace").splitlines()


def _append_twice(path: Path, descriptor: int, wait: Callable[[], object]) -> None:
    with closing(open_store(path)) as store:
        wait()
        _try(lambda: append(store, 1), descriptor)
        _try(lambda: append(store, 1), descriptor)


def _append_after_head(path: Path, descriptor: int, wait: Callable[[], object]) -> None:
    with closing(open_store(path)) as store:

        def keep() -> int:
            store.keep_note(store.note())
            return store.size

        wait()
        _try(keep, descriptor)
        _try(lambda: append(store, 2), descriptor)


def _open_and_append(path: Path, descriptor: int, wait: Callable[[], object]) -> None:
    wait()

    def both() -> int:
        with closing(open_store(path)) as store:
            return append(store, 1)

    _try(both, descriptor)
    _try(both, descriptor)


STEPS: Final = {
    "append": _append_twice,
    "keep a head": _append_after_head,
    "open": _open_and_append,
    "make": _open_and_append,
}
"""What is traced, on a log of a few entries, or on none for ``make``."""


def _try(work: Callable[[], int], descriptor: int) -> None:
    """Acknowledges what worked; errors of ours are what a caller sees."""
    try:
        size = work()
    except AllianceError:
        return
    acknowledge(descriptor, size)
