"""Frames as bytes: array bytes go into them and come out of them without copies in between.

A frame with array bytes is a short head and then nothing but those bytes, so it is built by putting
one before the other, once for all who are sent it. On receipt a frame of exactly that shape is cut
instead of parsed; everything else is protobuf's to judge, so no frame is accepted that protobuf
would refuse, and none is read in another way (a test compares them).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError, Message

from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey

__all__ = [
    "ReceivedChunk",
    "answer_frame",
    "chunk_frame",
    "coordinator_frame",
    "member_frame",
    "serialized",
    "task_frame",
]

_CHUNK: Final = 0x1A
"""Field 3 of both sides' frames."""
_ID, _OFFSET, _DATA = 0x0A, 0x10, 0x1A
"""Fields of a chunk, in the order in which protobuf writes them."""
_MOST_ID_BYTES: Final = 512
_KEPT_IDS: Final = 16


class ReceivedChunk(NamedTuple):
    """A chunk whose bytes are a view of the frame it came in; otherwise as `wire.Chunk`."""

    id: wire.TaskId
    offset: int
    data: memoryview


def member_frame(raw: bytes) -> wire.MemberFrame | ReceivedChunk:
    """What a member sent.

    Raises:
        DecodeError: if it is no frame.
    """
    return _cut(raw) or wire.MemberFrame.FromString(raw)


def coordinator_frame(raw: bytes) -> wire.CoordinatorFrame | ReceivedChunk:
    """What the coordinator sent.

    Raises:
        DecodeError: if it is no frame.
    """
    return _cut(raw) or wire.CoordinatorFrame.FromString(raw)


def serialized(frame: Message | bytes) -> bytes:
    """A frame as it travels; one that is bytes already does so as it is."""
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def chunk_frame(key: TaskKey, offset: int, data: bytes | memoryview) -> bytes:
    """A frame of either side with array bytes."""
    chunk = wire.Chunk(id=key.to_wire(), offset=offset).SerializeToString()
    return _framed(_CHUNK, chunk, _DATA, [data])


def task_frame(task: wire.Task, buffers: Sequence[bytes]) -> bytes:
    """A task's frame with all its array bytes in it; ``task`` holds the rest."""
    return _framed(0x12, task.SerializeToString(), 0x2A, buffers)


def answer_frame(answer: wire.Answer, buffers: Sequence[bytes]) -> bytes:
    """An answer's frame with all its array bytes in it; ``answer`` holds the rest."""
    return _framed(0x12, answer.SerializeToString(), 0x1A, buffers)


def _framed(
    tag: int, message: bytes, data_tag: int, buffers: Sequence[bytes | memoryview]
) -> bytes:
    """One field of a frame: a message, and the field of its array bytes after all others."""
    size = sum(map(len, buffers))
    data_head = bytes([data_tag]) + _varint(size) if size else b""
    whole = _varint(len(message) + len(data_head) + size)
    return b"".join([bytes([tag]), whole, message, data_head, *buffers])


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _cut(raw: bytes) -> ReceivedChunk | None:
    """A frame that is a chunk written as protobuf writes it; None for every other."""
    try:
        size, at = _number(raw, 1)
        if raw[0] != _CHUNK or size != len(raw) - at or raw[at] != _ID:
            return None
        size, at = _number(raw, at + 1)
        if size > _MOST_ID_BYTES:
            return None
        task_id, at = raw[at : at + size], at + size
        offset = 0
        if raw[at] == _OFFSET:
            offset, at = _number(raw, at + 1)
            if not offset:
                return None
        size, at = _number(raw, at + 1) if raw[at] == _DATA else (0, at)
        if not size or size != len(raw) - at:
            return None
        return ReceivedChunk(_task_id(task_id), offset, memoryview(raw)[at:])
    except (IndexError, ValueError, DecodeError):
        return None  # it ends too soon, or its id is none: protobuf says so


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """A varint of at most 63 bits in its shortest form, and where it ends.

    Raises:
        ValueError: if it is longer.
        IndexError: if the bytes end in it.
    """
    number = 0
    for shift in range(0, 63, 7):
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                break
            return number, at
    raise ValueError("not a short varint")


@lru_cache(_KEPT_IDS)
def _task_id(raw: bytes) -> wire.TaskId:
    """Chunks of one array bear the same id; nobody changes what is handed out here."""
    return wire.TaskId.FromString(raw)
