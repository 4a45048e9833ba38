"""The coordinator's own log: what happened in a study, durable before anybody acts on it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.kept_rounds import KeptRounds
from coordinator.kept_sums import KeptSums
from coordinator.round import Contribution, Round
from coordinator.round import Release as Unmasked
from privacy.errors import EvidenceError
from privacy.identity import IdentityKey
from privacy.ledger.entry import (
    Acceptance,
    AnyEntry,
    Contributed,
    Failure,
    Head,
    Heads,
    Proposal,
    Publication,
    Release,
    decode_entry,
)
from privacy.ledger.store import LedgerStore
from privacy.secagg import Attempt
from privacy.terms import Terms
from protos.config import read_or_make_key

__all__ = ["Evidence", "Told"]

RECEIPT_BYTES = 128 << 10
"""Of receipts in one message; the rest comes with the next."""


@dataclass(slots=True)
class Told:
    """What the log says of a study.

    Args:
        attempts: that ended, with a release or without.
        round: of the newest release; 0 before any.
        sums: by round, the attempt that was released and the hash of its sum.
        models: by round, the hash of the public state that its release led to.
        contributors: by round, who is in its sum.
        acceptances: by member, its ledger key and signature; the newest.
        files: by hash and whether it was the last: the index of a model file's publication.
    """

    attempts: int = 0
    round: int = 0
    sums: dict[int, tuple[int, str]] = field(default_factory=dict)
    models: dict[int, str] = field(default_factory=dict)
    contributors: dict[int, tuple[str, ...]] = field(default_factory=dict)
    acceptances: dict[str, tuple[IdentityKey, bytes]] = field(default_factory=dict)
    files: dict[tuple[str, bool], int] = field(default_factory=dict)


class Evidence:
    """Writes the coordinator's log and hands out receipts from it.

    Args:
        state: the coordinator's folder; holds the log, its key and the rounds that are kept.
        alliance: the alliance's name.
        keep_bytes: of masked contributions kept for an auditor, oldest rounds first let go; and of
            a study's sums, which are kept as a whole or for as long as they are needed.

    Raises:
        ConfigurationError: if the key cannot be read or made.
        LedgerError: if the log may not be written.
    """

    def __init__(self, state: Path, alliance: str, *, keep_bytes: int) -> None:
        identity = read_or_make_key(state / "ledger.pem")
        self.origin = f"{alliance}/coordinator"
        self.key: IdentityKey = identity.public
        self.identity = identity
        self.store = LedgerStore(
            state / "ledger.sqlite",
            origin=self.origin,
            key=identity,
            software=f"alliance {importlib.metadata.version('alliance')}",
            now_ms=_now_ms,
        )
        self.rounds = KeptRounds(state / "rounds", keep_bytes)
        self.sums = KeptSums(state, keep_bytes)
        self._told: dict[str, Told] = {}
        for index, entry in enumerate(self.store.entries()):
            self._note(decode_entry(entry, where=f"{self.store.path}: entry {index}"), index)

    def close(self) -> None:
        """Lets go of the files."""
        self.sums.close()
        self.rounds.close()
        self.store.close()

    @property
    def head(self) -> bytes:
        """The newest head with members' cosignatures; the coordinator's own before there is one."""
        return self.store.newest_note() or self.store.note()

    def keep_head(self, note: bytes) -> None:
        """Keeps a head with its cosignatures."""
        self.store.keep_note(note)

    def told(self, terms: Terms) -> Told:
        """What the log says of a study so far."""
        return self._told.get(terms.hash, Told())

    # What happened.

    def proposed(self, terms: Terms) -> None:
        """Terms are about to be proposed; said once."""
        if terms.hash not in self._told:
            document = json.loads(terms.canonical())
            self._append(Proposal(at_ms=_now_ms(), terms=document, hash=terms.hash))

    def accepted(self, terms: Terms, member: str, ledger_key: str, signature: bytes) -> None:
        """A member accepted terms; said once for each of its ledger keys."""
        acceptance = Acceptance(
            at_ms=_now_ms(),
            terms=terms.hash,
            member=member,
            ledger_key=ledger_key,
            signature=signature.hex(),
        )
        if self.told(terms).acceptances.get(member) != (ledger_key, signature):
            self._append(acceptance)

    def heads(self, terms: Terms, heads: tuple[Head, ...]) -> None:
        """Members' heads were cosigned by a quorum."""
        if heads:
            self._append(Heads(at_ms=_now_ms(), terms=terms.hash, heads=heads))

    def released(
        self, terms: Terms, round_: Round, release: Unmasked, kept: Future[None], next_model: bytes
    ) -> None:
        """An attempt was unmasked. Waits until its sum is on the disk.

        Args:
            terms: of the study.
            round_: the attempt.
            release: its sum.
            kept: what `KeptSums.write` gave for it.
            next_model: `model_hash` of the public state that follows from it.

        Raises:
            LedgerError: if sum or log cannot be written.
        """
        digest = hashlib.sha256(release.ring.data).hexdigest()
        entry = Release(**_attempt(terms, round_), sum=digest, next_model=next_model.hex())
        kept.result()
        self._append(entry)
        self.rounds.seal(terms.label, round_)

    def failed(self, terms: Terms, round_: Round, sentence: str) -> None:
        """An attempt released nothing."""
        self._append(Failure(**_attempt(terms, round_), sentence=sentence[:500]))
        self.rounds.drop(terms.label, round_)

    def published(
        self, terms: Terms, *, round_number: int, model: bytes, file: bytes, last: bool
    ) -> int:
        """A model file is about to be written; its entry's index. The same file is said once."""
        digest = hashlib.sha256(file).hexdigest()
        if (index := self.told(terms).files.get((digest, last))) is not None:
            return index
        return self._append(
            Publication(
                at_ms=_now_ms(),
                terms=terms.hash,
                round=round_number,
                model=model.hex(),
                file=digest,
                last=last,
            )
        )

    def _append(self, entry: AnyEntry) -> int:
        index = self.store.append(entry)
        self._note(entry, index)
        return index

    def _note(self, entry: AnyEntry, index: int) -> None:
        """Keeps what a coordinator that starts again asks of its own log."""
        if isinstance(entry, Publication):
            self._told[entry.terms].files[entry.file, entry.last] = index
        elif isinstance(entry, Proposal):
            self._told[entry.hash] = Told()
        elif isinstance(entry, (Acceptance, Release, Failure)):
            told = self._told.setdefault(entry.terms, Told())
            if isinstance(entry, Acceptance):
                key, signature = IdentityKey(entry.ledger_key), bytes.fromhex(entry.signature)
                told.acceptances[entry.member] = (key, signature)
                return
            told.attempts += 1
            if isinstance(entry, Release):
                told.round = entry.round
                told.sums[entry.round] = entry.attempt, entry.sum
                told.models[entry.round] = entry.next_model
                told.contributors[entry.round] = tuple(one.member for one in entry.contributions)

    # Receipts.

    def receipts(self, since: Mapping[str, int], size: int) -> dict[str, list[dict[str, Any]]]:
        """Proofs that members' contributions are in the log, as far as one message takes them.

        Args:
            since: by member, the first entry it has not seen.
            size: of the head that the proofs lead to.
        """
        receipts: dict[str, list[dict[str, Any]]] = {member: [] for member in since}
        used = dict.fromkeys(since, 0)
        first = min(since.values(), default=size)
        for index, entry in enumerate(self.store.entries(first, size), start=first):
            for member in _contributors(entry, index):
                if member in since and since[member] <= index and used[member] < RECEIPT_BYTES:
                    proof = [part.hex() for part in self.store.inclusion_proof(index, size)]
                    receipt = {"entry": entry.decode(), "index": index, "proof": proof}
                    receipts[member].append(receipt)
                    used[member] += len(entry) + 64 * len(proof)
        return receipts


def _contributors(entry: bytes, index: int) -> tuple[str, ...]:
    """Whose contributions an entry records."""
    try:
        read = decode_entry(entry, where=f"entry {index}")
    except EvidenceError:
        return ()
    if not isinstance(read, (Release, Failure)):
        return ()
    return tuple(one.member for one in read.contributions)


def _attempt(terms: Terms, round_: Round) -> dict[str, Any]:
    """What release and failure have in common."""
    unmasking = round_.unmasking
    if unmasking is None:
        raise EvidenceError("a simulated round is not evidence")
    attempt: Attempt = unmasking.attempt
    return {
        "at_ms": _now_ms(),
        "terms": terms.hash,
        "round": attempt.round,
        "attempt": attempt.attempt,
        "key_set": attempt.key_set,
        "cohort": unmasking.cohort.hash.hex(),
        "members": round_.cohort,
        "model": attempt.model.hex(),
        "contributions": tuple(
            _contributed(round_.contributions[name])
            for name in round_.cohort
            if name in round_.contributions
        ),
    }


def _contributed(receipt: Contribution) -> Contributed:
    return Contributed(
        member=receipt.member, sha256=receipt.sha256.hex(), signature=receipt.signature.hex()
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
