"""The coordinator's log, entry by entry: order, acceptances, and who contributed what.

Numbers are those of `findings.CHECKS`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from privacy.acceptance import verify_acceptance
from privacy.errors import BadSignature, EvidenceError, TermsError
from privacy.identity import IdentityKey
from privacy.ledger.audit_log import Claim, Heads, Log
from privacy.ledger.audit_study import (
    ATTEMPTS_PER_START,
    Published,
    Released,
    Study,
    attempt_key,
    read_terms,
)
from privacy.ledger.checkpoint import cosigners
from privacy.ledger.entry import (
    Acceptance,
    AnyEntry,
    Conflict,
    Failure,
    Opened,
    Proposal,
    Publication,
    Release,
)
from privacy.ledger.entry import (
    Heads as HeadsEntry,
)
from privacy.ledger.findings import Findings
from privacy.secagg import Attempt, Setup

__all__ = ["CoordinatorAudit", "contribution_digest"]

FILE: Final = "coordinator/entries.jsonl"


def contribution_digest(sha256: str, signature: str) -> bytes:
    """What is held against the member's own record of a contribution; 16 bytes."""
    return hashlib.sha256(f"{sha256}{signature}".encode()).digest()[:16]


@dataclass(order=True, slots=True)
class _Signed:
    """A contribution's signature that waits to be checked."""

    rank: bytes
    index: int
    member: str = field(compare=False)
    setup: Setup = field(compare=False)
    attempt: Attempt = field(compare=False)
    cohort: bytes = field(compare=False)
    sha256: bytes = field(compare=False)
    signature: bytes = field(compare=False)


