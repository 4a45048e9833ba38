"""Whether this member takes part in a study: by its rules, or by a person's word.

Both end in the same two things, which bind the member to exactly these terms: a signature over
their hash by its identity, and a consent in its ledger that earmarks what they may cost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client_sdk.journal import Journal
from client_sdk.policy import Policy
from client_sdk.proposals import Proposals, Verdict
from client_sdk.recipes.catalogue import check_model, model_needed, recipe_of
from client_sdk.recipes.model_file import PublishedModel
from privacy.acceptance import sign_acceptance
from privacy.errors import PolicyRefusal
from privacy.fixedpoint import Grid
from privacy.identity import Identity, IdentityKey
from privacy.secagg import Graph
from privacy.terms import DataContract, RosterEntry, Terms

if TYPE_CHECKING:
    from privacy.accounting import Projection

__all__ = ["Consents", "project"]


@functools.lru_cache(maxsize=16)
def project(document: str) -> Projection:
    """This member's own projection of what proposed terms cost; it takes seconds, so it is kept.

    Args:
        document: the terms as JSON.

    Raises:
        TermsError: if they are not well-formed.
    """
    from privacy.accounting import Accountant  # loading it takes long; most starts need none

    return Accountant(Terms.from_json(document)).projection()


@dataclass(frozen=True, slots=True)
class Consents:
    """What decides on proposals at one member.

    Args:
        entry: the member as it declares itself.
        policy: what it allows.
        contract: the table it brings.
        journal: where what it accepted stands.
        identity: what it signs with; None under simulation.
        proposals: where a person finds what is to be decided; without them nobody is asked, and
            what the rules do not approve is refused.
        find_model: among the models that were published to this member.
    """

    entry: RosterEntry
    policy: Policy
    contract: DataContract
    journal: Journal
    identity: Identity | None = None
    proposals: Proposals | None = None
    find_model: Callable[[str], PublishedModel | None] = lambda _: None

    def weigh(self, terms: Terms, admissions: bytes) -> str:
        """Weighs proposed terms; what it says depends on them and on the member's own settings.

        Args:
            terms: as proposed.
            admissions: the vouches that came with them.

        Returns:
            Why a person has to decide; empty if the rules approve, or approved before.

        Raises:
            PolicyRefusal: if this member does not take part.
            RecipeError, TermsError: if nobody can under such terms.
            BudgetRefusal: if the study is over here.
        """
        if self.journal.consented(terms):
            return ""
        kept = self.proposals.get(terms.hash) if self.proposals is not None else None
        if kept is not None and kept.verdict is Verdict.REFUSED:
            raise PolicyRefusal(f"study {terms.study}: refused by a person here: {kept.sentence}")
        self.check(terms, admissions)
        try:
            self.policy.check_rules(terms)
            self.policy.check_cost(terms, project(terms.model_dump_json()))
        except PolicyRefusal as refusal:
            if self.proposals is None or self.policy.otherwise == "refuse":
                raise
            self.proposals.keep(terms, admissions, Verdict.WAITING, str(refusal))
            return str(refusal)
        return ""

    def check(self, terms: Terms, admissions: bytes) -> None:
        """Refuses what not even a person here may approve.

        Raises:
            PolicyRefusal: if the roster or the contract is not what this member knows, or it does
                not have the model that the study needs.
            RecipeError, TermsError: if nobody can take part under such terms.
        """
        self.policy.check_terms(terms, own_entry=self.entry)
        own = IdentityKey(self.entry.identity)
        self.policy.check_admissions(terms, admissions, own=own)
        try:
            self.policy.check_contract(terms, self.contract)
            recipe_of(terms).check(terms)
            self._check_model(terms)
        except PolicyRefusal as refusal:
            if self.proposals is not None:
                self.proposals.keep(terms, admissions, Verdict.UNFIT, str(refusal))
            raise
        Grid.of(terms)
        Graph.of(terms.privacy)

    def _check_model(self, terms: Terms) -> None:
        """Checks that the model which a study needs, if any, is here and fits its terms.

        Raises:
            PolicyRefusal: if it is not here.
            RecipeError: if it does not fit.
        """
        needed = model_needed(terms)
        if not needed:
            return
        model = self.find_model(needed)
        if model is None:
            raise PolicyRefusal(
                f"study {terms.study}: this member does not have the model {needed}; put its "
                "file, which the operator has, into the folder models in the node's state folder"
            )
        check_model(terms, model)

    def accept(self, terms: Terms) -> tuple[IdentityKey | None, bytes]:
        """Signs exactly these terms and earmarks what they may cost; again is the same.

        Returns:
            This member's ledger key, and its signature; none of both under simulation.

        Raises:
            PolicyRefusal: if it accepted as many studies as its policy allows.
            BudgetRefusal: if its budget does not cover them.
        """
        signature, ledger_key = b"", self.journal.ledger_key
        if self.identity is not None and ledger_key is not None:
            signature = sign_acceptance(
                self.identity, terms, member=self.entry.name, ledger_key=ledger_key
            )
        if not self.journal.consented(terms):
            self.journal.approve(
                terms,
                profile=project(terms.model_dump_json()).profile,
                most_studies=self.policy.most_studies,
                signature=signature,
            )
        if self.proposals is not None:
            self.proposals.forget(terms.hash)
        return ledger_key, signature
