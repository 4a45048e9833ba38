"""What happens in a study, as events; never update values or personal data."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

__all__ = [
    "AttemptFailed",
    "Event",
    "JsonLines",
    "KeysFailed",
    "Listening",
    "MemberFaulted",
    "MemberJoined",
    "MemberLeft",
    "MemberRefused",
    "Monitor",
    "RoundClosed",
    "Sink",
    "StudyFinished",
    "StudyOpened",
    "StudyPaused",
]


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """The port is open; members may connect."""

    address: str


@dataclass(frozen=True, slots=True)
class StudyOpened:
    """Members signed up; what the whole study may cost, projected before the first round."""

    study: str
    terms_hash: str
    members: tuple[str, ...]
    rounds: int
    delta: float
    epsilon_profile: Mapping[str, float]
    epsilon_local: float
    epsilon_local_profile: Mapping[str, float]
    transport: str


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A member's stream is up."""

    member: str
    address: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member's stream ended."""

    member: str


@dataclass(frozen=True, slots=True)
class MemberRefused:
    """A member declined, in its own words (which depend on public inputs only)."""

    member: str
    task: str
    sentence: str


@dataclass(frozen=True, slots=True)
class MemberFaulted:
    """A member broke the protocol and what it sent was not used."""

    member: str
    sentence: str


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A sum was released."""

    round: int
    attempt: int
    contributors: tuple[str, ...]
    missing: tuple[str, ...]
    seconds: float
    attempts_spent: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """Too few contributions: nothing was released, the attempt is spent all the same."""

    round: int
    attempt: int
    sentence: str


@dataclass(frozen=True, slots=True)
class KeysFailed:
    """Too few members took part in an exchange of keys; nothing was spent, there is another."""

    sentence: str


@dataclass(frozen=True, slots=True)
class StudyPaused:
    """The coordinator was asked to end; started again, it goes on with the next round."""

    study: str
    round: int
    attempts_spent: int


@dataclass(frozen=True, slots=True)
class StudyFinished:
    """The model is published."""

    study: str
    rounds: int
    attempts_spent: int
    seconds: float
    model: str


Event = (
    Listening
    | StudyOpened
    | MemberJoined
    | MemberLeft
    | MemberRefused
    | MemberFaulted
    | RoundClosed
    | AttemptFailed
    | KeysFailed
    | StudyPaused
    | StudyFinished
)
Sink = Callable[[Event], None]


class Monitor:
    """Hands every event to its sinks, in order, from whichever thread it came."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Tells all sinks."""
        with self._lock:
            for sink in self._sinks:
                try:
                    sink(event)
                except Exception:  # a full disk or a closed pipe must not end a round
                    _LOG.exception("an event could not be written")


class JsonLines:
    """Writes events to a text stream, one JSON object a line, ``event`` naming the kind."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Writes one event and flushes."""
        document: dict[str, Any] = {"event": type(event).__name__, **dataclasses.asdict(event)}
        self._stream.write(json.dumps(document, ensure_ascii=True) + "\n")
        self._stream.flush()
