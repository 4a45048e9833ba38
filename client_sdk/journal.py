"""What a member approved and spends.

Spending takes four steps, each durable before the next: `reserve` (spent from here on), `grant` (a
quorum vouches that this log is the newest), `check` (before data is touched) and `use` (before a
byte leaves). A crash between any two of them leaves an attempt spent and never one unspent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from privacy.errors import PolicyRefusal, RequestRefusal
from privacy.identity import IdentityKey
from privacy.terms import Terms, TermsHash

__all__ = ["Journal", "too_many_studies", "unknown_terms"]


class Journal(Protocol):
    """A member's approved terms and its spend on each."""

    @property
    def ledger_key(self) -> IdentityKey | None:
        """What signs this member's heads; acceptances name it. None without a ledger."""

    def approve(
        self, terms: Terms, *, profile: Mapping[int, float], most_studies: int, signature: bytes
    ) -> None:
        """Keeps terms this member accepts, and earmarks them; again is the same.

        Args:
            terms: within the member's policy.
            profile: epsilon(m) of the whole study, as this member projects it.
            most_studies: as the policy says.
            signature: the member's acceptance (`privacy.acceptance`).

        Raises:
            PolicyRefusal: if ``most_studies`` others were accepted before.
            BudgetRefusal: if the budget over all studies does not cover them.
        """

    def consented(self, terms: Terms) -> bool:
        """Whether this member accepted exactly these terms.

        Raises:
            BudgetRefusal: if it did, and the study is over here.
        """

    def terms(self, terms_hash: TermsHash) -> Terms:
        """Accepted terms.

        Raises:
            RequestRefusal: if this member never accepted them.
        """

    def reserve(self, terms: Terms, *, ahead: int) -> int:
        """Spends attempts until ``ahead`` unused ones are reserved, as far as the terms go.

        Args:
            terms: of the study.
            ahead: how many; 0 reserves nothing, and only marks that this process has the log.

        Returns:
            The size of the log that covers all of them.

        Raises:
            BudgetRefusal: if some are wanted and none is left, or the budget covers no more.
        """

    def grant(self, terms: Terms, *, size: int) -> None:
        """Lets attempts be used that the log's first ``size`` entries reserve.

        Guarantees:
            Callers must have seen that a quorum cosigned a head of that size.

        Raises:
            RequestRefusal: if it covers nothing that this process wrote.
        """

    def check(self, terms: Terms, *, round_number: int, attempt: int) -> None:
        """Checks, before data is touched, that this attempt may be made; writes nothing.

        Raises:
            BudgetRefusal: if it is over, out of order, not reserved or not granted.
        """

    def use(
        self,
        terms: Terms,
        *,
        round_number: int,
        attempt: int,
        key_set: int,
        sha256: str,
        signature: bytes,
    ) -> None:
        """Records a contribution under a reserved attempt; durable before a byte of it leaves.

        Args:
            terms: of the study.
            round_number: that it is for.
            attempt: that it is for.
            key_set: that it is masked with.
            sha256: of the masked vector.
            signature: over it, as it will leave.

        Raises:
            BudgetRefusal: as `check`.
        """

    def finish(self, terms: Terms, sentence: str) -> None:
        """Ends a study here: what was never reserved is free again; again is the same."""

    def refuse(self, terms_hash: str, task: str, sentence: str) -> None:
        """Records that something was declined, unless it is what was recorded last."""


def unknown_terms(terms_hash: str) -> RequestRefusal:
    """What is said to a message under terms that were never accepted."""
    return RequestRefusal(f"terms {terms_hash[:12]} were not accepted here; propose them first")


def too_many_studies(accepted: int) -> PolicyRefusal:
    """What is said to one study more than the policy allows."""
    return PolicyRefusal(
        f"this member has accepted {accepted} studies, which is all its policy allows; "
        "it may raise most_studies"
    )
