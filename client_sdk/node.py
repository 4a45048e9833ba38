"""One member's node: who it is, what it allows, its data and its journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from client_sdk.dataset import Dataset
from client_sdk.journal import Journal
from client_sdk.policy import Policy
from privacy.sampling import Enrolment, enrol
from privacy.terms import DataContract, RosterEntry, Terms, TermsHash

__all__ = ["KeepModel", "Node"]

KeepModel = Callable[[Terms, npt.NDArray[np.float32]], None]
"""Keeps a published model at the member."""


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
    """

    entry: RosterEntry
    policy: Policy
    contract: DataContract
    dataset: Dataset
    journal: Journal
    keep_model: KeepModel
    _block_key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    _enrolments: dict[TermsHash, Enrolment] = field(default_factory=dict, repr=False)

    def enrolment(self, terms: Terms) -> Enrolment:
        """This member's consumers in their blocks, drawn once per study and process."""
        if terms.hash not in self._enrolments:
            self._enrolments[terms.hash] = enrol(
                terms, self.entry.name, self.dataset.consumer_ids, self._block_key
            )
        return self._enrolments[terms.hash]
