"""Entries: one encoding each, RFC 8785's, and nothing that only looks like it."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EvidenceError
from privacy.ledger.entry import (
    Conflict,
    Cost,
    Opened,
    Renewal,
    Reservation,
    Rule,
    Started,
    canonical,
    decode_entry,
    encode_entry,
    parse_canonical,
)

WHERE = "entry 3"
STARTED = Started(at_ms=1, software="s", nonce="0" * 32)
DATA = encode_entry(STARTED)

ASCII = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
TEXT = st.text(st.characters(codec="utf-8"))
LEAF = st.one_of(TEXT, st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1))
DOCUMENT = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ASCII, inner, max_size=4)
)


@given(DOCUMENT)
def test_canonical_is_rfc_8785(document):
    data = canonical(document)
    assert data == rfc8785.dumps(document)
    assert parse_canonical(data, where=WHERE) == document


@given(st.binary(max_size=60))
def test_any_bytes_are_canonical_or_refused(data):
    try:
        document = parse_canonical(data, where=WHERE)
    except EvidenceError as error:
        assert str(error).startswith(WHERE)  # noqa: PT017
    else:
        assert canonical(document) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" {}",
        b"{}\n",
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\xc3\xa9\\u00e9"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a":1}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1}{"a":1}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":%s}' % (b"9" * 5000),
        b'"' + b"x" * (9 << 20) + b'"',
    ],
    ids=range(25),
)
def test_what_is_not_canonical_is_refused(data):
    with pytest.raises(EvidenceError, match=WHERE):
        parse_canonical(data, where=WHERE)
    with pytest.raises(EvidenceError, match=WHERE):
        decode_entry(data, where=WHERE)


def changed(**fields: object) -> bytes:
    return canonical(json.loads(DATA) | fields)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (changed(version=2), "version"),
        (changed(version="1"), "version"),
        (changed(version=True), "version"),
        (DATA.replace(b',"version":1', b""), "version"),
        (changed(kind="begun"), "kind"),
        (changed(kind="rule"), "kind 'rule'"),
        (changed(more=1), "more"),
        (changed(at_ms=-1), "at_ms"),
        (changed(at_ms=2**53), "at_ms"),
        (changed(at_ms="1"), "at_ms"),
        (changed(at_ms=True), "at_ms"),
        (changed(nonce="0" * 31), "nonce"),
        (changed(nonce="A" * 32), "nonce"),
        (changed(nonce="0" * 32 + "\n"), "nonce"),
        (changed(software="x" * 501), "software"),
        (canonical({"kind": "started", "version": 1}), "at_ms"),
        (canonical({}), "kind None"),
        (canonical([]), "kind None"),
        (canonical("started"), "kind None"),
    ],
)
def test_unknown_kinds_versions_and_fields_are_refused(data, why):
    with pytest.raises(EvidenceError, match=WHERE) as refused:
        decode_entry(data, where=WHERE)
    assert why in str(refused.value)


ENTRIES = [
    STARTED,
    Opened(at_ms=0, origin="a/member/m", key="1" * 64, software="alliance 0.1.0"),
    Rule(at_ms=5, epsilon_micro=1, delta_billionths=1, orders_thousandths=(1500, 2000),
         renewal_days=0, renewal_column=""),
    Renewal(at_ms=5, period=2, from_ms=4),
    Reservation(at_ms=2**53 - 1, terms="2" * 64, first=1, count=3, nonce="3" * 32),
    Conflict(at_ms=1, origin="a/coordinator", held="a\n", shown="—\n"),
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.kind)
def test_entries_come_back(entry):
    data = encode_entry(entry)
    assert decode_entry(data, where=WHERE) == entry
    assert data == rfc8785.dumps(json.loads(data))


def test_costs_are_exact():
    cost = Cost(order_thousandths=1500, members=1, rdp_nano=2**53 - 1)
    assert Cost.model_validate_json(cost.model_dump_json()) == cost