class CoordinatorAudit:
    """Folds the coordinator's log.

    Args:
        findings: takes what does not hold.
        heads: takes heads of members' logs.
        kept: rounds whose contributions are in the folder: label, round, attempt.
        sample: how many contributions' signatures are checked, drawn by ``seed``; all if None.
        seed: for the draw.
    """

    def __init__(
        self,
        findings: Findings,
        heads: Heads,
        *,
        kept: Collection[tuple[str, int, int]] = (),
        sample: int | None = None,
        seed: str = "",
    ) -> None:
        self.studies: dict[str, Study] = {}
        self.contributions: dict[tuple[str, str], dict[int, tuple[int, bytes]]] = {}
        """By terms and member, then by `attempt_key`: the entry, and `contribution_digest`."""
        self.active: Study | None = None
        self.alliance = ""
        self.newest_index = 0
        """Of the newest release, failure or publication."""
        self._findings = findings
        self._heads = heads
        self._kept = kept
        self._sample = sample
        self._seed = seed
        self._drawn: list[tuple[int, _Signed]] = []
        self._cohorts: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._sizes: dict[tuple[str, str], int] = {}

    def apply(self, index: int, entry: AnyEntry) -> None:
        """Takes the log's next entry."""
        self._findings.count(8)
        match entry:
            case Release() | Failure():
                self._attempt(index, entry)
            case HeadsEntry():
                self._members_heads(index, entry)
            case Publication():
                self._publication(index, entry)
            case Acceptance():
                self._acceptance(index, entry)
            case Proposal():
                self._proposal(index, entry)
            case Opened():
                self.alliance = entry.origin.partition("/")[0]
                if index:
                    self._findings.add(8, FILE, "opens the log a second time", entry=index)
            case Conflict():
                self._heads.conflict(FILE, index, entry)
            case _:
                what = f"a coordinator's log holds no `{entry.kind}` entry"
                self._findings.add(8, FILE, what, entry=index)

    # Entries.

    def _proposal(self, index: int, entry: Proposal) -> None:
        if entry.hash in self.studies:
            self._findings.add(8, FILE, "proposes the same terms again", entry=index)
            return
        self._findings.count(6)
        try:
            terms = read_terms(entry.terms, entry.hash)  # (6)
            if terms.alliance != self.alliance:
                raise EvidenceError(f"terms of alliance {terms.alliance} in a log of another")
            self.studies[entry.hash] = Study(terms, Setup.of(terms))
        except (EvidenceError, TermsError) as error:
            self._findings.add(6, FILE, str(error), entry=index)

    def _acceptance(self, index: int, entry: Acceptance) -> None:
        study = self._study(index, entry.terms)
        if study is None:
            return
        self._findings.count(6)
        try:
            verify_acceptance(  # (6)
                study.terms,
                member=entry.member,
                ledger_key=entry.ledger_key,
                signature=bytes.fromhex(entry.signature),
            )
        except BadSignature as error:
            self._findings.add(6, FILE, f"acceptance of {entry.member}: {error}", entry=index)
            return
        if study.keys.get(entry.member) == entry.ledger_key:
            self._findings.add(8, FILE, f"{entry.member} accepts the same again", entry=index)
        study.keys[entry.member] = IdentityKey(entry.ledger_key)

    def _attempt(self, index: int, entry: Release | Failure) -> None:
        study = self._study(index, entry.terms)
        if study is None:
            return
        self.active, self.newest_index = study, index
        for what in self._order(study, entry):  # (8)
            where = f"round {entry.round} attempt {entry.attempt} of {study.label} {what}"
            self._findings.add(8, FILE, where, entry=index)
        key = attempt_key(entry.round, entry.attempt)
        cohort = self._cohorts.setdefault(entry.members, entry.members)
        study.attempts[key] = (index, cohort)
        study.points.append(entry.at_ms)
        study.key_set = max(study.key_set, entry.key_set)
        start = (entry.attempt - 1) // ATTEMPTS_PER_START
        study.newest[start] = max(study.newest.get(start, 0), key)
        self._signatures(index, study, entry)
        if isinstance(entry, Release):
            study.next_model = entry.next_model
            names = tuple(one.member for one in entry.contributions)
            kept = (study.label, entry.round, entry.attempt) in self._kept
            study.released.append(
                Released(
                    index=index, round=entry.round, attempt=entry.attempt, key_set=entry.key_set,
                    cohort=entry.cohort, model=entry.model, sum=entry.sum,
                    contributors=self._cohorts.setdefault(names, names),
                    contributions={one.member: one.sha256 for one in entry.contributions}
                    if kept else {},
                    next_model=entry.next_model,
                )
            )  # fmt: skip

    def _order(self, study: Study, entry: Release | Failure) -> list[str]:
        """What is out of order, check (8)."""
        privacy = study.terms.privacy
        wrong = []
        released = study.released[-1].round if study.released else 0
        last = max(study.newest.values(), default=0)
        if attempt_key(entry.round, entry.attempt) <= last:
            wrong.append("comes after a later one, or twice")
        if entry.round != released + 1 or entry.round > privacy.rounds:
            wrong.append(f"is not of round {released + 1}, which is due")
        if len(study.attempts) >= privacy.max_attempts:
            wrong.append(f"is one more than the {privacy.max_attempts} that the terms allow")
        if entry.key_set <= study.key_set:
            wrong.append(f"uses key set {entry.key_set} again")
        if study.next_model and entry.model != study.next_model:
            wrong.append("starts from another model than the last release led to")
        accepted = study.keys.keys()
        names = [one.member for one in entry.contributions]
        if not _in_order(study, entry.members) or not _in_order(study, names):
            wrong.append("names members twice, or out of the roster's order")
        elif not set(entry.members) <= accepted:
            strangers = ", ".join(sorted(set(entry.members) - accepted)[:5])
            wrong.append(f"asks members that did not accept before: {strangers}")
        if not set(names) <= set(entry.members):
            wrong.append("holds contributions of members outside of its cohort")
        if not privacy.least_survivors <= len(entry.members) <= privacy.cohort_size:
            wrong.append(f"has a cohort of {len(entry.members)} members")
        if isinstance(entry, Release) and len(names) < privacy.least_survivors:
            wrong.append(f"adds {len(names)} contributions, {privacy.least_survivors} are due")
        return wrong

    def _signatures(self, index: int, study: Study, entry: Release | Failure) -> None:
        attempt = Attempt(entry.key_set, entry.round, entry.attempt, bytes.fromhex(entry.model))
        cohort = bytes.fromhex(entry.cohort)
        key = attempt_key(entry.round, entry.attempt)
        for one in entry.contributions:
            if one.member not in study.setup.indices:
                continue  # said in check (8)
            digest = contribution_digest(one.sha256, one.signature)
            self.contributions.setdefault((entry.terms, one.member), {})[key] = (index, digest)
            rank = b""
            if self._sample is not None:
                place = f"{self._seed}/{index}/{one.member}".encode()
                rank = hashlib.sha256(place).digest()
            signed = _Signed(
                rank, index, one.member, study.setup, attempt, cohort,
                bytes.fromhex(one.sha256), bytes.fromhex(one.signature),
            )  # fmt: skip
            self._draw(signed)

    def _publication(self, index: int, entry: Publication) -> None:
        study = self._study(index, entry.terms)
        if study is None:
            return
        self.active, self.newest_index = study, index
        released = study.released[-1].round if study.released else 0
        if entry.round > released:  # (8)
            what = f"publishes {study.label} after round {entry.round}; {released} were released"
            self._findings.add(8, FILE, what, entry=index)
        if entry.last and entry.round != study.terms.privacy.rounds:
            what = f"ends {study.label} after round {entry.round} of {study.terms.privacy.rounds}"
            self._findings.add(8, FILE, what, entry=index)
        study.publications.append(
            Published(index, entry.round, entry.model, entry.file, entry.last)
        )

    def _members_heads(self, index: int, entry: HeadsEntry) -> None:
        study = self._study(index, entry.terms)
        if study is None:
            return
        for head in entry.heads:
            key = study.keys.get(head.member)
            if key is None:
                what = f"names a head of {head.member}, which did not accept {study.label}"
                self._findings.add(8, FILE, what, entry=index)
                continue
            held = self._sizes.get((head.member, key), 0)
            if head.size < held:
                what = f"the head of {head.member} went back from {held} entries to {head.size}"
                self._findings.add(5, FILE, what, entry=index)
            self._sizes[head.member, key] = max(held, head.size)
            if key == study.keys.get(head.member):
                origin = f"{self.alliance}/member/{head.member}"
                what = f"the head of {head.member} that was cosigned"
                root = bytes.fromhex(head.root)
                self._heads.claim(Claim(origin, head.size, root, 5, FILE, index, what))

    def _study(self, index: int, terms_hash: str) -> Study | None:
        study = self.studies.get(terms_hash)
        if study is None:
            what = f"is about terms {terms_hash[:16]}, which were not proposed before"
            self._findings.add(8, FILE, what, entry=index)
        return study

    # Signatures.

    def _draw(self, signed: _Signed) -> None:
        """Checks a signature now, or keeps it where only a sample is checked."""
        if self._sample is None:
            self._verify(signed)
            return
        # The largest rank leaves first, so that the smallest stay.
        item = (-int.from_bytes(signed.rank), signed)
        if len(self._drawn) < self._sample:
            heapq.heappush(self._drawn, item)
        elif self._sample and item > self._drawn[0]:
            heapq.heapreplace(self._drawn, item)

    def _verify(self, signed: _Signed) -> None:
        self._findings.count(9)
        sender = signed.setup.indices[signed.member]
        statement = signed.setup.statement(
            "contribute", sender, signed.sha256, hashed=True, attempt=signed.attempt,
            cohort=signed.cohort,
        )  # fmt: skip
        try:
            signed.setup.verify(sender, "contribute", statement, signed.signature)  # (9)
        except BadSignature:
            what = f"the contribution of {signed.member} to {signed.attempt} is not signed by it"
            self._findings.add(9, FILE, what, entry=signed.index)

    def finish(self, log: Log) -> None:
        """What can be said once the whole log is read."""
        for _, signed in sorted(self._drawn, key=lambda item: item[1].index):
            self._verify(signed)
        if self._sample is not None:
            self._findings.cannot(
                f"signatures of contributions beyond a sample of {self._sample}; --sample was given"
            )
        self._quorum(log)

    # Witnesses.

    def ledger_keys(self, study: Study) -> Mapping[str, IdentityKey]:
        """Ledger keys of a study's members by the origins of their logs."""
        return {f"{self.alliance}/member/{name}": key for name, key in study.keys.items()}

    def _quorum(self, log: Log) -> None:
        """Check (7) of the coordinator's own head."""
        study = self.active
        if study is None:
            return
        path = f"{log.folder}/cosigned.note"
        if log.cosigned is None:
            self._findings.add(7, path, "there is no head that members cosigned")
            return
        head, note = log.cosigned
        signers = cosigners(note, self.ledger_keys(study))
        self._findings.count(7, len(signers))
        if len(signers) < study.terms.quorum:  # (7)
            what = f"{len(signers)} members of {study.label} cosigned, {study.terms.quorum} are due"
            self._findings.add(7, path, what)
        if head.size <= self.newest_index:
            self._findings.cannot(
                f"entries {head.size} to {log.size - 1} of {log.file} are newer than the newest "
                "head that members cosigned: nobody but the coordinator vouches for them yet"
            )


def _in_order(study: Study, names: Collection[str]) -> bool:
    """Whether these are distinct members of the roster in its order."""
    indices = [study.setup.indices.get(name, 0) for name in names]
    return all(a < b for a, b in zip((0, *indices), indices, strict=False))
