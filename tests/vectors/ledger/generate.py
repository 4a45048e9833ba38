"""Writes the test vectors: ``python -m tests.vectors.ledger.generate [FOLDER]``.

Keys are Ed25519 seeds SHA-256(name), so that the files come out alike byte for byte. A bad vector
is its twin with one thing changed, and whoever is in the place to change it signs what it changed.
Every file says what it is of (`kind`), holds what a verifier is given (`given`) and, unless it must
be refused, what follows (`expected`). Bytes that may be no text are hexadecimal.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from privacy.acceptance import sign_acceptance
from privacy.ledger.checkpoint import Checkpoint, add_cosignatures, cosign, sign_checkpoint
from privacy.ledger.entry import Left, Opened, Reservation, Rule, Started, encode_entry
from privacy.ledger.merkle import MemoryTree, consistency_proof, inclusion_proof, leaf_hash
from privacy.ledger.note import sign_text
from tests.conftest import identity, make_terms

FOLDER: Final = Path(__file__).parent / "v1"
ORIGIN: Final = "test/member/member-0"
LOG: Final = identity("ledger member-0")
WITNESSES: Final = {f"test/member/member-{n}": identity(f"ledger member-{n}") for n in (1, 2, 3)}
TIME_S: Final = 1_800_000_000

Vector = dict[str, Any]


def entries(size: int, *, fork_at: int | None = None) -> list[bytes]:
    """A member's log; two that fork share what is before."""
    opened = Opened(at_ms=1, origin=ORIGIN, key=LOG.public, software="vectors")
    started = [
        Started(
            at_ms=n,
            software="fork" if fork_at is not None and n >= fork_at else "vectors",
            nonce=f"{n:032x}",
        )
        for n in range(1, size)
    ]
    return [encode_entry(entry) for entry in (opened, *started)]


def tree_of(leaves: Sequence[bytes]) -> MemoryTree:
    tree = MemoryTree()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree


TREE: Final = tree_of(entries(21))
FORK: Final = tree_of(entries(21, fork_at=4))
ROOT: Final = TREE.root(13)
ROOT_TEXT: Final = base64.b64encode(ROOT).decode()
NOTE: Final = sign_checkpoint(Checkpoint(ORIGIN, 13, ROOT), LOG)


def flipped(data: bytes, place: int = -1) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def entry_vectors() -> dict[str, Vector]:
    """Entries and their leaf hashes."""
    rule = Rule(
        at_ms=1_800_000_000_000, epsilon_micro=10_000_000, delta_billionths=10_000,
        orders_thousandths=(3500,), renewal_days=365, renewal_column="day",
    )  # fmt: skip
    reservation = Reservation(at_ms=2**53 - 1, terms="ab" * 32, first=1, count=16, nonce="cd" * 16)
    started = Started(at_ms=0, software="é “quoted” \\ / \n\u2028 𝄞", nonce="0" * 32)
    left = Left(at_ms=1_800_000_000_000, sentence="we sell no groceries any more")
    good = {"opened": entries(1)[0], "rule": encode_entry(rule),
            "reservation": encode_entry(reservation), "text": encode_entry(started),
            "left": encode_entry(left)}  # fmt: skip
    vectors: dict[str, Vector] = {
        f"entry_{name}": {
            "kind": "entry",
            "given": {"entry": data.hex()},
            "expected": {"leaf_hash": leaf_hash(data).hex()},
        }
        for name, data in good.items()
    }
    data = good["reservation"]
    bad = {
        "duplicate_key": data.replace(b'"count":16', b'"count":16,"count":16'),
        "unsorted_keys": b'{"version":1,' + data[1:].replace(b',"version":1', b""),
        "space": data.replace(b":16", b": 16"),
        "float": data.replace(b":16", b":16.0"),
        "exponent": data.replace(b":16", b":1e1"),
        "integer_beyond_2_53": data.replace(b"9007199254740991", b"9007199254740992"),
        "version_true": data.replace(b'"version":1', b'"version":true'),
        "version_2": data.replace(b'"version":1', b'"version":2'),
        "version_missing": data.replace(b',"version":1', b""),
        "unknown_kind": data.replace(b'"reservation"', b'"return"'),
        "unknown_field": data.replace(b'"nonce"', b'"name":"x","nonce"'),
        "escaped": data.replace(b'"reservation"', b'"\\u0072eservation"'),
        "capital_hexadecimal": data.replace(b"ab", b"AB"),
        "line_feed_at_the_end": data + b"\n",
        "cut": data[:-1],
    }
    for why, changed in bad.items():
        assert changed != data
        vectors[f"entry_reservation_bad_{why}"] = {
            "kind": "entry",
            "given": {"entry": changed.hex()},
        }
    return vectors


