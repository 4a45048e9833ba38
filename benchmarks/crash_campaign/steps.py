"""Where a process is: a file of one byte per step, mapped into it and read after its death.

Run as a program, it is a coordinator or a node whose steps are noted: the shipped command, with a
few functions wrapped. A node's wrapper also notes, before the link gets it, what is about to leave.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["BETWEEN", "COORDINATOR_STEPS", "MEMBER_STEPS", "STEPS", "Left", "Steps", "read_left"]

AHEAD: Final = ("advertise", "share", "deliver", "reserve", "witness", "grant")
ROUND: Final = ("contribute", "confirm", "unmask")
COORDINATOR_STEPS: Final = (
    "starting", "propose", *AHEAD, *ROUND, "release", "failure", "keep state", "publication",
    "publish",
)  # fmt: skip
MEMBER_STEPS: Final = ("starting", "propose", *AHEAD, *ROUND, "record", "publish")
STEPS: Final = tuple(dict.fromkeys(COORDINATOR_STEPS + MEMBER_STEPS))
BETWEEN: Final = "between steps"

MAP: Final = "ALLIANCE_CRASH_STEPS"
LEFT: Final = "ALLIANCE_CRASH_LEFT"


@dataclass(frozen=True, slots=True)
class Left:
    """A contribution that was handed to the link: from then on a byte of it may have left."""

    round: int
    attempt: int
    sha256: str


def read_left(path: Path) -> tuple[Left, ...]:
    """What a node noted, over all its processes; a line that a kill cut off had not left."""
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return tuple(Left(**json.loads(line)) for line in lines)


class Steps:
    """The steps that one process is in.

    Args:
        path: of the file, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(len(STEPS)))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), len(STEPS))

    def begin(self) -> None:
        """Another process starts."""
        self._bytes[:] = bytes(len(STEPS))
        self.enter("starting")

    def enter(self, step: str) -> None:
        """The process begins a step."""
        self._bytes[STEPS.index(step)] = 1

    def leave(self, step: str) -> None:
        """The process ended a step."""
        self._bytes[STEPS.index(step)] = 0

    def is_in(self, step: str) -> bool:
        """Whether it is in a step."""
        return self._bytes[STEPS.index(step)] == 1

    @property
    def inside(self) -> tuple[str, ...]:
        """The steps it is in, or was when it was killed."""
        found = tuple(step for step in STEPS if self.is_in(step))
        return found or (BETWEEN,)

    @contextmanager
    def step(self, step: str) -> Iterator[None]:
        """For as long as a block runs."""
        self.enter(step)
        try:
            yield
        finally:
            self.leave(step)

    def wrap(self, owner: Any, name: str, step: str) -> None:
        """Notes a step for as long as a function of ``owner`` runs."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self.step(step):
                return inner(*arguments, **named)

        setattr(owner, name, wrapped)


def watch_coordinator(steps: Steps) -> None:
    """Has a coordinator of this process note its steps."""
    from coordinator import app
    from coordinator.evidence import Evidence
    from coordinator.resumption import Resumption
    from coordinator.service import ExchangeService

    exchange: Callable[..., Awaitable[Any]] = ExchangeService.exchange
    start_server: Callable[..., Awaitable[Any]] = getattr(app, "start_server")  # noqa: B009

    async def watched_exchange(self: Any, key: Any, *arguments: Any, **named: Any) -> Any:
        with steps.step(key.phase):
            return await exchange(self, key, *arguments, **named)

    async def watched_start(*arguments: Any) -> Any:
        server = await start_server(*arguments)
        steps.leave("starting")
        return server

    setattr(ExchangeService, "exchange", watched_exchange)  # noqa: B010
    setattr(app, "start_server", watched_start)  # noqa: B010
    steps.wrap(Evidence, "released", "release")
    steps.wrap(Evidence, "failed", "failure")
    steps.wrap(Evidence, "published", "publication")
    steps.wrap(Resumption, "_keep", "keep state")


def watch_member(steps: Steps, left: Path) -> None:
    """Has a node of this process note its steps, and what it is about to send."""
    from client_sdk import app
    from client_sdk.session import Session
    from client_sdk.sqlite_journal import SqliteJournal

    answerer = app.answerer
    run: Callable[..., Awaitable[None]] = Session.run
    notes = os.open(left, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def watched_answerer(*arguments: Any) -> Any:
        answer = answerer(*arguments)

        def watched(key: Any, task: Any, arrays: Any) -> Any:
            with steps.step(key.phase):
                answered = answer(key, task, arrays)
                if key.phase == "contribute" and answered.refusal is None:
                    digest = hashlib.sha256(b"".join(answered.buffers)).hexdigest()
                    note = {"round": key.round, "attempt": key.attempt, "sha256": digest}
                    os.write(notes, json.dumps(note).encode() + b"\n")
                return answered

        return watched

    async def watched_run(self: Any) -> None:
        steps.leave("starting")
        await run(self)

    setattr(app, "answerer", watched_answerer)  # noqa: B010
    setattr(Session, "run", watched_run)  # noqa: B010
    steps.wrap(SqliteJournal, "use", "record")


def run_coordinator() -> None:
    """The shipped command `alliance-coordinator`, watched."""
    watch_coordinator(Steps(Path(os.environ[MAP])))
    from coordinator.cli import main

    main()


def run_node() -> None:
    """The shipped command `alliance-node`, watched."""
    watch_member(Steps(Path(os.environ[MAP])), Path(os.environ[LEFT]))
    from client_sdk.cli import main

    main()
