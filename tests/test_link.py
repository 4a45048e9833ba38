"""The link between real processes' ends: real gRPC, real TLS, on loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client_sdk.session import Answer, Session
from coordinator.exchange import Absent, Answered, Outcome, Outgoing, Refused
from coordinator.grid import LinkGrid
from coordinator.monitor import Event, MemberFaulted, MemberJoined, MemberLeft, Monitor
from coordinator.pace import Pace
from coordinator.round import Round
from coordinator.server import start_server
from coordinator.service import ExchangeService
from privacy.errors import ConfigurationError, LinkError
from protos.alliance.v1 import exchange_pb2 as wire
from protos.alliance.v1 import exchange_pb2_grpc
from protos.codec import ArraySpec, TaskKey
from protos.frames import ReceivedChunk, coordinator_frame
from protos.limits import LIMITS, PROTOCOL
from protos.tls import TlsMaterial
from tests.conftest import HOUR, Certificates, make_terms

import grpc  # isort: skip  (after protos, which closes TLS 1.2)

DIMENSION = 400_000
"""1.6 MB: two chunks."""
TERMS = make_terms(members=5, dimension=DIMENSION)
NAMES = tuple(entry.name for entry in TERMS.roster)
KEY = TaskKey("coupons", 1, 1, "contribute")
ONES = np.ones(DIMENSION, dtype=np.uint32)


@pytest.fixture(autouse=True)
def room_for_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of a cohort of five are cleared one by one, as where vectors are long."""
    monkeypatch.setattr("coordinator.round.UNDO_BYTES", 4 * 4 * DIMENSION)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


class Alliance:
    """A server with its service, on a free port."""

    def __init__(self, service: ExchangeService, address: str, events: list[Event]) -> None:
        self.service = service
        self.address = address
        self.events = events

    def faults(self) -> list[MemberFaulted]:
        return [event for event in self.events if isinstance(event, MemberFaulted)]

    async def ask(
        self,
        round_: Round | None,
        *,
        key: TaskKey = KEY,
        timeout_s: float = 10.0,
        least: int = 4,
    ) -> dict[str, Outcome]:
        tasks = dict.fromkeys(NAMES, model())
        return await self.service.exchange(
            key, tasks, timeout_s=timeout_s, round_=round_, least=least
        )


@asynccontextmanager
async def alliance(certificates: Certificates, *, grace_s: float = 0.3) -> AsyncIterator[Alliance]:
    events: list[Event] = []
    service = ExchangeService(frozenset(NAMES), Monitor(events.append), reconnect_grace_s=grace_s)
    server, address = await start_server(service, "127.0.0.1:0", certificates.coordinator)
    try:
        yield Alliance(service, address, events)
    finally:
        await server.stop(grace=0)


def model() -> Outgoing:
    content = wire.Content()
    group = content.arrays.add(name="model")
    group.headers.add(name="parameters", dtype=wire.DTYPE_FLOAT32, shape=[DIMENSION])
    return Outgoing(content, [np.zeros(DIMENSION, np.float32).tobytes()])


def contribution(values: np.ndarray = ONES) -> Answer:
    content = wire.Content()
    group = content.arrays.add(name="contribution")
    group.headers.add(name="sum", dtype=wire.DTYPE_UINT32, shape=[len(values)])
    return Answer(content, [values.tobytes()])


def honest(key: TaskKey, task: wire.Task, arrays: list[tuple[ArraySpec, bytes]]) -> Answer:
    return contribution()


