"""One task sent to several members, and what became of it at each. No I/O; times are the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from coordinator.patience import Patience, Uploads, Waiting
from coordinator.round import Contribution, Round
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, chunks, fits
from protos.frames import chunk_frame, task_frame

__all__ = ["Absent", "Answered", "Check", "Exchange", "Outcome", "Outgoing", "Refused"]


AT_ONCE_BYTES: Final = 32 << 20
"""Array bytes that may wait to be sent at once: gRPC copies a frame before it sends it."""


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
    """A member did not answer in time.

    Args:
        late: whether it was given its time; else others decided that the task is over.
    """

    late: bool = True


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
    patience: Patience = field(default_factory=Patience)
    late: Collection[str] = frozenset()
    """Members that missed this phase the last time."""
    waiting: Waiting = field(init=False)
    uploads: Uploads = field(init=False)
    queued: set[str] = field(default_factory=set)
    """Members whose turn to be sent the task has not come."""
    array_frames: dict[int, list[bytes]] = field(default_factory=dict)
    """Frames of array bytes by identity of the task; members with one task share them."""

    def __post_init__(self) -> None:
        self.waiting = Waiting(
            self.tasks, self.patience, opened_s=self.opened_s, deadline_s=self.deadline_s,
            late=self.late,
        )  # fmt: skip
        places = 1.0 if self.round is None else self.round.places / len(self.round.cohort)
        self.uploads = Uploads((self.deadline_s - self.opened_s) * min(1.0, places))

    @property
    def crowded(self) -> bool:
        """Whether members wait to be cleared."""
        return self.round is not None and self.round.crowded

    def settle(self, member: str, outcome: Outcome) -> None:
        """Notes how it ended for one member."""
        self.outcomes[member] = outcome
        self.waiting.settle(member, answered=isinstance(outcome, Answered))
        self.uploads.end(member)
        self.changed.set()

    def end(self) -> None:
        """Lets go of everything a slow stream might still hold on to."""
        self.over = True
        self.tasks = {}
        self.round = None
        self.array_frames.clear()

    def wait_until(self, now_s: float) -> float | None:
        """When to look again; None when nobody is worth waiting for."""
        moment = self.waiting.until(now_s, self.queued)
        if moment is None:
            return None
        overdue_s = self.uploads.until(now_s, crowded=self.crowded)
        return moment if overdue_s is None else min(moment, overdue_s)

    def missed(self, now_s: float) -> set[str]:
        """Members that did not answer though they had their time, and their turn."""
        waits = self.round.is_waiting if self.round is not None else lambda _: False
        return {name for name in self.waiting.missed(now_s, self.queued) if not waits(name)}

    def is_long(self, member: str) -> bool:
        """Whether the member is sent more than one frame, or all together are sent a great deal."""
        if self.over:
            return False
        task = self.tasks[member]
        everybody_bytes = len(self.tasks) * sum(map(len, task.buffers))
        return everybody_bytes > AT_ONCE_BYTES or not fits(task.content, task.buffers)

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
