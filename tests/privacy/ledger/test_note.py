"""Signed notes: the published example, what is signed, and every malformed note."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EvidenceError
from privacy.identity import IdentityKey
from privacy.ledger.note import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteSignature,
    decode_base64,
    key_id,
    open_note,
    sign_text,
)
from tests.conftest import identity

# C2SP signed-note v1.0.0, "Example".
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2O"
    "NncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
EXAMPLE_KEY = IdentityKey(
    base64.b64decode("AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")[1:].hex()
)

NAME = "a/member/m"
KEY = identity("ledger")
TEXT = "first line\n\nsecond line\n"
GOOD = sign_text(TEXT, name=NAME, key=KEY)


def line(data: bytes) -> bytes:
    return data.rpartition(b"\n\n")[2]


def test_the_published_example_opens():
    note = open_note(EXAMPLE, name="example.com/foo", key=EXAMPLE_KEY)
    assert note.text == "This is an example message.\n"
    assert note.encode() == EXAMPLE
    assert key_id("example.com/foo", ED25519, EXAMPLE_KEY).hex() == "530d903a"
    with pytest.raises(EvidenceError):
        open_note(EXAMPLE.replace(b"an", b"no"), name="example.com/foo", key=EXAMPLE_KEY)


def test_a_note_comes_back_with_its_empty_lines():
    note = open_note(GOOD, name=NAME, key=KEY.public)
    assert note.text == TEXT
    assert note.encode() == GOOD
    assert NoteSignature.parse(note.signatures[0].line()) == note.signatures[0]


def test_keys_have_another_id_under_another_name_or_type():
    ids = {
        key_id(name, algorithm, key)
        for name in (NAME, "a/member/n")
        for algorithm in (ED25519, COSIGNATURE)
        for key in (KEY.public, identity("other").public)
    }
    assert len(ids) == 8


def test_signatures_of_unknown_keys_are_ignored():
    other = sign_text(TEXT, name="somebody", key=identity("other"))
    for note in (GOOD + line(other), other + line(GOOD)):
        assert open_note(note, name=NAME, key=KEY.public).text == TEXT
    same_name = sign_text(TEXT, name=NAME, key=identity("other"))
    assert open_note(GOOD + line(same_name), name=NAME, key=KEY.public).text == TEXT


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (NAME, identity("other").public),
        ("a/member/n", KEY.public),
        ("", KEY.public),
    ],
)
def test_a_note_of_another_key_or_name_is_not_opened(name, key):
    with pytest.raises(EvidenceError, match="not signed by"):
        open_note(GOOD, name=name, key=key)


def test_a_false_signature_of_a_known_key_refuses_the_whole_note():
    false = Note(TEXT, (NoteSignature(NAME, key_id(NAME, ED25519, KEY.public), bytes(64)),))
    for note in (false.encode(), GOOD + line(false.encode()), false.encode() + line(GOOD)):
        with pytest.raises(EvidenceError, match="is not valid"):
            open_note(note, name=NAME, key=KEY.public)


def test_a_key_that_is_no_point_opens_nothing():
    weak = IdentityKey("ff" * 32)
    note = Note(TEXT, (NoteSignature(NAME, key_id(NAME, ED25519, weak), bytes(64)),)).encode()
    with pytest.raises(EvidenceError, match="is not valid"):
        open_note(note, name=NAME, key=weak)


NUL = "\x00"
MALFORMED = {
    "empty": b"",
    "text alone": b"text\n",
    "no signatures": b"text\n\n",
    "no text": b"\n\xe2\x80\x94 a AAAAAAA=\n",
    "no empty line": GOOD.replace(b"line\n\n\xe2", b"line\n\xe2").replace(b"\n\n", b"\n"),
    "no line feed at the end": GOOD[:-1],
    "CRLF": GOOD.replace(b"\n", b"\r\n"),
    "CR at the end": GOOD[:-1] + b"\r\n",
    "two line feeds at the end": GOOD + b"\n",
    "trailing text": GOOD + b"and so on\n",
    "trailing space": GOOD[:-1] + b" \n",
    "tab": GOOD.replace(b"first", b"fir\tst"),
    "zero byte": GOOD.replace(b"first", b"fir\x00st"),
    "not UTF-8": GOOD.replace(b"first", b"\xff\xfe"),
    "surrogate": GOOD.replace(b"first", b"\xed\xa0\x80"),
    "byte order mark in the signature": GOOD.replace(b"\n\n\xe2", b"\n\n\xef\xbb\xbf\xe2"),
    "hyphen for a dash": GOOD.replace(b"\xe2\x80\x94", b"-"),
    "two spaces": GOOD.replace(b"\xe2\x80\x94 ", b"\xe2\x80\x94  "),
    "no name": GOOD.replace(NAME.encode() + b" ", b""),
    "plus in the name": GOOD.replace(b"member/m ", b"member+m "),
    "space in the name": GOOD.replace(b"member/m ", "member\u2003m ".encode()),
    "line twice": GOOD + line(GOOD),
    "base64 without padding": GOOD.replace(b"=\n", b"\n"),
    "base64 with spaces": GOOD[:-20] + b" " + GOOD[-20:],
    "base64 of URLs": b"text\n\n\xe2\x80\x94 a -_-_-_-_\n",
    "base64 with bits to spare": b"text\n\n\xe2\x80\x94 a AAAAAAD=\n",
    "signature of four bytes": b"text\n\n\xe2\x80\x94 a AAAAAA==\n",
    "too many signatures": b"text\n\n"
    + b"".join(
        b"\xe2\x80\x94 n%d AAAAAAA=\n" % number for number in range(2001)
    ),
    "too long a text": sign_text("x" * (16 << 10) + "\n", name=NAME, key=KEY),
    "too long a line": b"text\n\n\xe2\x80\x94 a " + b"AAAA" * 3000 + b"\n",
    "too long": b"x" * (20 << 20),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_notes_are_refused(name):
    data = MALFORMED[name]
    assert data != GOOD
    with pytest.raises(EvidenceError):
        Note.parse(data)


def test_as_many_and_as_long_as_allowed_is_accepted():
    lines = b"".join(b"\xe2\x80\x94 n%d AAAAAAA=\n" % number for number in range(2000))
    assert len(Note.parse(b"text\n\n" + lines).signatures) == 2000
    text = "x" * ((16 << 10) - 1) + "\n"
    assert Note.parse(sign_text(text, name=NAME, key=KEY)).text == text
    longer = sign_text(2 * text, name=NAME, key=KEY)
    assert open_note(longer, name=NAME, key=KEY.public, longest_text=1 << 20).text == 2 * text


@given(st.binary(max_size=200))
def test_any_bytes_are_a_note_or_an_evidence_error(data):
    for whole in (data, b"text\n\n" + data, GOOD[:-1] + data):
        try:
            note = Note.parse(whole)
        except EvidenceError:
            continue
        assert note.encode() == whole


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place, change):
    data = bytearray(GOOD)
    data[place] ^= change
    with pytest.raises(EvidenceError):
        open_note(bytes(data), name=NAME, key=KEY.public)


@pytest.mark.parametrize(
    "encoded", ["A", "AB", "ABC", "AB=", "AB==", "A===", "AA==A", "AA\n==", "é"]
)
def test_base64_is_canonical(encoded):
    with pytest.raises(EvidenceError, match="here: is not"):
        decode_base64(encoded, where="here")


def test_what_signs_notes_signs_no_message_of_the_alliance():
    for text in (b"alliance/v1/receipt\x00message\n", b"no line feed", b""):
        with pytest.raises(ValueError, match="line feed"):
            KEY.sign_note(text)