@asynccontextmanager
async def members(
    here: Alliance, certificates: Certificates, names: tuple[str, ...] = NAMES, answer: Any = honest
) -> AsyncIterator[None]:
    running = [
        asyncio.create_task(
            Session(
                here.address,
                certificates.member(name),
                answer,
                most_task_bytes=lambda: 4 * DIMENSION,
                software="test",
            ).run()
        )
        for name in names
    ]
    assert set(names) <= set(await here.service.assemble(names, least=len(names), timeout_s=10))
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class RawMember:
    """A member that speaks the protocol by hand, and may break it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def send(self, **frame: Any) -> None:
        await self.stream.write(wire.MemberFrame(**frame))

    async def until(self, kind: str) -> Any:
        while (frame := await self.stream.read()) is not grpc.aio.EOF:
            if frame.WhichOneof("frame") == kind:
                return getattr(frame, kind)
        raise AssertionError(f"the stream ended before a {kind}")

    async def announce(self, key: TaskKey = KEY, shape: tuple[int, ...] = (DIMENSION,)) -> None:
        content = wire.Content()
        group = content.arrays.add(name="contribution")
        group.headers.add(name="sum", dtype=wire.DTYPE_UINT32, shape=shape)
        await self.send(answer=wire.Answer(id=key.to_wire(), content=content))

    async def chunk(self, offset: int, data: bytes, key: TaskKey = KEY) -> None:
        await self.send(chunk=wire.Chunk(id=key.to_wire(), offset=offset, data=data))


@asynccontextmanager
async def raw_member(
    address: str, tls: TlsMaterial, *, hello: bool = True
) -> AsyncIterator[RawMember]:
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        member = RawMember(exchange_pb2_grpc.ExchangeStub(channel).Connect())
        if hello:
            await member.send(hello=wire.Hello(protocol=PROTOCOL, software="raw"))
            await member.until("welcome")
        yield member


def sum_of(round_: Round) -> np.ndarray:
    return round_._sum


def new_round() -> Round:
    return Round(TERMS, round_number=1, attempt=1, cohort=NAMES)


# What works.


def test_contributions_of_all_members_are_added(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates):
            round_ = new_round()
            outcomes = await here.ask(round_)
            assert all(isinstance(outcome, Answered) for outcome in outcomes.values())
            np.testing.assert_array_equal(sum_of(round_), 5 * ONES)
            assert here.faults() == []

    run(main)


def test_a_repeated_task_is_answered_with_the_same_bytes(certificates: Certificates) -> None:
    calls: list[TaskKey] = []

    def fresh_noise(key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        calls.append(key)
        return contribution(np.full(DIMENSION, len(calls), np.uint32))

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:1], fresh_noise),
        ):
            first, again = new_round(), new_round()
            await here.ask(first)
            await here.ask(again)
            np.testing.assert_array_equal(sum_of(first), sum_of(again))
            assert calls == [KEY]

    run(main)


def test_a_member_that_reconnects_in_mid_upload_counts_once(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates, grace_s=5) as here:
            tls = certificates.member(NAMES[0])
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_, timeout_s=8))
            async with raw_member(here.address, tls) as member:
                await member.until("task")
                await member.announce()
                await member.until("clear")
                await member.chunk(0, ONES.tobytes()[: LIMITS.chunk_bytes])
                await member.chunk(4, b"")  # waits until the first chunk was taken
                await member.until("rejection")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            second = new_round()
            asking = asyncio.create_task(here.ask(second, timeout_s=8))
            async with raw_member(here.address, tls) as member:
                await member.until("task")
                await member.announce()
                await member.until("clear")
                await member.chunk(0, ONES.tobytes()[: LIMITS.chunk_bytes])
            async with raw_member(here.address, tls) as member:
                await member.until("task")  # the open task comes again
                await member.announce()
                await member.until("clear")
                for start in range(0, ONES.nbytes, LIMITS.chunk_bytes):
                    await member.chunk(start, ONES.tobytes()[start : start + LIMITS.chunk_bytes])
                await member.until("receipt")
            outcomes = await asking
            assert isinstance(outcomes[NAMES[0]], Answered)
            np.testing.assert_array_equal(sum_of(second), ONES)

    run(main)


def test_where_all_fit_nobody_waits_to_be_cleared(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.round.UNDO_BYTES", 5 * 4 * DIMENSION)

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(NAMES[4])) as member,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_))
            assert (await member.until("task")).cleared
            await member.announce()
            for start in range(0, ONES.nbytes, LIMITS.chunk_bytes):
                await member.chunk(start, ONES.tobytes()[start : start + LIMITS.chunk_bytes])
            await member.until("receipt")
            outcomes = await asking
            assert all(isinstance(outcome, Answered) for outcome in outcomes.values())
            np.testing.assert_array_equal(sum_of(round_), 5 * ONES)
            assert here.faults() == []

    run(main)


def test_short_vectors_travel_in_the_frames_that_announce_them(certificates: Certificates) -> None:
    small = make_terms(members=5, dimension=1000)
    ones = np.ones(1000, dtype=np.uint32)
    seen: list[list[bytes]] = []

    def answer(key: TaskKey, task: wire.Task, arrays: list[tuple[ArraySpec, bytes]]) -> Answer:
        seen.append([data for _, data in arrays])
        return contribution(ones)

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4], answer),
            raw_member(here.address, certificates.member(NAMES[4])) as member,
        ):
            round_ = Round(small, round_number=1, attempt=1, cohort=NAMES)
            content = wire.Content()
            group = content.arrays.add(name="model")
            group.headers.add(name="parameters", dtype=wire.DTYPE_FLOAT32, shape=[1000])
            model = np.arange(1000, dtype=np.float32).tobytes()
            tasks = dict.fromkeys(NAMES, Outgoing(content, [model]))
            asking = asyncio.create_task(
                here.service.exchange(KEY, tasks, timeout_s=10, round_=round_, least=5)
            )
            task = await member.until("task")
            assert task.data == model
            content = wire.Content()
            group = content.arrays.add(name="contribution")
            group.headers.add(name="sum", dtype=wire.DTYPE_UINT32, shape=[1000])
            frame = wire.Answer(id=KEY.to_wire(), content=content, data=ones.tobytes())
            await member.send(answer=frame)
            await asking
            np.testing.assert_array_equal(sum_of(round_), 5 * ones)
            assert seen == [[model]] * 4
            assert here.faults() == []

    run(main)


def test_a_broken_stream_is_taken_up_again_by_the_session(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            port = here.address
            async with members(here, certificates, NAMES[:1]):
                first = here.service._connections[NAMES[0]]
                first.send(None)  # the coordinator ends the stream
                while here.service._connections.get(NAMES[0]) in (None, first):
                    await asyncio.sleep(0.02)
                joined = [e for e in here.events if isinstance(e, MemberJoined)]
                left = [e for e in here.events if isinstance(e, MemberLeft)]
                assert (len(joined), len(left)) == (2, 1)
                assert here.address == port

    run(main)


def test_a_stream_that_waits_holds_no_frame(certificates: Certificates) -> None:
    """A thousand streams would hold a gigabyte."""

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(NAMES[4])) as member,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_))
            await member.until("task")
            await member.announce()
            await member.until("clear")
            for start in range(0, ONES.nbytes, LIMITS.chunk_bytes):
                await member.chunk(start, ONES.tobytes()[start : start + LIMITS.chunk_bytes])
            await member.until("receipt")
            await asking
            gc.collect()
            held = [one for one in gc.get_objects() if type(one) is ReceivedChunk]
            assert held == []
            waiting = [
                value
                for task in asyncio.all_tasks()
                for frame in task.get_stack()
                for value in frame.f_locals.values()
                if isinstance(value, bytes | memoryview) and len(value) > 1000
            ]
            assert waiting == []

    run(main)


def test_a_member_that_does_not_read_keeps_nobody_from_being_sent_the_task(
    certificates: Certificates,
) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[0])),
            raw_member(here.address, certificates.member(NAMES[1])),
            members(here, certificates, NAMES[2:]),
        ):
            here.service._pace = Pace(1)
            round_ = new_round()
            started = asyncio.get_running_loop().time()
            long = Outgoing(wire.Content(), [bytes(64 << 20)])
            tasks = dict.fromkeys(NAMES[:2], long) | dict.fromkeys(NAMES[2:], model())
            asking = asyncio.create_task(
                here.service.exchange(KEY, tasks, timeout_s=30, round_=round_, least=4)
            )
            while len(round_.contributions) < 3:
                await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - started < 10
            assert not asking.done()
            asking.cancel()

    run(main)


def test_who_waits_for_its_turn_to_be_sent_a_task_is_not_late(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[0])),
            raw_member(here.address, certificates.member(NAMES[1])),
        ):
            here.service._pace = Pace(1, patience_s=60)
            long = Outgoing(wire.Content(), [bytes(64 << 20)])
            outcomes = await here.service.exchange(
                KEY, dict.fromkeys(NAMES[:2], long), timeout_s=1, round_=new_round()
            )
            assert all(isinstance(outcome, Absent) for outcome in outcomes.values())
            assert {name for name, _ in here.service._late} == {NAMES[0]}

    run(main)


# Members that are absent, stall, or break the protocol.


def test_an_absent_member_costs_the_grace_not_the_deadline(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates, NAMES[:4]):
            round_ = new_round()
            started = asyncio.get_running_loop().time()
            outcomes = await here.ask(round_, timeout_s=30)
            assert asyncio.get_running_loop().time() - started < 10
            assert isinstance(outcomes[NAMES[4]], Absent)
            round_.close()
            np.testing.assert_array_equal(sum_of(round_), 4 * ONES)
            here.service._grace_s = 20.0
            again = Round(TERMS, round_number=2, attempt=1, cohort=NAMES)
            await here.ask(again, key=KEY._replace(round=2), timeout_s=30)
            assert asyncio.get_running_loop().time() - started < 10  # its grace is used up
            assert len(again.contributions) == 4

    run(main)


def test_a_member_that_stalls_is_left_behind_and_not_waited_for_again(
    certificates: Certificates,
) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(NAMES[4])) as stalled,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_, timeout_s=2))
            await stalled.until("task")
            await stalled.announce()
            await stalled.until("clear")
            await stalled.chunk(0, ONES.tobytes()[:4096])
            outcomes = await asking
            assert isinstance(outcomes[NAMES[4]], Absent)
            round_.close()
            np.testing.assert_array_equal(sum_of(round_), 4 * ONES)
            again = Round(TERMS, round_number=2, attempt=1, cohort=NAMES)
            started = asyncio.get_running_loop().time()
            await here.ask(again, key=KEY._replace(round=2), timeout_s=30)
            assert asyncio.get_running_loop().time() - started < 10
            assert len(again.contributions) == 4

    run(main)


async def _wrong_shape(member: RawMember) -> None:
    await member.announce(shape=(DIMENSION, 1))


async def _claims_billions(member: RawMember) -> None:
    await member.announce(shape=(2**40,))


async def _too_many_bytes(member: RawMember) -> None:
    await member.announce()
    await member.until("clear")
    data = ONES.tobytes()
    await member.chunk(0, data[: LIMITS.chunk_bytes])
    await member.chunk(LIMITS.chunk_bytes, bytes(LIMITS.chunk_bytes))


async def _gap(member: RawMember) -> None:
    await member.announce()
    await member.until("clear")
    await member.chunk(4, ONES.tobytes()[:400])


async def _uncleared(member: RawMember) -> None:
    await member.chunk(0, ONES.tobytes()[:400])


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (_wrong_shape, "the terms say uint32 of shape"),
        (_claims_billions, "the terms allow 1600000"),
        (_too_many_bytes, "too many bytes"),
        (_gap, "sent bytes at 4"),
        (_uncleared, "without being cleared"),
    ],
)
def test_a_broken_contribution_is_refused_by_name_and_the_round_goes_on(
    certificates: Certificates, deed: Callable[[RawMember], Awaitable[None]], words: str
) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(NAMES[4])) as bad,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_))
            await bad.until("task")
            await deed(bad)
            rejection = await bad.until("rejection")
            assert words in rejection.sentence
            outcomes = await asking
            assert isinstance(outcomes[NAMES[4]], Refused)
            (fault,) = here.faults()
            assert fault.member == NAMES[4]
            assert words in fault.sentence
            round_.close()
            np.testing.assert_array_equal(sum_of(round_), 4 * ONES)

    run(main)


def test_a_stalled_upload_gives_up_its_place(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members that stall must not starve the others of the places to send."""
    monkeypatch.setattr("coordinator.round.UNDO_BYTES", 0)

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[3])) as first,
            raw_member(here.address, certificates.member(NAMES[4])) as second,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_, timeout_s=25))
            for stalled in (first, second):
                await stalled.until("task")
                await stalled.announce()
                await stalled.until("clear")
            async with members(here, certificates, NAMES[:3]):
                outcomes = await asking
            assert [type(outcomes[name]) for name in NAMES] == [Answered] * 3 + [Refused] * 2
            np.testing.assert_array_equal(sum_of(round_), 3 * ONES)

    run(main)


