"""Inputs for parsers: valid ones changed with knowledge of their form, and random bytes.

A share of the inputs is left valid, so that a parser that refuses everything is noticed; a few are
as long as the parser's caller lets them be. The choices of a run follow from its seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, Final, Literal

__all__ = ["Form", "Mutator"]

Form = Literal["bytes", "json", "text", "protobuf"]

NUMBERS: Final = (
    -1, 0, 1, 2, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53,
    2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**30, 10**400, -0.0, 0.5, 1e-320, 1e308,
    1e999, float("nan"),
)  # fmt: skip
TEXTS: Final = (
    "", " ", "\x00", "\n", "\r\n", "a", "-1", "1e5", "null", "0" * 64, "f" * 64, "A" * 128,
    "\ud800", "\u2028", "\u202e", "é", "../..", "/etc/passwd", "a" * 5000, "%s%n", "9" * 5000, "{}",
    "[]", "—", "22:00-06:00",
)  # fmt: skip
PLACES: Final = 64
"""Places in one JSON document that a change may be made at."""
DEEP: Final = 1200
"""Levels of nesting that no honest input has."""


class Mutator:
    """A stream of inputs for one parser.

    Args:
        seeds: valid inputs.
        form: what they are made of.
        longest: bytes that the parser's caller hands on at most.
        choices: makes every choice.
    """

    def __init__(
        self, seeds: Sequence[bytes], form: Form, longest: int, choices: random.Random
    ) -> None:
        self._seeds = seeds
        self._form = form
        self._longest = longest
        self._r = choices

    def next(self, *, large: bool = True) -> bytes:
        """The next input; ``large`` allows one as long as any can be."""
        r = self._r
        kind = r.random()
        if kind < 0.02:
            return r.choice(self._seeds)
        if kind < 0.07:
            return r.randbytes(r.choice((0, 1, 7, 40, 300, 3000)))
        if kind < 0.0705 and large:
            return self._grown()
        data = r.choice(self._seeds)
        if kind < 0.30:
            return self._bytes(data)[: self._longest]
        change = {
            "bytes": self._bytes,
            "json": self._json,
            "text": self._text,
            "protobuf": self._protobuf,
        }[self._form]
        changed: bytes = change(data)
        return changed[: self._longest]

    def _grown(self) -> bytes:
        """As long as can be: a part of a valid input again and again, or one nested deeply."""
        r, data = self._r, self._r.choice(self._seeds)
        start = r.randrange(len(data) + 1)
        part = data[start : start + r.choice((1, 2, 4, 37, 100, 1000))] or b"\x00"
        if r.random() < 0.3:
            part = r.choice((b"[", b'{"a":', b"\n", b"\x0a\x00", b"\x12\x00", b"[a.", b"0", b" "))
        size = r.choice((DEEP * len(part), self._longest))
        return (data[:start] + part * (size // len(part) + 1) + data[start:])[: self._longest]

    # Bytes.

    def _bytes(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._r.choice((1, 1, 1, 2, 4, 9))):
            self._change_bytes(changed)
        return bytes(changed)

    def _change_bytes(self, data: bytearray) -> None:
        r = self._r
        at = r.randrange(len(data) + 1)
        length = r.choice((1, 1, 2, 4, 8, 32, 64))
        kind = r.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << r.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = r.choice((0, 1, 0x0A, 0x20, 0x22, 0x7F, 0x80, 0xFF, r.randrange(256)))
        elif kind == 2:
            data[at:at] = r.randbytes(length)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * r.choice((1, 2, 100))
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            number = r.choice(NUMBERS[:12]) & (2**32 - 1)
            data[at : at + 4] = number.to_bytes(4, r.choice(("big", "little")))
        else:
            other = r.choice(self._seeds)
            start = r.randrange(len(other) + 1)
            data[at : at + length] = other[start : start + length]

    # Text in lines: TOML, notes, PEM, one-liners.

    def _text(self, data: bytes) -> bytes:
        r = self._r
        lines = data.split(b"\n")
        for _ in range(r.choice((1, 1, 2, 3))):
            at = r.randrange(len(lines))
            kind = r.randrange(7)
            if kind == 0:
                del lines[at]
                lines = lines or [b""]
            elif kind == 1:
                lines.insert(at, lines[at])
            elif kind == 2:
                other = r.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            elif kind == 3:
                lines[at] = self._words(lines[at])
            elif kind == 4:
                lines[at] = self._bytes(lines[at])
            elif kind == 5:
                lines[at] += r.choice((b"\r", b" ", b"\x00", b" # x", b"=1", b"[[", b"\xff"))
            else:
                lines.insert(at, r.choice(TEXTS).encode(errors="surrogatepass"))
        return b"\n".join(lines)

    def _words(self, line: bytes) -> bytes:
        """Something else between two of a line's separators."""
        r = self._r
        separator = r.choice((b" ", b"=", b"/", b".", b",", b'"', b":"))
        words = line.split(separator)
        number = str(r.choice(NUMBERS)) if r.random() < 0.5 else r.choice(TEXTS)
        words[r.randrange(len(words))] = number.encode(errors="surrogatepass")
        return separator.join(words)

    # JSON.

    def _json(self, data: bytes) -> bytes:
        try:
            document = json.loads(data)
        except ValueError:
            return self._bytes(data)
        for _ in range(self._r.choice((1, 1, 1, 2, 3))):
            document = self._change_json(document)
        try:
            changed = json.dumps(
                document,
                sort_keys=self._r.random() < 0.9,
                separators=(",", ":"),
                ensure_ascii=False,
            ).encode(errors="surrogatepass")
        except (ValueError, RecursionError):
            return data
        return changed if self._r.random() < 0.9 else self._bytes(changed)

    def _change_json(self, document: Any) -> Any:
        """One change somewhere below the document."""
        r = self._r
        holder: Any = [document]
        key: Any = 0
        while isinstance(holder[key], (dict, list)) and holder[key] and r.random() < 0.85:
            holder = holder[key]
            keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), PLACES))
            key = r.choice(keys)
        root = [document] if holder == [document] and key == 0 else None
        holder = root if root is not None else holder
        self._replace(holder, key)
        return root[0] if root else document

    def _replace(self, holder: Any, key: Any) -> None:
        r, value = self._r, holder[key]
        kind = r.randrange(9)
        if kind == 0:
            holder[key] = r.choice(NUMBERS)
        elif kind == 1:
            holder[key] = r.choice(TEXTS)
        elif kind == 2:
            holder[key] = r.choice(
                (None, True, False, [], {}, [[]], {"a": 1}, [value], {"a": value})
            )
        elif kind == 3 and len(holder) > 1:
            del holder[key]
        elif kind == 4 and isinstance(value, str):
            holder[key] = self._string(value)
        elif kind == 5 and isinstance(value, int):
            holder[key] = value + r.choice((-1, 1, 2**53, -value))
        elif kind == 6 and isinstance(holder, list):
            holder[key:key] = [value] * r.choice((1, 2, 50))
        elif kind == 7 and isinstance(holder, dict):
            other = r.choice(list(holder))
            holder[key], holder[other] = holder[other], holder[key]
        elif isinstance(holder, dict):
            holder[r.choice((*TEXTS, str(key) + "_billionths"))] = value
        else:
            holder[key] = _nested(r.choice((3, 90, 400)))

    def _string(self, value: str) -> str:
        r = self._r
        at = r.randrange(len(value) + 1)
        kind = r.randrange(5)
        if kind == 0:
            return value[:at]
        if kind == 1:
            return value[:at] + r.choice(TEXTS) + value[at:]
        if kind == 2:
            return value.upper()
        if kind == 3 and value:
            return value[:at] + r.choice("0123456789abcdef—\x00\n ") + value[at + 1 :]
        return value * 2

    # Protocol buffers.

    def _protobuf(self, data: bytes) -> bytes:
        fields = _fields(data)
        if not fields:
            return self._bytes(data)
        r = self._r
        at = r.randrange(len(fields))
        number, kind, value = fields[at]
        what = r.randrange(8)
        if what == 0:
            del fields[at]
        elif what == 1:
            fields[at:at] = [fields[at]] * r.choice((1, 2, 30))
        elif what == 2:
            fields[at] = (r.choice((0, 1, 2, 3, 4, 5, 6, 15, 2**28)), kind, value)
        elif what == 3:
            fields[at] = (number, r.choice((0, 1, 2, 5)), value)
        elif what == 4:
            r.shuffle(fields)
        elif isinstance(value, bytes):
            deeper = self._protobuf(value) if what > 5 and value else self._bytes(value)
            fields[at] = (number, kind, deeper)
        else:
            fields[at] = (number, kind, int(r.choice(NUMBERS[:19])) & (2**64 - 1))
        return b"".join(_field(*one) for one in fields)


def _nested(depth: int) -> Any:
    document: Any = 1
    for _ in range(depth):
        document = [document]
    return document


def _fields(data: bytes) -> list[tuple[int, int, int | bytes]]:
    """The fields of a message on the wire; empty if it is none."""
    fields: list[tuple[int, int, int | bytes]] = []
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            value: int | bytes
            if kind == 0:
                value, at = _varint(data, at)
            elif kind == 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                value, at = int.from_bytes(data[at : at + size], "little"), at + size
            else:
                return []
            if at > len(data) or number == 0:
                return []
            fields.append((number, kind, value))
    except IndexError:
        return []
    return fields


def _field(number: int, kind: int, value: int | bytes) -> bytes:
    tag = _to_varint(number << 3 | kind)
    if kind == 2:
        data = value if isinstance(value, bytes) else _to_varint(value)
        return tag + _to_varint(len(data)) + data
    plain: int = value if isinstance(value, int) else len(value)
    if kind == 0:
        return tag + _to_varint(plain)
    size = 8 if kind == 1 else 4
    sized: bytes = (plain & (2 ** (8 * size) - 1)).to_bytes(size, "little")
    return tag + sized


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _to_varint(number: int) -> bytes:
    parts = bytearray()
    number &= 2**64 - 1
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
