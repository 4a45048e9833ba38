"""A member's log, entry by entry: its budget folded again, its record held against others'.

Numbers are those of `findings.CHECKS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from privacy.acceptance import verify_acceptance
from privacy.budget import Account
from privacy.errors import BadSignature, BudgetRefusal, EvidenceError
from privacy.identity import IdentityKey
from privacy.ledger.audit_coordinator import CoordinatorAudit, contribution_digest
from privacy.ledger.audit_log import Claim, Heads, Log
from privacy.ledger.audit_study import attempt_key, check_profile, figures_of, read_terms
from privacy.ledger.bundle import LONGEST_LINE, Bundle
from privacy.ledger.checkpoint import Checkpoint, cosigners, open_checkpoint
from privacy.ledger.entry import (
    AnyEntry,
    Conflict,
    Consent,
    Contribution,
    Failure,
    Opened,
    Release,
    Reservation,
    decode_entry,
    parse_canonical,
)
from privacy.ledger.findings import Findings
from privacy.ledger.merkle import leaf_hash, verify_inclusion
from privacy.terms import Terms

__all__ = ["MemberAudit", "Spent"]

MOST_POINTS: Final = 400
"""Of a plot."""
RECEIPT: Final[Mapping[str, type]] = {"coordinator": str, "entry": str, "index": int, "proof": list}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a member had spent at a moment, in millionths of epsilon, for 1 and for 5 members."""

    at_ms: int
    one: int
    five: int


@dataclass(slots=True)
class _Reserved:
    """Reservations of one study: the last number of each, and its entry."""

    last: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)


