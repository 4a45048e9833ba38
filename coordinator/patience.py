"""How long one phase waits for whom: state machines without I/O; times are the loop's, in seconds.

Rules, numbered as in the code. None of them looks at what an answer says, so who is in a round
depends on clocks and on the deadlines of the terms alone:
 (1) nobody is waited for past the deadline;
 (2) once enough have answered, the others have the grace, or as long again as those took if that is
     more; one that missed this phase the last time has a quarter of it, so that it can catch up;
 (3) a member whose stream is gone is waited for from when it first broke, and not at all if it
     missed this phase the last time;
 (4) where fewer are of no use, the phase is over when too few are left to be waited for;
 (5) an upload that stands still gives up its place;
 (6) so do, when others wait and no place came free for a fair share of the time, those that have
     held theirs for as long: else two members that drip would keep all others from sending.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from protos.limits import LIMITS

__all__ = ["Patience", "Uploads", "Waiting"]

LATE_PART: Final = 4
"""What part of the grace a member has that was late before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the members of one phase are waited for.

    Args:
        least: answers that are enough.
        grace_s: for the others once enough have answered; None if nobody is hurried.
        reconnect_s: for a member whose stream is gone.
        needed: whether fewer than ``least`` answers are of no use.
    """

    least: int = 0
    grace_s: float | None = None
    reconnect_s: float = 1.0
    needed: bool = False


class Waiting:
    """Who is still waited for in one phase.

    Args:
        members: who was asked.
        patience: how long.
        opened_s: when the phase began.
        deadline_s: when it ends at the latest.
        late: members that missed this phase the last time they were asked.
    """

    def __init__(
        self,
        members: Iterable[str],
        patience: Patience,
        *,
        opened_s: float,
        deadline_s: float,
        late: Collection[str] = frozenset(),
    ) -> None:
        self._silent = set(members)
        self._patience = patience
        self._opened_s = opened_s
        self._deadline_s = deadline_s
        self._late = late
        self._answered = 0
        self._enough_s: float | None = None
        self._first_left_s: dict[str, float] = {}
        self._gone: set[str] = set()
        self._odd = set(late) & self._silent
        """Members that are not waited for as all others are; a cohort may have a thousand."""

    def leave(self, member: str, now_s: float) -> None:
        """A member's stream broke, or is not there when the phase begins."""
        if member in self._silent:
            self._gone.add(member)
            self._odd.add(member)
            self._first_left_s.setdefault(member, now_s)

    def join(self, member: str) -> None:
        """A member's stream is up again."""
        self._gone.discard(member)

    def settle(self, member: str, *, answered: bool) -> None:
        """A member answered, or it is known that it will not."""
        if member in self._silent:
            self._silent.discard(member)
            self._odd.discard(member)
            self._answered += answered

    def until(self, now_s: float, held: Collection[str] = ()) -> float | None:
        """When to look again; None when the phase is over.

        Args:
            now_s: the present.
            held: members whose turn to be sent the task has not come; they are not late.
        """
        least = self._patience.least
        if self._enough_s is None and self._answered >= least:
            self._enough_s = now_s
        limits_s = [self._limit_s(member, held=member in held) for member in self._odd]
        moments = [limit_s for limit_s in limits_s if limit_s > now_s]
        waited_for = len(moments)
        if self._common_limit_s() > now_s and len(self._silent) > len(self._odd):
            moments.append(self._common_limit_s())
            waited_for += len(self._silent) - len(self._odd)
        if self._patience.needed and self._answered + waited_for < least:  # (4)
            return None
        return min(moments, default=None)

    def missed(self, now_s: float, held: Collection[str] = ()) -> set[str]:
        """Members that had all the time they are given and did not answer."""
        return {
            member
            for member in self._silent
            if member not in held and self._limit_s(member, held=False) <= now_s
        }

    def _common_limit_s(self, part: int = 1) -> float:
        """Until when those are waited for who are there and were not late."""
        if self._enough_s is None or self._patience.grace_s is None:  # (1)
            return self._deadline_s
        grace_s = max(self._patience.grace_s, self._enough_s - self._opened_s)  # (2)
        return min(self._deadline_s, self._enough_s + grace_s / part)

    def _limit_s(self, member: str, *, held: bool) -> float:
        """Until when one member is waited for."""
        late = member in self._late and not held
        limit_s = self._common_limit_s(LATE_PART if late else 1)
        if late and self._enough_s is not None and self._patience.grace_s is None:
            limit_s = min(limit_s, self._opened_s + self._patience.reconnect_s)
        if member in self._gone:  # (3)
            left_s = self._first_left_s[member] + self._patience.reconnect_s
            limit_s = self._opened_s if late else min(limit_s, left_s)
        return limit_s


@dataclass(slots=True, eq=False)
class Uploads:
    """Uploads that were cleared and are on their way.

    Args:
        share_s: a place's fair share of the time: the deadline's, times places, by members.
    """

    share_s: float
    _moved_s: dict[str, float] = field(default_factory=dict)
    """When something of an upload last arrived."""
    _handed_s: float = 0.0
    """When a place was last handed on."""

    def begin(self, member: str, now_s: float) -> None:
        """A member may send."""
        self._moved_s[member] = self._handed_s = now_s

    def move(self, member: str, now_s: float) -> None:
        """Bytes of a member arrived."""
        self._moved_s[member] = now_s

    def end(self, member: str) -> None:
        """A member has sent everything, or will not."""
        self._moved_s.pop(member, None)

    def overdue(self, now_s: float, *, crowded: bool) -> list[str]:
        """Members that lose their places.

        Args:
            now_s: the present.
            crowded: whether others wait for a place.
        """
        if crowded and self._handed_s + self.share_s <= now_s:  # (6)
            return list(self._moved_s)
        oldest_s = now_s - LIMITS.stall_timeout_s
        return [member for member, at_s in self._moved_s.items() if at_s <= oldest_s]  # (5)

    def until(self, now_s: float, *, crowded: bool) -> float | None:
        """When the next of them may be overdue; None if none can be."""
        moments = [at_s + LIMITS.stall_timeout_s for at_s in self._moved_s.values()]
        if crowded and self._moved_s:
            moments.append(self._handed_s + self.share_s)
        return min((moment for moment in moments if moment > now_s), default=None)
