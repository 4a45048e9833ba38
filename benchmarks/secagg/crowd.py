"""Hundreds of simulated members in one process: one gRPC stream each, real keys and real masks.

A member's messages are made by its own `MaskingMember`. What is not real: all of them share one
memory of signatures that were verified before, and what they will say in an attempt in which nobody
drops is worked out before it begins; when it runs, each compares what the coordinator sends with
what was foreseen, byte by byte, and stops at anything else; of the model it counts the bytes. Real
members have a machine each.

The masked vectors of one attempt are in memory, 4 bytes per coordinate and member, and are let go
before those of the next are made.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from benchmarks.secagg.costs import vector
from benchmarks.secagg_campaign.protocol import make_members
from privacy.fixedpoint import RingVector
from privacy.secagg import Attempt, KeySets, MaskingMember, Setup, model_hash
from privacy.secagg.binding import Phase
from privacy.secagg.messages import Lists, Signatures
from privacy.terms import Terms
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, array_specs, chunks, fits
from protos.limits import LIMITS, PROTOCOL
from protos.memory import settle
from protos.tls import TlsMaterial

import grpc  # isort: skip  (after protos, which closes TLS 1.2)
import grpc.aio  # isort: skip

__all__ = ["POOL", "Scene", "crowd", "model_of", "vector_of"]

NICENESS: Final = 10
"""Members yield the processor to the coordinator, which shares no machine with real ones."""
POOL: Final = 8
"""Vectors that all members' are drawn from; masked, no two are alike."""
_CHUNK_TAG: Final = 0x1A
"""First byte of a frame with array bytes (field 3); these are counted and not parsed."""
_CONNECT: Final = "/alliance.v1.Exchange/Connect"

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Scene:
    """One measurement of whole rounds.

    Args:
        terms: as JSON.
        rounds: how many, one attempt each.
    """

    terms: str
    rounds: int

    @property
    def setup(self) -> Setup:
        """The setup of the study."""
        return Setup.of(Terms.from_json(self.terms))


