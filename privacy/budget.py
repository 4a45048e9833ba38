"""What a member has spent on one study: attempts reserved, never given back (rule R3).

Pure: the caller keeps the record durable before a byte leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from privacy.errors import BudgetRefusal
from privacy.terms import Terms

__all__ = ["StudySpend"]


@dataclass(frozen=True, slots=True)
class StudySpend:
    """Attempts that a member has reserved in one study.

    Guarantees:
        A (round, attempt) is reserved at most once, in increasing order, and never more of them
        than the terms' ``max_attempts``, for which the projection was approved. A reservation
        counts as spent at the nominal noise, whether or not anything was released.

    Args:
        attempts: how many have been reserved.
        last_round: of the newest reservation; 0 before the first.
        last_attempt: of the newest reservation; 0 before the first.
    """

    attempts: int = 0
    last_round: int = 0
    last_attempt: int = 0

    def reserve(self, terms: Terms, *, round_number: int, attempt: int) -> StudySpend:
        """The record after one more reservation.

        Raises:
            BudgetRefusal: if the attempt is over, out of order, or beyond the terms.
        """
        where = f"round {round_number} attempt {attempt}"
        if not 1 <= round_number <= terms.privacy.rounds or attempt < 1:
            raise BudgetRefusal(f"{where}: the terms have rounds 1 to {terms.privacy.rounds}")
        if (round_number, attempt) <= (self.last_round, self.last_attempt):
            raise BudgetRefusal(
                f"{where}: was reserved before and its contribution is gone; open a new attempt"
            )
        if self.attempts >= terms.privacy.max_attempts:
            raise BudgetRefusal(
                f"{where}: all {terms.privacy.max_attempts} attempts of the terms are spent; "
                "propose a new study"
            )
        return StudySpend(self.attempts + 1, round_number, attempt)
