"""One task sent to several members, and what became of it at each. No I/O; times are the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.round import Contribution, Round
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, chunks

__all__ = ["Absent", "Answered", "Exchange", "Outcome", "Outgoing", "Refused"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A task for one member: content and the array bytes that follow it."""

    content: wire.Content
    buffers: list[bytes]


@dataclass(frozen=True, slots=True)
class Answered:
    """A member's answer; of a contribution its receipt only."""

    content: wire.Content | Contribution


@dataclass(frozen=True, slots=True)
class Refused:
    """A member declined, or what it sent was not accepted."""

    code: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A member did not answer in time."""


Outcome = Answered | Refused | Absent


@dataclass(slots=True, eq=False)
class Exchange:
    """One task that is open, for all members it went to."""

    key: TaskKey
    tasks: Mapping[str, Outgoing]
    round: Round | None
    opened_s: float
    deadline_s: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    array_frames: dict[int, list[wire.CoordinatorFrame]] = field(default_factory=dict)
    """Frames of array bytes by identity of the task; members with one task share them."""

    def settle(self, member: str, outcome: Outcome) -> None:
        """Notes how it ended for one member."""
        self.outcomes[member] = outcome
        self.changed.set()

    def wait_until(self, now_s: float, graces_s: Mapping[str, float]) -> float | None:
        """When to look again; None when nobody is worth waiting for.

        Args:
            now_s: the present.
            graces_s: until when members that are absent or late are waited for; others are
                waited for until the deadline.
        """
        moments = (
            min(self.deadline_s, graces_s.get(member, self.deadline_s))
            for member in self.tasks
            if member not in self.outcomes
        )
        return min((moment for moment in moments if moment > now_s), default=None)

    def frames(self, member: str, now_s: float) -> Iterator[wire.CoordinatorFrame]:
        """What the member is sent: the task and its array bytes; nothing once it is over."""
        if self.over:
            return
        task = self.tasks[member]
        deadline_ms = max(1, round((self.deadline_s - now_s) * 1000))
        yield wire.CoordinatorFrame(
            task=wire.Task(id=self.key.to_wire(), deadline_ms=deadline_ms, content=task.content)
        )
        if id(task) not in self.array_frames:
            self.array_frames[id(task)] = [
                _chunk_frame(self.key, offset, data) for offset, data in chunks(task.buffers)
            ]
        yield from self.array_frames[id(task)]


def _chunk_frame(key: TaskKey, offset: int, data: bytes) -> wire.CoordinatorFrame:
    """A chunk in its frame, built in place: a message given as an argument would be copied."""
    frame = wire.CoordinatorFrame()
    frame.chunk.id.CopyFrom(key.to_wire())
    frame.chunk.offset = offset
    frame.chunk.data = data
    return frame
