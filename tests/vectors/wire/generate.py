"""Writes the test vectors of the wire: ``python -m tests.vectors.wire.generate [FOLDER]``.

Bytes are hexadecimal and come out alike each time. A vector says what it is of (`kind`), holds the
bytes (`given`) and what the present code makes of them: `expected`, or the `error` that refuses
them. ``..._bad_<why>`` is its twin with one thing changed; ``..._of_a_newer_side`` has fields that
this version does not know, and means the same.

The files are what older and newer sides send. Where this script writes other bytes than are
published, the wire changed: protos/README.md says what may change, and with which number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from google.protobuf.message import Message

from protos.alliance.v1 import exchange_pb2 as wire
from protos.alliance.v1 import membership_pb2 as enrolment
from protos.codec import TaskKey, array_bytes, array_to_flower, encode
from protos.limits import LIMITS

FOLDER: Final = Path(__file__).parent / "v1"
STUDY: Final = "coupons@0123456789abcdef"
TERMS_HASH: Final = "0123456789abcdef" * 4
MODEL: Final = np.array([0.5, -1.0, 2.0], dtype=np.float32)
SUM: Final = np.array([1, 2**31, 2**32 - 1], dtype=np.uint32)
BODY: Final = bytes(range(40))
SIGNATURE: Final = bytes(range(64))
UNKNOWN: Final = bytes([0xA2, 0x06, 3]) + b"new"
"""Field 100, of a kind that is passed over."""

Vector = dict[str, Any]
Values = Mapping[str, int | bytes | str | bool]


def written(message: Message) -> bytes:
    """A message's bytes; maps in one order."""
    return message.SerializeToString(deterministic=True)


def record(content: Mapping[str, Values | ArrayRecord]) -> RecordDict:
    return RecordDict(
        {
            name: values if isinstance(values, ArrayRecord) else ConfigRecord(dict(values))
            for name, values in content.items()
        }
    )


def model() -> ArrayRecord:
    return ArrayRecord({"parameters": array_to_flower(MODEL)})


RUN: Final[Values] = {"first": 17, "count": 16}
SAID: Final[Mapping[str, Values]] = {"signed": {"body": BODY, "signature": SIGNATURE}}

TASKS: Final[Mapping[str, tuple[int, int, Mapping[str, Values | ArrayRecord]]]] = {
    "propose": (0, 1, {"terms": {"document": "{}"}, "admissions": {"vouches": b"[]"}}),
    "advertise": (0, 901, {"keys": RUN}),
    "share": (0, 901, {"keys": {**RUN, "body": BODY}}),
    "deliver": (0, 901, {"keys": {**RUN, "body": BODY}}),
    "reserve": (0, 902, {"keys": {"body": BODY}}),
    "witness": (0, 903, {"keys": {"body": BODY}}),
    "grant": (0, 904, {"keys": {"body": BODY}}),
    "contribute": (3, 2, {"keys": {"key_set": 18}, "model": model()}),
    "confirm": (3, 2, {"keys": {"key_set": 18, "body": BODY}}),
    "unmask": (3, 2, {"keys": {"key_set": 18, "body": BODY}}),
    "publish": (9, 1, {"model": model()}),
    "stop": (0, 1, {}),
}
"""By phase, and for a study's end: round, attempt, and the content beside `task` and `terms`."""

ANSWERS: Final[Mapping[str, Mapping[str, Values | ArrayRecord]]] = {
    "propose": {
        "acceptance": {
            "member": "member-0", "terms_hash": TERMS_HASH, "ledger_key": "ab" * 32,
            "signature": SIGNATURE,
        }
    },
    **{
        phase: SAID
        for phase in TASKS
        if phase not in ("propose", "contribute", "publish", "stop")
    },
    "contribute": {
        "signed": {"signature": SIGNATURE},
        "contribution": ArrayRecord({"sum": array_to_flower(SUM)}),
    },
    "publish": {"kept": {"kept": True}},
    "stop": {"over": {"over": True}},
}  # fmt: skip

OTHER_ANSWERS: Final[Mapping[str, tuple[str, Mapping[str, Values | ArrayRecord]]]] = {
    "propose_waiting": ("propose", {"waiting": {"sentence": "a person decides"}}),
    "contribute_revealed": (
        "contribute",
        {**ANSWERS["contribute"], "revealed": {"body": BODY, "signature": SIGNATURE}},
    ),
}
"""What else a member may answer in a phase."""


def key_of(phase: str) -> TaskKey:
    number, attempt, _ = TASKS[phase]
    return TaskKey(STUDY, number, attempt, phase)


