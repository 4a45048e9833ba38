"""Recorded bytes of every frame: what older and newer sides send, and what is made of it here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata
from google.protobuf.message import DecodeError

from client_sdk.guard import attempt_of, body_of, key_sets_of, round_of
from client_sdk.session import Answer, Session, check_welcome
from coordinator.membership import greet
from coordinator.monitor import Monitor
from coordinator.rpc_errors import Denied
from coordinator.service import ExchangeService, _Connection
from privacy.errors import LinkError, MemberFault
from privacy.secagg import KeySets
from privacy.terms import PHASES
from protos.alliance.v1 import exchange_pb2 as wire
from protos.alliance.v1 import membership_pb2 as enrolment
from protos.codec import TaskKey, array_specs, blob_of, decode, flower_to_array, message_of
from protos.frames import ReceivedChunk, coordinator_frame, member_frame
from protos.limits import LIMITS, PROTOCOL
from protos.tls import TlsMaterial
from tests.vectors.wire.generate import ANSWERS, FOLDER, TASKS, write

NAMES = sorted(path.stem for path in FOLDER.iterdir())
MOST_BYTES = 12
"""Of arrays, as the terms say."""
ERRORS = {kind.__name__: kind for kind in (DecodeError, Denied, LinkError, MemberFault)}


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def plain(value: Any) -> Any:
    """A record, or a value of one, as JSON."""
    if isinstance(value, ConfigRecord):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, ArrayRecord):
        return {key: flower_to_array(item).tolist() for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


class Opening:
    """A stream whose first frame is there."""

    def __init__(self, frame: object) -> None:
        self.frame = frame
        self.written: list[wire.CoordinatorFrame] = []

    async def read(self) -> object:
        return self.frame

    async def write(self, frame: wire.CoordinatorFrame) -> None:
        self.written.append(frame)


def hello(data: bytes) -> dict[str, Any]:
    stream: Any = Opening(member_frame(data))
    software = asyncio.run(greet("member-0", stream))
    (frame,) = stream.written
    assert frame.welcome.protocol == PROTOCOL
    return {"software": software}


def welcome(data: bytes) -> dict[str, Any]:
    frame = coordinator_frame(data)
    member = check_welcome(frame)
    assert isinstance(frame, wire.CoordinatorFrame)
    return {"protocol": frame.welcome.protocol, "member": member}


def task(data: bytes) -> dict[str, Any]:
    """Through a node's session, to what its app is given."""
    seen: list[tuple[TaskKey, wire.Task, Message]] = []

    def answer(key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        metadata = Metadata(1, "m", 1, 2, "", "g", 0.0, 1.0, f"train.{key.phase}")
        seen.append((key, task, message_of(decode(task.content, arrays), metadata)))
        return Answer(wire.Content(), [])

    async def main() -> None:
        tls = TlsMaterial(b"", b"", b"")
        session = Session(
            "nowhere:1", tls, answer, most_task_bytes=lambda: MOST_BYTES, software="test"
        )
        session._take(coordinator_frame(data))
        said = session._outgoing.get_nowait() if not session._outgoing.empty() else ()
        for frame in said:
            assert isinstance(frame, wire.MemberFrame)
            raise LinkError(frame.refusal.sentence)
        await asyncio.gather(*session._working.values())

    asyncio.run(main())
    ((key, given, message),) = seen
    records = dict(message.content.items())
    assert plain(records.pop("task")) == dict(
        zip(("study", "round", "attempt"), key[:3], strict=True)
    )
    assert round_of(message) == key[1:3]
    terms = records.pop("terms")
    assert plain(terms).keys() <= {"terms_hash", "document"}
    shown = {name: plain(record) for name, record in records.items()}
    if key.phase == "propose":
        shown["terms"] = plain(terms)
    keys = shown.get("keys", {})
    if "first" in keys:
        assert key_sets_of(message) == KeySets(keys["first"], keys["count"])
    if "key_set" in keys:
        assert attempt_of(message).key_set == keys["key_set"]
    if "body" in keys:
        assert body_of(message).hex() == keys["body"]
    return {
        "key": list(key), "deadline_ms": given.deadline_ms, "cleared": given.cleared,
        "content": shown,
    }  # fmt: skip


def task_head(data: bytes) -> dict[str, Any]:
    frame = coordinator_frame(data)
    assert isinstance(frame, wire.CoordinatorFrame)
    (spec,) = array_specs(frame.task.content, most_bytes=MOST_BYTES)
    return {spec.dtype: list(spec.shape)}


def answer(data: bytes) -> dict[str, Any]:
    frame = expected_frame(data)
    specs = array_specs(frame.answer.content, most_bytes=MOST_BYTES)
    content = decode(frame.answer.content, [(spec, frame.answer.data) for spec in specs])
    shown = {name: plain(record) for name, record in content.items()}
    if "signed" in shown:
        signature = blob_of(frame.answer.content, "signed", "signature")
        assert signature.hex() == shown["signed"]["signature"]
    return {"key": list(TaskKey.of(frame.answer.id)), "content": shown}


def answer_head(data: bytes) -> dict[str, Any]:
    (spec,) = array_specs(expected_frame(data).answer.content, most_bytes=MOST_BYTES)
    return {spec.dtype: list(spec.shape)}


def expected_frame(data: bytes) -> wire.MemberFrame:
    """A frame of a kind that the coordinator knows."""
    frame = member_frame(data)
    assert isinstance(frame, wire.MemberFrame)
    if frame.WhichOneof("frame") is None:
        service = ExchangeService(frozenset(), Monitor())
        connection = service._connections["member-0"] = _Connection("member-0", b"")
        service._take(connection, frame)
        pytest.fail("an unknown frame was taken")
    return frame


def refusal(data: bytes) -> dict[str, Any]:
    said = expected_frame(data).refusal
    return {"key": list(TaskKey.of(said.id)), "code": said.code, "sentence": said.sentence}


def chunk_by(read: Callable[[bytes], Any]) -> Callable[[bytes], dict[str, Any]]:
    def chunk(data: bytes) -> dict[str, Any]:
        frame = read(data)
        said = frame if isinstance(frame, ReceivedChunk) else frame.chunk
        key = TaskKey.of(said.id)
        return {"key": list(key), "offset": said.offset, "data": bytes(said.data).hex()}

    return chunk


def from_coordinator(kind: str) -> Callable[[bytes], dict[str, Any]]:
    def read(data: bytes) -> dict[str, Any]:
        frame = coordinator_frame(data)
        assert isinstance(frame, wire.CoordinatorFrame)
        assert frame.WhichOneof("frame") == kind
        said = getattr(frame, kind)
        more = {"receipt": lambda: {"sha256": said.sha256.hex()},
                "rejection": lambda: {"sentence": said.sentence}}  # fmt: skip
        return {"key": list(TaskKey.of(said.id))} | more.get(kind, dict)()

    return read


def enrolment_by(kind: str) -> Callable[[bytes], dict[str, Any]]:
    def read(data: bytes) -> dict[str, Any]:
        message = getattr(enrolment, kind).FromString(data)
        return {field.name: plain(value) for field, value in message.ListFields()}

    return read


KINDS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "hello": hello,
    "welcome": welcome,
    "task": task,
    "task_head": task_head,
    "answer": answer,
    "answer_head": answer_head,
    "refusal": refusal,
    "chunk_of_member": chunk_by(member_frame),
    "chunk_of_coordinator": chunk_by(coordinator_frame),
    **{kind: from_coordinator(kind) for kind in ("clear", "receipt", "rejection")},
    **{kind: enrolment_by(kind) for kind in enrolment.DESCRIPTOR.message_types_by_name},
}


