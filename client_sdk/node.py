"""One member's node: who it is, what it allows, its data and its journal."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from client_sdk.canaries import Canaries
from client_sdk.consent import Consents
from client_sdk.dataset import Dataset
from client_sdk.journal import Journal
from client_sdk.noise_ahead import NoiseAhead
from client_sdk.policy import Policy
from client_sdk.proposals import Proposals
from client_sdk.recipes.catalogue import model_needed, takes
from client_sdk.recipes.model_file import PublishedModel
from client_sdk.witnessing import Witnessing
from privacy.errors import RecipeError, RequestRefusal
from privacy.identity import Identity
from privacy.sampling import Enrolment, enrol
from privacy.secagg import MaskingMember
from privacy.terms import DataContract, RosterEntry, Terms, TermsHash

__all__ = ["FindModel", "KeepModel", "Node"]

KeepModel = Callable[[Terms, npt.NDArray[np.float32]], None]
"""Keeps a published model at the member."""

FindModel = Callable[[str], PublishedModel | None]
"""Finds a published model at the member by the SHA-256 of its file."""


@dataclass(slots=True)
class Node:
    """Everything the ClientApp needs of a member.

    Args:
        entry: the member as it declares itself: name and consumers, rounded to one digit.
        policy: what it allows.
        contract: the table it brings.
        dataset: its rows, checked against the contract.
        journal: what it approved and spent.
        keep_model: where published models go.
        identity: what it signs with; None under simulation, where nothing is masked.
        canaries: what an auditor enrolled here, if the policy lets it.
        witnessing: its ledger among others that vouch for each other; without it nobody does, and
            the node grants itself what it reserves, as under simulation.
        proposals: what a person here has to decide; None if nobody is asked, as under simulation.
        find_model: among the models that were published to this member.
    """

    entry: RosterEntry
    policy: Policy
    contract: DataContract
    dataset: Dataset
    journal: Journal
    keep_model: KeepModel
    identity: Identity | None = None
    canaries: Canaries | None = None
    witnessing: Witnessing | None = None
    proposals: Proposals | None = None
    find_model: FindModel = lambda _: None
    noise: NoiseAhead = field(default_factory=NoiseAhead, repr=False)
    _block_key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    _enrolments: dict[TermsHash, Enrolment] = field(default_factory=dict, repr=False)
    _models: dict[str, PublishedModel] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _masking: dict[TermsHash, MaskingMember] = field(default_factory=dict, repr=False)

    @property
    def consents(self) -> Consents:
        """What decides on proposals here."""
        return Consents(
            self.entry, self.policy, self.contract, self.journal, self.identity, self.proposals,
            self.find_model,
        )  # fmt: skip

    def enrolment(self, terms: Terms) -> Enrolment:
        """This member's consumers in their blocks, drawn once per study and process."""
        if terms.hash not in self._enrolments:
            self._enrolments[terms.hash] = enrol(
                terms, self.entry.name, self.dataset.consumer_ids, self._block_key, takes(terms)
            )
        return self._enrolments[terms.hash]

    def model(self, terms: Terms) -> PublishedModel | None:
        """The published model that a study's contributions need; None if they need none.

        Raises:
            RecipeError: if it needs one that this member does not have (any more).
        """
        needed = model_needed(terms)
        if not needed:
            return None
        if needed not in self._models:
            found = self.find_model(needed)
            if found is None:
                raise RecipeError(f"study {terms.study}: model {needed[:16]} is not here any more")
            self._models[needed] = found
        return self._models[needed]

    def masking(self, terms: Terms) -> MaskingMember:
        """This member's round secrets for one study; they live in this process only.

        Raises:
            RequestRefusal: if this node has no identity, or the terms name another one.
            TermsError: if their cohorts are too large for secure aggregation.
        """
        if self.identity is None:
            raise RequestRefusal("this node is simulated: it has no identity and masks nothing")
        with self._lock:
            if terms.hash not in self._masking:
                self._masking[terms.hash] = MaskingMember(terms, self.entry.name, self.identity)
            return self._masking[terms.hash]

    def forget(self, terms: Terms) -> None:
        """Drops the round secrets of a study that is over."""
        with self._lock:
            self._masking.pop(terms.hash, None)
