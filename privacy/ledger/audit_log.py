"""One log of a bundle, read once: entries in order, its tree, and heads that must lie on it.

Numbers are those of `findings.CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from privacy.errors import EvidenceError
from privacy.identity import IdentityKey
from privacy.ledger.bundle import LONGEST_NOTE, Bundle
from privacy.ledger.checkpoint import Checkpoint, open_checkpoint
from privacy.ledger.entry import LONGEST_ENTRY, AnyEntry, Conflict, Opened, decode_entry
from privacy.ledger.findings import Findings
from privacy.ledger.merkle import HASH_BYTES, Stream, leaf_hash

__all__ = ["Claim", "Heads", "Log", "read_log"]

TOLD_EVERY: Final = 5000

Apply = Callable[[int, AnyEntry], None]


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's word that a log had this head.

    Args:
        origin: the log's.
        size: of the head.
        root: of the head.
        check: the check that this is part of.
        file: where it says so.
        entry: index there.
        what: whose word it is, for the sentence.
    """

    origin: str
    size: int
    root: bytes
    check: int
    file: str
    entry: int | None
    what: str


@dataclass(slots=True)
class Log:
    """A log as its file has it.

    Args:
        folder: ``coordinator`` or ``members/NAME``.
        origin: as its first entry says.
        key: likewise; signs its heads.
        leaves: hashes of its entries, one after the other.
        cosigned: the newest head with cosignatures that the folder holds, and its note.
    """

    folder: str
    origin: str
    key: IdentityKey
    leaves: bytearray = field(default_factory=bytearray)
    cosigned: tuple[Checkpoint, bytes] | None = None

    @property
    def file(self) -> str:
        """The path of its entries."""
        return f"{self.folder}/entries.jsonl"

    @property
    def size(self) -> int:
        """How many entries it has."""
        return len(self.leaves) // HASH_BYTES

    def leaf(self, index: int) -> bytes:
        """The hash of an entry; empty if there is none."""
        return bytes(self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES])