def tree_vectors() -> dict[str, Vector]:
    """Roots and proofs."""
    vectors: dict[str, Vector] = {
        f"tree_{size}": {
            "kind": "tree",
            "given": {"entries": [data.hex() for data in entries(size)]},
            "expected": {"root": tree_of(entries(size)).root().hex()},
        }
        for size in (1, 2, 7, 8)
    }
    for index, size in [(0, 1), (3, 8), (5, 7), (12, 13), (0, 21)]:
        vectors[f"inclusion_{index}_of_{size}"] = _inclusion(index, size)
    for old, new in [(1, 1), (1, 8), (4, 7), (6, 8), (13, 21)]:
        vectors[f"consistency_{old}_to_{new}"] = _consistency(old, new)
    inclusion, consistency = _inclusion(5, 7)["given"], _consistency(6, 8)["given"]
    for why, changes in {
        "other_index": {"index": 4},
        "other_size": {"size": 6},
        "hash_flipped": {"proof": [flipped(bytes.fromhex(inclusion["proof"][0])).hex(),
                                   *inclusion["proof"][1:]]},
        "hash_missing": {"proof": inclusion["proof"][1:]},
        "hash_too_many": {"proof": [*inclusion["proof"], "00" * 32]},
        "root_of_the_fork": {"root": FORK.root(7).hex()},
        "entry_changed": {"entry": entries(21, fork_at=4)[5].hex()},
    }.items():  # fmt: skip
        vectors[f"inclusion_5_of_7_bad_{why}"] = {
            "kind": "inclusion",
            "given": inclusion | changes,
        }
    for why, changes in {
        "sizes_swapped": {"old_size": 8, "new_size": 6},
        "from_nothing": {"old_size": 0},
        "hash_missing": {"proof": consistency["proof"][:-1]},
        "hash_of_31_bytes": {"proof": [consistency["proof"][0][2:], *consistency["proof"][1:]]},
        "old_root_of_the_fork": {"old_root": FORK.root(6).hex()},
        "new_root_of_the_fork": {"new_root": FORK.root(8).hex()},
    }.items():
        vectors[f"consistency_6_to_8_bad_{why}"] = {
            "kind": "consistency",
            "given": consistency | changes,
        }
    return vectors


def _inclusion(index: int, size: int) -> Vector:
    proof = inclusion_proof(TREE, index, size)
    return {
        "kind": "inclusion",
        "given": {
            "entry": entries(21)[index].hex(),
            "index": index,
            "size": size,
            "proof": [part.hex() for part in proof],
            "root": TREE.root(size).hex(),
        },
        "expected": {},
    }


def _consistency(old: int, new: int) -> Vector:
    return {
        "kind": "consistency",
        "given": {
            "old_size": old,
            "new_size": new,
            "proof": [part.hex() for part in consistency_proof(TREE, old, new)],
            "old_root": TREE.root(old).hex(),
            "new_root": TREE.root(new).hex(),
        },
        "expected": {},
    }