@pytest.mark.parametrize("name", NAMES)
def test_recorded_bytes_mean_what_they_meant(name: str) -> None:
    vector = load(name)
    data = bytes.fromhex(vector["given"])
    if "error" not in vector:
        assert KINDS[vector["kind"]](data) == vector["expected"]
        return
    kind, _, words = vector["error"].partition(": ")
    with pytest.raises(ERRORS[kind]) as refused:
        KINDS[vector["kind"]](data)
    assert words in str(refused.value)


def test_the_generator_writes_exactly_the_published_files(tmp_path: Path) -> None:
    """Where it does not, the wire changed: protos/README.md says what that takes."""
    write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FOLDER.iterdir()}


def test_every_frame_message_and_phase_is_recorded() -> None:
    kinds = {load(name)["kind"] for name in NAMES}
    assert kinds == KINDS.keys()
    for frame in (wire.MemberFrame, wire.CoordinatorFrame):
        for field in frame.DESCRIPTOR.fields_by_name:
            assert any(kind.startswith(field) for kind in kinds), field
    assert tuple(TASKS) == (*PHASES, "stop")
    assert set(ANSWERS) == set(TASKS)
    bad = [name for name in NAMES if "_bad_" in name]
    assert len(bad) * 3 >= len(NAMES)
    assert all(name.partition("_bad_")[0] in NAMES for name in bad)


def test_a_frame_over_the_cap_is_not_among_them() -> None:
    """gRPC refuses it before anybody reads it; `tests/test_link.py` sends one."""
    assert all(len(load(name)["given"]) < 2 * LIMITS.frame_bytes for name in NAMES)


def test_arrays_are_little_endian() -> None:
    given = bytes.fromhex(load("answer_contribute")["given"])
    assert given.endswith(np.array([1, 2**31, 2**32 - 1], dtype="<u4").tobytes())
