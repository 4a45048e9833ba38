"""Where a running coordinator stands: a fold over its events, in one file that others may read.

The file is replaced at once and at most a few times a second, so that looking at it costs a round
nothing; it holds neither update values nor personal data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from coordinator.monitor import (
    AttemptFailed,
    Event,
    KeysFailed,
    Listening,
    MemberDeparted,
    MemberFaulted,
    MemberJoined,
    MemberLeft,
    MemberRefused,
    MemberRests,
    RoundClosed,
    StudyFinished,
    StudyOpened,
    StudyPaused,
    StudyStopped,
    StudyWaits,
)
from privacy.documents import StrictModel
from privacy.errors import ConfigurationError

__all__ = ["MemberStatus", "Notice", "Status", "StatusFile", "read_status", "take"]

EVERY_S: Final = 0.25
"""Between two replacements of the file; what ends or begins a study is written at once."""
KEPT_NOTICES: Final = 20
KEPT_SECONDS: Final = 64
"""Rounds that the median is taken over."""
SILENT_S: Final = 60.0
"""A coordinator whose process is gone says so; one that hangs is told by this."""


class MemberStatus(StrictModel):
    """One member as the coordinator sees it."""

    connected: bool = False
    contributions: int = 0
    missed: int = 0
    """Rounds that closed without it."""
    faults: int = 0
    rests: int = 0
    """Times it was left in peace, because it kept missing tasks or reconnecting."""
    rests_until_ms: int = 0
    left: bool = False
    """Whether it left the alliance for good."""


class Notice(StrictModel):
    """Something that an operator should know of."""

    at_ms: int
    sentence: str


class Status(StrictModel):
    """Everything that `alliance-coordinator status` shows."""

    version: Literal[1] = 1
    process: int = 0
    started_ms: int = 0
    at_ms: int = 0
    address: str = ""
    study: str = ""
    terms_hash: str = ""
    state: Literal["waiting", "running", "paused", "stopped", "finished"] = "waiting"
    round: int = 0
    rounds: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    epsilon: float = 0.0
    """epsilon(1) spent so far."""
    epsilon_profile: dict[str, float] = Field(default_factory=dict)
    """Of the whole study, projected."""
    delta: float = 0.0
    round_s: float = 0.0
    """Median of the newest rounds."""
    rounds_per_s: float = 0.0
    """Over the newest rounds, pauses included."""
    members: dict[str, MemberStatus] = Field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


def take(status: Status, event: Event, *, now_ms: int) -> Status:
    """The status after an event."""
    update: dict[str, object] = {"at_ms": now_ms}
    match event:
        case Listening():
            update["address"] = event.address
        case StudyOpened():
            if event.terms_hash != status.terms_hash:  # another one began
                update |= {"round": 0, "attempts": 0, "failed_attempts": 0, "epsilon": 0.0}
            update |= {
                "study": event.study,
                "terms_hash": event.terms_hash,
                "state": "running",
                "rounds": event.rounds,
                "delta": event.delta,
                "epsilon_profile": dict(event.epsilon_profile),
                "members": {name: MemberStatus() for name in event.members} | status.members,
            }
        case MemberJoined():
            here: dict[str, int | bool] = {"connected": True, "left": False}
            update["members"] = _members(status, {event.member: here})
        case MemberLeft():
            update["members"] = _members(status, {event.member: {"connected": False}})
        case MemberDeparted():
            update["members"] = _members(status, {event.member: {"left": True}})
            sentence = f"{event.member} left the alliance"
            update["notices"] = _noticed(status, now_ms, sentence)
        case RoundClosed():
            update |= {
                "round": event.round,
                "attempts": event.attempts_spent,
                "epsilon": event.epsilon,
                "members": _members(
                    status,
                    {name: {"contributions": 1} for name in event.contributors}
                    | {name: {"missed": 1} for name in event.missing},
                ),
            }
        case AttemptFailed():
            update["failed_attempts"] = status.failed_attempts + 1
            update["notices"] = _noticed(status, now_ms, f"round {event.round}: {event.sentence}")
        case MemberFaulted() | MemberRefused():
            update["members"] = _members(status, {event.member: {"faults": 1}})
            sentence = f"{event.member}: {event.sentence}"
            update["notices"] = _noticed(status, now_ms, sentence)
        case MemberRests():
            until_ms = now_ms + round(event.seconds * 1000)
            members = _members(status, {event.member: {"rests": 1}})
            update["members"] = members | {
                event.member: members[event.member].model_copy(update={"rests_until_ms": until_ms})
            }
            sentence = f"{event.member} rests for {event.seconds:.0f} s: {event.sentence}"
            update["notices"] = _noticed(status, now_ms, sentence)
        case KeysFailed():
            update["notices"] = _noticed(status, now_ms, event.sentence)
        case StudyPaused():
            update["state"] = "paused"
        case StudyWaits():
            update["notices"] = _noticed(status, now_ms, f"{event.study}: {event.sentence}")
        case StudyStopped():
            if event.study.partition("@")[0] == status.study:
                update["state"] = "stopped"
            update["notices"] = _noticed(status, now_ms, f"{event.study}: {event.sentence}")
        case StudyFinished():
            update |= {"state": "finished", "attempts": event.attempts_spent}
    return status.model_copy(update=update)


def _members(status: Status, changes: dict[str, dict[str, int | bool]]) -> dict[str, MemberStatus]:
    """Counts go up by what is given; flags become it."""
    members = dict(status.members)
    for name, change in changes.items():
        before = members.get(name, MemberStatus())
        update = {
            key: value if isinstance(value, bool) else getattr(before, key) + value
            for key, value in change.items()
        }
        members[name] = before.model_copy(update=update)
    return members


def _noticed(status: Status, now_ms: int, sentence: str) -> tuple[Notice, ...]:
    return (*status.notices, Notice(at_ms=now_ms, sentence=sentence[:500]))[-KEPT_NOTICES:]


class StatusFile:
    """A sink of events that keeps a status file.

    Args:
        path: of the file.
        now_s: seconds since 1970.
    """

    def __init__(self, path: Path, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now_s = now_s
        self._written_s = 0.0
        self._seconds: list[float] = []
        self._closed_s: list[float] = []
        self._status = Status(process=os.getpid(), started_ms=round(now_s() * 1000))

    def __call__(self, event: Event) -> None:
        """Takes one event, and writes the file where it is time to."""
        now_s = self._now_s()
        self._status = take(self._status, event, now_ms=round(now_s * 1000))
        if isinstance(event, RoundClosed):
            self._seconds = [*self._seconds, event.seconds][-KEPT_SECONDS:]
            self._closed_s = [*self._closed_s, now_s][-KEPT_SECONDS:]
        rare = isinstance(
            event,
            (Listening, MemberDeparted, StudyOpened, StudyPaused, StudyStopped, StudyFinished),
        )
        if rare or now_s - self._written_s >= EVERY_S:
            self._write(now_s)

    def _write(self, now_s: float) -> None:
        self._written_s = now_s
        ordered = sorted(self._seconds)
        span_s = self._closed_s[-1] - self._closed_s[0] if len(self._closed_s) > 1 else 0.0
        status = self._status.model_copy(
            update={
                "round_s": ordered[len(ordered) // 2] if ordered else 0.0,
                "rounds_per_s": (len(self._closed_s) - 1) / span_s if span_s > 0 else 0.0,
            }
        )
        partial = self._path.with_suffix(".partial")
        partial.write_text(status.model_dump_json(), encoding="utf-8")
        partial.replace(self._path)


def read_status(path: Path) -> Status:
    """The status in a file.

    Raises:
        ConfigurationError: if there is none, or it is not one.
    """
    try:
        return Status.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path}: no coordinator has run in this state folder; start one with: "
            "alliance-coordinator run"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: is not a status of this version") from error
