"""What is kept of a study, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from privacy.terms import Terms

__all__ = ["Answer", "Starts", "Status", "StudyRecord", "Wanted"]


class Wanted(enum.StrEnum):
    """What the operator asks for."""

    PROPOSED = "proposed"
    """Offered to its members, and not run."""
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Answer(enum.StrEnum):
    """What a member said to terms."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    """A person there has yet to decide."""
    REFUSED = "refused"


class Status(enum.StrEnum):
    """Where a study stands at its coordinator."""

    PROPOSED = "proposed"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One study as it was proposed.

    Args:
        version: from 1 for each name; every change of terms is another one.
        sentence: why it stopped, paused or waits, where somebody said.
        wanted_ms: since when it is wanted so.
    """

    terms: Terms
    version: int
    status: Status
    sentence: str
    proposed_ms: int
    wanted: Wanted
    wanted_ms: int

    @property
    def over(self) -> bool:
        """Whether nothing will ever come of it again."""
        return self.status in (Status.FINISHED, Status.STOPPED)

    @property
    def standing(self) -> str:
        """Both in one word: a study that is wanted running and does not run yet is ``waiting``."""
        if self.over or self.status.value == self.wanted.value:
            return self.status.value
        match self.wanted:
            case Wanted.RUNNING:
                return "waiting"
            case Wanted.PAUSED:
                return "pausing" if self.status is Status.RUNNING else "paused"
            case Wanted.STOPPED:
                return "stopping"
        return self.status.value


@dataclass(frozen=True, slots=True)
class Starts:
    """How often a coordinator began to run a study, this time included.

    Args:
        crashes: earlier starts that ended without a word; each may have left an attempt open that
            no log knows of, and it counts as spent.
    """

    number: int
    crashes: int