def task_of(phase: str, *, inside: bool = True) -> wire.CoordinatorFrame:
    """The frame of a task, its array bytes in it or to follow."""
    number, attempt, more = TASKS[phase]
    terms: Values = {} if phase == "propose" else {"terms_hash": TERMS_HASH}
    task: Values = {"study": STUDY, "round": number, "attempt": attempt}
    content = record({"task": task, "terms": terms} | dict(more))
    return wire.CoordinatorFrame(
        task=wire.Task(
            id=key_of(phase).to_wire(), deadline_ms=30_000, content=encode(content),
            cleared=phase == "contribute", data=b"".join(array_bytes(content)) if inside else b"",
        )
    )  # fmt: skip


def answer_of(
    phase: str,
    answer: Mapping[str, Values | ArrayRecord] | None = None,
    *,
    inside: bool = True,
) -> wire.MemberFrame:
    content = record(answer or ANSWERS[phase])
    data = b"".join(array_bytes(content)) if inside else b""
    return wire.MemberFrame(
        answer=wire.Answer(id=key_of(phase).to_wire(), content=encode(content), data=data)
    )


def shown(content: Mapping[str, Values | ArrayRecord]) -> dict[str, Any]:
    """A content as JSON: blobs in hexadecimal, arrays as their numbers."""
    return {
        name: {key: _plain(value) for key, value in values.items()}
        for name, values in record(content).items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (bool, int, str)):
        return value
    return np.frombuffer(value.data, dtype=value.dtype).tolist()


def good(kind: str, message: Message, **expected: Any) -> Vector:
    return {"kind": kind, "given": written(message).hex(), "expected": expected}


def bad(kind: str, data: bytes, error: str) -> Vector:
    return {"kind": kind, "given": data.hex(), "error": error}


def newer(kind: str, frame: Message, field: str, expected: Mapping[str, Any]) -> Vector:
    """The same frame from a side that knows more fields, in the frame and in what it holds."""
    larger = type(frame).FromString(written(frame))
    getattr(larger, field).MergeFromString(UNKNOWN)
    data = larger.SerializeToString(deterministic=True) + UNKNOWN
    return {"kind": kind, "given": data.hex(), "expected": dict(expected)}


def hello_vectors() -> dict[str, Vector]:
    """The first frame of each side."""
    hello = wire.MemberFrame(hello=wire.Hello(protocol=2, software="alliance 0.1.0"))
    welcome = wire.CoordinatorFrame(welcome=wire.Welcome(protocol=2, member="member-0"))
    says, is_told = {"software": "alliance 0.1.0"}, {"protocol": 2, "member": "member-0"}
    older = wire.MemberFrame(hello=wire.Hello(protocol=1, software="alliance 0.0.9"))
    later = wire.MemberFrame(hello=wire.Hello(protocol=3, software="alliance 0.9.0"))
    return {
        "hello": good("hello", hello, **says),
        "hello_of_a_newer_side": newer("hello", hello, "hello", says),
        "hello_bad_older_protocol": bad("hello", written(older), "Denied: update the node"),
        "hello_bad_newer_protocol": bad("hello", written(later), "Denied: ask the operator"),
        "hello_bad_no_protocol": bad("hello", b"\x0a\x00", "Denied: newer than the node's"),
        "hello_bad_empty": bad("hello", b"", "Denied: must be a hello"),
        "hello_bad_unknown_frame": bad("hello", UNKNOWN, "Denied: must be a hello"),
        "hello_bad_truncated": bad("hello", written(hello)[:-1], "DecodeError: "),
        "welcome": good("welcome", welcome, **is_told),
        "welcome_of_a_newer_side": newer("welcome", welcome, "welcome", is_told),
        "welcome_bad_truncated": bad("welcome", written(welcome)[:-1], "DecodeError: "),
        "welcome_bad_newer_protocol": bad(
            "welcome",
            written(wire.CoordinatorFrame(welcome=wire.Welcome(protocol=3, member="member-0"))),
            "LinkError: update this node",
        ),
    }