def test_a_refusal_in_mid_upload_frees_its_place(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.round.UNDO_BYTES", 0)

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[3])) as first,
            raw_member(here.address, certificates.member(NAMES[4])) as second,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_, timeout_s=25))
            for member in (first, second):
                await member.until("task")
                await member.announce()
                await member.until("clear")
                await member.chunk(0, ONES.tobytes()[:4096])
                refusal = wire.Refusal(id=KEY.to_wire(), code=3, sentence="no\x1b[31m more")
                await member.send(refusal=refusal)
            async with members(here, certificates, NAMES[:3]):
                outcomes = await asking
            assert outcomes[NAMES[3]] == Refused(3, "no?[31m more")
            np.testing.assert_array_equal(sum_of(round_), 3 * ONES)

    run(main)


def test_members_late_once_get_the_full_deadline_until_enough_answered(
    certificates: Certificates,
) -> None:
    """Otherwise one slow round makes everybody late for ever, and every attempt is burnt."""

    def slow(key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        time.sleep(0.9)
        return contribution()

    async def main() -> None:
        async with (
            alliance(certificates, grace_s=0.2) as here,
            members(here, certificates, NAMES, slow),
        ):
            missed = await here.ask(new_round(), timeout_s=0.4)
            assert all(isinstance(outcome, Absent) for outcome in missed.values())
            again = new_round()
            key = KEY._replace(round=2)
            outcomes = await here.ask(again, key=key, timeout_s=20, least=4)
            assert sum(isinstance(outcome, Answered) for outcome in outcomes.values()) >= 4

    run(main)


def test_a_member_that_keeps_reconnecting_does_not_hold_the_round(
    certificates: Certificates,
) -> None:
    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates, NAMES[:4]):

            async def come_and_go() -> None:
                while True:
                    async with raw_member(here.address, certificates.member(NAMES[4])):
                        await asyncio.sleep(0.05)

            restless = asyncio.create_task(come_and_go())
            started = asyncio.get_running_loop().time()
            for number in (1, 2):
                await here.ask(
                    Round(TERMS, round_number=number, attempt=1, cohort=NAMES),
                    key=KEY._replace(round=number),
                    timeout_s=20,
                    least=4,
                )
            assert asyncio.get_running_loop().time() - started < 15
            restless.cancel()

    run(main)


