"""Members witness each other's heads, so that no attempt is spent from a log that went back.

Three phases ahead of time (privacy/ledger/README.md, section 3): `reserve`, `witness`, `grant`. The
coordinator carries notes and proofs between members and can forge none of them; by withholding
them it only delays. Nothing here is spent by the coordinator, and members check for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.evidence import Evidence
from coordinator.mirror import Mirror
from coordinator.monitor import MemberFaulted, Monitor
from privacy.errors import EvidenceError, Fork, MemberFault, Rollback
from privacy.identity import IdentityKey
from privacy.ledger.checkpoint import add_cosignatures, cosigners, open_checkpoint
from privacy.ledger.entry import Head, canonical, parse_canonical
from privacy.ledger.merkle import root
from privacy.ledger.note import NoteSignature
from privacy.terms import Terms

__all__ = ["Ask", "Ledgers", "Witnessing"]

PAGE: Final = 200
"""Heads in one message to a witness."""
CATCH_UP: Final = 64
"""Messages in which a member may send the leaves that the coordinator lacks."""
LOOKS: Final = 2
"""How often a witness that holds another head than was thought is shown a proof that fits."""

Ask = Callable[[str, Mapping[str, bytes], Callable[[str, bytes], None]], None]
"""Sends each member a body in a phase; answers are taken as they arrive and may raise a fault."""


@dataclass(frozen=True, slots=True)
class Ledgers:
    """The coordinator's own log, and what it holds of members'."""

    evidence: Evidence
    mirror: Mirror


@dataclass(slots=True)
class _Witnessed:
    """A head that is being witnessed, and who signed."""

    note: bytes
    lines: dict[str, str] = field(default_factory=dict)


class Witnessing:
    """Has reservations covered by cosigned heads, and this coordinator's own head as well.

    Args:
        terms: of the study.
        evidence: the coordinator's log.
        mirror: members' logs; every member that accepted the terms is open in it.
        monitor: is told who misbehaves.
        ask: carries messages.
    """

    def __init__(
        self, terms: Terms, evidence: Evidence, mirror: Mirror, monitor: Monitor, ask: Ask
    ) -> None:
        self._terms = terms
        self._evidence = evidence
        self._mirror = mirror
        self._monitor = monitor
        self._ask = ask
        self._held: dict[tuple[str, str], int] = {}
        """By witness and origin: the size it holds, as far as is known."""
        self._behind: Rollback | Fork | None = None
        self._receipted: dict[str, int] = {}
        """By member: up to which entry of the coordinator's log it has receipts, as it says."""

    def grant(self, members: Iterable[str], ahead: int) -> tuple[str, ...]:
        """Members that may spend their next ``ahead`` attempts now.

        Args:
            members: whom to ask.
            ahead: attempts each is to have reserved and unused.

        Raises:
            Rollback, Fork: if a witness holds a head that this coordinator's own log does not
                contain: it was restored from a backup, and must not go on.
        """
        asked = tuple(members)
        reserved = self._reserve(asked, ahead)
        own = self._evidence.store.note()
        witnessed = {name: _Witnessed(note) for name, note in reserved.items()}
        self_witnessed = _Witnessed(own)
        pending = {name: set(witnessed) for name in asked}
        for _ in range(LOOKS):
            pending = self._witness(pending, witnessed, self_witnessed)
            if self._behind is not None:
                raise self._behind
            if not any(pending.values()):
                break
        covered = self._covered(witnessed)
        cosigned = add_cosignatures(own, self_witnessed.lines.values())
        if len(cosigners(cosigned, self._keys())) >= self._terms.quorum:
            self._evidence.keep_head(cosigned)  # one that fewer signed takes no place of it
        return self._deliver(covered, cosigned)

    # The phases.

    def _reserve(self, members: tuple[str, ...], ahead: int) -> dict[str, bytes]:
        """Members whose newest head is known here completely, with its note."""
        complete: dict[str, bytes] = {}

        def take(name: str, body: bytes) -> None:
            fields = {"first": int, "leaves": str, "note": str, "receipted": int}
            said = _document(name, body, fields)
            note = said["note"].encode()
            if self._mirror.extend(name, note, said["first"], _hex(name, said["leaves"])):
                complete[name] = note
                self._receipted[name] = max(0, said["receipted"])

        waiting = members
        for _ in range(CATCH_UP):
            before = {name: self._mirror.log(name).tree.size for name in waiting}
            bodies = {
                name: canonical(
                    {
                        "ahead": ahead,
                        "have": self._mirror.log(name).tree.size,
                        "head": self._mirror.log(name).head.decode(),
                    }
                )
                for name in waiting
            }
            self._ask("reserve", bodies, take)
            waiting = tuple(
                name
                for name in waiting
                if name not in complete and self._mirror.log(name).tree.size > before[name]
            )
            if not waiting:
                break
        return complete

    def _witness(
        self, pending: dict[str, set[str]], witnessed: dict[str, _Witnessed], own: _Witnessed
    ) -> dict[str, set[str]]:
        """Shows every witness the heads it has not signed; what is still unsigned afterwards."""
        left = {witness: set(names) for witness, names in pending.items()}

        def take(name: str, body: bytes) -> None:
            said = _document(name, body, {"held": dict, "own": str, "signed": dict})
            if said["own"]:
                own.lines[name] = _line(name, said["own"])
                self._held[name, self._evidence.origin] = own_size
            for other, line in said["signed"].items():
                if other in left.get(name, ()):
                    witnessed[other].lines[name] = _line(name, line)
                    self._held[name, self._mirror.log(other).origin] = self._sizes(witnessed)[other]
                    left[name].discard(other)
            for origin, note in said["held"].items():
                self._learn(name, str(origin), str(note).encode())

        own_size = open_checkpoint(
            own.note, origin=self._evidence.origin, key=self._evidence.key
        ).size
        pages = max((len(names) for names in left.values()), default=0)
        for start in range(0, max(pages, 1), PAGE):
            bodies = {}
            for witness, names in pending.items():
                page = sorted(names)[start : start + PAGE]
                if page or (start == 0 and witness not in own.lines):
                    bodies[witness] = self._showing(witness, page, witnessed, own, own_size)
            if bodies:
                self._ask("witness", bodies, take)
        return left

    def _showing(
        self,
        witness: str,
        page: list[str],
        witnessed: dict[str, _Witnessed],
        own: _Witnessed,
        own_size: int,
    ) -> bytes:
        """What one witness is shown: heads, and proofs from the ones it holds."""
        sizes = self._sizes(witnessed)
        items = []
        for name in page:
            log = self._mirror.log(name)
            held = min(self._held.get((witness, log.origin), 0), sizes[name])
            proof = log.proof(held)
            items.append(
                {
                    "acceptance": log.acceptance.hex(),
                    "held": held,
                    "ledger_key": log.key,
                    "member": name,
                    "note": witnessed[name].note.decode(),
                    "proof": [part.hex() for part in proof],
                }
            )
        held = min(self._held.get((witness, self._evidence.origin), 0), own_size)
        proof = self._evidence.store.consistency_proof(held, own_size) if held else []
        coordinator = {
            "held": held,
            "ledger_key": self._evidence.key,
            "note": own.note.decode(),
            "proof": [part.hex() for part in proof],
        }
        return canonical({"coordinator": coordinator, "members": items})

    def _sizes(self, witnessed: Mapping[str, _Witnessed]) -> dict[str, int]:
        return {name: self._mirror.log(name).tree.size for name in witnessed}

    def _learn(self, witness: str, origin: str, note: bytes) -> None:
        """Takes what a witness holds instead of what was thought; believed only if it fits.

        Raises:
            MemberFault: if it is signed by nobody known, or does not lie on the log known here:
                then that log has two histories, and its owner or this copy is at fault.
        """
        if not note:
            self._held[witness, origin] = 0
            return
        if origin == self._evidence.origin:
            try:
                self._held[witness, origin] = self._evidence.store.check_head(note).size
            except EvidenceError as error:
                raise MemberFault(witness, f"holds no head of this log: {error}") from error
            except (Rollback, Fork) as error:
                self._behind = error
            return
        owner = origin.rpartition("/")[2]
        log = self._mirror.log(owner)
        try:
            head = open_checkpoint(note, origin=log.origin, key=log.key)
        except EvidenceError as error:
            raise MemberFault(
                witness, f"holds a head of {owner} that is not its: {error}"
            ) from error
        if head.size <= log.tree.size and root(log.tree, head.size) == head.root:
            self._held[witness, origin] = head.size
            return
        what = f"{witness} holds a head of it of {head.size} entries that its log does not contain"
        self._monitor.emit(MemberFaulted(owner, what))
        log.head, log.size = note, head.size  # shown to its owner, which then knows it is behind

    def _covered(self, witnessed: Mapping[str, _Witnessed]) -> dict[str, bytes]:
        """Heads with a quorum of valid cosignatures, their own signature among them."""
        keys = self._keys()
        covered: dict[str, bytes] = {}
        for name, one in witnessed.items():
            note = add_cosignatures(one.note, one.lines.values())
            signers = set(cosigners(note, keys)) | {self._mirror.log(name).origin}
            if len(signers) >= self._terms.quorum:
                covered[name] = note
                continue
            what = (
                f"{len(signers)} members vouch for its ledger and {self._terms.quorum} are needed"
            )
            self._monitor.emit(MemberFaulted(name, what))
        self._mirror.save(covered)
        logs = {name: self._mirror.log(name) for name in covered}
        self._evidence.heads(
            self._terms,
            tuple(
                Head(member=name, size=log.size, root=root(log.tree, log.size).hex())
                for name, log in logs.items()
            ),
        )
        return covered

    def _keys(self) -> dict[str, IdentityKey]:
        """Members' ledger keys by the origins of their logs."""
        return {
            self._mirror.log(entry.name).origin: self._mirror.log(entry.name).key
            for entry in self._terms.roster
            if self._mirror.knows(entry.name)
        }

    def _deliver(self, covered: Mapping[str, bytes], own: bytes) -> tuple[str, ...]:
        """Hands everybody its cosigned head and its receipts; who took them.

        Args:
            covered: members' heads.
            own: this log's head, which the receipts lead to.
        """
        granted: list[str] = []

        def take(name: str, body: bytes) -> None:
            _document(name, body, {})
            granted.append(name)

        size = open_checkpoint(own, origin=self._evidence.origin, key=self._evidence.key).size
        since = {name: self._receipted.get(name, 0) for name in covered}
        bodies = {
            name: canonical(
                {"coordinator": own.decode(), "note": covered[name].decode(), "receipts": receipts}
            )
            for name, receipts in self._evidence.receipts(since, size).items()
        }
        if bodies:
            self._ask("grant", bodies, take)
        return tuple(name for name in covered if name in granted)


def _document(member: str, body: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
    """The canonical object in a member's answer.

    Raises:
        MemberFault: if it is not one with exactly these fields.
    """
    try:
        document = parse_canonical(body, where="answer")
    except EvidenceError as error:
        raise MemberFault(member, str(error)) from error
    if not isinstance(document, dict) or document.keys() != fields.keys():
        raise MemberFault(member, f"its answer must have {', '.join(fields)}")
    if any(type(document[name]) is not kind for name, kind in fields.items()):
        raise MemberFault(member, "a field of its answer is of the wrong kind")
    return document


def _line(member: str, text: object) -> str:
    """A signature line as a witness sent it; whether it is valid is told where lines are counted.

    Raises:
        MemberFault: if it is none: it would spoil the note for everybody who signed it.
    """
    try:
        if not isinstance(text, str) or not text.isprintable():
            raise EvidenceError("not a signature line")
        NoteSignature.parse(text)
    except EvidenceError as error:
        raise MemberFault(member, f"its cosignature is none: {error}") from error
    return text


def _hex(member: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise MemberFault(member, "its leaves are not hexadecimal") from error
