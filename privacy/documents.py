"""What is read from outside: strict models, and a bound on the memory that reading takes.

A hostile document is not only wrong, it is wrong in as many places as fit into it, and a validator
that lists them all takes a thousand times its size. Lists end at their first wrong item here, and
objects wider than any of ours are refused before they are looked at. What is left: an object that
lacks many fields is copied for each of them, up to 240 times the document's size.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError

__all__ = [
    "LONGEST",
    "SMALL_BYTES",
    "WIDEST",
    "StrictModel",
    "check_density",
    "check_shape",
    "first_problem",
]

WIDEST: Final = 512
"""Fields of one object: a study's settings have up to 64, a page of witnesses' heads 201."""
LONGEST: Final = 100_000
"""Items of one list: a column's values, or a roster."""
LEAST_OBJECTS: Final = 64
LEAST_OBJECT_BYTES: Final = 24
"""Of a document's objects beyond those: a column, a roster's entry and a head have more."""
LEAST_FIELDS: Final = 16
"""Fields beside those of wide objects."""
SMALL_BYTES: Final = 1 << 16
"""Whatever is in so many bytes, what is read from them takes some MiB at most."""
_NO_SCHEMAS: Final = frozenset({"default", "metadata"})
_SEQUENCES: Final = frozenset({"tuple", "list", "set", "frozenset"})


def _fail_fast(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") in _SEQUENCES:
            schema["fail_fast"] = True
        for name, part in schema.items():
            if name not in _NO_SCHEMAS:
                _fail_fast(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _fail_fast(part)


class StrictModel(BaseModel):
    """What crosses a boundary: frozen, strict, nothing extra, no NaN or infinity.

    A list is not read beyond its first item that is wrong.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """The schema as it is, with pydantic's ``fail_fast`` on every sequence in it."""
        schema = handler(source)
        _fail_fast(schema)
        return schema


def first_problem(error: ValidationError) -> str:
    """The first thing a pydantic error complains about, as ``where: what``."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "document"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"[:300]


def check_shape(document: str | bytes | Mapping[str, Any], *, widest: int = WIDEST) -> None:
    """Checks that a document is no wider than any of ours, and has no lists of lists.

    Args:
        document: a JSON object, or what was read from it; text that begins as one and is none
            passes, for whoever reads it to refuse.
        widest: fields of one object.

    Raises:
        ValueError: naming what is too wide.
    """
    if isinstance(document, Mapping):
        _check(document, widest)
        return
    if document.lstrip()[:1] not in ("{", b"{"):
        raise ValueError("document: Input should be an object")
    most, objects = LEAST_OBJECTS + len(document) // LEAST_OBJECT_BYTES, itertools.count(1)

    def forget(fields: list[tuple[str, Any]]) -> None:
        """Checks an object as soon as it is read, and keeps nothing of it."""
        if next(objects) > most:
            raise ValueError("there are more objects than fit the document's length")
        _check_fields(len(fields), [value for _, value in fields], widest)

    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        json.loads(document, object_pairs_hook=forget)


def check_density(document: bytes, least_bytes: int) -> None:
    """Checks that a document has no more fields than fit its length; for wide objects.

    Args:
        document: JSON whose texts hold no colons.
        least_bytes: of a field of its wide objects, with its name.

    Raises:
        ValueError: if it has.
    """
    if document.count(b":") > LEAST_FIELDS + len(document) // least_bytes:
        raise ValueError("more fields than fit its length")


def _check(document: Mapping[str, Any], widest: int) -> None:
    _check_fields(len(document), document.values(), widest)
    for value in document.values():
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, Mapping):
                _check(part, widest)


def _check_fields(count: int, values: Iterable[Any], widest: int) -> None:
    if count > widest:
        raise ValueError(f"an object has {count} fields; the most that any has is {widest}")
    for value in values:
        if isinstance(value, list):
            if len(value) > LONGEST:
                raise ValueError(f"a list has {len(value)} items; the most is {LONGEST}")
            if any(isinstance(part, list) for part in value):
                raise ValueError("a list holds a list; none of ours does")
