"""Parsers of frames, of what is in them, and of secure aggregation's messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from google.protobuf.message import DecodeError

from benchmarks.fuzz.campaign import Parse, Parser
from benchmarks.fuzz.scene import Scene
from client_sdk.policy import Budget
from client_sdk.sqlite_journal import SqliteJournal
from client_sdk.witnessing import Witnessing as Member
from coordinator.evidence import Evidence
from coordinator.mirror import Mirror
from coordinator.monitor import Monitor
from coordinator.witnessing import Witnessing
from privacy.errors import AllianceError
from privacy.secagg import KeyExchange, KeySets
from privacy.secagg.messages import (
    Advertisement,
    Delivery,
    Lists,
    Offer,
    Opened,
    Revealed,
    Shares,
    Signatures,
    read_indices,
)
from protos.alliance.v1 import exchange_pb2 as wire
from protos.alliance.v1 import membership_pb2
from protos.codec import (
    TaskKey,
    array_specs,
    array_to_flower,
    blob_of,
    decode,
    encode,
    flower_to_array,
    printable,
)
from protos.frames import (
    ReceivedChunk,
    answer_frame,
    chunk_frame,
    coordinator_frame,
    member_frame,
    task_frame,
)
from protos.limits import LIMITS, PROTOCOL

__all__ = ["parsers"]

KEY = TaskKey("coupons@0123456789abcdef", 1, 1, "contribute")
PROFILE = {m: 0.1 * m for m in range(1, 6)}


def parsers(here: Scene) -> Iterator[Parser]:
    """All of them."""
    yield from _frames(here)
    yield from _bodies(here)
    yield from _witnessing(here)


def _frames(here: Scene) -> Iterator[Parser]:
    content = encode(
        RecordDict(
            {
                "task": ConfigRecord({"study": KEY.study, "round": 1, "attempt": 1}),
                "signed": ConfigRecord({"signature": bytes(64), "real": 0.5, "is": True}),
                "sum": ArrayRecord({"sum": array_to_flower(np.ones(20, np.uint32))}),
            }
        )
    )  # fmt: skip
    data = bytes(80)
    answer = wire.Answer(id=KEY.to_wire(), content=content)
    task = wire.Task(id=KEY.to_wire(), deadline_ms=1000, content=content, cleared=True)
    refusal = wire.Refusal(id=KEY.to_wire(), code=3, sentence="no")
    hello = wire.MemberFrame(hello=wire.Hello(protocol=PROTOCOL, software="x"))
    of_members = (
        hello.SerializeToString(),
        wire.MemberFrame(refusal=refusal).SerializeToString(),
        answer_frame(answer, []),
        answer_frame(answer, [data]),
        chunk_frame(KEY, 80, data),
    )
    welcome = wire.Welcome(protocol=PROTOCOL, member="member-0")
    of_coordinators = (
        task_frame(task, []),
        task_frame(task, [data]),
        chunk_frame(KEY, 0, data),
        *(
            wire.CoordinatorFrame(**frame).SerializeToString()
            for frame in (
                {"welcome": welcome},
                {"clear": wire.Clear(id=KEY.to_wire())},
                {"receipt": wire.Receipt(id=KEY.to_wire(), sha256=bytes(32))},
                {"rejection": wire.Rejection(id=KEY.to_wire(), sentence="over")},
            )
        ),
    )

    def member(raw: bytes) -> None:
        _inside(member_frame(raw))

    def coordinator(raw: bytes) -> None:
        _inside(coordinator_frame(raw))

    yield Parser(
        "members' frames, and the records and arrays in them",
        (
            "protos.frames:member_frame",
            "protos.codec:array_specs",
            "protos.codec:blob_of",
            "protos.codec:decode",
            "protos.codec:flower_to_array",
            "protos.codec:TaskKey.of",
        ),
        of_members, member, form="protobuf", longest=LIMITS.frame_bytes, named=(DecodeError,),
    )  # fmt: skip
    yield Parser(
        "the coordinator's frames, and the records and arrays in them",
        ("protos.frames:coordinator_frame",),
        of_coordinators, coordinator, form="protobuf", longest=LIMITS.frame_bytes,
        named=(DecodeError,),
    )  # fmt: skip
    yield Parser(
        "enrolment's messages", (),
        (
            membership_pb2.JoinRequest(secret=bytes(20), request=here.request).SerializeToString(),
            membership_pb2.RenewRequest(
                member="member-0", signing_request=here.signing_request, nonce=bytes(56),
                signature=bytes(64),
            ).SerializeToString(),
            membership_pb2.Greeting(
                protocol=2, software="x", alliance="small", authority=here.authority.certificate,
                now_ms=1, nonce=bytes(56),
            ).SerializeToString(),
        ),
        _enrolment, form="protobuf", longest=1 << 16, named=(DecodeError,),
    )  # fmt: skip


def _inside(frame: Any) -> None:
    """Reads a frame as service and session do."""
    if isinstance(frame, ReceivedChunk):
        TaskKey.of(frame.id)
        return
    kind = frame.WhichOneof("frame")
    if kind is None or not hasattr(getattr(frame, kind), "id"):
        return
    inner = getattr(frame, kind)
    TaskKey.of(inner.id)
    if kind in ("refusal", "rejection"):
        printable(inner.sentence)
    if kind in ("task", "answer"):
        specs = array_specs(inner.content, most_bytes=80)
        blob_of(inner.content, "signed", "signature")
        arrays, at = [], 0
        for spec in specs:
            arrays.append((spec, inner.data[at : at + spec.size_bytes]))
            at += spec.size_bytes
        content = decode(inner.content, arrays)
        for record in content.values():
            if isinstance(record, ArrayRecord):
                for array in record.values():
                    flower_to_array(array)


def _enrolment(raw: bytes) -> None:
    for message in (
        membership_pb2.JoinRequest,
        membership_pb2.RenewRequest,
        membership_pb2.VouchRequest,
        membership_pb2.Greeting,
        membership_pb2.Certificate,
        membership_pb2.VouchReply,
    ):
        message.FromString(raw)


def _bodies(here: Scene) -> Iterator[Parser]:
    """Bodies as two members and a coordinator made them, read by each reader."""
    exchange = KeyExchange(here.alliance.setup, sets := KeySets(90, 2), keep=True)
    members = {name: one.masking for name, one in here.alliance.members.items()}
    advertised = {name: one.advertise(sets) for name, one in members.items()}
    for name, said in advertised.items():
        exchange.take_advertisement(name, said.body, said.signature)
    offer = exchange.offer()
    shared = {name: one.share(sets, offer) for name, one in members.items()}
    for name, said in shared.items():
        exchange.take_shares(name, said.body, said.signature)
    exchange.close()
    first, second, *_ = members
    delivery = exchange.delivery(first)
    lists = Lists((1, 2, 4), (3, 5)).encode()
    signatures = Signatures(((1, bytes(64)), (2, bytes(64)))).encode()
    revealed = Revealed(((1, bytes(33), bytes(16)), (2, bytes(33), bytes(16)))).encode()
    readers: tuple[tuple[str, str, Callable[[bytes], object], tuple[bytes, ...]], ...] = (
        ("advertisements", "Advertisement.decode", lambda d: Advertisement.decode(d, sets),
         tuple(one.body for one in advertised.values())),
        ("offers", "Offer.decode", lambda d: Offer.decode(d, sets), (offer,)),
        ("opened shares", "Opened.decode_all", lambda d: Opened.decode_all(d, sets),
         (bytes(2 * 98),)),
        ("dealt shares", "Shares.decode", lambda d: Shares.decode(d, sets),
         (shared[first].body, shared[second].body)),
        ("deliveries", "Delivery.decode", lambda d: Delivery.decode(d, sets), (delivery,)),
        ("lists of survivors", "Lists.decode", Lists.decode, (lists,)),
        ("signatures under lists", "Signatures.decode", Signatures.decode, (signatures,)),
        ("revealed shares", "Revealed.decode", Revealed.decode, (revealed,)),
        ("complaints", "read_indices", read_indices, (lists[:16], bytes(4))),
    )  # fmt: skip
    for name, function, parse, seeds in readers:
        yield Parser(
            name, (f"privacy.secagg.messages:{function}",), seeds, parse, longest=LIMITS.blob_bytes
        )


def _witnessing(here: Scene) -> Iterator[Parser]:
    """Bodies of reserve, witness and grant, at both ends and with real logs."""
    seen = _Conversation(here)
    for phase in ("reserve", "witness", "grant"):
        yield Parser(
            f"{phase}: a member's answer", (), seen.answers[phase], form="json",
            longest=LIMITS.blob_bytes, serve=seen.coordinator(phase),
        )  # fmt: skip
        yield Parser(
            f"{phase}: what a member is asked", (), seen.questions[phase],
            seen.member(phase), form="json", longest=LIMITS.blob_bytes,
        )  # fmt: skip


class _Conversation:
    """Five members' logs and a coordinator's, and one honest exchange between them."""

    def __init__(self, here: Scene) -> None:
        self._terms = here.terms
        self._folder = here.folder / "witnessing"
        self._folder.mkdir()
        self.questions: dict[str, tuple[bytes, ...]] = {}
        self.answers: dict[str, tuple[bytes, ...]] = {}
        self._evidence = Evidence(self._folder, self._terms.alliance, keep_bytes=0)
        mirror = Mirror(self._evidence.store, self._terms.alliance)
        self._evidence.proposed(self._terms)
        self._members: dict[str, Member] = {}
        for index, entry in enumerate(self._terms.roster):
            key, signature = here.ledger(index), here.acceptance(index)
            self._evidence.accepted(self._terms, entry.name, key.public, signature)
            mirror.open(entry.name, key.public, signature)
            journal = SqliteJournal(
                self._folder / f"{entry.name}.sqlite",
                origin=f"{self._terms.alliance}/member/{entry.name}",
                key=key,
            )
            journal.adopt(Budget(epsilon=20.0).rule())
            journal.approve(self._terms, profile=PROFILE, most_studies=1, signature=signature)
            self._members[entry.name] = Member(journal, entry.name)
        self._take: Callable[[str, Mapping[str, bytes], Callable[[str, bytes], None]], None]
        self._take = self._honest
        self._names = tuple(self._members)
        self._coordinator = Witnessing(
            self._terms, self._evidence, mirror, Monitor(lambda _: None), self._ask
        )
        self._coordinator.grant(self._names, 2)

    def member(self, phase: str) -> Parse:
        """Asks one member."""
        member = self._members[self._names[0]]
        answer = getattr(member, phase)
        return lambda body: answer(self._terms, body)

    def coordinator(self, phase: str) -> Callable[[Callable[[Parse], None]], None]:
        """Has a coordinator that waits for answers in a phase take them from a loop."""

        def serve(loop: Callable[[Parse], None]) -> None:
            def take(
                at: str, bodies: Mapping[str, bytes], one: Callable[[str, bytes], None]
            ) -> None:
                self._honest(at, bodies, one)
                if at == phase and not done:
                    done.append(True)
                    loop(lambda body: one(self._names[0], body))

            done: list[bool] = []
            self._take = take
            self._coordinator.grant(self._names, 3)

        return serve

    def _ask(
        self, phase: str, bodies: Mapping[str, bytes], take: Callable[[str, bytes], None]
    ) -> None:
        self._take(phase, bodies, take)

    def _honest(
        self, phase: str, bodies: Mapping[str, bytes], take: Callable[[str, bytes], None]
    ) -> None:
        for name, body in bodies.items():
            said = getattr(self._members[name], phase)(self._terms, body)
            self.questions.setdefault(phase, (body,))
            self.answers.setdefault(phase, (said,))
            try:
                take(name, said)
            except AllianceError:
                continue
