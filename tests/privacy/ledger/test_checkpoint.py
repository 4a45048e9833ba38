"""Heads and cosignatures, against C2SP's texts and everything that is almost one."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EvidenceError
from privacy.identity import public_key
from privacy.ledger.checkpoint import (
    Checkpoint,
    add_cosignatures,
    cosign,
    cosigners,
    open_checkpoint,
    own_note,
    sign_checkpoint,
)
from privacy.ledger.merkle import EMPTY_ROOT
from privacy.ledger.note import Note, NoteSignature, sign_text
from tests.conftest import identity

ORIGIN = "a/coordinator"
KEY = identity("ledger")
HEAD = Checkpoint(ORIGIN, 7, bytes(range(32)))
NOTE = sign_checkpoint(HEAD, KEY)
ROOT = base64.b64encode(HEAD.root).decode()
EMPTY = base64.b64encode(EMPTY_ROOT).decode()
WITNESSES = {f"a/member/{name}": identity(name) for name in ("one", "two", "three")}
KEYS = {origin: key.public for origin, key in WITNESSES.items()}


def cosigned(*names: str, note: bytes = NOTE) -> bytes:
    lines = [
        cosign(note, witness=f"a/member/{name}", key=identity(name), time_s=1_700_000_000)
        for name in names
    ]
    return add_cosignatures(note, lines)


def test_a_checkpoint_has_three_lines_and_comes_back():
    assert HEAD.text() == f"{ORIGIN}\n7\n{ROOT}\n"
    assert Checkpoint.parse(HEAD.text()) == HEAD
    assert open_checkpoint(NOTE, origin=ORIGIN, key=KEY.public) == HEAD


@given(st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_every_head_comes_back(size, root):
    head = Checkpoint(ORIGIN, size, root if size else EMPTY_ROOT)
    note = sign_checkpoint(head, KEY)
    assert open_checkpoint(note, origin=ORIGIN, key=KEY.public) == head


TEXTS = {
    "leading zero": f"{ORIGIN}\n07\n{ROOT}\n",
    "plus": f"{ORIGIN}\n+7\n{ROOT}\n",
    "minus": f"{ORIGIN}\n-7\n{ROOT}\n",
    "space": f"{ORIGIN}\n7 \n{ROOT}\n",
    "hexadecimal": f"{ORIGIN}\n0x7\n{ROOT}\n",
    "other digits": f"{ORIGIN}\n٧\n{ROOT}\n",
    "underscore": f"{ORIGIN}\n1_0\n{ROOT}\n",
    "float": f"{ORIGIN}\n7.0\n{ROOT}\n",
    "no size": f"{ORIGIN}\n\n{ROOT}\n",
    "beyond integers": f"{ORIGIN}\n{2**53}\n{ROOT}\n",
    "far beyond integers": f"{ORIGIN}\n{'9' * 5000}\n{ROOT}\n",
    "extension line": f"{ORIGIN}\n7\n{ROOT}\nmore\n",
    "empty extension line": f"{ORIGIN}\n7\n{ROOT}\n\n",
    "no root": f"{ORIGIN}\n7\n",
    "empty root": f"{ORIGIN}\n7\n\n",
    "short root": f"{ORIGIN}\n7\n{base64.b64encode(bytes(31)).decode()}\n",
    "long root": f"{ORIGIN}\n7\n{base64.b64encode(bytes(33)).decode()}\n",
    "root in hexadecimal": f"{ORIGIN}\n7\n{HEAD.root.hex()}\n",
    "root with bits to spare": f"{ORIGIN}\n7\n{ROOT[:-2]}9=\n",
    "size 0 with a root": f"{ORIGIN}\n0\n{ROOT}\n",
    "size 00": f"{ORIGIN}\n00\n{EMPTY}\n",
    "no origin": f"\n7\n{ROOT}\n",
    "other origin": f"a/member/x\n7\n{ROOT}\n",
    "capital origin": f"A/coordinator\n7\n{ROOT}\n",
    "origin with a space": f"a coordinator\n7\n{ROOT}\n",
    "line separator": f"{ORIGIN}\u20287\n{ROOT}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_checkpoint_of_this_log_are_refused(name):
    note = sign_text(TEXTS[name], name=ORIGIN, key=KEY)
    with pytest.raises(EvidenceError):
        open_checkpoint(note, origin=ORIGIN, key=KEY.public)


def test_the_empty_tree_has_its_own_root():
    head = Checkpoint.parse(f"{ORIGIN}\n0\n{EMPTY}\n")
    assert (head.size, head.root) == (0, EMPTY_ROOT)


@pytest.mark.parametrize("text", ["", "\n", f"{ORIGIN}\n7\n{ROOT}", f"{ORIGIN}\r\n7\r\n{ROOT}\r\n"])
def test_fragments_are_no_checkpoint(text):
    with pytest.raises(EvidenceError):
        Checkpoint.parse(text)


def test_another_key_signed_no_head_of_this_log():
    for origin, key in [(ORIGIN, identity("other")), ("a/member/one", KEY)]:
        with pytest.raises(EvidenceError, match="not signed by"):
            open_checkpoint(NOTE, origin=origin, key=key.public)


def test_cosignatures_are_what_the_text_of_c2sp_says():
    line = cosign(NOTE, witness="a/member/one", key=identity("one"), time_s=1_679_315_147)
    signature = NoteSignature.parse(line).signature
    assert signature[:8] == (1_679_315_147).to_bytes(8, "big")
    message = f"cosignature/v1\ntime 1679315147\n{HEAD.text()}".encode()
    public_key(identity("one").public).verify(signature[8:], message)


def test_valid_cosignatures_are_counted_once_and_by_name():
    note = cosigned("one", "three")
    assert cosigners(note, KEYS) == ("a/member/one", "a/member/three")
    assert open_checkpoint(note, origin=ORIGIN, key=KEY.public) == HEAD
    later = cosign(note, witness="a/member/one", key=identity("one"), time_s=1_800_000_000)
    assert cosigners(add_cosignatures(note, [later]), KEYS) == ("a/member/one", "a/member/three")
    assert cosigners(NOTE, KEYS) == ()
    assert cosigners(note, {}) == ()
    assert cosigned("one", note=cosigned("one")) == cosigned("one")


def test_cosignatures_of_anything_else_count_for_nothing():
    other = sign_checkpoint(Checkpoint(ORIGIN, 8, HEAD.root), KEY)
    good = cosign(NOTE, witness="a/member/one", key=identity("one"), time_s=5)
    stamped = NoteSignature.parse(good)
    false = [
        cosign(other, witness="a/member/one", key=identity("one"), time_s=5),  # another head
        cosign(NOTE, witness="a/member/one", key=identity("two"), time_s=5),  # another key
        cosign(NOTE, witness="a/member/four", key=identity("four"), time_s=5),  # a stranger
        cosign(NOTE, witness="a/member/one", key=identity("one"), time_s=0),  # without a time
        cosign(NOTE, witness="a/member/one", key=identity("one"), time_s=2**63),
        NoteSignature(stamped.name, stamped.id, stamped.signature[:-1]).line(),
        NoteSignature(stamped.name, stamped.id, stamped.signature + b"\x00").line(),
        NoteSignature(stamped.name, stamped.id, bytes(8) + stamped.signature[8:]).line(),
        NoteSignature(stamped.name, stamped.id, stamped.signature[8:]).line(),
    ]
    for line in false:
        assert cosigners(add_cosignatures(NOTE, [line]), KEYS) == ()
    assert cosigners(add_cosignatures(NOTE, [*false, good]), KEYS) == ("a/member/one",)


def test_a_log_s_own_signature_is_no_cosignature():
    own = {ORIGIN: KEY.public}
    assert cosigners(NOTE, own) == ()
    as_witness = cosign(NOTE, witness=ORIGIN, key=KEY, time_s=5)
    assert cosigners(add_cosignatures(NOTE, [as_witness]), own) == (ORIGIN,)
    assert open_checkpoint(add_cosignatures(NOTE, [as_witness]), origin=ORIGIN, key=KEY.public)


@pytest.mark.parametrize(
    "line", ["", "— a", "no line", "— a/member/one AAAA", "— a +\n— b AAAAAAA="]
)
def test_only_signature_lines_are_added(line):
    with pytest.raises(EvidenceError):
        add_cosignatures(NOTE, [line])


def test_nobody_passes_on_more_signatures_than_are_accepted():
    lines = [NoteSignature(f"n{number}", b"1234", b"5").line() for number in range(2000)]
    with pytest.raises(EvidenceError, match="2001 signatures"):
        add_cosignatures(NOTE, lines)


def test_evidence_is_the_log_s_own_signature_alone():
    assert own_note(cosigned("one", "two"), origin=ORIGIN, key=KEY.public) == NOTE
    assert len(Note.parse(NOTE).signatures) == 1
    with pytest.raises(EvidenceError):
        own_note(NOTE, origin=ORIGIN, key=identity("one").public)
