"""Documents that are wrong in as many places as fit into them take no more memory than others."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from privacy.documents import (
    LONGEST,
    WIDEST,
    StrictModel,
    check_density,
    check_shape,
    first_problem,
)
from privacy.errors import TermsError
from privacy.terms import Terms
from tests.conftest import make_terms

ROOM = 500_000


class Item(StrictModel):
    first: int
    second: int


class Book(StrictModel):
    items: tuple[Item, ...] = ()
    numbers: tuple[int, ...] = ()
    more: tuple[tuple[int, ...] | tuple[str, ...], ...] = ()


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ({"items": [{}] * 1000}, 2),
        ({"items": [0] * 1000}, 1),
        ({"numbers": ["x"] * 1000}, 1),
        ({"more": [[{}] * 1000]}, 2),
    ],
    ids=["objects", "no objects", "numbers", "either of two"],
)
def test_a_list_is_not_read_beyond_what_is_wrong(document: dict[str, Any], errors: int) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        Book.model_validate_json(json.dumps(document))
    assert caught.value.error_count() == errors  # type: ignore[attr-defined]
    assert first_problem(caught.value).startswith(next(iter(document)))  # type: ignore[arg-type]


def test_what_is_right_is_read_whole() -> None:
    book = Book(items=(Item(first=1, second=2),) * 50, numbers=(1,) * 50, more=(("a",) * 50,))
    assert Book.model_validate_json(book.model_dump_json()) == book


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"a": {str(place): 0 for place in range(WIDEST + 1)}}, "513 fields"),
        ({"a": [{"b": [0] * (LONGEST + 1)}]}, "100001 items"),
        ({"a": [[]]}, "a list holds a list"),
    ],
)
def test_shapes_that_none_of_ours_has_are_refused(document: dict[str, Any], match: str) -> None:
    for form in (document, json.dumps(document), json.dumps(document).encode()):
        with pytest.raises(ValueError, match=match):
            check_shape(form)


@pytest.mark.parametrize("document", ["{", b"{\xff", '{"a":' + "[" * 100_000, ' {"a": [1, {}]}'])
def test_what_begins_as_an_object_and_is_none_is_for_whoever_reads_it(document: str) -> None:
    check_shape(document)


@pytest.mark.parametrize("document", [b"", "1", b"\xff", json.dumps([[]] * 1000)])
def test_what_is_no_object_is_refused_at_its_first_character(document: str | bytes) -> None:
    with pytest.raises(ValueError, match="should be an object"):
        check_shape(document)


def test_objects_are_counted_and_braces_in_texts_are_not() -> None:
    check_shape(json.dumps({"values": ["{a}"] * 50_000}))
    with pytest.raises(ValueError, match="more objects than fit"):
        check_shape(json.dumps({"values": [{}] * 50_000}))


def test_fields_are_counted_against_the_length() -> None:
    check_density(json.dumps({f"member-{place}": "a" * 64 for place in range(1000)}).encode(), 64)
    with pytest.raises(ValueError, match="more fields than fit"):
        check_density(json.dumps({f"{place}": 0 for place in range(1000)}).encode(), 64)


HOSTILE = """
import json, sys
from pathlib import Path
from privacy.errors import TermsError
from privacy.terms import Terms

def peak():
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))

document = sys.stdin.read()
before = peak()
try:
    Terms.from_json(document)
except TermsError:
    print(peak() - before)
"""


@pytest.mark.parametrize("where", ["roster", "columns", "values", "settings", "extras"])
def test_hostile_terms_take_little_memory(where: str) -> None:
    """It was 537 MiB for half a megabyte."""
    document = json.loads(make_terms().model_dump_json())
    few = LONGEST - 1
    if where == "roster":
        document["roster"] = [{}] * few
    elif where == "columns":
        document["contract"]["columns"] = [{}] * few
    elif where == "values":
        document["contract"]["columns"][2]["values"] = [0] * few
    elif where == "settings":
        document["settings"] = {"hidden": [{}] * few}
    else:
        document["privacy"] = {f"{place:x}": 0 for place in range(ROOM // 9)}
    text = json.dumps(document)
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], input=text, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 * 1024
    with pytest.raises(TermsError):
        Terms.from_json(text)
