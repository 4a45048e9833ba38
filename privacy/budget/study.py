"""What a member has spent on one study: attempts reserved, never given back (rule R3).

Pure: the caller keeps the record durable before a byte leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from privacy.errors import BudgetRefusal

__all__ = ["StudySpend"]


@dataclass(frozen=True, slots=True)
class StudySpend:
    """Attempts of one study at one member. A change is a new record.

    Guarantees:
        Numbers are reserved without gap and never more of them than ``attempts``, for which the
        projection was approved. A number is used at most once and a (round, attempt) at most once,
        both in increasing order. A reservation counts as spent at the nominal noise, whether or not
        anything was released.

    Args:
        rounds: of the terms.
        attempts: all that the terms allow.
        reserved: the last number that is spent; they count from 1.
        used: the last number that a contribution used, or that can never be used.
        contributions: how many were made.
        last_round: of the newest contribution; 0 before the first.
        last_attempt: of the newest contribution; 0 before the first.
        finished: whether the study is over here.
    """

    rounds: int
    attempts: int
    reserved: int = 0
    used: int = 0
    contributions: int = 0
    last_round: int = 0
    last_attempt: int = 0
    finished: bool = False

    @property
    def unreserved(self) -> int:
        """Attempts still earmarked."""
        return 0 if self.finished else self.attempts - self.reserved

    def reserve(self, first: int, count: int) -> StudySpend:
        """The record after ``count`` more reservations from ``first``.

        Raises:
            BudgetRefusal: if they leave a gap, repeat one, or go beyond the terms.
        """
        self.expect_open()
        if count < 1 or first != self.reserved + 1:
            raise BudgetRefusal(
                f"attempts {first} to {first + count - 1}: number {self.reserved + 1} is the next"
            )
        if count > self.attempts - self.reserved:
            raise BudgetRefusal(
                f"all {self.attempts} attempts of the terms are spent; propose a new study"
            )
        return replace(self, reserved=self.reserved + count)

    def use(self, *, round_number: int, attempt: int, number: int) -> StudySpend:
        """The record after a contribution under a reserved number.

        Raises:
            BudgetRefusal: as `expect_later`, or if the number is not reserved or not unused.
        """
        self.expect_later(round_number=round_number, attempt=attempt)
        if not self.used < number <= self.reserved:
            raise BudgetRefusal(
                f"round {round_number} attempt {attempt}: number {number} is not reserved or was "
                f"used; {self.used + 1} to {self.reserved} are there"
            )
        return replace(
            self,
            used=number,
            contributions=self.contributions + 1,
            last_round=round_number,
            last_attempt=attempt,
        )

    def expect_later(self, *, round_number: int, attempt: int) -> None:
        """Checks that an attempt is one of the terms' and later than all before it.

        Raises:
            BudgetRefusal: if it is not, or the study is over.
        """
        self.expect_open()
        where = f"round {round_number} attempt {attempt}"
        if not 1 <= round_number <= self.rounds or attempt < 1:
            raise BudgetRefusal(f"{where}: the terms have rounds 1 to {self.rounds}")
        if (round_number, attempt) <= (self.last_round, self.last_attempt):
            raise BudgetRefusal(
                f"{where}: was reserved before and its contribution is gone; open a new attempt"
            )

    def renewed(self) -> StudySpend:
        """The record in a new period: what was reserved in the old one is never used in this."""
        return replace(self, used=self.reserved)

    def finish(self) -> StudySpend:
        """The record of a study that is over."""
        self.expect_open()
        return replace(self, finished=True)

    def expect_open(self) -> None:
        """Checks that the study is not over.

        Raises:
            BudgetRefusal: if it is.
        """
        if self.finished:
            raise BudgetRefusal("the study is over at this member; propose a new one")
