"""Runs one parser over many inputs and says what became of each.

An input may be read or refused by a named error; anything else is a crash. A second of processor
time is a hang. Memory is this process's peak above its state after the first inputs: one input may
take `CAP_BYTES`, and the peak may grow by twice that.
"""

from __future__ import annotations

import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.fuzz.mutations import Form, Mutator
from privacy.errors import AllianceError

__all__ = ["CAP_BYTES", "HANG_S", "Outcome", "Parse", "Parser", "run"]

CAP_BYTES: Final = 16 << 20
HANG_S: Final = 1.0
WARM: Final = 1500
"""Inputs before memory is looked at: caches fill, modules are imported."""
KEPT: Final = 5
"""Inputs kept of each crash."""

Parse = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser.

    Args:
        name: for people.
        covers: functions that it stands for, as ``module:qualified.name``.
        seeds: valid inputs.
        parse: reads one input, or raises one of ``named``.
        form: of the inputs.
        longest: bytes that the parser's caller hands on at most.
        named: errors that it documents, besides `AllianceError`.
        serve: hands ``parse`` to a loop from within something that must be open meanwhile.
    """

    name: str
    covers: tuple[str, ...]
    seeds: tuple[bytes, ...]
    parse: Parse | None = None
    form: Form = "bytes"
    longest: int = 1 << 16
    named: tuple[type[Exception], ...] = ()
    serve: Callable[[Callable[[Parse], None]], None] | None = None


@dataclass(slots=True)
class Outcome:
    """What became of the inputs of one parser.

    Args:
        read: inputs that were accepted.
        refused: inputs that a named error refused.
        crashes: by error and place: how often, and the first inputs.
        hangs: inputs that took more than a second of processor time.
        slowest_s: processor time of the slowest, seconds.
        slowest: that input.
        growth_bytes: the process's peak above its state when warm.
    """

    name: str
    read: int = 0
    refused: int = 0
    crashes: dict[str, list[bytes]] = field(default_factory=dict)
    crashed: int = 0
    hangs: list[bytes] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: bytes = b""
    growth_bytes: int = 0
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.read + self.refused + self.crashed + len(self.hangs)

    @property
    def failures(self) -> int:
        """Crashes, hangs, and one for memory beyond twice the cap."""
        return self.crashed + len(self.hangs) + (self.growth_bytes > 2 * CAP_BYTES)


class _Hang(BaseException):
    """An input took too long."""


def run(parser: Parser, inputs: int, *, seed: str, most_s: float | None = None) -> Outcome:
    """Feeds a parser.

    Args:
        parser: which.
        inputs: how many.
        seed: of all choices, together with the parser's name.
        most_s: ends early after this long; the outcome says how many inputs there were.
    """
    outcome = Outcome(parser.name)
    choices = random.Random(f"{seed}/{parser.name}")
    mutator = Mutator(parser.seeds, parser.form, parser.longest, choices)

    def loop(parse: Parse) -> None:
        begun_s = time.perf_counter()
        idle_bytes = 0
        with _alarm():
            for number in range(inputs):
                if number == min(WARM, inputs // 4):
                    idle_bytes = _forget_peak()
                _feed(parse, parser, mutator.next(large=number > WARM), outcome)
                late = most_s is not None and time.perf_counter() - begun_s > most_s
                if late:
                    break
        outcome.growth_bytes = _memory("VmHWM") - idle_bytes if idle_bytes else 0
        outcome.seconds = time.perf_counter() - begun_s

    if parser.serve is not None:
        parser.serve(loop)
    elif parser.parse is not None:
        loop(parser.parse)
    return outcome


def _feed(parse: Parse, parser: Parser, data: bytes, outcome: Outcome) -> None:
    begun_s = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        parse(data)
        outcome.read += 1
    except _Hang:
        outcome.hangs.append(data)
    except Exception as error:
        if isinstance(error, (AllianceError, *parser.named)):
            outcome.refused += 1
        else:
            _crashed(outcome, error, data)
    took_s = time.process_time() - begun_s
    if took_s > outcome.slowest_s:
        outcome.slowest_s, outcome.slowest = took_s, data


def _crashed(outcome: Outcome, error: Exception, data: bytes) -> None:
    outcome.crashed += 1
    kept = outcome.crashes.setdefault(_place(error), [])
    if len(kept) < KEPT:
        kept.append(data)


def _place(error: Exception) -> str:
    """The error and the last lines of ours that it went through."""
    ours = ("privacy/", "protos/", "coordinator/", "client_sdk/")
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(f"/{part}" in frame.filename for part in ours)
    ]
    return f"{type(error).__name__} at {' > '.join(frames[-3:])}: {str(error)[:120]!r}"


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _forget_peak() -> int:
    """Begins a new peak; the memory in use now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
