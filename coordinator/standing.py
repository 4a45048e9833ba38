"""Which members are asked: who misbehaves, keeps silent or flaps rests, longer each time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MISSES", "STRIKES", "WINDOW", "Rest", "Standing"]

STRIKES: Final = 3
"""Refusals, faults or silences in a row after which a member rests."""
WINDOW: Final = 16
MISSES: Final = 5
"""As many of the last `WINDOW` tasks, though not in a row, and a member rests as well: one that
stalls every second round would else cost every second round its grace, for ever."""
FIRST_REST_S: Final = 10.0
LONGEST_REST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Rest:
    """A member is not asked for a while, and why; the reason is what everybody saw."""

    member: str
    seconds: float
    sentence: str


@dataclass(slots=True)
class _Record:
    """What is remembered of one member."""

    in_a_row: int = 0
    newest: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Whether it did its part in the tasks since its last rest."""
    rests: int = 0
    until_s: float = 0.0
    gone: bool = False
    """It was struck for being away."""


class Standing:
    """Counts what members did wrong; safe to use from several threads.

    A member recovers by itself: it is asked again after its rest, and once it did its part `WINDOW`
    times in a row, half of what made its rests long is forgotten.

    Args:
        now_s: a clock that never goes back.
        tell: is told of each rest that begins.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        tell: Callable[[Rest], None] = lambda _: None,
    ) -> None:
        self._now_s = now_s
        self._tell = tell
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        self._left_out: set[str] = set()

    def strike(self, member: str) -> None:
        """Notes a refusal, a fault or a silence; too many begin a rest."""
        with self._lock:
            record = self._record(member)
            record.in_a_row += 1
            record.newest.append(False)
            rest = self._rest(member, record)
        if rest is not None:
            self._tell(rest)

    def silent(self, member: str, *, connected: bool) -> None:
        """Notes that a member did not answer; one that is gone is struck once, until it is back."""
        with self._lock:
            record = self._record(member)
            known = not connected and record.gone
            record.gone |= not connected
        if not known:
            self.strike(member)

    def good(self, member: str) -> None:
        """Notes that a member did its part."""
        with self._lock:
            record = self._record(member)
            record.in_a_row, record.gone = 0, False
            record.newest.append(True)
            if record.rests and len(record.newest) == WINDOW and all(record.newest):
                record.rests //= 2
                record.newest.clear()

    def leave_out(self, member: str) -> None:
        """Never asks a member again: it was found cheating."""
        with self._lock:
            self._left_out.add(member)

    def may(self, member: str) -> bool:
        """Whether a member is asked now."""
        with self._lock:
            rests = self._record(member).until_s > self._now_s()
            return member not in self._left_out and not rests

    def askable(
        self, members: Collection[str], *, present: Collection[str], least: int
    ) -> set[str]:
        """Those of ``members`` that are asked now.

        Members that rest are asked all the same where without them too few are there: a rest is to
        spare the others time, and must not cost them the study.

        Args:
            members: who may be asked at all.
            present: whose stream is up.
            least: as many as a release needs.
        """
        may = {name for name in members if self.may(name)}
        if len(may.intersection(present)) >= least:
            return may
        return {name for name in members if not self.cheated(name)}

    def cheated(self, member: str) -> bool:
        """Whether a member was found cheating."""
        with self._lock:
            return member in self._left_out

    def _record(self, member: str) -> _Record:
        return self._records.setdefault(member, _Record())

    def _rest(self, member: str, record: _Record) -> Rest | None:
        """Begins a rest, if it is time for one."""
        misses = record.newest.count(False)
        if record.in_a_row >= STRIKES:
            sentence = f"missed {record.in_a_row} tasks in a row"
        elif misses >= MISSES:
            sentence = f"missed {misses} of its last {len(record.newest)} tasks"
        else:
            return None
        rest_s = min(FIRST_REST_S * 2**record.rests, LONGEST_REST_S)
        record.rests += 1
        record.in_a_row = 0
        record.newest.clear()
        record.until_s = self._now_s() + rest_s
        return Rest(member, rest_s, sentence)
