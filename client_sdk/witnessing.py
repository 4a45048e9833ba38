"""A member as owner of its log and as witness of the others' (privacy/ledger/README.md, section 3).

What it checks, numbered as in the code:
 (1) the newest head that others hold of its own log lies on it; otherwise this log is older than
     its heads, a restored backup perhaps, and nothing is spent from it;
 (2) a ledger key counts as a member's only with that member's acceptance, signed by its identity;
 (3) it cosigns a head only if its witness's memory allows, which is durable before it answers;
 (4) reserved attempts are granted by a quorum's cosignatures over an entry of this process;
 (5) a receipt proves that exactly what left here stands in the coordinator's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from client_sdk.sqlite_journal import SqliteJournal
from privacy.acceptance import verify_acceptance
from privacy.errors import (
    BadSignature,
    EvidenceError,
    Fork,
    LedgerError,
    RequestRefusal,
    Rollback,
)
from privacy.identity import IdentityKey
from privacy.ledger.checkpoint import Checkpoint, cosigners, open_checkpoint
from privacy.ledger.entry import (
    Contribution,
    Failure,
    Release,
    canonical,
    decode_entry,
    parse_canonical,
)
from privacy.ledger.merkle import leaf_hash, verify_inclusion
from privacy.ledger.store import LedgerStore
from privacy.terms import Terms
from protos.logs import log

__all__ = ["Witnessing"]

LEAVES: Final = 4096
"""Leaf hashes in one answer; in hexadecimal they fill half a blob."""

BEHIND: Final = (
    "this member's ledger is older than a head that others hold of it; nothing is spent from it "
    "until the newest one is restored"
)


class Witnessing:
    """One member's part in `reserve`, `witness` and `grant`.

    Args:
        journal: what it approved and spent, on its log.
        member: its name.
    """

    def __init__(self, journal: SqliteJournal, member: str) -> None:
        self._journal = journal
        self._store = journal.store
        self._witness = self._store.witness()
        self._member = member
        self._keys: dict[str, IdentityKey] = {}
        """Ledger keys by origin, each bound to an identity of the roster."""
        self._receipts = _Receipts(self._store, member)

    def reserve(self, terms: Terms, body: bytes) -> bytes:
        """Reserves attempts, durably; this log's head and the leaves the coordinator lacks.

        Raises:
            RequestRefusal: check (1), or a body that is not what it should be.
            BudgetRefusal: if the budget or the terms do not cover them.
        """
        asked = _document(body, {"ahead": int, "have": int, "head": str})
        store = self._store
        self._expect_newest(asked["head"].encode(), asked["have"])  # (1)
        self._journal.reserve(terms, ahead=asked["ahead"])
        note = store.note()
        size = store.check_head(note).size
        first = asked["have"]
        leaves = store.leaf_hashes(first, min(size, first + LEAVES))
        return canonical(
            {
                "first": first,
                "leaves": b"".join(leaves).hex(),
                "note": note.decode(),
                "receipted": self._receipts.up_to,
            }
        )

    def witness(self, terms: Terms, body: bytes) -> bytes:
        """Cosignatures on the heads it is shown, or what it holds instead.

        Raises:
            RequestRefusal: if the body is not what it should be.
        """
        shown = _document(body, {"coordinator": dict, "members": list})
        held: dict[str, str] = {}
        signed: dict[str, str] = {}
        coordinator = _item(shown["coordinator"], _HEAD)
        origin = f"{terms.alliance}/coordinator"
        own = self._cosign(origin, coordinator, held)
        for entry in shown["members"]:
            item = _item(entry, _HEAD | {"acceptance": str, "member": str})
            origin = f"{terms.alliance}/member/{item['member']}"
            try:  # (2)
                verify_acceptance(
                    terms,
                    member=item["member"],
                    ledger_key=item["ledger_key"],
                    signature=_hex(item["acceptance"]),
                )
            except BadSignature as error:
                raise RequestRefusal(f"the ledger key of {item['member']:.80}: {error}") from error
            self._keys[origin] = IdentityKey(item["ledger_key"])
            if line := self._cosign(origin, item, held):
                signed[item["member"]] = line
        return canonical({"held": held, "own": own, "signed": signed})

    def grant(self, terms: Terms, body: bytes) -> bytes:
        """Takes this log's cosigned head, which lets reserved attempts be spent, and receipts.

        Raises:
            RequestRefusal: checks (1), (4) and (5), or a body that is not what it should be.
        """
        given = _document(body, {"coordinator": str, "note": str, "receipts": list})
        note = given["note"].encode()
        head = self._expect_newest(note, 0)  # (1)
        signers = {*cosigners(note, self._keys), self._store.origin}
        if head is None or len(signers) < terms.quorum:  # (4)
            raise RequestRefusal(
                f"{len(signers)} members vouch for this member's ledger, the terms demand "
                f"{terms.quorum}"
            )
        self._store.keep_note(note)
        self._journal.grant(terms, size=head.size)
        self._take_receipts(terms, given["coordinator"].encode(), given["receipts"])
        return canonical({})

    # Heads.

    def _expect_newest(self, note: bytes, held: int) -> Checkpoint | None:
        """Check (1): a head of this log that others hold, and how much of it they have seen."""
        store = self._store
        if held > store.size:
            log("LedgerBehind", held=held, size=store.size)
            raise RequestRefusal(BEHIND)
        if not note:
            return None
        try:
            return store.check_head(note)
        except EvidenceError as error:
            raise RequestRefusal(
                f"a head of this member's ledger is not its own: {error}"
            ) from error
        except (Rollback, Fork) as error:
            log("LedgerDisputed", sentence=str(error))
            raise RequestRefusal(BEHIND) from error

    def _cosign(self, origin: str, item: Mapping[str, Any], held: dict[str, str]) -> str:
        """Check (3): a signature line, or nothing, and then what is held instead."""
        known = self._store.known(origin)
        if known is not None and known.key != item["ledger_key"]:
            log("HeadUncosigned", origin=origin, sentence="signs with another key than before")
            return ""
        try:
            return self._witness.consider(
                origin=origin,
                key=IdentityKey(item["ledger_key"]),
                note=item["note"].encode(),
                old_size=item["held"],
                proof=[_hex(part) for part in item["proof"]],
            )
        except (Rollback, Fork) as error:
            # A coordinator that starts again does not know what is held, and is told.
            log("HeadBehind" if isinstance(error, Rollback) else "HeadForked", sentence=str(error))
            held[origin] = error.held.decode() if error.held else ""
        except (EvidenceError, LedgerError) as error:
            log("HeadUncosigned", origin=origin, sentence=str(error))
        return ""

    def _take_receipts(self, terms: Terms, note: bytes, receipts: list[Any]) -> None:
        """Check (5).

        Raises:
            RequestRefusal: if one does not hold.
        """
        known = self._store.known(f"{terms.alliance}/coordinator")
        if not receipts or known is None:
            return
        try:
            head = open_checkpoint(note, origin=known.origin, key=known.key)
            self._receipts.take(head, note, [_item(one, _RECEIPT) for one in receipts])
        except EvidenceError as error:
            raise RequestRefusal(f"a receipt does not hold: {error}") from error


class _Receipts:
    """Proofs that this member's contributions stand in the coordinator's log.

    Args:
        store: this member's log, which keeps them.
        member: its name.
    """

    def __init__(self, store: LedgerStore, member: str) -> None:
        self._store = store
        self._member = member
        self._read = 0
        """Entries of this log that were looked at."""
        self._left: dict[tuple[str, int, int], str] = {}
        """Contributions that left, by terms, round and attempt: their hashes."""
        last = max((_index(receipt) for receipt in store.receipts()), default=-1)
        self.up_to = last + 1
        """The first entry of the coordinator's log that is not looked at yet."""

    def take(self, head: Checkpoint, note: bytes, items: list[Mapping[str, Any]]) -> None:
        """Checks receipts and keeps them, durably.

        Raises:
            EvidenceError: if one does not hold; then none is kept.
        """
        self._look()
        indices = [self._checked(head, item) for item in items]
        self._store.keep_receipts(
            canonical({**item, "coordinator": note.decode()}) for item in items
        )
        self.up_to = max([self.up_to, *(index + 1 for index in indices)])

    def _checked(self, head: Checkpoint, item: Mapping[str, Any]) -> int:
        """The index of an entry that records what left this member, as the head covers it."""
        entry: bytes = item["entry"].encode()
        index: int = item["index"]
        verify_inclusion(
            leaf=leaf_hash(entry),
            index=index,
            size=head.size,
            proof=[_hex(part) for part in item["proof"]],
            root=head.root,
        )
        read = decode_entry(entry, where=f"entry {index} of the coordinator's log")
        if not isinstance(read, (Release, Failure)):
            raise EvidenceError(f"entry {index} records no contribution")
        recorded = {one.member: one.sha256 for one in read.contributions}.get(self._member)
        if recorded is None or recorded != self._left.get((read.terms, read.round, read.attempt)):
            raise EvidenceError(f"entry {index} does not record what left this member")
        return index

    def _look(self) -> None:
        """Reads on in this member's own log."""
        size = self._store.size
        for data in self._store.entries(self._read, size):
            entry = decode_entry(data, where="this member's log")
            if isinstance(entry, Contribution):
                self._left[entry.terms, entry.round, entry.attempt] = entry.sha256
        self._read = size


