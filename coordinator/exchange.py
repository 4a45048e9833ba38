"""One task sent to several members, and what became of it at each. No I/O; times are the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.round import Contribution, Round
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, chunks, fits
from protos.frames import chunk_frame, task_frame
from protos.limits import LIMITS

__all__ = ["Absent", "Answered", "Check", "Exchange", "Outcome", "Outgoing", "Refused"]


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
Check = Callable[[str, wire.Content], None]
"""Takes a member's answer without arrays as it arrives; raises `MemberFault` if it is not good."""


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
    check: Check | None = None
    patience_s: float | None = None
    """How long the others are waited for once enough have answered; None for the deadline."""
    enough_s: float | None = None
    """When enough had answered."""
    first_left_s: dict[str, float] = field(default_factory=dict)
    """When a member's stream first broke while this was open."""
    progress_s: dict[str, float] = field(default_factory=dict)
    """Of cleared uploads: when something last arrived."""
    queued: set[str] = field(default_factory=set)
    """Members whose turn to be sent the task has not come."""
    array_frames: dict[int, list[bytes]] = field(default_factory=dict)
    """Frames of array bytes by identity of the task; members with one task share them."""

    def settle(self, member: str, outcome: Outcome) -> None:
        """Notes how it ended for one member."""
        self.outcomes[member] = outcome
        self.progress_s.pop(member, None)
        self.changed.set()

    def end(self) -> None:
        """Lets go of everything a slow stream might still hold on to."""
        self.over = True
        self.tasks = {}
        self.round = None
        self.array_frames.clear()

    def stalled(self, now_s: float) -> list[str]:
        """Members whose cleared upload stands still."""
        oldest_s = now_s - LIMITS.stall_timeout_s
        return [member for member, last_s in self.progress_s.items() if last_s <= oldest_s]

    def wait_until(self, now_s: float, graces_s: Mapping[str, float]) -> float | None:
        """When to look again; None when nobody is worth waiting for.

        Args:
            now_s: the present.
            graces_s: until when members that are absent or late are waited for; others are
                waited for until the deadline.
        """
        waiting = [member for member in self.tasks if member not in self.outcomes]
        moments = [
            min(self.deadline_s, graces_s.get(member, self.deadline_s)) for member in waiting
        ]
        if not any(moment > now_s for moment in moments):
            return None
        moments += [last_s + LIMITS.stall_timeout_s for last_s in self.progress_s.values()]
        return min((moment for moment in moments if moment > now_s), default=None)

    def is_long(self, member: str) -> bool:
        """Whether the member is sent more than one frame."""
        return not self.over and not fits(self.tasks[member].content, self.tasks[member].buffers)

    def frames(self, member: str, now_s: float) -> Iterator[bytes]:
        """What the member is sent: the task and its array bytes; nothing once it is over."""
        if self.over:
            return
        task = self.tasks[member]
        opening = wire.Task(
            id=self.key.to_wire(),
            deadline_ms=max(1, round((self.deadline_s - now_s) * 1000)),
            content=task.content,
            cleared=self.round is not None and self.round.all_cleared,
        )
        if fits(task.content, task.buffers):
            yield task_frame(opening, task.buffers)
            return
        yield task_frame(opening, [])
        if id(task) not in self.array_frames:
            self.array_frames[id(task)] = [
                chunk_frame(self.key, offset, data) for offset, data in chunks(task.buffers)
            ]
        for frame in self.array_frames[id(task)]:
            if self.over:
                return
            yield frame