def model_of(dimension: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The public state that every round starts from: float32, shape (dimension,)."""
    return np.random.default_rng(7).standard_normal(dimension, dtype=np.float32)


def vector_of(index: int, dimension: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """What the member of an index puts in: one of the pool."""
    return vector(0, index % POOL, dimension)


def _remember_verified() -> None:
    """Verifies a signature once in this process: every member is sent the same thousand."""
    verify, good = Setup.verify, set[tuple[int, Phase, bytes, bytes]]()

    def once(self: Setup, sender: int, phase: Phase, statement: bytes, signature: bytes) -> None:
        seen = (sender, phase, statement, signature)
        if seen not in good:
            verify(self, sender, phase, statement, signature)
            good.add(seen)

    Setup.verify = once  # type: ignore[method-assign]


@dataclass(slots=True)
class _Script:
    """What one member says in the attempt to come."""

    key: TaskKey
    announcement: bytes
    """The answer's frame, without its array bytes."""
    with_data: bytes
    """The answer's frame with them, where they fit."""
    vector: list[bytes]
    """Chunk frames."""
    confirmation: bytes
    unmasking: bytes


@dataclass(slots=True, eq=False)
class _Member:
    index: int
    machine: MaskingMember
    stream: Stream
    script: _Script | None = None
    chunks_due: int = 0
    cleared: bool = False


@dataclass(slots=True)
class _Marks:
    """When the last member was through with something in this attempt; the system-wide clock."""

    model_s: float = 0.0
    receipt_s: float = 0.0
    receipts: int = 0


@dataclass(slots=True)
class _Crowd:
    """All members of one process."""

    setup: Setup
    machines: dict[int, MaskingMember]
    rounds: int
    report: Callable[[tuple[Any, ...]], None]
    next_round: Callable[[], Awaitable[None]]
    members: list[_Member] = field(default_factory=list)
    delivery: asyncio.Condition = field(default_factory=asyncio.Condition)
    deliveries: Counter[KeySets] = field(default_factory=Counter)
    lists: bytes = b""
    signatures: bytes = b""
    marks: _Marks = field(default_factory=_Marks)

    async def run(self, address: str, tls: dict[str, TlsMaterial]) -> None:
        """Connects everybody, then answers until the coordinator ends the streams."""
        conversations = [
            asyncio.create_task(self._converse(index, address, tls[self.setup.name(index)]))
            for index in self.machines
        ]
        everything = asyncio.gather(self._prepare_rounds(), *conversations)
        await everything

    async def _prepare_rounds(self) -> None:
        for number in range(1, self.rounds + 1):
            key_set = await self._key_set(number)
            await asyncio.to_thread(self._prepare, key_set, number)
            await self._key_set(min(number + 1, self.rounds))  # else made while the round is timed
            self.marks, cpu_s = _Marks(), _cpu_s()
            self.report(("ready", number))
            await self.next_round()
            marks = self.marks
            self.report(("marks", marks.model_s, marks.receipt_s, _cpu_s() - cpu_s))

    async def _key_set(self, number: int) -> int:
        """The key set of an attempt, once every member has it; none is passed over."""
        async with self.delivery:
            while True:
                whole = (
                    run for run, count in self.deliveries.items() if count == len(self.machines)
                )
                ready = sorted(run.first + place for run in whole for place in range(run.count))
                if len(ready) >= number:
                    return ready[number - 1]
                await self.delivery.wait()

    async def _converse(self, index: int, address: str, tls: TlsMaterial) -> None:
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
        options = [
            ("grpc.max_receive_message_length", LIMITS.frame_bytes),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            # Frames travel as bytes: those with array bytes are made before and never parsed.
            stream: Stream = channel.stream_stream(_CONNECT)()
            member = _Member(index, self.machines[index], stream)
            self.members.append(member)
            hello = wire.Hello(protocol=PROTOCOL, software="simulated")
            await stream.write(wire.MemberFrame(hello=hello).SerializeToString())
            while await self._take_next(member, await stream.read()):
                pass

    async def _take_next(self, member: _Member, raw: object) -> bool:
        """Takes one frame and lets go of it; whether there may be another."""
        if not isinstance(raw, bytes):
            return False
        if raw[0] != _CHUNK_TAG:
            await self._take(member, wire.CoordinatorFrame.FromString(raw))
            return True
        member.chunks_due -= 1
        if not member.chunks_due:
            await self._contribute(member)
        return True

    async def _take(self, member: _Member, frame: wire.CoordinatorFrame) -> None:
        kind, script = frame.WhichOneof("frame"), member.script
        if kind == "task":
            await self._take_task(member, frame.task)
        elif kind == "clear" and script is not None:
            for chunk in script.vector:
                await member.stream.write(chunk)
        elif kind == "receipt":
            self.marks.receipts += 1
            self.marks.receipt_s = time.monotonic()
        elif kind == "rejection":
            raise RuntimeError(f"member {member.index}: {frame.rejection.sentence}")

    async def _take_task(self, member: _Member, task: wire.Task) -> None:
        key, script = TaskKey.of(task.id), member.script
        if key.phase == "contribute":
            specs = array_specs(task.content, most_bytes=4 * self.setup.terms.dimension)
            due_bytes = sum(spec.size_bytes for spec in specs) - len(task.data)
            member.cleared = task.cleared
            member.chunks_due = math.ceil(due_bytes / LIMITS.chunk_bytes)
            if not member.chunks_due:
                await self._contribute(member)
            return
        body = _body(task)
        if key.phase in ("confirm", "unmask"):
            foreseen = self.lists if key.phase == "confirm" else self.signatures
            if script is None or body != foreseen:
                raise RuntimeError(f"member {member.index}: {key} is not what was foreseen")
            said = script.confirmation if key.phase == "confirm" else script.unmasking
            await member.stream.write(said)
            return
        await member.stream.write(self._ahead(member, key, task, body))
        async with self.delivery:
            self.delivery.notify_all()

    def _ahead(self, member: _Member, key: TaskKey, task: wire.Task, body: bytes) -> bytes:
        """The answer to a phase of the key exchange."""
        values = next(one for one in task.content.configurations if one.name == "keys").values
        key_sets = KeySets(values["first"].integer, values["count"].integer)
        machine = member.machine
        if key.phase == "advertise":
            said = machine.advertise(key_sets)
        elif key.phase == "share":
            said = machine.share(key_sets, body)
        else:
            said = machine.deliver(key_sets, body)
            self.deliveries[key_sets] += 1
        return _signed(key, said.body, said.signature)

    async def _contribute(self, member: _Member) -> None:
        """All of the task is here: what a real member would compute now was computed before."""
        self.marks.model_s = time.monotonic()
        script = member.script
        if script is None:
            raise RuntimeError(f"member {member.index} is asked before it is ready")
        if member.cleared and script.with_data:
            await member.stream.write(script.with_data)
            return
        await member.stream.write(script.announcement)
        if member.cleared:
            for chunk in script.vector:
                await member.stream.write(chunk)

    # Before an attempt.

    def _prepare(self, key_set: int, number: int) -> None:
        """Masks everybody's vector, and works out what everybody will sign."""
        setup = self.setup
        model = model_hash(model_of(setup.terms.dimension))
        attempt = Attempt(key_set, number, 1, model)
        for member in self.members:
            member.script = None  # one attempt's vectors in memory, not two
        pool = [vector(0, place, setup.terms.dimension) for place in range(POOL)]
        order = sorted(self.members, key=lambda member: member.index)
        for member in order:
            ring: RingVector = pool[member.index % POOL].astype("<u4")
            signature = member.machine.mask(attempt, ring)
            member.script = _script(setup, attempt, ring, signature)
        self.lists = Lists(tuple(member.index for member in order), ()).encode()
        confirmed = [(one.index, one.machine.confirm(attempt, self.lists)) for one in order]
        chosen = confirmed[: setup.terms.privacy.threshold]
        self.signatures = Signatures(tuple(chosen)).encode()
        for member, (_, signature) in zip(order, confirmed, strict=True):
            said = member.machine.unmask(attempt, self.signatures)
            if member.script is not None:
                key = member.script.key
                confirm = key._replace(phase="confirm")
                member.script.confirmation = _signed(confirm, b"", signature)
                unmask = key._replace(phase="unmask")
                member.script.unmasking = _signed(unmask, said.body, said.signature)


def _script(setup: Setup, attempt: Attempt, ring: RingVector, signature: bytes) -> _Script:
    """The frames of a contribution."""
    key = TaskKey(setup.terms.label, attempt.round, attempt.attempt, "contribute")
    data = ring.tobytes()
    frame = wire.MemberFrame()
    frame.answer.id.CopyFrom(key.to_wire())
    header = frame.answer.content.arrays.add(name="contribution").headers
    header.add(name="sum", dtype=wire.DTYPE_UINT32, shape=[len(ring)])
    values = frame.answer.content.configurations.add(name="signed").values
    values["signature"].blob = signature
    announcement = frame.SerializeToString()
    parts = []
    for offset, part in chunks([data]):
        chunk = wire.Chunk(id=key.to_wire(), offset=offset, data=part)
        parts.append(wire.MemberFrame(chunk=chunk).SerializeToString())
    with_data = b""
    if fits(frame.answer.content, [data]):
        frame.answer.data = data
        with_data = frame.SerializeToString()
    return _Script(key, announcement, with_data, parts, b"", b"")


def _signed(key: TaskKey, body: bytes, signature: bytes) -> bytes:
    frame = wire.MemberFrame()
    frame.answer.id.CopyFrom(key.to_wire())
    values = frame.answer.content.configurations.add(name="signed").values
    values["body"].blob = body
    values["signature"].blob = signature
    return frame.SerializeToString()


def _body(task: wire.Task) -> bytes:
    values = next(one for one in task.content.configurations if one.name == "keys").values
    return values["body"].blob if "body" in values else b""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def crowd(pipe: Connection, scene: Scene, address: str, tls: dict[str, TlsMaterial]) -> None:
    """The process: connects all members of the scene and answers until the streams end.

    Sends ``("ready", round)`` and, once told to go on, ``("marks", model_s, receipt_s, cpu_s)``;
    ``("failed", why)`` if a member is told what was not foreseen.
    """
    os.nice(NICENESS)
    _remember_verified()
    settle()
    setup = scene.setup

    async def main() -> None:
        members = make_members(setup, range(1, len(setup.names) + 1))

        async def next_round() -> None:
            await asyncio.to_thread(pipe.recv)

        try:
            await _Crowd(setup, members, scene.rounds, pipe.send, next_round).run(address, tls)
        except BaseException as error:
            pipe.send(("failed", repr(error)))
            raise

    asyncio.run(main())
