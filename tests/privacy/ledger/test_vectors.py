"""The published test vectors: their generator, and what the shipped code makes of them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.acceptance import verify_acceptance
from privacy.errors import AllianceError, BadSignature, EvidenceError, Fork, Rollback
from privacy.identity import IdentityKey
from privacy.ledger.checkpoint import cosigners, open_checkpoint
from privacy.ledger.entry import decode_entry
from privacy.ledger.merkle import Stream, leaf_hash, verify_consistency, verify_inclusion
from privacy.ledger.witness import KnownHead, Witness
from privacy.terms import Terms
from tests.conftest import identity
from tests.privacy.ledger.test_witness import DictMemory
from tests.vectors.ledger.generate import FOLDER, write

Given = dict[str, Any]
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
REFUSED = {"evidence": EvidenceError, "rollback": Rollback, "fork": Fork}


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


def unhex(parts: list[str]) -> list[bytes]:
    return [bytes.fromhex(part) for part in parts]


def entry(given: Given) -> dict[str, Any]:
    data = bytes.fromhex(given["entry"])
    decode_entry(data, where="the entry")
    return {"leaf_hash": leaf_hash(data).hex()}


def tree(given: Given) -> dict[str, Any]:
    stream = Stream()
    for data in unhex(given["entries"]):
        stream.append(leaf_hash(data))
    return {"root": stream.root().hex()}


def inclusion(given: Given) -> dict[str, Any]:
    verify_inclusion(
        leaf=leaf_hash(bytes.fromhex(given["entry"])),
        index=given["index"],
        size=given["size"],
        proof=unhex(given["proof"]),
        root=bytes.fromhex(given["root"]),
    )
    return {}


def consistency(given: Given) -> dict[str, Any]:
    verify_consistency(
        old_size=given["old_size"],
        new_size=given["new_size"],
        proof=unhex(given["proof"]),
        old_root=bytes.fromhex(given["old_root"]),
        new_root=bytes.fromhex(given["new_root"]),
    )
    return {}


def checkpoint(given: Given) -> dict[str, Any]:
    head = open_checkpoint(
        given["note"].encode(), origin=given["origin"], key=IdentityKey(given["key"])
    )
    return {"size": head.size, "root": head.root.hex()}


def cosignatures(given: Given) -> dict[str, Any]:
    return {"signers": list(cosigners(given["note"].encode(), given["witnesses"]))}


def witness(given: Given) -> dict[str, Any]:
    memory = DictMemory()
    origin, key = given["origin"], IdentityKey(given["key"])
    if given["held"] is not None:
        note = given["held"].encode()
        head = open_checkpoint(note, origin=origin, key=key)
        memory.heads[origin, key] = KnownHead(origin, key, head.size, head.root, note)
    watching = Witness(
        given["witness"], identity(given["witness_seed_name"]), memory, lambda: given["time_s"]
    )
    line = watching.consider(
        origin=origin,
        key=key,
        note=given["note"].encode(),
        old_size=given["old_size"],
        proof=unhex(given["proof"]),
    )
    return {"cosignature": line}


def acceptance(given: Given) -> dict[str, Any]:
    terms = Terms.from_canonical(json.loads(given["terms"]))
    verify_acceptance(
        terms,
        member=given["member"],
        ledger_key=given["ledger_key"],
        signature=bytes.fromhex(given["signature"]),
    )
    return {"terms": terms.hash}


VERIFY: dict[str, Callable[[Given], dict[str, Any]]] = {
    "acceptance": acceptance,
    "checkpoint": checkpoint,
    "consistency": consistency,
    "cosignatures": cosignatures,
    "entry": entry,
    "inclusion": inclusion,
    "tree": tree,
    "witness": witness,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_code_decides_every_vector_as_it_says(name: str) -> None:
    vector = load(name)
    verify = VERIFY[vector["kind"]]
    if "_bad_" not in name:
        assert verify(vector["given"]) == vector["expected"]
        return
    assert "expected" not in vector
    expected = REFUSED.get(vector.get("refused", ""), (EvidenceError, BadSignature))
    with pytest.raises(expected) as refused:
        verify(vector["given"])
    assert isinstance(refused.value, AllianceError)


def test_the_generator_writes_exactly_the_published_files(tmp_path: Path) -> None:
    write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    published = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert written.keys() == published.keys()
    for name, content in written.items():
        assert content == published[name], f"{name}: run python -m tests.vectors.ledger.generate"


def test_at_least_a_third_is_bad_and_every_bad_one_has_a_twin() -> None:
    bad = [name for name in NAMES if "_bad_" in name]
    assert len(bad) * 3 >= len(NAMES) > 60
    assert all(name.partition("_bad_")[0] in NAMES for name in bad)
    assert {load(name)["kind"] for name in NAMES} == VERIFY.keys()


def test_what_is_expected_follows_from_the_texts_of_the_standards() -> None:
    """Hashes, signatures and canonical forms again, with nothing of the shipped code."""
    for name in NAMES:
        vector = load(name)
        given, expected = vector["given"], vector.get("expected")
        if expected is None:
            continue
        if vector["kind"] == "entry":
            data = bytes.fromhex(given["entry"])
            assert rfc8785.dumps(json.loads(data)) == data
            assert hashlib.sha256(b"\x00" + data).hexdigest() == expected["leaf_hash"]
        elif vector["kind"] == "tree":
            assert merkle_tree_hash(unhex(given["entries"])).hex() == expected["root"]
        elif vector["kind"] == "checkpoint":
            text, _, lines = given["note"].partition("\n\n")
            signed = base64.b64decode(lines.split("\n")[0].rpartition(" ")[2])
            key = bytes.fromhex(given["key"])
            assert (
                hashlib.sha256(f"{given['origin']}\n\x01".encode() + key).digest()[:4]
                == (signed[:4])
            )
            Ed25519PublicKey.from_public_bytes(key).verify(signed[4:], f"{text}\n".encode())
            root = base64.b64encode(bytes.fromhex(expected["root"])).decode()
            assert text == f"{given['origin']}\n{expected['size']}\n{root}"


def merkle_tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = merkle_tree_hash(leaves[:split]), merkle_tree_hash(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()