def checkpoint_vectors() -> dict[str, Vector]:
    """Signed heads."""
    empty = sign_checkpoint(Checkpoint(ORIGIN, 0, MemoryTree().root()), LOG)
    stranger = sign_checkpoint(Checkpoint(ORIGIN, 13, ROOT), identity("stranger"))
    vectors = {
        "checkpoint": _checkpoint(NOTE, 13, ROOT),
        "checkpoint_of_nothing": _checkpoint(empty, 0, MemoryTree().root()),
        "checkpoint_with_unknown_signatures": _checkpoint(
            NOTE + stranger.rpartition(b"\n\n")[2], 13, ROOT
        ),
    }
    texts = {
        "leading_zero": f"{ORIGIN}\n013\n{ROOT_TEXT}\n",
        "extension_line": f"{ORIGIN}\n13\n{ROOT_TEXT}\nmore\n",
        "other_origin": f"test/member/member-9\n13\n{ROOT_TEXT}\n",
        "short_root": f"{ORIGIN}\n13\n{base64.b64encode(ROOT[1:]).decode()}\n",
        "nothing_with_a_root": f"{ORIGIN}\n0\n{ROOT_TEXT}\n",
        "size_beyond_2_53": f"{ORIGIN}\n{2**53}\n{ROOT_TEXT}\n",
        "two_lines": f"{ORIGIN}\n13\n",
    }
    notes = {why: sign_text(text, name=ORIGIN, key=LOG) for why, text in texts.items()}
    line = NOTE.rpartition(b"\n\n")[2]
    notes |= {
        "crlf": NOTE.replace(b"\n", b"\r\n"),
        "signed_by_another": stranger,
        "size_changed": NOTE.replace(b"\n13\n", b"\n14\n"),
        "signature_flipped": NOTE.replace(line, line[:-8] + flipped(line[-8:], 0)),
        "line_twice": NOTE + line,
        "trailing_text": NOTE + b"and so on\n",
        "no_line_feed": NOTE[:-1],
        "base64_without_padding": NOTE.replace(b"=\n\n", b"\n\n"),
    }
    for why, note in notes.items():
        assert note != NOTE
        bad = _checkpoint(note, 13, ROOT)
        del bad["expected"]
        vectors[f"checkpoint_bad_{why}"] = bad
    return vectors


def _checkpoint(note: bytes, size: int, root: bytes) -> Vector:
    return {
        "kind": "checkpoint",
        "given": {"origin": ORIGIN, "key": LOG.public, "note": note.decode()},
        "expected": {"size": size, "root": root.hex()},
    }


def cosignature_vectors() -> dict[str, Vector]:
    """Who cosigned a head. Cosignatures that do not hold count for nothing."""
    lines = [cosign(NOTE, witness=name, key=key, time_s=TIME_S) for name, key in WITNESSES.items()]
    other = sign_checkpoint(Checkpoint(ORIGIN, 14, TREE.root(14)), LOG)
    name, key = next(iter(WITNESSES.items()))
    stray = [
        cosign(other, witness=name, key=key, time_s=TIME_S),
        cosign(NOTE, witness=name, key=key, time_s=0),
        cosign(NOTE, witness=name, key=identity("stranger"), time_s=TIME_S),
        cosign(NOTE, witness="test/member/member-9", key=key, time_s=TIME_S),
    ]
    return {
        "cosignatures": _cosigned(lines, list(WITNESSES)),
        "cosignatures_none": _cosigned([], []),
        "cosignatures_that_count_for_nothing": _cosigned([*stray, lines[2]], [list(WITNESSES)[2]]),
    }


def _cosigned(lines: list[str], signers: list[str]) -> Vector:
    return {
        "kind": "cosignatures",
        "given": {
            "note": add_cosignatures(NOTE, lines).decode(),
            "witnesses": {name: key.public for name, key in WITNESSES.items()},
        },
        "expected": {"signers": signers},
    }


