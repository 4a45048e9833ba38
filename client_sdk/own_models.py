"""Which models contain this member, from its own ledger and receipts alone.

A state is made of every release before it, so each one after the first round that this member is
in contains it, and so does what was published after that round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_sdk.recipes.model_file import load_model
from client_sdk.sqlite_journal import SqliteJournal
from privacy.errors import RecipeError
from privacy.ledger.entry import (
    Contribution,
    Failure,
    Release,
    decode_entry,
    parse_canonical,
)
from privacy.secagg import model_hash
from privacy.terms import Terms

__all__ = ["OwnModel", "Published", "own_models", "ranges"]


@dataclass(frozen=True, slots=True)
class Published:
    """A model file that this node keeps.

    Args:
        model: `model_hash` of its parameters.
        round: that it was published after.
    """

    file: Path
    model: str
    round: int


@dataclass(frozen=True, slots=True)
class OwnModel:
    """One study that this member contributed to.

    Args:
        study: its label.
        terms: their hash.
        states: by round that contains this member's contribution, as receipts prove: the
            `model_hash` of the public state after it.
        unproven: rounds that a contribution left for, and no receipt says what became of it.
        published: what this node keeps of it; None if nothing reached it.
    """

    study: str
    terms: str
    states: dict[int, str]
    unproven: tuple[int, ...]
    published: Published | None

    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        kept = self.published
        return {
            "study": self.study,
            "terms": self.terms,
            "rounds": list(self.states),
            "states": [{"round": at, "model": model} for at, model in self.states.items()],
            "unproven_rounds": list(self.unproven),
            "published": None
            if kept is None
            else {"file": str(kept.file), "model": kept.model, "round": kept.round},
        }

    def sentence(self) -> str:
        """The same in words."""
        parts = [f"{self.study}: in {len(self.states)} released rounds"]
        if self.states:
            newest = max(self.states)
            parts[0] += f" ({ranges(self.states)})"
            parts.append(
                f"every state after round {min(self.states)} contains this member; after round "
                f"{newest} it was {self.states[newest]}"
            )
        if self.published is not None:
            parts.append(
                f"{self.published.file}: published after round {self.published.round}, model "
                f"{self.published.model}"
            )
        if self.unproven:
            parts.append(
                f"no receipt says yet whether the sums of rounds {ranges(self.unproven)} hold what "
                "left for them; take it that they do"
            )
        return "\n    ".join(parts)


@dataclass(slots=True)
class _Left:
    """What left under one study's terms, by round and attempt."""

    made: set[tuple[int, int]] = field(default_factory=set)
    released: dict[int, str] = field(default_factory=dict)
    settled: set[tuple[int, int]] = field(default_factory=set)


def own_models(journal: SqliteJournal, models: Path) -> tuple[OwnModel, ...]:
    """Every model that contains this member, in the order its studies were accepted.

    Args:
        journal: of this member.
        models: the folder of published models that this node kept.

    Raises:
        LedgerError: if the ledger cannot be read.
    """
    studies: dict[str, _Left] = {}
    for data in journal.store.entries():
        entry = decode_entry(data, where="this member's log")
        if isinstance(entry, Contribution):
            left = studies.setdefault(entry.terms, _Left())
            left.made.add((entry.round, entry.attempt))
    for receipt in journal.store.receipts():
        document = parse_canonical(receipt, where="a receipt")
        said = decode_entry(document["entry"].encode(), where="a receipt's entry")
        # Whether it proves what it says was checked before it was kept.
        if isinstance(said, (Release, Failure)) and said.terms in studies:
            studies[said.terms].settled.add((said.round, said.attempt))
            if isinstance(said, Release):
                studies[said.terms].released[said.round] = said.next_model
    return tuple(
        _own_model(terms, studies[terms.hash], models)
        for terms in journal.accepted
        if terms.hash in studies
    )


def _own_model(terms: Terms, left: _Left, models: Path) -> OwnModel:
    return OwnModel(
        study=terms.label,
        terms=terms.hash,
        states=dict(sorted(left.released.items())),
        unproven=tuple(sorted({at for at, _ in left.made - left.settled} - left.released.keys())),
        published=_published(terms, models / f"{terms.study}.safetensors"),
    )


def _published(terms: Terms, file: Path) -> Published | None:
    try:
        theirs, parameters, round_number = load_model(file)
    except RecipeError:
        return None
    if theirs.hash != terms.hash:  # a later version of the study took its place
        return None
    return Published(file, model_hash(parameters).hex(), round_number)


def ranges(rounds: Iterable[int]) -> str:
    """Rounds in words.

    >>> ranges([1, 2, 3, 5, 7, 8])
    '1-3, 5, 7-8'
    """
    spans: list[list[int]] = []
    for one in sorted(rounds):
        if spans and spans[-1][1] == one - 1:
            spans[-1][1] = one
        else:
            spans.append([one, one])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
