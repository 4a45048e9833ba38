"""What the coordinator holds of members' logs: their leaf hashes and newest heads, not entries.

Leaf hashes are enough to prove to any witness that a new head follows from the one it holds, and
they tell nothing of what the entries say. They stand in the file of the coordinator's own log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from privacy.errors import EvidenceError, MemberFault
from privacy.identity import IdentityKey
from privacy.ledger.checkpoint import open_checkpoint
from privacy.ledger.merkle import MemoryTree, consistency_proof, root
from privacy.ledger.store import LedgerStore

__all__ = ["HASH_BYTES", "MemberLog", "Mirror", "member_origin"]

HASH_BYTES = 32


def member_origin(alliance: str, member: str) -> str:
    """The origin of a member's log."""
    return f"{alliance}/member/{member}"


@dataclass(slots=True)
class MemberLog:
    """One member's log as far as the coordinator has seen it.

    Args:
        key: its ledger key, bound to its identity by its acceptance.
        acceptance: that signature.
        tree: of the leaf hashes that came.
        head: its newest checkpoint, with cosignatures once there are some; empty before any.
        size: of that head.
    """

    origin: str
    key: IdentityKey
    acceptance: bytes
    tree: MemoryTree = field(default_factory=MemoryTree)
    head: bytes = b""
    size: int = 0
    unsaved: bytes = b""

    def proof(self, old_size: int) -> list[bytes]:
        """That the whole tree follows from its first ``old_size`` leaves; empty from nothing."""
        return consistency_proof(self.tree, old_size, self.tree.size) if old_size else []


class Mirror:
    """All members' logs of one alliance, durable in the coordinator's own file.

    Args:
        store: the coordinator's log.
        alliance: the alliance's name.
    """

    def __init__(self, store: LedgerStore, alliance: str) -> None:
        self._store = store
        self._alliance = alliance
        self._logs: dict[str, MemberLog] = {}
        with store.transaction() as transaction:
            transaction.execute(
                "CREATE TABLE IF NOT EXISTS member_log (member TEXT NOT NULL, ledger_key TEXT NOT "
                "NULL, head BLOB NOT NULL, PRIMARY KEY (member)) STRICT"
            )
            transaction.execute(
                "CREATE TABLE IF NOT EXISTS member_leaves (member TEXT NOT NULL, first INTEGER NOT "
                "NULL, hashes BLOB NOT NULL, PRIMARY KEY (member, first)) STRICT"
            )

    def open(self, member: str, key: IdentityKey, acceptance: bytes) -> MemberLog:
        """A member's log as it was kept; a new ledger key begins an empty one."""
        log = MemberLog(member_origin(self._alliance, member), key, acceptance)
        with self._store.transaction() as transaction:
            kept = transaction.execute(
                "SELECT ledger_key, head FROM member_log WHERE member = ?", (member,)
            ).fetchone()
            if kept is not None and kept[0] == key:
                rows = transaction.execute(
                    "SELECT hashes FROM member_leaves WHERE member = ? ORDER BY first", (member,)
                ).fetchall()
                for (hashes,) in rows:
                    _grow(log.tree, hashes)
                if kept[1]:
                    log.head = kept[1]
                    log.size = open_checkpoint(log.head, origin=log.origin, key=key).size
            else:
                transaction.execute("DELETE FROM member_leaves WHERE member = ?", (member,))
                transaction.execute(
                    "INSERT INTO member_log VALUES (?, ?, x'') ON CONFLICT (member) DO UPDATE SET "
                    "ledger_key = excluded.ledger_key, head = x''",
                    (member, key),
                )
        self._logs[member] = log
        return log

    def log(self, member: str) -> MemberLog:
        """The log of a member that accepted the terms.

        Raises:
            MemberFault: if it did not.
        """
        if member not in self._logs:
            raise MemberFault(member, "has no ledger here; it accepted no terms")
        return self._logs[member]

    def knows(self, member: str) -> bool:
        """Whether a member's log is open here."""
        return member in self._logs

    def extend(self, member: str, note: bytes, first: int, hashes: bytes) -> bool:
        """Takes what a member says is new in its log; whether its head is complete here.

        Kept in memory; `save` makes it durable.

        Raises:
            MemberFault: if the head is not signed by its key, or does not follow from the last.
        """
        log = self.log(member)
        try:
            head = open_checkpoint(note, origin=log.origin, key=log.key)
        except EvidenceError as error:
            raise MemberFault(member, f"its head is not its own: {error}") from error
        if len(hashes) % HASH_BYTES or first != log.tree.size:
            raise MemberFault(member, f"sent leaves from {first}; {log.tree.size} are held")
        if log.tree.size + len(hashes) // HASH_BYTES > head.size:
            raise MemberFault(member, "its head is smaller than the log it was seen to have")
        _grow(log.tree, hashes)
        log.unsaved += hashes
        if log.tree.size < head.size:
            return False
        if root(log.tree, head.size) != head.root:
            self.open(member, log.key, log.acceptance)  # forgets what was just taken
            raise MemberFault(member, "its head does not follow from the log it was seen to have")
        return True

    def save(self, heads: Mapping[str, bytes]) -> None:
        """Makes durable what `extend` took, and members' newest heads with cosignatures."""
        for member, note in heads.items():
            log = self.log(member)
            log.head = note
            log.size = open_checkpoint(note, origin=log.origin, key=log.key).size
        with self._store.transaction() as transaction:
            for member, log in list(self._logs.items()):  # others may come meanwhile
                if log.unsaved:
                    first = log.tree.size - len(log.unsaved) // HASH_BYTES
                    transaction.execute(
                        "INSERT INTO member_leaves VALUES (?, ?, ?)", (member, first, log.unsaved)
                    )
                    log.unsaved = b""
            for member, note in heads.items():
                transaction.execute(
                    "UPDATE member_log SET head = ? WHERE member = ?", (note, member)
                )


def _grow(tree: MemoryTree, hashes: bytes) -> None:
    for start in range(0, len(hashes), HASH_BYTES):
        tree.append(hashes[start : start + HASH_BYTES])