def read_log(
    bundle: Bundle,
    folder: str,
    origin: str,
    findings: Findings,
    apply: Apply,
    told: Callable[[int], None] = lambda size: None,
) -> Log | None:
    """Reads a log's file from its first line to its last and hands on every entry.

    An entry that cannot be read is a finding; what follows it is hashed, and no longer handed on.

    Args:
        bundle: the folder.
        folder: of the log in it.
        origin: how the log's origin must end.
        findings: takes what is wrong.
        apply: takes index and entry.
        told: is told how many bytes more were read.

    Returns:
        The log; None if it has no first entry that says whose it is.
    """
    path = f"{folder}/entries.jsonl"
    if not bundle.has(path):
        findings.add(3, path, "is missing, so nothing of this log can be read")
        return None
    log: Log | None = None
    leaves = bytearray()
    readable, index, read = True, 0, 0
    try:
        for index, line in enumerate(bundle.lines(path, longest=LONGEST_ENTRY)):
            leaves += leaf_hash(line)
            read += len(line) + 1
            if readable:
                try:
                    entry = decode_entry(line, where=path)
                    if index == 0:
                        log = _opened(entry, folder, origin)
                    apply(index, entry)
                except EvidenceError as error:
                    readable = False
                    findings.add(3, path, _without(path, str(error)), entry=index)
            if index % TOLD_EVERY == 0:
                told(read)
                read = 0
    except EvidenceError as error:
        findings.add(3, path, _without(path, str(error)), entry=len(leaves) // HASH_BYTES)
    told(read)
    findings.count(3, len(leaves) // HASH_BYTES)
    if not leaves:
        findings.add(3, path, "is empty; a log has an `opened` entry")
    if log is not None:
        log.leaves = leaves
    return log


def _opened(entry: AnyEntry, folder: str, origin: str) -> Log:
    if not isinstance(entry, Opened):
        raise EvidenceError(f"is `{entry.kind}`, not `opened`")
    if not entry.origin.endswith(f"/{origin}") or entry.origin.count("/") != origin.count("/") + 1:
        raise EvidenceError(f"opens {entry.origin}, which is not {origin}")
    return Log(folder, entry.origin, IdentityKey(entry.key))


def _without(path: str, sentence: str) -> str:
    return sentence.removeprefix(f"{path}: ").removeprefix(path).strip()


class Heads:
    """Collects heads that were claimed of logs, and holds them against the logs' trees.

    Args:
        findings: takes what does not hold.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._claims: dict[str, list[Claim]] = {}
        self._conflicts: list[tuple[str, int, Conflict]] = []

    def claim(self, claim: Claim) -> None:
        """Takes a head that must lie on its log."""
        self._claims.setdefault(claim.origin, []).append(claim)

    def conflict(self, file: str, index: int, entry: Conflict) -> None:
        """Takes a witness's evidence against a log."""
        self._conflicts.append((file, index, entry))

    def read_heads(self, bundle: Bundle, log: Log) -> None:
        """Takes the heads in a log's own folder."""
        path = f"{log.folder}/head.note"
        if head := self._open(bundle, path, log, 4):  # (4)
            if head[0].size != log.size:
                what = f"is a head of {head[0].size} entries, the log has {log.size}"
                self._findings.add(4, path, what)
            self.claim(Claim(log.origin, head[0].size, head[0].root, 4, path, None, "the head"))
        path = f"{log.folder}/cosigned.note"
        if bundle.has(path) and (cosigned := self._open(bundle, path, log, 5)):  # (5)
            log.cosigned = cosigned
            what = "the cosigned head"
            head_ = cosigned[0]
            self.claim(Claim(log.origin, head_.size, head_.root, 5, path, None, what))

    def settle(self, logs: Iterable[Log]) -> None:
        """Holds every claim against its log, reading each log's leaves once more."""
        known = {log.origin: log for log in logs}
        for file, index, conflict in self._conflicts:
            self._settle_conflict(file, index, conflict, known.get(conflict.origin))
        for origin, claims in self._claims.items():
            claims.sort(key=lambda claim: claim.size)
            log = known.get(origin)
            self._findings.count(5, sum(claim.check == 5 for claim in claims))
            if log is None:
                self._settle_absent(origin, claims)
            else:
                self._settle(log, claims)

    def _open(
        self, bundle: Bundle, path: str, log: Log, check: int
    ) -> tuple[Checkpoint, bytes] | None:
        if check == 4:
            self._findings.count(4)
        try:
            note = bundle.read(path, most_bytes=LONGEST_NOTE)
            return open_checkpoint(note, origin=log.origin, key=log.key), note
        except EvidenceError as error:
            self._findings.add(check, path, _without(path, str(error)))
            return None

    def _settle(self, log: Log, claims: list[Claim]) -> None:
        stream, append, leaves = Stream(), None, log.leaves
        append = stream.append
        for claim in claims:
            if claim.size > log.size:
                what = (
                    f"{claim.what} covers {claim.size} entries, {log.file} has {log.size}: entries "
                    "were taken away"
                )
                self._findings.add(claim.check, claim.file, what, entry=claim.entry)
                continue
            while stream.size < claim.size:
                at = stream.size * HASH_BYTES
                append(bytes(leaves[at : at + HASH_BYTES]))
            if stream.root() != claim.root:
                what = (
                    f"{claim.what} does not lie on {log.file}: its first {claim.size} entries are "
                    "not those that were signed"
                )
                self._findings.add(claim.check, claim.file, what, entry=claim.entry)

    def _settle_absent(self, origin: str, claims: list[Claim]) -> None:
        self._findings.cannot(f"the log of {origin} is not in the folder; heads of it were named")
        for before, claim in pairwise(claims):
            if before.size == claim.size and before.root != claim.root:
                what = f"{claim.what} and that in {before.file} are two heads of one size"
                self._findings.add(claim.check, claim.file, what, entry=claim.entry)

    def _settle_conflict(self, file: str, index: int, entry: Conflict, log: Log | None) -> None:
        """Two notes of one log that a witness was shown: a fork, or an old head shown again."""
        if log is None:
            self._findings.cannot(
                f"{file} entry {index} holds two heads of {entry.origin} against each other; its "
                "log, and so its key, is not in the folder"
            )
            return
        for note in (entry.held, entry.shown):
            try:
                head = open_checkpoint(note.encode(), origin=log.origin, key=log.key)
            except EvidenceError as error:
                what = f"a conflict over {entry.origin} with a note that is not its: {error}"
                self._findings.add(5, file, what, entry=index)
                return
            what = f"a head of {entry.origin} that a witness kept as evidence"
            self.claim(Claim(log.origin, head.size, head.root, 5, file, index, what))
