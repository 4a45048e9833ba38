"""What a witness remembers of other logs, and which of their heads it cosigns. No I/O.

Source: C2SP tlog-witness, add-checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from privacy.errors import EvidenceError, Fork, Rollback
from privacy.identity import Identity, IdentityKey
from privacy.ledger.checkpoint import Checkpoint, cosign, open_checkpoint, own_note
from privacy.ledger.merkle import roots_of_proof, verify_consistency

__all__ = ["Fork", "KnownHead", "Memory", "Rollback", "Witness"]


@dataclass(frozen=True, slots=True)
class KnownHead:
    """The newest head of a log that was cosigned.

    Args:
        origin: the log's.
        key: that signed it; a log under another key is another log.
        size: of the tree.
        root: of the tree.
        note: with the log's own signature.
        forked: whether this log's key was seen to sign what contradicts it.
    """

    origin: str
    key: IdentityKey
    size: int
    root: bytes
    note: bytes
    forked: bool = False


class Memory(Protocol):
    """Where a witness remembers; durable before a call returns."""

    def known(self, origin: str, key: IdentityKey | None = None) -> KnownHead | None:
        """The newest head of a log under a key; without one, under the key remembered last."""

    def remember(self, head: KnownHead, *, replaces: KnownHead | None) -> None:
        """Keeps a head in place of another.

        Raises:
            Rollback: if another one than ``replaces`` is held by now.
        """

    def conflict(self, held: KnownHead, shown: bytes, *, fork: bool) -> None:
        """Keeps a note that does not go with the head held, and whether it proves a fork."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Cosigns heads of logs that never contradict what it cosigned before.

    Guarantees:
        Of one log under one key, the heads it cosigns are consistent and never get smaller, across
        crashes and restarts, as long as its memory does not go back in time. It cosigns nothing
        that is not durable in its memory.

    Args:
        origin: of the witness's own log; names its key.
        key: its ledger key.
        memory: durable.
        now_s: seconds since 1970.
    """

    origin: str
    key: Identity
    memory: Memory
    now_s: Callable[[], int]

    def known(self, origin: str) -> KnownHead | None:
        """The newest head of a log that was cosigned here."""
        return self.memory.known(origin)

    def consider(
        self,
        *,
        origin: str,
        key: IdentityKey,
        note: bytes,
        old_size: int,
        proof: Sequence[bytes],
    ) -> str:
        """Cosigns a head, or says why not.

        Args:
            origin: of the log, which the caller knows by the terms.
            key: the log's, likewise.
            note: its newest checkpoint.
            old_size: the size of the head that this witness is thought to hold; 0 for none.
            proof: of consistency between the two.

        Returns:
            The cosignature's line.

        Raises:
            EvidenceError: if the note is not that log's, or the proof proves nothing. Whoever
                carried it may be to blame, so nothing is kept.
            Rollback: if the head is older than the one held (then both notes are kept), or another
                one is held than ``old_size`` says.
            Fork: if the two contradict each other, now or at any time before. Both are kept.
        """
        # 1. The note is a checkpoint of that log, signed by its key.
        # 2. That key has never been seen to sign two heads that contradict each other.
        # 3. The head is not smaller than the one held.
        # 4. Of the same size, it is the same head. Then it is cosigned again.
        # 5. The proof starts at the head held, and leads to the one shown. From an empty tree, or
        #    from none, everything follows and the proof is empty.
        # 6. The head is durable before the cosignature exists.
        shown = open_checkpoint(note, origin=origin, key=key)  # 1
        bare = own_note(note, origin=origin, key=key)
        held = self.memory.known(origin, key)
        if held is not None:
            if held.forked:  # 2
                raise Fork(f"{origin}: key {key[:16]} signed a fork before", held=held.note)
            if shown.size < held.size:  # 3
                self.memory.conflict(held, bare, fork=False)
                message = f"{origin}: head {shown.size} is older than {held.size}, which is held"
                raise Rollback(message, held=held.note)
            if shown.size == held.size:  # 4
                if shown.root != held.root:
                    self._refuse_fork(held, bare)
                return self._cosign(note)
        self._follow(held, shown, bare, old_size, proof)  # 5
        head = KnownHead(origin, key, shown.size, shown.root, bare)
        self.memory.remember(head, replaces=held)  # 6
        return self._cosign(note)

    def _follow(
        self,
        held: KnownHead | None,
        shown: Checkpoint,
        bare: bytes,
        old_size: int,
        proof: Sequence[bytes],
    ) -> None:
        size = held.size if held else 0
        if old_size != size:
            message = f"{shown.origin}: a head of size {size} is held, not {old_size}"
            raise Rollback(message, held=held.note if held else b"")
        if held is None or held.size == 0:
            if proof:
                raise EvidenceError(f"{shown.origin}: the proof from an empty tree is empty")
            return
        try:
            verify_consistency(
                old_size=held.size,
                new_size=shown.size,
                proof=proof,
                old_root=held.root,
                new_root=shown.root,
            )
        except EvidenceError:
            older, newer = roots_of_proof(held.size, shown.size, proof, held.root)
            if newer == shown.root and older != held.root:
                self._refuse_fork(held, bare)
            raise

    def _refuse_fork(self, held: KnownHead, bare: bytes) -> None:
        self.memory.conflict(held, bare, fork=True)
        message = f"{held.origin}: the head shown contradicts the one of size {held.size} held"
        raise Fork(message, held=held.note)

    def _cosign(self, note: bytes) -> str:
        return cosign(note, witness=self.origin, key=self.key, time_s=self.now_s())