def witness_vectors() -> dict[str, Vector]:
    """What a witness that holds one head makes of another."""
    good = {
        "witness_first_head": _shown(None, TREE, 13),
        "witness_next_head": _shown(7, TREE, 13),
        "witness_same_head": _shown(13, TREE, 13),
    }
    for vector in good.values():
        line = cosign(
            vector["given"]["note"].encode(),
            witness="test/member/member-1",
            key=WITNESSES["test/member/member-1"],
            time_s=TIME_S,
        )
        vector["expected"] = {"cosignature": line}
    bad = {
        "first_head_bad_proof_from_nothing": _shown(None, TREE, 13) | {"refused": "evidence"},
        "next_head_bad_rollback": _shown(13, TREE, 7) | {"refused": "rollback"},
        "next_head_bad_proof_from_elsewhere": _shown(7, TREE, 13, old=6) | {"refused": "rollback"},
        "same_head_bad_other_root": _shown(13, FORK, 13) | {"refused": "fork"},
        "next_head_bad_fork_proven": _shown(7, FORK, 13) | {"refused": "fork"},
        "next_head_bad_proof_of_nothing": _shown(7, TREE, 13) | {"refused": "evidence"},
        "next_head_bad_signed_by_another": _shown(7, TREE, 13) | {"refused": "evidence"},
    }
    bad["first_head_bad_proof_from_nothing"]["given"]["proof"] = ["00" * 32]
    proof = bad["next_head_bad_proof_of_nothing"]["given"]["proof"]
    proof[-1] = flipped(bytes.fromhex(proof[-1])).hex()
    stranger = sign_checkpoint(Checkpoint(ORIGIN, 13, ROOT), identity("stranger"))
    bad["next_head_bad_signed_by_another"]["given"]["note"] = stranger.decode()
    return good | {f"witness_{name}": vector for name, vector in bad.items()}


def _shown(held: int | None, tree: MemoryTree, size: int, *, old: int | None = None) -> Vector:
    start = (held or 0) if old is None else old
    notes = {
        "held": None
        if held is None
        else sign_checkpoint(Checkpoint(ORIGIN, held, TREE.root(held)), LOG).decode(),
        "note": sign_checkpoint(Checkpoint(ORIGIN, size, tree.root(size)), LOG).decode(),
    }
    proof = consistency_proof(tree, start, size) if start <= size else []
    return {
        "kind": "witness",
        "given": {
            "origin": ORIGIN,
            "key": LOG.public,
            **notes,
            "old_size": start,
            "proof": [part.hex() for part in proof],
            "witness": "test/member/member-1",
            "witness_seed_name": "ledger member-1",
            "time_s": TIME_S,
        },
    }


def acceptance_vectors() -> dict[str, Vector]:
    """What binds a ledger key to an identity."""
    terms = make_terms()
    member = terms.roster[0].name
    signature = sign_acceptance(identity(member), terms, member=member, ledger_key=LOG.public)
    given = {
        "terms": terms.canonical().decode(),
        "member": member,
        "ledger_key": LOG.public,
        "signature": signature.hex(),
    }
    vectors: dict[str, Vector] = {
        "acceptance": {"kind": "acceptance", "given": given, "expected": {"terms": terms.hash}}
    }
    for why, changes in {
        "other_ledger_key": {"ledger_key": identity("stranger").public},
        "of_another_member": {"member": terms.roster[1].name},
        "of_a_stranger": {"member": "stranger"},
        "signature_flipped": {"signature": flipped(signature).hex()},
        "of_other_terms": {"terms": make_terms(dimension=7).canonical().decode()},
    }.items():
        vectors[f"acceptance_bad_{why}"] = {"kind": "acceptance", "given": given | changes}
    return vectors


MAKERS: Final[Sequence[Callable[[], dict[str, Vector]]]] = (
    entry_vectors,
    tree_vectors,
    checkpoint_vectors,
    cosignature_vectors,
    witness_vectors,
    acceptance_vectors,
)


def write(folder: Path) -> None:
    """Writes all vectors into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in MAKERS:
        for name, vector in make().items():
            document = json.dumps(vector, indent=1, sort_keys=True)
            (folder / f"{name}.json").write_text(document + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