def task_vectors() -> dict[str, Vector]:
    """A task of every phase."""
    vectors: dict[str, Vector] = {}
    for phase, (number, attempt, more) in TASKS.items():
        expected = {
            "key": [STUDY, number, attempt, phase],
            "deadline_ms": 30_000,
            "cleared": phase == "contribute",
            "content": shown(more),
        }
        vectors[f"task_{phase}"] = good("task", task_of(phase), **expected)
    announced = task_of("publish", inside=False)
    vectors["task_announced"] = good("task_head", announced, float32=[3])
    whole = task_of("contribute")
    vectors["task_contribute_of_a_newer_side"] = newer(
        "task", whole, "task", vectors["task_contribute"]["expected"]
    )
    for why, (change, error) in TASK_CHANGES.items():
        changed = wire.CoordinatorFrame.FromString(written(whole))
        change(changed.task)
        vectors[f"task_contribute_bad_{why}"] = bad("task", written(changed), error)
    vectors["task_contribute_bad_truncated"] = bad("task", written(whole)[:-1], "DecodeError: ")
    vectors["task_contribute_bad_unknown_frame"] = bad("task", UNKNOWN, "LinkError: frame")
    return vectors


def _long_study(task: wire.Task) -> None:
    task.id.study = "x" * (LIMITS.text + 1)


def _unprintable(task: wire.Task) -> None:
    task.id.phase = "contri\nbute"


def _dtype(task: wire.Task) -> None:
    task.content.arrays[0].headers[0].dtype = 9  # type: ignore[assignment]


def _billions(task: wire.Task) -> None:
    task.content.arrays[0].headers[0].shape[:] = [2**40]


def _dimensions(task: wire.Task) -> None:
    task.content.arrays[0].headers[0].shape[:] = [1] * (LIMITS.dimensions + 1)


def _arrays(task: wire.Task) -> None:
    for number in range(LIMITS.arrays):
        task.content.arrays[0].headers.add(name=str(number), dtype=wire.DTYPE_FLOAT32, shape=[0])


def _data(task: wire.Task) -> None:
    task.data += bytes(4)


def _twice(task: wire.Task) -> None:
    task.content.configurations.add(name="keys")


def _no_kind(task: wire.Task) -> None:
    task.content.configurations[0].values["new"].MergeFromString(UNKNOWN)


TASK_CHANGES: Final[Mapping[str, tuple[Callable[[wire.Task], None], str]]] = {
    "study_too_long": (_long_study, "LinkError: too long or not printable"),
    "phase_not_printable": (_unprintable, "LinkError: too long or not printable"),
    "unknown_dtype": (_dtype, "LinkError: dtype 9 is not accepted"),
    "array_of_billions": (_billions, "LinkError: the terms allow"),
    "too_many_dimensions": (_dimensions, "LinkError: dimensions"),
    "too_many_arrays": (_arrays, "LinkError: arrays announced"),
    "data_too_long": (_data, "LinkError: array bytes came"),
    "record_twice": (_twice, "LinkError: appears twice"),
    "value_of_an_unknown_kind": (_no_kind, "LinkError: has no kind"),
}


def answer_vectors() -> dict[str, Vector]:
    """An answer in every phase, and a refusal."""
    vectors: dict[str, Vector] = {}
    for phase, content in ANSWERS.items():
        key = list(key_of(phase))
        expected = {"key": key, "content": shown(content)}
        vectors[f"answer_{phase}"] = good("answer", answer_of(phase), **expected)
    for name, (phase, content) in OTHER_ANSWERS.items():
        expected = {"key": list(key_of(phase)), "content": shown(content)}
        vectors[f"answer_{name}"] = good("answer", answer_of(phase, content), **expected)
    vectors["answer_announced"] = good(
        "answer_head", answer_of("contribute", inside=False), uint32=[3]
    )
    whole = answer_of("contribute")
    vectors["answer_contribute_of_a_newer_side"] = newer(
        "answer", whole, "answer", vectors["answer_contribute"]["expected"]
    )
    vectors["answer_contribute_bad_truncated"] = bad("answer", written(whole)[:-1], "DecodeError: ")
    wrong = wire.MemberFrame.FromString(written(whole))
    wrong.answer.content.arrays[0].headers[0].shape[:] = [2**40]
    vectors["answer_contribute_bad_array_of_billions"] = bad(
        "answer", written(wrong), "LinkError: the terms allow"
    )
    vectors["answer_contribute_bad_unknown_frame"] = bad(
        "answer", UNKNOWN, "MemberFault: unexpected frame"
    )
    refusal = wire.MemberFrame(
        refusal=wire.Refusal(id=key_of("contribute").to_wire(), code=2, sentence="no budget left")
    )
    said = {"key": list(key_of("contribute")), "code": 2, "sentence": "no budget left"}
    vectors["refusal"] = good("refusal", refusal, **said)
    vectors["refusal_of_a_newer_side"] = newer("refusal", refusal, "refusal", said)
    vectors["refusal_bad_truncated"] = bad("refusal", written(refusal)[:-1], "DecodeError: ")
    return vectors