class MemberAudit:
    """Folds one member's log.

    Args:
        name: the member.
        findings: takes what does not hold.
        heads: takes heads of other logs.
        coordinator: what the coordinator's log says; None if it is not there.
    """

    def __init__(
        self, name: str, findings: Findings, heads: Heads, coordinator: CoordinatorAudit | None
    ) -> None:
        self.name = name
        self.account = Account()
        self.points: list[Spent] = []
        self.terms: dict[str, Terms] = {}
        self.file = f"members/{name}/entries.jsonl"
        self._findings = findings
        self._heads = heads
        self._coordinator = coordinator
        self._own: dict[tuple[str, int], str] = {}
        """By terms and `attempt_key`: the hash of what left."""
        self._absent: list[tuple[int, Contribution]] = []
        self._reserved: dict[str, _Reserved] = {}
        self._needs = 0
        """Entries that a cosigned head must cover, for what was spent to have been covered."""
        self._key = ""
        self._stride, self._skipped = 1, 0

    def apply(self, index: int, entry: AnyEntry) -> None:
        """Takes the log's next entry."""
        self._findings.count(10)
        if isinstance(entry, Opened):
            self._key = entry.key
            self.points.append(Spent(entry.at_ms, 0, 0))
        try:
            self.account.apply(entry, recompute=True)  # (10)
        except BudgetRefusal as error:
            self._findings.add(10, self.file, str(error), entry=index)
        match entry:
            case Contribution():
                self._contribution(index, entry)
            case Reservation():
                reserved = self._reserved.setdefault(entry.terms, _Reserved())
                reserved.last.append(entry.first + entry.count - 1)
                reserved.index.append(index)
                self._point(entry.at_ms)
            case Consent():
                self._consent(index, entry)
            case Conflict():
                self._heads.conflict(self.file, index, entry)
            case _:
                pass

    # Entries.

    def _consent(self, index: int, entry: Consent) -> None:
        self._findings.count(6)
        try:
            terms = read_terms(entry.terms, entry.hash)  # (6)
            verify_acceptance(
                terms,
                member=self.name,
                ledger_key=self._key,
                signature=bytes.fromhex(entry.signature),
            )
        except (EvidenceError, BadSignature) as error:
            self._findings.add(6, self.file, f"consent: {error}", entry=index)
            return
        self.terms[entry.hash] = terms
        self._findings.count(11, len(entry.profile_micro))
        try:
            whole = figures_of(terms).whole
        except EvidenceError as error:
            self._findings.add(11, self.file, str(error), entry=index)
            return
        if wrong := check_profile(entry.profile_micro, whole):  # (11)
            what = f"consent to {terms.label}: {wrong}"
            self._findings.add(11, self.file, what, entry=index)

    def _contribution(self, index: int, entry: Contribution) -> None:
        key = attempt_key(entry.round, entry.attempt)
        self._own[entry.terms, key] = entry.sha256
        reserved = self._reserved.get(entry.terms)
        if reserved is not None:
            at = bisect_left(reserved.last, entry.number)
            if at < len(reserved.index):
                self._needs = max(self._needs, reserved.index[at] + 1)
        if self._coordinator is None:
            return
        self._findings.count(13)
        theirs = self._coordinator.contributions.get((entry.terms, self.name), {}).pop(key, None)
        if theirs is None:
            self._absent.append((index, entry))
        elif theirs[1] != contribution_digest(entry.sha256, entry.signature):  # (13)
            what = (
                f"round {entry.round} attempt {entry.attempt}: what left is not what the "
                f"coordinator recorded in its entry {theirs[0]}"
            )
            self._findings.add(13, self.file, what, entry=index)

    def _point(self, at_ms: int) -> None:
        """A point for the plot; every second one is let go when there are too many."""
        self._skipped += 1
        if self._skipped < self._stride:
            return
        self._skipped = 0
        account = self.account
        self.points.append(Spent(at_ms, account.epsilon_micro(1), account.epsilon_micro(5)))
        if len(self.points) > MOST_POINTS:
            del self.points[1::2]
            self._stride *= 2

    # Afterwards.

    def finish(self, log: Log) -> None:
        """What can be said once this log and the coordinator's are read."""
        coordinator = self._coordinator
        if coordinator is None:
            self._findings.cannot(
                f"whether the coordinator's log agrees with that of {self.name}: it is not here"
            )
            return
        for index, entry in self._absent:  # (13)
            study = coordinator.studies.get(entry.terms)
            what = (
                study.miss(entry.round, entry.attempt, self.name, self._findings)
                if study
                else "contributed to terms that the coordinator's log does not have"
            )
            if what:
                self._findings.add(13, self.file, what, entry=index)
        for terms_hash, terms in self.terms.items():
            study = coordinator.studies.get(terms_hash)
            theirs = study.keys.get(self.name) if study else None
            if theirs is not None and theirs != log.key:  # (6)
                what = f"{self.name} accepted {terms.label} with another ledger key than this log's"
                self._findings.add(6, self.file, what)
        for (terms_hash, member), left in coordinator.contributions.items():
            if member == self.name and left:  # (13)
                self._findings.count(13, len(left))
                for key, (index, _) in sorted(left.items())[:20]:
                    what = (
                        f"records a contribution of {self.name} to round {key >> 53} attempt "
                        f"{key & (1 << 53) - 1} of terms {terms_hash[:16]}; its own log has none"
                    )
                    self._findings.add(13, "coordinator/entries.jsonl", what, entry=index)
        self._quorum(log, coordinator)

    def _quorum(self, log: Log, coordinator: CoordinatorAudit) -> None:
        """Check (7) of the reservations that were used."""
        if not self._needs:
            return
        path = f"{log.folder}/cosigned.note"
        if log.cosigned is None:
            self._findings.add(7, path, f"{self.name} spent, and no quorum cosigned its head")
            return
        head, note = log.cosigned
        studies = [coordinator.studies.get(one) for one in reversed(self._reserved)]
        study = next((one for one in studies if one is not None), None)
        if study is None:
            return
        signers = {*cosigners(note, coordinator.ledger_keys(study)), log.origin}
        self._findings.count(7, len(signers))
        if len(signers) < study.terms.quorum:  # (7)
            what = f"{len(signers)} members vouch for this log, {study.terms.quorum} are due"
            self._findings.add(7, path, what)
        if head.size < self._needs:
            what = (
                f"covers {head.size} entries; {self.name} used a reservation in entry "
                f"{self._needs - 1}, which no quorum vouches for"
            )
            self._findings.add(7, path, what)

    # Receipts.

    def read_receipts(
        self, bundle: Bundle, coordinator: Log | None, key: IdentityKey | None
    ) -> None:
        """Checks this member's receipts, check (12), and takes the heads in them.

        Args:
            bundle: the folder.
            coordinator: the coordinator's log; None if it is not there.
            key: the coordinator's, if it is known.
        """
        path = f"members/{self.name}/receipts.jsonl"
        if not bundle.has(path):
            if self._own:
                self._findings.cannot(f"receipts of {self.name}: there are none in the folder")
            return
        alliance = self.account.opened.origin.partition("/")[0] if self.account.opened else ""
        opened: dict[str, Checkpoint] = {}
        try:
            for number, line in enumerate(bundle.lines(path, longest=LONGEST_LINE)):
                self._findings.count(12)
                try:
                    item = _receipt(line)
                    note = item["coordinator"]
                    if key is not None and note not in opened:
                        opened[note] = open_checkpoint(
                            note.encode(), origin=f"{alliance}/coordinator", key=key
                        )
                    if key is not None:
                        self._receipt(item, opened[note], coordinator, path, number)
                except EvidenceError as error:
                    self._findings.add(12, path, str(error), entry=number)
        except EvidenceError as error:
            self._findings.add(12, path, str(error).removeprefix(f"{path} "))
        if key is None:
            self._findings.cannot(
                f"receipts of {self.name}: the coordinator's key is not known; give --key"
            )

    def _receipt(
        self,
        item: Mapping[str, Any],
        head: Checkpoint,
        coordinator: Log | None,
        path: str,
        number: int,
    ) -> None:
        data, index = item["entry"].encode(), item["index"]
        try:
            proof = [bytes.fromhex(one) for one in item["proof"]]
        except (ValueError, TypeError) as error:
            raise EvidenceError("a proof is a list of hashes") from error
        leaf = leaf_hash(data)
        verify_inclusion(leaf=leaf, index=index, size=head.size, proof=proof, root=head.root)
        entry = decode_entry(data, where="the receipt's entry")
        if not isinstance(entry, (Release, Failure)):
            raise EvidenceError("the entry records no contribution")
        theirs = {one.member: one.sha256 for one in entry.contributions}.get(self.name)
        own = self._own.get((entry.terms, attempt_key(entry.round, entry.attempt)))
        if theirs is None or theirs != own:
            raise EvidenceError("the entry does not record what left this member")
        if coordinator is not None and coordinator.leaf(index) != leaf:
            raise EvidenceError(f"entry {index} of the coordinator's log is another")
        what = f"the coordinator's head in a receipt of {self.name}"
        self._heads.claim(Claim(head.origin, head.size, head.root, 5, path, number, what))


def _receipt(line: bytes) -> dict[str, Any]:
    document = parse_canonical(line, where="the receipt")
    if not isinstance(document, dict) or document.keys() != RECEIPT.keys():
        raise EvidenceError(f"a receipt has {', '.join(RECEIPT)}")
    if any(type(document[name]) is not kind for name, kind in RECEIPT.items()):
        raise EvidenceError("a field of the receipt is of the wrong kind")
    return document
