"""What happens in a study, as events; never update values or personal data."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from protos.logs import line_of, log

__all__ = [
    "AttemptFailed",
    "Event",
    "JsonLines",
    "KeysFailed",
    "Listening",
    "MemberDeparted",
    "MemberFaulted",
    "MemberJoined",
    "MemberLeft",
    "MemberRefused",
    "MemberRests",
    "MemberWaits",
    "Monitor",
    "RoundClosed",
    "Sink",
    "StudyFinished",
    "StudyOpened",
    "StudyPaused",
    "StudyStopped",
    "StudyWaits",
]


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
    software: str = ""
    """Name and version, as its node says."""


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member's stream ended."""

    member: str


@dataclass(frozen=True, slots=True)
class MemberDeparted:
    """A member left the alliance for good, by its own signed word."""

    member: str


@dataclass(frozen=True, slots=True)
class MemberRefused:
    """A member declined, in its own words (which depend on public inputs only)."""

    member: str
    task: str
    sentence: str


@dataclass(frozen=True, slots=True)
class MemberWaits:
    """A member's rules do not decide on a proposal: a person there will."""

    member: str
    study: str
    sentence: str


@dataclass(frozen=True, slots=True)
class MemberRests:
    """A member keeps missing tasks or reconnecting: it is left in peace, then asked again."""

    member: str
    sentence: str
    seconds: float


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
    """A study holds after a round, until its operator or the coordinator's next start goes on."""

    study: str
    round: int
    attempts_spent: int
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class StudyWaits:
    """A study that is to run cannot yet, and why; it is tried again."""

    study: str
    sentence: str


@dataclass(frozen=True, slots=True)
class StudyStopped:
    """A study is over for good, with no model, and why."""

    study: str
    sentence: str


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
    | MemberDeparted
    | MemberRefused
    | MemberWaits
    | MemberRests
    | MemberFaulted
    | RoundClosed
    | AttemptFailed
    | KeysFailed
    | StudyPaused
    | StudyWaits
    | StudyStopped
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
                except Exception as error:  # a full disk or a closed pipe must not end a round
                    log("EventUnwritten", error=error)


class JsonLines:
    """Writes events to a text stream, one JSON object a line, ``event`` naming the kind."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Writes one event and flushes."""
        fields = dataclasses.asdict(event)
        self._stream.write(line_of(type(event).__name__, fields, at_s=time.time()) + "\n")
        self._stream.flush()
