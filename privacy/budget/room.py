"""What an account says of its limits and studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from privacy.budget.study import StudySpend
from privacy.mechanism import PROFILE_MEMBERS

__all__ = ["MEMBERS", "Room", "StudyAccount", "StudyCost"]

MEMBERS: Final = (1, PROFILE_MEMBERS)
"""Both counts of members that sums are kept for; in a smaller cohort five count as all of it."""


@dataclass(frozen=True, slots=True)
class StudyAccount:
    """One study at this member.

    Args:
        hash: of its terms.
        label: its name and the beginning of the hash.
        spend: attempts reserved and used.
        costs_nano: of one attempt, by order, and for each of ``MEMBERS`` in turn.
        failure_atto: of one attempt.
        profile_micro: epsilon(m) of the whole study by PLD, as its consent records it.
    """

    hash: str
    label: str
    spend: StudySpend
    costs_nano: tuple[int, ...]
    failure_atto: int
    profile_micro: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """One limit and what there is of it, in 1e-9 of Rényi divergence."""

    order_thousandths: int
    members: int
    limit_nano: int
    spent_nano: int
    earmarked_nano: int

    @property
    def left_nano(self) -> int:
        """What a new study may take; below zero after the rule was lowered."""
        return self.limit_nano - self.spent_nano - self.earmarked_nano


@dataclass(frozen=True, slots=True)
class StudyCost:
    """What a study would take if it were approved.

    Args:
        label: of the study.
        attempts: all that its terms allow.
        takes_nano: of all attempts together, in the order of ``rooms``.
        rooms: what there is.
        shortage: in a sentence, what does not fit; empty if everything does.
    """

    label: str
    attempts: int
    takes_nano: tuple[int, ...]
    rooms: tuple[Room, ...]
    shortage: str

    @property
    def fits(self) -> bool:
        """Whether it may be approved."""
        return not self.shortage