def chunk_vectors() -> dict[str, Vector]:
    """Chunks, which both sides send alike, and what the coordinator says of an answer."""
    key = key_of("contribute")
    chunk = wire.Chunk(id=key.to_wire(), offset=1_044_480, data=SUM.tobytes())
    expected = {"key": list(key), "offset": 1_044_480, "data": SUM.tobytes().hex()}
    vectors: dict[str, Vector] = {}
    for side, frame in (
        ("member", wire.MemberFrame(chunk=chunk)),
        ("coordinator", wire.CoordinatorFrame(chunk=chunk)),
    ):
        vectors[f"chunk_of_{side}"] = good(f"chunk_of_{side}", frame, **expected)
        vectors[f"chunk_of_{side}_of_a_newer_side"] = newer(
            f"chunk_of_{side}", frame, "chunk", expected
        )
        vectors[f"chunk_of_{side}_bad_truncated"] = bad(
            f"chunk_of_{side}", written(frame)[:-1], "DecodeError: "
        )
    sentence = f"{key} is over"
    frames = {
        "clear": (wire.CoordinatorFrame(clear=wire.Clear(id=key.to_wire())), {}),
        "receipt": (
            wire.CoordinatorFrame(receipt=wire.Receipt(id=key.to_wire(), sha256=bytes(32))),
            {"sha256": bytes(32).hex()},
        ),
        "rejection": (
            wire.CoordinatorFrame(rejection=wire.Rejection(id=key.to_wire(), sentence=sentence)),
            {"sentence": sentence},
        ),
    }
    for name, (frame, more) in frames.items():
        said = {"key": list(key)} | more
        vectors[name] = good(name, frame, **said)
        vectors[f"{name}_of_a_newer_side"] = newer(name, frame, name, said)
        vectors[f"{name}_bad_truncated"] = bad(name, written(frame)[:-1], "DecodeError: ")
    return vectors


ENROLMENT: Final[Sequence[tuple[Message, Mapping[str, Any]]]] = (
    (enrolment.GreetRequest(), {}),
    (
        enrolment.Greeting(
            protocol=2, software="alliance 0.1.0", alliance="test", authority=b"PEM",
            now_ms=1_800_000_000_000, nonce=bytes(16),
        ),
        {"protocol": 2, "software": "alliance 0.1.0", "alliance": "test", "authority": b"PEM".hex(),
         "now_ms": 1_800_000_000_000, "nonce": bytes(16).hex()},
    ),
    (
        enrolment.JoinRequest(secret=bytes(20), request=b"{}"),
        {"secret": bytes(20).hex(), "request": b"{}".hex()},
    ),
    (
        enrolment.RenewRequest(
            member="member-0", signing_request=b"PEM", nonce=bytes(16), signature=SIGNATURE
        ),
        {"member": "member-0", "signing_request": b"PEM".hex(), "nonce": bytes(16).hex(),
         "signature": SIGNATURE.hex()},
    ),
    (enrolment.Certificate(certificate=b"PEM"), {"certificate": b"PEM".hex()}),
    (enrolment.VouchRequest(vouch=b"{}"), {"vouch": b"{}".hex()}),
    (enrolment.VouchReply(vouches=3), {"vouches": 3}),
    (enrolment.LeaveRequest(departure=b"{}"), {"departure": b"{}".hex()}),
    (enrolment.LeaveReply(), {}),
)  # fmt: skip


def enrolment_vectors() -> dict[str, Vector]:
    """Every message of the enrolment port."""
    vectors: dict[str, Vector] = {}
    for message, expected in ENROLMENT:
        kind = type(message).__name__
        vectors[f"enrolment_{kind}"] = good(kind, message, **expected)
        data = written(message)
        vectors[f"enrolment_{kind}_of_a_newer_side"] = {
            "kind": kind, "given": (data + UNKNOWN).hex(), "expected": dict(expected),
        }  # fmt: skip
        vectors[f"enrolment_{kind}_bad_truncated"] = bad(
            kind, (data + UNKNOWN)[:-1], "DecodeError: "
        )
    return vectors


MAKERS: Final[Sequence[Callable[[], dict[str, Vector]]]] = (
    hello_vectors, task_vectors, answer_vectors, chunk_vectors, enrolment_vectors,
)  # fmt: skip


def write(folder: Path) -> None:
    """Writes all vectors into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in MAKERS:
        for name, vector in make().items():
            document = json.dumps(vector, indent=1, sort_keys=True)
            (folder / f"{name}.json").write_text(document + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
