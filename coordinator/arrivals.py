"""How often members connect: one that comes and goes is told when to come back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from coordinator.standing import Rest

__all__ = ["Arrivals"]

JOINS: Final = 10
WINDOW_S: Final = 60.0
"""More than `JOINS` within this, and a member flaps. A node that cannot stay connected tries every
three seconds; one that is restarted by hand, or lost its network a few times, stays below."""
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
CALM_S: Final = 600.0
"""For each of these without flapping the next pause is half as long."""


@dataclass(slots=True)
class _Record:
    joins_s: deque[float] = field(default_factory=lambda: deque(maxlen=JOINS))
    pauses: int = 0
    until_s: float = 0.0


class Arrivals:
    """Counts the streams that members open; each time is given by the caller, in seconds.

    A stream costs a handshake and a look into the registry, and each that breaks in a round costs
    the round the grace: members that flap are kept from taking that from all others.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def join(self, member: str, now_s: float) -> Rest | None:
        """Notes that a member connects; when it begins to flap, how long it is to stay away."""
        record = self._records.setdefault(member, _Record())
        flaps = len(record.joins_s) == JOINS and now_s - record.joins_s[0] < WINDOW_S
        record.joins_s.append(now_s)
        if not flaps:
            return None
        record.pauses = max(0, record.pauses - int((now_s - record.until_s) / CALM_S))
        pause_s = min(FIRST_PAUSE_S * 2**record.pauses, LONGEST_PAUSE_S)
        record.pauses += 1
        record.until_s = now_s + pause_s
        record.joins_s.clear()
        return Rest(member, pause_s, f"connected {JOINS + 1} times within {WINDOW_S:g} s")

    def pause_s(self, member: str, now_s: float) -> float:
        """How long a member is still to stay away; 0 if it may come."""
        record = self._records.get(member)
        return max(0.0, record.until_s - now_s) if record is not None else 0.0