def _index(receipt: bytes) -> int:
    index: int = parse_canonical(receipt, where="a receipt")["index"]
    return index


_HEAD: Final[dict[str, type]] = {"held": int, "ledger_key": str, "note": str, "proof": list}
_RECEIPT: Final[dict[str, type]] = {"entry": str, "index": int, "proof": list}


def _document(body: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
    """The canonical object in a body.

    Raises:
        RequestRefusal: if it is not one with exactly these fields.
    """
    try:
        return _item(parse_canonical(body, where="the body"), fields)
    except EvidenceError as error:
        raise RequestRefusal(str(error)) from error


def _item(document: Any, fields: Mapping[str, type]) -> dict[str, Any]:
    if not isinstance(document, dict) or document.keys() != fields.keys():
        raise RequestRefusal(f"an object with {', '.join(fields)} is needed")
    for name, kind in fields.items():
        value: Any = document[name]
        if type(value) is not kind:
            raise RequestRefusal(f"field {name} is of the wrong kind")
        if isinstance(value, int) and value < 0:
            raise RequestRefusal(f"field {name} is negative")
        if name == "proof" and not all(isinstance(one, str) for one in document[name]):
            raise RequestRefusal("a proof is a list of hashes")
    return document


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise RequestRefusal("a hash or signature is not hexadecimal") from error
