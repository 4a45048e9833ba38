from __future__ import annotations

import json
from typing import Any

import pytest

from privacy.departure import Departure, depart
from privacy.errors import BadSignature, MalformedBody
from tests.conftest import identity

WORD = depart(
    identity("member-0"), alliance="test", member="member-0", ledger=identity("ledger").public
)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(WORD.canonical()) | fields).encode()


def test_a_departure_comes_back_as_it_was_signed() -> None:
    assert Departure.from_json(WORD.canonical()) == WORD


@pytest.mark.parametrize(
    "fields",
    [
        {"alliance": "toast"},
        {"member": "member-1"},
        {"ledger": identity("another").public},
        {"identity": identity("member-1").public},
        {"identity": "ff" * 32},
        {"signature": "00" * 64},
    ],
)
def test_a_departure_that_was_changed_is_not_signed(fields: dict[str, Any]) -> None:
    with pytest.raises(BadSignature):
        Departure.from_json(changed(**fields))


@pytest.mark.parametrize(
    "document",
    [
        b"", b"junk", b"[]", changed(version=2), changed(more=1),
        changed(identity="AB" * 32), changed(signature=""), changed(member="x" * 5000),
        b" " * 5000 + WORD.canonical(),
    ],
)  # fmt: skip
def test_what_is_no_departure_is_refused(document: bytes) -> None:
    with pytest.raises(MalformedBody, match="not a departure"):
        Departure.from_json(document)
