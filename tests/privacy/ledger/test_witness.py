"""Witnesses: what is cosigned, what is refused, what is kept, and when it is durable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EvidenceError, Fork, LedgerError, Rollback
from privacy.identity import IdentityKey
from privacy.ledger.checkpoint import (
    Checkpoint,
    add_cosignatures,
    cosign,
    cosigners,
    sign_checkpoint,
)
from privacy.ledger.entry import Conflict, decode_entry
from privacy.ledger.merkle import EMPTY_ROOT, MemoryTree, consistency_proof, leaf_hash, root
from privacy.ledger.store import LedgerStore
from privacy.ledger.witness import KnownHead, Witness
from tests.conftest import identity

ORIGIN = "a/member/log"
KEY = identity("log")
SELF = "a/member/witness"
NOW_S = 1_700_000_000


def tree_of(size: int, *, fork_at: int = 10**9) -> MemoryTree:
    tree = MemoryTree()
    for index in range(size):
        tree.append(leaf_hash(b"%d%s" % (index, b"other" if index >= fork_at else b"")))
    return tree


TREE = tree_of(40)
OTHER = tree_of(40, fork_at=4)
"""Shares its first four leaves with `TREE`."""


def note_of(size: int, tree: MemoryTree = TREE, key=KEY, origin=ORIGIN) -> bytes:
    return sign_checkpoint(Checkpoint(origin, size, root(tree, size)), key)


class DictMemory:
    """A memory that can lose its disk."""

    def __init__(self) -> None:
        self.heads: dict[tuple[str, str], KnownHead] = {}
        self.conflicts: list[tuple[bytes, bytes, bool]] = []
        self.broken = False

    def known(self, origin: str, key: IdentityKey | None = None) -> KnownHead | None:
        found = [head for (o, k), head in self.heads.items() if o == origin and key in (None, k)]
        return found[-1] if found else None

    def remember(self, head: KnownHead, *, replaces: KnownHead | None) -> None:
        if self.broken:
            raise LedgerError("disk full")
        if self.known(head.origin, head.key) != replaces:
            raise Rollback("meanwhile")
        self.heads[head.origin, head.key] = head

    def conflict(self, held: KnownHead, shown: bytes, *, fork: bool) -> None:
        self.conflicts.append((held.note, shown, fork))
        if fork:
            self.heads[held.origin, held.key] = KnownHead(
                held.origin, held.key, held.size, held.root, held.note, forked=True
            )


class Scene:
    """One witness and the log it watches."""

    def __init__(self, memory=None) -> None:
        self.memory = memory or DictMemory()
        self.witness = Witness(SELF, identity("witness"), self.memory, lambda: NOW_S)

    def show(self, size: int, tree: MemoryTree = TREE, *, old: int | None = None, proof=None,
             note: bytes | None = None, key=KEY) -> str:  # fmt: skip
        held = self.memory.known(ORIGIN, key.public)
        old = (held.size if held else 0) if old is None else old
        return self.witness.consider(
            origin=ORIGIN,
            key=key.public,
            note=note_of(size, tree, key) if note is None else note,
            old_size=old,
            proof=consistency_proof(tree, min(old, size), size) if proof is None else proof,
        )

    def held(self) -> int | None:
        head = self.witness.known(ORIGIN)
        return head.size if head else None


def test_heads_that_follow_are_cosigned_and_remembered():
    scene = Scene()
    for size in (3, 4, 4, 9, 40):
        line = scene.show(size)
        note = add_cosignatures(note_of(size), [line])
        assert cosigners(note, {SELF: identity("witness").public}) == (SELF,)
        assert line == cosign(note_of(size), witness=SELF, key=identity("witness"), time_s=NOW_S)
        assert scene.held() == size
    assert scene.memory.conflicts == []


@given(st.lists(st.integers(1, 40), max_size=8))
def test_whatever_is_shown_the_head_held_never_gets_smaller(sizes):
    scene = Scene()
    newest = 0
    for size in sizes:
        if size >= newest:
            scene.show(size)
            newest = size
        else:
            with pytest.raises(Rollback):
                scene.show(size)
        assert scene.held() == newest


def test_an_empty_log_is_followed_by_any():
    scene = Scene()
    empty = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), KEY)
    scene.show(0, note=empty, proof=[])
    assert scene.held() == 0
    with pytest.raises(EvidenceError, match="is empty"):
        scene.show(5, proof=[EMPTY_ROOT])
    scene.show(5)
    with pytest.raises(Rollback):
        scene.show(0, note=empty, proof=[])


def test_a_first_head_takes_no_proof():
    scene = Scene()
    with pytest.raises(EvidenceError, match="is empty"):
        scene.show(5, proof=[EMPTY_ROOT])
    assert scene.held() is None


def test_a_rollback_is_refused_and_both_notes_are_kept():
    scene = Scene()
    scene.show(9)
    with pytest.raises(Rollback, match="head 8 is older than 9") as refused:
        scene.show(8, old=8, proof=[])
    assert refused.value.held == note_of(9)
    assert scene.memory.conflicts == [(note_of(9), note_of(8), False)]
    scene.show(10)  # a replayed note does not condemn the log


def test_a_second_head_of_one_size_is_a_fork_for_good():
    scene = Scene()
    scene.show(9)
    with pytest.raises(Fork, match="contradicts") as refused:
        scene.show(9, OTHER, old=9, proof=[])
    assert refused.value.held == note_of(9)
    assert scene.memory.conflicts == [(note_of(9), note_of(9, OTHER), True)]
    for size, tree in [(9, TREE), (10, TREE), (9, OTHER), (40, OTHER)]:
        with pytest.raises(Fork, match="before"):
            scene.show(size, tree)
    assert scene.held() == 9


@pytest.mark.parametrize("new", [10, 16, 17, 40])
def test_a_larger_head_from_another_beginning_is_a_fork(new):
    scene = Scene()
    scene.show(9)
    with pytest.raises(Fork):
        scene.show(new, OTHER)
    assert scene.memory.conflicts == [(note_of(9), note_of(new, OTHER), True)]
    with pytest.raises(Fork, match="before"):
        scene.show(10)


def test_a_fork_after_the_head_held_is_none():
    scene = Scene()
    scene.show(4)
    scene.show(20, OTHER)
    assert scene.held() == 20


@pytest.mark.parametrize(
    "proof",
    [
        [],
        consistency_proof(TREE, 8, 12),
        consistency_proof(TREE, 9, 13),
        consistency_proof(TREE, 9, 12)[:-1],
        [*consistency_proof(TREE, 9, 12), EMPTY_ROOT],
        [EMPTY_ROOT] * len(consistency_proof(TREE, 9, 12)),
        [b"short"],
        [EMPTY_ROOT] * 1000,
    ],
    ids=["none", "other old", "other new", "cut", "longer", "made up", "short", "endless"],
)
def test_a_proof_that_proves_nothing_condemns_nobody(proof):
    scene = Scene()
    scene.show(9)
    with pytest.raises(EvidenceError):
        scene.show(12, proof=proof)
    assert scene.held() == 9
    assert scene.memory.conflicts == []
    scene.show(12)


@pytest.mark.parametrize("old", [0, 3, 8, 10, 40])
def test_whoever_expects_another_head_is_told_which_is_held(old):
    scene = Scene()
    scene.show(9)
    with pytest.raises(Rollback, match="size 9 is held") as refused:
        scene.show(40, old=old)
    assert refused.value.held == note_of(9)
    assert scene.memory.conflicts == []
    with pytest.raises(Rollback, match="size 0 is held") as refused:
        Scene().show(40, old=7)
    assert refused.value.held == b""


def test_the_head_held_is_cosigned_again_whatever_was_expected():
    scene = Scene()
    assert scene.show(9) == scene.show(9, old=0) == scene.show(9, old=3)


@pytest.mark.parametrize(
    "note",
    [
        note_of(9, key=identity("other")),
        note_of(9, origin="a/member/other"),
        note_of(9)[:-1],
        note_of(9).replace(b"\n9\n", b"\n8\n"),
        b"",
    ],
    ids=["other key", "other log", "cut", "changed", "empty"],
)
def test_what_the_log_did_not_sign_is_not_considered(note):
    scene = Scene()
    with pytest.raises(EvidenceError):
        scene.show(9, note=note)
    assert scene.memory.heads == {}


def test_nothing_is_cosigned_that_could_not_be_remembered():
    scene = Scene()
    scene.memory.broken = True
    with pytest.raises(LedgerError, match="disk full"):
        scene.show(9)


def test_a_log_under_another_key_is_another_log():
    scene = Scene()
    scene.show(9)
    with pytest.raises(Fork):
        scene.show(9, OTHER)
    successor = identity("successor")
    scene.show(2, OTHER, key=successor)
    assert scene.held() == 2
    with pytest.raises(Fork, match="before"):
        scene.show(10)


def test_only_the_log_s_own_signature_is_kept():
    scene = Scene()
    line = cosign(note_of(9), witness="a/member/x", key=identity("x"), time_s=5)
    scene.show(9, note=add_cosignatures(note_of(9), [line]))
    assert scene.memory.known(ORIGIN).note == note_of(9)


@pytest.fixture
def stored(tmp_path):
    def open_store():
        return LedgerStore(
            tmp_path / "w.sqlite", origin=SELF, key=identity("witness"), software="test",
            now_ms=lambda: 7,
        )  # fmt: skip

    return open_store


def test_a_store_remembers_across_restarts(stored):
    store = stored()
    Scene(store).show(9)
    store.close()
    store = stored()
    scene = Scene(store)
    assert store.known(ORIGIN) == KnownHead(
        ORIGIN, KEY.public, 9, root(TREE, 9), note_of(9), forked=False
    )
    with pytest.raises(Rollback):
        scene.show(8)
    scene.show(12)
    with pytest.raises(Fork):
        scene.show(12, OTHER)
    store.close()
    store = stored()
    with pytest.raises(Fork, match="before"):
        Scene(store).show(13)
    rollback, fork = (decode_entry(data, where="x") for data in store.entries(1))
    assert rollback == Conflict(
        at_ms=7, origin=ORIGIN, held=note_of(9).decode(), shown=note_of(8).decode()
    )
    assert (fork.held, fork.shown) == (note_of(12).decode(), note_of(12, OTHER).decode())
    store.close()


def test_evidence_is_kept_once_for_each_head_held(stored):
    store = stored()
    scene = Scene(store)
    scene.show(9)
    for size in (8, 7, 8, 3):
        with pytest.raises(Rollback):
            scene.show(size)
    assert store.size == 2
    scene.show(10)
    with pytest.raises(Rollback):
        scene.show(9)
    assert store.size == 3
    store.close()


class Hesitating:
    """A memory that lets somebody else be first between looking and remembering."""

    def __init__(self, store: LedgerStore, meanwhile) -> None:
        self.store, self.meanwhile = store, meanwhile

    def known(self, origin, key=None):
        return self.store.known(origin, key)

    def remember(self, head, *, replaces):
        self.meanwhile()
        self.store.remember(head, replaces=replaces)


def test_of_two_that_show_a_head_at_once_one_asks_again(stored):
    first, second = stored(), stored()
    Scene(first).show(9)
    slow = Scene(Hesitating(first, lambda: Scene(second).show(12)))
    with pytest.raises(Rollback, match="meanwhile") as refused:
        slow.show(11)
    assert refused.value.held == note_of(12)
    assert first.known(ORIGIN).size == second.known(ORIGIN).size == 12
    first.close()
    second.close()