def test_garbage_does_not_end_a_nodes_process(certificates: Certificates) -> None:
    """A coordinator that sends what is no frame costs a reconnection, not the node."""
    connections: list[int] = []

    class Garbage(exchange_pb2_grpc.ExchangeServicer):
        async def Connect(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
            await anext(request_iterator)
            connections.append(1)
            await context.write(b"\xff\xff\xff\xff")

    async def main() -> None:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            Garbage().Connect, wire.MemberFrame.FromString, lambda data: data
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("alliance.v1.Exchange", {"Connect": handler}),)
        )
        tls = certificates.coordinator
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)], tls.authority, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        session = Session(
            f"127.0.0.1:{port}",
            certificates.member(NAMES[0]),
            honest,
            most_task_bytes=lambda: 0,
            software="test",
        )
        running = asyncio.create_task(session.run())
        while len(connections) < 3:
            assert not running.done()
            await asyncio.sleep(0.02)
        running.cancel()
        await server.stop(grace=0)

    run(main)


def test_a_flood_of_faults_ends_the_stream_and_stays_small(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[0])) as bad,
        ):
            for number in range(LIMITS.faults):
                long = KEY._replace(study="x" * 300_000, round=number)
                await bad.send(refusal=wire.Refusal(id=long.to_wire()))
            while NAMES[0] in here.service.connected:
                await asyncio.sleep(0.02)
            assert len(here.faults()) == LIMITS.faults
            assert all(len(fault.sentence) < 500 for fault in here.faults())

    run(main)


