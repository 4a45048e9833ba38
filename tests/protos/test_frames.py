from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey
from protos.frames import (
    ReceivedChunk,
    answer_frame,
    chunk_frame,
    coordinator_frame,
    member_frame,
    serialized,
    task_frame,
)
from protos.limits import LIMITS

KEY = TaskKey("coupons", 3, 1, "contribute")
keys = st.builds(
    TaskKey,
    st.text(max_size=40),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.text(max_size=12),
)
SIDES = [(member_frame, wire.MemberFrame), (coordinator_frame, wire.CoordinatorFrame)]


def by_protobuf(raw: bytes, kind: type) -> object:
    """What protobuf makes of a frame, or that it makes nothing of it."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        return DecodeError


def by_us(raw: bytes, read: object, kind: type) -> object:
    """The same of ours, a chunk that was cut put back into a frame."""
    try:
        frame = read(raw)
    except DecodeError:
        return DecodeError
    if isinstance(frame, ReceivedChunk):
        chunk = wire.Chunk(id=frame.id, offset=frame.offset, data=bytes(frame.data))
        return kind(chunk=chunk)
    return frame


@given(keys, st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_a_chunk_is_written_as_protobuf_writes_it_and_cut_as_it_reads_it(
    key: TaskKey, offset: int, data: bytes
) -> None:
    for read, kind in SIDES:
        chunk = wire.Chunk(id=key.to_wire(), offset=offset, data=data)
        raw = kind(chunk=chunk).SerializeToString()
        assert chunk_frame(key, offset, data) == raw
        assert by_us(raw, read, kind) == kind.FromString(raw)
        assert isinstance(read(raw), ReceivedChunk) == (bool(data) and offset < 2**63)


@given(keys, st.lists(st.binary(max_size=200), max_size=3))
def test_bytes_in_the_frame_that_announces_them_are_written_as_protobuf_writes_them(
    key: TaskKey, buffers: list[bytes]
) -> None:
    content = wire.Content()
    content.configurations.add(name="task").values["x"].integer = 7
    task = wire.Task(id=key.to_wire(), deadline_ms=9, content=content, cleared=True)
    answer = wire.Answer(id=key.to_wire(), content=content)
    task_raw, answer_raw = task_frame(task, buffers), answer_frame(answer, buffers)
    task.data = answer.data = b"".join(buffers)
    assert task_raw == wire.CoordinatorFrame(task=task).SerializeToString()
    assert answer_raw == wire.MemberFrame(answer=answer).SerializeToString()


def test_a_cut_chunk_is_a_view_of_its_frame() -> None:
    raw = chunk_frame(KEY, 4, bytes(LIMITS.chunk_bytes))
    chunk = member_frame(raw)
    assert isinstance(chunk, ReceivedChunk)
    assert chunk.data.obj is raw
    assert chunk.data.readonly
    assert len(raw) <= LIMITS.frame_bytes


CHUNK = chunk_frame(KEY, 300, b"0123456789")
ODD = {
    "empty": b"",
    "only a tag": b"\x1a",
    "cut short": CHUNK[:-1],
    "a byte more": CHUNK + b"\0",
    "a frame more": CHUNK + CHUNK,
    "another field first": b"\x12\x00" + CHUNK,
    "no id": wire.MemberFrame(chunk=wire.Chunk(offset=1, data=b"x")).SerializeToString(),
    "an empty id": b"\x1a\x05\x0a\x00\x1a\x01x",
    "an id that is none": b"\x1a\x06\x0a\x01\xff\x1a\x01x",
    "an id that is no text": b"\x1a\x08\x0a\x03\x0a\x01\xff\x1a\x01x",
    "an id with fields of its own": b"\x1a\x08\x0a\x03\xfa\x01\x00\x1a\x01x",
    "a long id": wire.MemberFrame(
        chunk=wire.Chunk(id=wire.TaskId(study="x" * 600), data=b"x")
    ).SerializeToString(),
    "a long length": b"\x1a\x86\x00\x0a\x01\xff\x1a\x01x",
    "an offset of zero, written": b"\x1a\x07\x0a\x00\x10\x00\x1a\x01x",
    "an offset with needless bytes": b"\x1a\x08\x0a\x00\x10\x81\x00\x1a\x01x",
    "an offset of eleven bytes": b"\x1a\x11\x0a\x00\x10" + b"\xff" * 10 + b"\x01\x1a\x01x",
    "data twice": b"\x1a\x08\x0a\x00\x1a\x01x\x1a\x01y",
    "no data": b"\x1a\x02\x0a\x00",
    "data of another length": b"\x1a\x05\x0a\x00\x1a\x02x",
    "fields in another order": b"\x1a\x05\x1a\x01x\x0a\x00",
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_an_odd_frame_is_what_protobuf_says_it_is(raw: bytes) -> None:
    for read, kind in SIDES:
        assert by_us(raw, read, kind) == by_protobuf(raw, kind)


@given(st.data())
def test_a_damaged_frame_is_what_protobuf_says_it_is(data: st.DataObject) -> None:
    raw = bytearray(CHUNK)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    for read, kind in SIDES:
        assert by_us(bytes(raw), read, kind) == by_protobuf(bytes(raw), kind)


def test_bytes_travel_as_they_are() -> None:
    frame = wire.MemberFrame(hello=wire.Hello(protocol=2))
    assert serialized(frame) == frame.SerializeToString()
    assert serialized(CHUNK) is CHUNK
