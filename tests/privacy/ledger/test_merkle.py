"""The tree: public vectors, RFC 9162's own definitions, and laws over all small sizes."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EvidenceError
from privacy.ledger.merkle import (
    EMPTY_ROOT,
    MemoryTree,
    Stream,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    new_nodes,
    node_hash,
    root,
    roots_of_proof,
    verify_consistency,
    verify_inclusion,
)

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "merkle" / "testdata"
MANY = 300

needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no public vectors in {VECTORS}")


def tree_of(size: int, salt: bytes = b"") -> MemoryTree:
    tree = MemoryTree()
    for index in range(size):
        tree.append(leaf_hash(salt + b"%d" % index))
    return tree


TREE = tree_of(MANY)
SIZES = st.integers(1, MANY)


def unbase64(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def vectors(kind: str) -> list[Path]:
    return sorted((VECTORS / kind).rglob("*.json"))


def decide(kind: str, case: dict) -> None:
    proof = [unbase64(part) for part in case["proof"] or []]
    if kind == "inclusion":
        verify_inclusion(
            leaf=unbase64(case["leafHash"]), index=case["leafIdx"], size=case["treeSize"],
            proof=proof, root=unbase64(case["root"]),
        )  # fmt: skip
    else:
        verify_consistency(
            old_size=case["size1"], new_size=case["size2"], proof=proof,
            old_root=unbase64(case["root1"]), new_root=unbase64(case["root2"]),
        )  # fmt: skip


@needs_vectors
@pytest.mark.parametrize(("kind", "count"), [("inclusion", 98), ("consistency", 98)])
def test_public_vectors_are_decided_rightly(kind, count):
    paths = vectors(kind)
    assert len(paths) == count
    accepted = 0
    for path in paths:
        case = json.loads(path.read_text())
        try:
            decide(kind, case)
        except EvidenceError:
            assert case["wantErr"], path
        else:
            assert not case["wantErr"], path
            accepted += 1
    assert 0 < accepted < count


def definition(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = definition(leaves[:split]), definition(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("size", [*range(35), 64, 65, 127, 200])
def test_every_way_to_a_root_is_the_definition(size):
    leaves = [b"%d" % index for index in range(size)]
    stream = Stream()
    for leaf in leaves:
        stream.append(leaf_hash(leaf))
    expected = definition(leaves)
    assert stream.root() == root(TREE, size) == TREE.root(size) == expected
    assert tree_of(size).root() == expected
    assert Stream.resume(TREE, size).root() == expected
    assert stream.size == size


def test_a_stream_names_the_subtrees_that_a_tree_does():
    tree, stream = MemoryTree(), Stream()
    for index in range(130):
        leaf = leaf_hash(b"%d" % index)
        before = stream.copy()
        assert stream.append(leaf) == new_nodes(tree, index, leaf)
        tree.append(leaf)
        assert (before.size, before.root()) == (index, tree.root(index))


def test_the_empty_tree_has_the_empty_hash():
    assert MemoryTree().root() == Stream().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()
    with pytest.raises(EvidenceError):
        verify_inclusion(leaf=EMPTY_ROOT, index=0, size=0, proof=[], root=EMPTY_ROOT)
    with pytest.raises(EvidenceError, match="nothing shows"):
        verify_consistency(
            old_size=0, new_size=0, proof=[], old_root=EMPTY_ROOT, new_root=EMPTY_ROOT
        )


def test_proofs_of_all_small_sizes_hold():
    for size in range(1, 40):
        for index in range(size):
            verify_inclusion(
                leaf=TREE.node(0, index), index=index, size=size,
                proof=inclusion_proof(TREE, index, size), root=root(TREE, size),
            )  # fmt: skip
        for old in range(1, size + 1):
            verify_consistency(
                old_size=old, new_size=size, proof=consistency_proof(TREE, old, size),
                old_root=root(TREE, old), new_root=root(TREE, size),
            )  # fmt: skip


@given(SIZES, st.data())
def test_any_leaf_of_any_size_is_included_and_nothing_else(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(TREE, index, size)
    assert len(proof) <= size.bit_length()
    good = {"leaf": TREE.node(0, index), "index": index, "size": size, "proof": proof,
            "root": root(TREE, size)}  # fmt: skip
    verify_inclusion(**good)
    bad = [good | {"leaf": flip(data, good["leaf"])}, good | {"root": flip(data, good["root"])}]
    other = data.draw(st.integers(0, size))
    if other != index:
        bad.append(good | {"index": other})
    bad += [good | {"proof": changed} for changed in changed_proofs(data, proof)]
    for case in bad:
        with pytest.raises(EvidenceError):
            verify_inclusion(**case)


@given(SIZES, SIZES, st.data())
def test_any_two_sizes_are_consistent_and_nothing_else(one, two, data):
    old, new = sorted((one, two))
    proof = consistency_proof(TREE, old, new)
    good = {"old_size": old, "new_size": new, "proof": proof, "old_root": root(TREE, old),
            "new_root": root(TREE, new)}  # fmt: skip
    verify_consistency(**good)
    bad = [
        good | {"old_root": flip(data, good["old_root"])},
        good | {"new_root": flip(data, good["new_root"])},
        good | {"old_size": new + 1},
    ]
    bad += [good | {"proof": changed} for changed in changed_proofs(data, proof)]
    for case in bad:
        with pytest.raises(EvidenceError):
            verify_consistency(**case)


def flip(data: st.DataObject, value: bytes) -> bytes:
    place = data.draw(st.integers(0, 8 * len(value) - 1))
    return (int.from_bytes(value, "big") ^ 1 << place).to_bytes(len(value), "big")


def changed_proofs(data: st.DataObject, proof: list[bytes]) -> list[list[bytes]]:
    """The proof with a bit flipped, cut, longer, of hashes of other lengths, out of order."""
    changed = [[*proof, EMPTY_ROOT], [EMPTY_ROOT, *proof], [EMPTY_ROOT] * 100]
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        before, hash_, after = proof[:place], proof[place], proof[place + 1 :]
        changed += [
            [*before, flip(data, hash_), *after],
            [*before, *after],
            [*before, hash_[:-1], *after],
            [*before, hash_ + b"\x00", *after],
            [*before, hash_, hash_, *after],
        ]
    if len(proof) > 1:
        changed.append(proof[::-1])
    return changed


def test_a_fork_shows_in_the_roots_of_an_honest_proof():
    """The other branch's own proof leads to its head from its beginning, not from ours."""
    for old, new in [(3, 7), (5, 8), (6, 7), (77, 200)]:
        fork = tree_of(new, salt=b"other")
        proof = consistency_proof(fork, old, new)
        older, newer = roots_of_proof(old, new, proof, root(TREE, old))
        assert (older, newer) == (fork.root(old), fork.root(new))
        assert older != root(TREE, old)


def test_hash_boundaries_cannot_be_shifted():
    """Two neighbours of 31 and 33 bytes have the hash of two of 32: lengths are checked."""
    tree = tree_of(3)
    left, right = tree.node(0, 0), tree.node(0, 1)
    whole = left + right
    assert node_hash(whole[:31], whole[31:]) == tree.node(1, 0)
    for proof in ([whole[:31], tree.node(0, 2)], [whole[31:], tree.node(0, 2)]):
        with pytest.raises(EvidenceError, match="32 bytes"):
            verify_inclusion(leaf=right, index=1, size=3, proof=proof, root=tree.root())
        with pytest.raises(EvidenceError, match="32 bytes"):
            roots_of_proof(1, 3, proof, left)