def test_an_answer_to_another_round_is_refused_by_name(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(NAMES[4])) as bad,
        ):
            round_ = new_round()
            asking = asyncio.create_task(here.ask(round_, timeout_s=2))
            await bad.until("task")
            await bad.announce(key=KEY._replace(round=9))
            assert "round 9" in (await bad.until("rejection")).sentence
            await asking
            assert [fault.member for fault in here.faults()] == [NAMES[4]]
            assert len(round_.contributions) == 4

    run(main)


def test_an_answer_with_arrays_where_none_are_due_is_refused(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[0])) as bad,
        ):
            key = KEY._replace(phase="propose", round=0)
            asking = asyncio.create_task(here.ask(None, key=key, timeout_s=2))
            await bad.until("task")
            await bad.announce(key=key)
            assert isinstance((await asking)[NAMES[0]], Refused)

    run(main)


def test_a_frame_over_one_mebibyte_ends_the_stream(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[0])) as bad,
        ):
            await bad.chunk(0, bytes(2 << 20))
            with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
                await bad.until("rejection")
            while NAMES[0] in here.service.connected:
                await asyncio.sleep(0.02)

    run(main)


def test_a_task_over_the_cap_is_refused_before_its_bytes(certificates: Certificates) -> None:
    called: list[TaskKey] = []

    def note(key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        called.append(key)
        return contribution()

    async def main() -> None:
        async with alliance(certificates) as here:
            session = Session(
                here.address,
                certificates.member(NAMES[0]),
                note,
                most_task_bytes=lambda: 4 * DIMENSION - 1,
                software="test",
            )
            running = asyncio.create_task(session.run())
            await here.service.assemble(NAMES[:1], least=1, timeout_s=10)
            outcome = (await here.ask(new_round()))[NAMES[0]]
            assert isinstance(outcome, Refused)
            assert "the terms allow 1599999" in outcome.sentence
            assert called == []
            running.cancel()

    run(main)


# Who may connect.


async def _status(address: str, tls: TlsMaterial) -> tuple[grpc.StatusCode, str]:
    """What is said to a member that is refused.

    It sends no hello: where gRPC meets the end of a stream while it writes, it hides what the
    server said of it (https://github.com/grpc/grpc/issues/36066).
    """
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        async with raw_member(address, tls, hello=False) as member:
            await member.stream.read()
    return refusal.value.code(), refusal.value.details() or ""


def test_certificates_that_are_not_ours_are_refused_in_the_handshake(
    certificates: Certificates,
) -> None:
    other = Certificates()
    foreign = other.member(NAMES[0])
    refused = {
        "another authority's": foreign._replace(authority=certificates.authority.certificate),
        "expired": certificates.member(NAMES[0], age=2 * HOUR),
        "not yet valid": certificates.member(NAMES[0], age=-dt.timedelta(minutes=30)),
    }

    async def main() -> None:
        async with alliance(certificates) as here:
            for what, tls in refused.items():
                code, _ = await _status(here.address, tls)
                assert code is grpc.StatusCode.UNAVAILABLE, what
            credentials = grpc.ssl_channel_credentials(certificates.authority.certificate)
            async with grpc.aio.secure_channel(here.address, credentials) as channel:
                stream = exchange_pb2_grpc.ExchangeStub(channel).Connect()
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await stream.read()
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert here.events == []
            for odd in ("member-0\x00.evil", "member-0 ", "MEMBER-0"):
                code, _ = await _status(here.address, certificates.member(odd))
                assert code is grpc.StatusCode.PERMISSION_DENIED, odd
            async with raw_member(here.address, certificates.member(NAMES[0])):
                pass  # welcomed

    run(main)


def test_a_session_that_is_cancelled_as_its_welcome_arrives_ends(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            session = Session(
                here.address,
                certificates.member(NAMES[0]),
                honest,
                most_task_bytes=lambda: 4 * DIMENSION,
                software="test",
            )
            task = asyncio.create_task(session.run())
            cancelled: list[bool] = []

            def arriving(data: bytes) -> Any:
                if not cancelled:
                    cancelled.append(task.cancel())
                return coordinator_frame(data)

            monkeypatch.setattr("client_sdk.session.coordinator_frame", arriving)
            await asyncio.wait([task], timeout=5)
            assert cancelled == [True]
            ended = task.cancelled()
            task.cancel()
            assert ended

    run(main)


def test_a_stranger_with_a_good_certificate_is_told_why(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            code, words = await _status(here.address, certificates.member("mallory"))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "ask the operator to admit it" in words
            session = Session(
                here.address,
                certificates.member("mallory"),
                honest,
                most_task_bytes=lambda: 0,
                software="test",
            )
            with pytest.raises(LinkError, match="not in the roster"):
                await session.run()
            code, _ = await _status(here.address, certificates.coordinator)
            assert code is not grpc.StatusCode.OK

    run(main)


def test_a_member_does_not_talk_to_a_coordinator_it_cannot_verify(
    certificates: Certificates,
) -> None:
    impostors = {
        "another authority": Certificates().coordinator,
        "a member's certificate": certificates.member(NAMES[1]),
    }

    async def main() -> None:
        for what, tls in impostors.items():
            service = ExchangeService(frozenset(NAMES), Monitor())
            server, address = await start_server(service, "127.0.0.1:0", tls)
            code, _ = await _status(address, certificates.member(NAMES[0]))
            assert code is grpc.StatusCode.UNAVAILABLE, what
            await server.stop(grace=0)

    run(main)


def test_tls_1_2_is_refused_and_1_3_is_spoken(certificates: Certificates, tmp_path: Any) -> None:
    tls = certificates.member(NAMES[0])
    for name, data in tls._asdict().items():
        (tmp_path / name).write_bytes(data)

    def speak(address: str, version: ssl.TLSVersion) -> str | None:
        host, _, port = address.rpartition(":")
        client = ssl.create_default_context(cafile=str(tmp_path / "authority"))
        client.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
        client.set_alpn_protocols(["h2"])
        client.minimum_version = client.maximum_version = version
        with (
            socket.create_connection((host, int(port)), timeout=20) as raw,
            client.wrap_socket(raw, server_hostname=host) as wrapped,
        ):
            return wrapped.version()

    async def main() -> None:
        async with alliance(certificates) as here:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(speak, here.address, ssl.TLSVersion.TLSv1_2)
            spoken = await asyncio.to_thread(speak, here.address, ssl.TLSVersion.TLSv1_3)
            assert spoken == "TLSv1.3"
            assert here.events == []

    run(main)


def test_the_grid_pushes_and_pulls_flower_messages(certificates: Certificates) -> None:
    """Flower's two-step form of an exchange: each reply is handed out once."""

    def accept(key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        content = wire.Content()
        content.configurations.add(name="acceptance").values["member"].text = "me"
        return Answer(content, [])

    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates, NAMES[:2], accept):
            ids = {NAMES[0]: 7, NAMES[1]: 8}
            grid = LinkGrid(here.service, asyncio.get_running_loop(), ids)
            assert sorted(grid.get_node_ids()) == [7, 8]
            task = ConfigRecord({"study": "coupons", "round": 0, "attempt": 1})
            content = RecordDict({"task": task})
            messages = [grid.create_message(content, "train.propose", node, "0") for node in (7, 8)]
            pushed = grid.push_messages(messages)
            assert pushed == [message.metadata.message_id for message in messages]
            replies: list[Message] = []
            while len(replies) < 2:
                replies += grid.pull_messages(pushed)
                await asyncio.sleep(0.01)
            assert sorted(reply.metadata.src_node_id for reply in replies) == [7, 8]
            assert all("acceptance" in reply.content for reply in replies)
            assert grid.pull_messages(pushed) == []

    run(main)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"hello": wire.Hello(protocol=PROTOCOL + 1)}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"refusal": wire.Refusal()}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_stream_that_does_not_begin_with_a_hello_is_refused(
    certificates: Certificates, first: dict[str, Any], code: grpc.StatusCode
) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[0]), hello=False) as member,
        ):
            await member.send(**first)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await member.until("welcome")
            assert error.value.code() is code

    run(main)


def test_a_port_in_use_is_said_in_one_sentence(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            service = ExchangeService(frozenset(NAMES), Monitor())
            with pytest.raises(ConfigurationError, match="the port is in use"):
                await start_server(service, here.address, certificates.coordinator)

    run(main)
