"""Events as lines for an operator's terminal."""

from __future__ import annotations

from typing import TextIO

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
    MemberWaits,
    RoundClosed,
    StudyFinished,
    StudyOpened,
    StudyPaused,
    StudyStopped,
    StudyWaits,
)

__all__ = ["Lines", "line"]


class Lines:
    """Writes one line per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Writes one event and flushes."""
        self._stream.write(line(event) + "\n")
        self._stream.flush()


def line(event: Event) -> str:
    """One event in one line."""
    match event:
        case Listening():
            return f"listening on {event.address}"
        case MemberJoined():
            software = f" with {event.software}" if event.software else ""
            return f"+ {event.member} joined from {event.address}{software}"
        case MemberLeft():
            return f"- {event.member} is gone"
        case MemberDeparted():
            return f"! {event.member} left the alliance; studies go on without it while they can"
        case MemberRefused():
            return f"! {event.member} refused {event.task}: {event.sentence}"
        case MemberWaits():
            return f"? {event.member} has {event.study} before a person: {event.sentence}"
        case MemberRests():
            return f"~ {event.member} rests for {event.seconds:.0f} s: {event.sentence}"
        case MemberFaulted():
            return f"! {event.member} broke the protocol: {event.sentence}"
        case StudyOpened():
            profile, local = (
                ", ".join(f"{m}: {value:.3f}" for m, value in values.items())
                for values in (event.epsilon_profile, event.epsilon_local_profile)
            )
            return (
                f"study {event.study}: {len(event.members)} members, {event.rounds} rounds; "
                f"projected epsilon at delta {event.delta:g}, by how many members know a consumer: "
                f"{profile}; epsilon_local {local}\n{event.transport}"
            )
        case RoundClosed():
            missing = f", without {', '.join(event.missing)}" if event.missing else ""
            return (
                f"round {event.round}: {len(event.contributors)} contributions{missing}, "
                f"{event.seconds * 1000:.1f} ms, epsilon(1) so far {event.epsilon:.3f}"
            )
        case AttemptFailed():
            return f"round {event.round} attempt {event.attempt} failed: {event.sentence}"
        case KeysFailed():
            return f"exchange of keys failed: {event.sentence}"
        case StudyPaused():
            return (
                f"study {event.study} holds after round {event.round} and {event.attempts_spent} "
                f"attempts: {event.sentence}"
            )
        case StudyWaits():
            return f"study {event.study} waits: {event.sentence}"
        case StudyStopped():
            return f"study {event.study} is over: {event.sentence}"
        case StudyFinished():
            return (
                f"study {event.study} finished: {event.rounds} rounds, {event.attempts_spent} "
                f"attempts, {event.seconds:.1f} s; model in {event.model}"
            )
