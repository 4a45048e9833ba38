"""What a person at a member decides on studies, and what that person is shown before.

It works on the member's ledger, beside a running node or without one: a node that runs follows its
ledger, so that a decision holds from the coordinator's next question on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from client_sdk.config import NodeConfig
from client_sdk.consent import Consents, project
from client_sdk.process import open_journal, own_entry, read_contract
from client_sdk.proposals import Proposals, Proposed, Verdict
from client_sdk.recipes.model_file import find_model
from privacy.budget import StudyCost
from privacy.errors import BudgetRefusal, ConfigurationError, PolicyRefusal
from privacy.identity import Identity
from privacy.terms import Column, Terms
from protos.config import read_config, read_secret

__all__ = ["StudyDesk", "Subject", "report", "text"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One study at this member.

    Args:
        standing: ``waiting``, ``unfit``, ``refused``, ``accepted`` or ``over``.
        sentence: why, where somebody or some rule said.
        cost: what it would take of the budget; None where it takes nothing more.
    """

    terms: Terms
    standing: str
    sentence: str
    cost: StudyCost | None


class StudyDesk:
    """The studies of one member.

    Args:
        path: of the node's configuration.

    Raises:
        ConfigurationError: if a file or folder is not usable.
        LedgerError: if the ledger may not be written.
    """

    def __init__(self, path: Path) -> None:
        config = read_config(path, NodeConfig).relative_to(path.parent)
        identity = Identity.from_pem(read_secret(config.identity))
        entry, contract = own_entry(config, identity), read_contract(config.contract)
        self.member = config.member
        self._journal = open_journal(config)
        self._proposals = Proposals(self._journal.store)
        self._consents = Consents(
            entry, config.policy, contract, self._journal, identity, self._proposals,
            functools.partial(find_model, config.state / "models"),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def studies(self) -> list[Subject]:
        """What was proposed here and what was accepted, in this order."""
        account = self._journal.account
        found = [
            Subject(one.terms, one.verdict.value, one.sentence, self._cost(one.terms))
            for one in self._proposals.all()
            if not account.knows(one.terms.hash)
        ]
        for terms in self._journal.accepted:
            over = account.study(terms.hash).spend.finished
            found.append(Subject(terms, "over" if over else "accepted", "", None))
        return found

    def find(self, name: str) -> Subject:
        """A study by name, label or the beginning of its hash.

        Raises:
            ConfigurationError: if there is none, or several are named so.
        """
        there = self.studies()
        found = [one for one in there if name in (one.terms.study, one.terms.label)]
        if not found and len(name) >= 8:
            found = [one for one in there if one.terms.hash.startswith(name)]
        undecided = [one for one in found if one.standing == Verdict.WAITING.value]
        found = undecided if len(found) > 1 and len(undecided) == 1 else found
        if not found:
            raise ConfigurationError(
                f"{name:.80}: no such study was proposed here; alliance-node study list"
            )
        if len(found) > 1:
            labels = ", ".join(one.terms.label for one in found)
            raise ConfigurationError(f"{name}: there are several; name one of {labels}")
        return found[0]

    def approve(self, subject: Subject) -> None:
        """Signs exactly the terms of a study, and earmarks what they may cost.

        Raises:
            ConfigurationError: if there is nothing to approve.
            PolicyRefusal: if nobody here may approve them.
            BudgetRefusal: if the budget does not cover them.
        """
        if subject.standing in ("accepted", "over"):
            raise ConfigurationError(f"{subject.terms.label}: is {subject.standing} already")
        proposed = self._proposed(subject)
        self._consents.check(proposed.terms, proposed.admissions)
        self._consents.accept(proposed.terms)

    def refuse(self, subject: Subject, sentence: str) -> None:
        """Declines a study, or ends one here that was accepted: what was spent stays spent.

        Raises:
            ConfigurationError: if it is over.
        """
        if subject.standing == "over":
            raise ConfigurationError(f"{subject.terms.label}: is over already")
        if subject.standing == "accepted":
            self._journal.finish(subject.terms, sentence or "a person here ended it")
            return
        proposed = self._proposed(subject)
        sentence = sentence or "no reason was given"
        self._proposals.keep(proposed.terms, proposed.admissions, Verdict.REFUSED, sentence)
        self._journal.refuse(subject.terms.hash, "study refuse", sentence)

    def _proposed(self, subject: Subject) -> Proposed:
        proposed = self._proposals.get(subject.terms.hash)
        if proposed is None:
            raise PolicyRefusal(f"{subject.terms.label}: was withdrawn by its operator")
        return proposed

    def _cost(self, terms: Terms) -> StudyCost | None:
        try:
            return self._journal.account.projection(terms)
        except BudgetRefusal:  # no rule yet: the node was never started
            return None


def report(subject: Subject) -> dict[str, Any]:
    """All there is to say of a study, as JSON takes it. Epsilons are rounded up, shares down."""
    terms, cost = subject.terms, subject.cost
    projection = project(terms.model_dump_json())
    budget: dict[str, Any] | None = None
    if cost is not None:
        rooms = list(zip(cost.takes_nano, cost.rooms, strict=True))
        budget = {
            "fits": cost.fits,
            "shortage": cost.shortage,
            "takes_of_left": max(
                takes / room.left_nano if room.left_nano > 0 else float(takes > 0)
                for takes, room in rooms
            ),
            "left_after": max(
                0.0, min((room.left_nano - takes) / room.limit_nano for takes, room in rooms)
            ),
        }
    return {
        "study": terms.study,
        "label": terms.label,
        "terms_hash": terms.hash,
        "standing": subject.standing,
        "sentence": subject.sentence,
        "purpose": terms.purpose,
        "recipe": terms.recipe,
        "settings": terms.settings,
        "consumer_id": terms.contract.consumer_id,
        "label_column": terms.contract.label,
        "columns": [column.model_dump(mode="json") for column in terms.contract.columns],
        "rows_per_consumer": terms.contract.rows_per_consumer,
        "rounds": terms.privacy.rounds,
        "attempts": terms.privacy.max_attempts,
        "cohort_size": terms.privacy.cohort_size,
        "colluders": terms.privacy.colluders,
        "dropouts": terms.privacy.dropouts,
        "members": [entry.name for entry in terms.roster],
        "delta": terms.privacy.delta,
        "epsilon": {str(m): epsilon for m, epsilon in projection.profile.items()},
        "epsilon_local": projection.epsilon_local,
        "budget": budget,
    }


def text(said: dict[str, Any], columns: tuple[Column, ...]) -> str:
    """The same for a person.

    Args:
        said: by `report`.
        columns: of the study's contract.
    """
    because = f" ({said['sentence']})" if said["sentence"] else ""
    settings = ", ".join(f"{key} {value}" for key, value in said["settings"].items())
    profile = said["epsilon"]
    return f"""\
{said["label"]}: {said["standing"]}{because}
purpose  {said["purpose"]}
reads    {"; ".join(map(_column, columns))};
         the label {said["label_column"]}; a consumer is a {said["consumer_id"]}, of which at most \
{said["rows_per_consumer"]} rows are used
learns   {said["recipe"]}{": " if settings else ""}{settings}; {said["rounds"]} rounds
with     {", ".join(said["members"])}; {said["cohort_size"]} in each sum, of whom \
{said["colluders"]} may collude with the coordinator and {said["dropouts"]} may drop out
costs    epsilon {profile["1"]:.3f} for a consumer that only you know, {profile["5"]:.3f} for one \
that five members know, at delta {said["delta"]:g}, if all {said["attempts"]} attempts are used;
         epsilon {said["epsilon_local"]:.3f} if secure aggregation failed and your messages were \
seen alone
budget   {_budget(said["budget"], said["standing"])}
terms    {said["terms_hash"]}"""


def _column(column: Column) -> str:
    if column.kind == "number":
        said = f"{column.name} from {column.low:g} to {column.high:g}"
        said += f" in {column.codes} bins" if column.binned else ""
    elif column.buckets:
        said = f"{column.name}, any text in {column.buckets} buckets"
    else:
        said = f"{column.name}, one of {len(column.values)} values"
    return said + (f" ({column.meaning})" if column.meaning else "")


def _budget(budget: dict[str, Any] | None, standing: str) -> str:
    if standing in ("accepted", "over"):
        return "alliance-node budget shows what it has spent and earmarked"
    if budget is None:
        return "no rule stands in the ledger yet; start this node once"
    if not budget["fits"]:
        return f"it does not fit: {budget['shortage']}"
    return (
        f"it would take {100 * budget['takes_of_left']:.1f} % of what is left for all studies; "
        f"{100 * budget['left_after']:.1f} % of the whole would be left then"
    )
