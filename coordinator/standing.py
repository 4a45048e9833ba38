"""Which members are asked: who misbehaves or keeps silent rests, longer each time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

__all__ = ["STRIKES", "Standing"]

STRIKES: Final = 3
"""Refusals, faults or silences in a row after which a member rests."""
FIRST_REST_S: Final = 30.0
LONGEST_REST_S: Final = 3600.0


class Standing:
    """Counts what members did wrong; safe to use from several threads.

    Args:
        now_s: a clock that never goes back.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._strikes: Counter[str] = Counter()
        self._rests: Counter[str] = Counter()
        self._until_s: dict[str, float] = {}
        self._left_out: set[str] = set()
        self._gone: set[str] = set()
        """Members that were struck for being away."""

    def strike(self, member: str) -> None:
        """Notes a refusal, a fault or a silence; the third in a row begins a rest."""
        with self._lock:
            self._strikes[member] += 1
            if self._strikes[member] >= STRIKES:
                rest_s = min(FIRST_REST_S * 2 ** self._rests[member], LONGEST_REST_S)
                self._rests[member] += 1
                self._strikes[member] = 0
                self._until_s[member] = self._now_s() + rest_s

    def silent(self, member: str, *, connected: bool) -> None:
        """Notes that a member did not answer; one that is gone is struck once, until it is back."""
        with self._lock:
            known = not connected and member in self._gone
            if not connected:
                self._gone.add(member)
        if not known:
            self.strike(member)

    def good(self, member: str) -> None:
        """Notes that a member did its part."""
        with self._lock:
            self._strikes[member] = 0
            self._gone.discard(member)

    def leave_out(self, member: str) -> None:
        """Never asks a member again: it was found cheating."""
        with self._lock:
            self._left_out.add(member)

    def may(self, member: str) -> bool:
        """Whether a member is asked now."""
        with self._lock:
            rests = self._until_s.get(member, 0.0) > self._now_s()
            return member not in self._left_out and not rests

    def cheated(self, member: str) -> bool:
        """Whether a member was found cheating."""
        with self._lock:
            return member in self._left_out
