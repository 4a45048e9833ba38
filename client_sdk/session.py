"""The member's end of the link: one outbound stream, kept up; tasks in, answers out.

A task is answered once. Its answer is kept in memory, and a repeated task gets those bytes again
(rule R3); they die with the process, and then the attempt is over for this member.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import Message

from client_sdk.priority import give_way
from client_sdk.reach import channel_options
from privacy.errors import ConfigurationError, LinkError
from privacy.terms import LONGEST_PHASE_S, PHASES_AHEAD
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import ArraySpec, TaskKey, array_specs, chunks, fits, printable
from protos.frames import (
    ReceivedChunk,
    answer_frame,
    chunk_frame,
    coordinator_frame,
    serialized,
)
from protos.limits import LIMITS, METHOD, PROTOCOL, RETRY_KEY, SERVICE
from protos.logs import log
from protos.tls import TlsMaterial

__all__ = ["MALFORMED", "Answer", "Answerer", "Session", "check_welcome"]

KEPT_ANSWERS: Final = 2
"""Finished answers of each phase kept for repetition: only what is open is asked for again."""
KEPT_TASKS: Final = 16
"""Tasks remembered as asked for: only answers with arrays are receipted."""
AHEAD: Final = frozenset({*PHASES_AHEAD, "propose", "stop"})
"""They never wait for a contribution, nor it for them."""
MALFORMED: Final = 5
"""Refusal code of a task whose arrays were not acceptable."""
FATAL: Final = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
"""Refusals that reconnecting does not mend."""


@dataclass(slots=True)
class _Incoming:
    """A task whose array bytes are still arriving."""

    task: wire.Task
    specs: list[ArraySpec]
    received: bytes | bytearray
    deadline_s: float
    size_bytes: int = 0

    def arrays(self) -> list[tuple[ArraySpec, bytes]]:
        """What has arrived, array by array; one that came whole in the task's frame as it is."""
        if len(self.specs) == 1 and isinstance(self.received, bytes):
            return [(self.specs[0], self.received)]
        parts, offset, received = [], 0, memoryview(self.received)
        for spec in self.specs:
            parts.append((spec, bytes(received[offset : offset + spec.size_bytes])))
            offset += spec.size_bytes
        return parts


@dataclass(frozen=True, slots=True)
class _Asked:
    """A task of the present stream whose answer is still wanted.

    Args:
        cleared: whether its arrays need no Clear.
        deadline_s: until when, on the monotonic clock.
    """

    cleared: bool
    deadline_s: float

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return time.monotonic() > self.deadline_s


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer: content with its array bytes, or a refusal (code, sentence)."""

    content: wire.Content
    buffers: list[bytes]
    refusal: tuple[int, str] | None = None


Stream = grpc.aio.StreamStreamCall[Message | bytes, wire.CoordinatorFrame | ReceivedChunk]
Answerer = Callable[[TaskKey, wire.Task, list[tuple[ArraySpec, bytes]]], Answer]
"""Answers one task; called in two worker threads, one of them for phases `AHEAD`. Never raises."""


class Session:
    """Keeps one stream to the coordinator and answers its tasks with a ClientApp.

    Args:
        target: host and port of the coordinator.
        tls: this member's certificate and the authority it trusts; or what tells them, asked at
            each connection.
        answer: answers tasks.
        most_task_bytes: cap on the array bytes of a task, from the terms accepted so far.
        software: name and version, told to the coordinator.
        proxy: an HTTP CONNECT proxy; None leaves it to the environment.
        longest_s: what accepted terms give a task's phase at most, whatever the coordinator says.
    """

    def __init__(
        self,
        target: str,
        tls: TlsMaterial | Callable[[], TlsMaterial],
        answer: Answerer,
        *,
        most_task_bytes: Callable[[], int],
        software: str,
        proxy: str | None = None,
        longest_s: Callable[[TaskKey], float] = lambda _: LONGEST_PHASE_S,
    ) -> None:
        self._target = target
        self._longest_s = longest_s
        self._tls = tls
        self._proxy = proxy
        self._is_stale = False
        self._answer_task = answer
        self._most_task_bytes = most_task_bytes
        self._software = software
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="client-app")
        self._ahead = ThreadPoolExecutor(1, "client-app-ahead", initializer=give_way)
        self._answers: OrderedDict[TaskKey, Answer] = OrderedDict()
        self._working: dict[TaskKey, asyncio.Task[None]] = {}
        self._over: OrderedDict[TaskKey, None] = OrderedDict()
        # Of the present stream:
        self._asked: dict[TaskKey, _Asked] = {}
        """Tasks of this stream that are open; those without arrays, until they are answered."""
        self._announced: set[TaskKey] = set()
        self._incoming: _Incoming | None = None
        self._outgoing: asyncio.Queue[Iterable[wire.MemberFrame | bytes] | None] = asyncio.Queue()

    def reconnect(self) -> None:
        """Has another stream take the place of this one when nothing is under way on it.

        Call it on the event loop. A coordinator ends streams whose certificate is past its time, so
        a node that is never at rest reconnects at the latest then.
        """
        self._is_stale = True
        self._end_if_quiet()

    def _end_if_quiet(self) -> None:
        waiting = any(  # for Clear; an answer without arrays waits for nothing
            key in self._asked and key in self._answers and self._answers[key].buffers
            for key in self._announced
        )
        if self._is_stale and not (self._working or self._incoming or waiting):
            self._outgoing.put_nowait(None)  # after what is being written

    async def run(self) -> None:
        """Stays connected until cancelled, with exponential backoff between attempts.

        Raises:
            LinkError: if the coordinator refuses this member for good.
        """
        pause_s = LIMITS.reconnect_first_s
        while True:
            connected_s, retry_s = time.monotonic(), 0.0
            try:
                await self._converse()
            except grpc.aio.AioRpcError as error:
                if error.code() in FATAL:
                    raise LinkError(f"{self._target}: {error.details()}") from error
                log(
                    "LinkLost",
                    target=self._target,
                    sentence=f"{error.code().name} ({error.details()})",
                )
                retry_s = _retry_s(error)
            except LinkError as error:
                log("LinkLost", target=self._target, sentence=str(error))
            if self._is_stale:  # ended by us, and the other side waits
                continue
            if time.monotonic() - connected_s > LIMITS.reconnect_most_s:
                pause_s = LIMITS.reconnect_first_s
            jitter = 0.5 + secrets.randbelow(1000) / 1000
            await asyncio.sleep(max(retry_s, pause_s * jitter))
            pause_s = min(2 * pause_s, LIMITS.reconnect_most_s)

    async def _converse(self) -> None:
        """One stream from connecting to its end."""
        self._is_stale = False
        try:
            tls = self._tls if isinstance(self._tls, TlsMaterial) else self._tls()
        except ConfigurationError as error:  # they were in order when this process began
            raise LinkError(str(error)) from error
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
        options = [
            ("grpc.max_receive_message_length", LIMITS.frame_bytes),
            ("grpc.max_send_message_length", LIMITS.frame_bytes),
            ("grpc.keepalive_time_ms", round(LIMITS.keepalive_time_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(LIMITS.keepalive_timeout_s * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.ping_timeout_ms", round(LIMITS.ping_timeout_s * 1000)),
            *channel_options(self._proxy),
        ]
        self._asked, self._announced = {}, set()
        self._incoming, self._outgoing = None, asyncio.Queue()
        async with grpc.aio.secure_channel(self._target, credentials, options=options) as channel:
            stream: Stream = channel.stream_stream(
                f"/{SERVICE}/{METHOD}",
                request_serializer=serialized,
                response_deserializer=coordinator_frame,
            )()
            await stream.write(
                wire.MemberFrame(hello=wire.Hello(protocol=PROTOCOL, software=self._software))
            )
            try:
                async with asyncio.timeout(LIMITS.hello_timeout_s):
                    welcome = await stream.read()
            except TimeoutError as error:
                raise LinkError("the coordinator sent no welcome in time") from error
            member = check_welcome(welcome)
            log("LinkUp", target=self._target, member=member)
            writer = asyncio.create_task(self._write(stream))
            try:
                while (frame := await stream.read()) is not grpc.aio.EOF:
                    if not isinstance(frame, wire.CoordinatorFrame | ReceivedChunk):
                        raise LinkError("the coordinator sent what is not a frame")
                    self._take(frame)
                    del frame
            finally:
                writer.cancel()

    async def _write(self, stream: Stream) -> None:
        while (frames := await self._outgoing.get()) is not None:
            for frame in frames:
                await stream.write(frame)
                del frame  # not held while there is nothing to say
            del frames
        await stream.done_writing()

    # Frames from the coordinator.

    def _take(self, frame: wire.CoordinatorFrame | ReceivedChunk) -> None:
        if isinstance(frame, ReceivedChunk):
            self._take_chunk(frame)
            return
        kind = frame.WhichOneof("frame")
        if kind == "task":
            self._take_task(frame.task)
        elif kind == "chunk":
            self._take_chunk(frame.chunk)
        elif kind == "clear":
            self._send_arrays(TaskKey.of(frame.clear.id))
        elif kind == "rejection":
            self._take_rejection(frame.rejection)
        elif kind == "receipt":
            self._asked.pop(TaskKey.of(frame.receipt.id), None)
        else:
            raise LinkError(f"unexpected frame {kind}")

    def _take_task(self, task: wire.Task) -> None:
        key = TaskKey.of(task.id)
        try:
            specs = array_specs(task.content, most_bytes=self._most_task_bytes())
        except LinkError as error:
            self._refuse(key, MALFORMED, str(error))
            self._incoming = None
            return
        size_bytes = sum(spec.size_bytes for spec in specs)
        deadline_s = time.monotonic() + min(task.deadline_ms / 1000, self._longest_s(key))
        data = task.data  # protobuf copies it each time
        if data and len(data) != size_bytes:
            raise LinkError(f"{key}: {len(data)} array bytes came, {size_bytes} were announced")
        if size_bytes == len(data):
            self._incoming = _Incoming(task, specs, data, deadline_s)
            self._start()
        else:
            self._incoming = _Incoming(task, specs, bytearray(size_bytes), deadline_s)

    def _take_chunk(self, chunk: wire.Chunk | ReceivedChunk) -> None:
        incoming = self._incoming
        if incoming is None or chunk.id != incoming.task.id or isinstance(incoming.received, bytes):
            return  # belongs to a task that was refused
        end = chunk.offset + len(chunk.data)
        if chunk.offset != incoming.size_bytes or end > len(incoming.received) or not chunk.data:
            raise LinkError(f"{TaskKey.of(chunk.id)}: array bytes out of order")
        incoming.received[chunk.offset : end] = chunk.data
        incoming.size_bytes = end
        if end == len(incoming.received):
            self._start()

    def _take_rejection(self, rejection: wire.Rejection) -> None:
        """The task is over: what waits in the worker's queue is not begun, nor sent on."""
        key = TaskKey.of(rejection.id)
        log("TaskRejected", task=str(key), sentence=printable(rejection.sentence))
        self._asked.pop(key, None)
        self._over[key] = None
        while len(self._over) > LIMITS.open_tasks:
            self._over.popitem(last=False)

    def _start(self) -> None:
        """All bytes of a task are here: answer it, unless it is answered or under way."""
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return
        key = TaskKey.of(incoming.task.id)
        log("TaskTaken", task=str(key), size_bytes=len(incoming.received))
        self._asked[key] = _Asked(incoming.task.cleared, incoming.deadline_s)
        while len(self._asked) > KEPT_TASKS:
            del self._asked[next(iter(self._asked))]
        self._over.pop(key, None)
        if key in self._answers:
            self._announce(key)
        elif key not in self._working:
            if len(self._working) >= LIMITS.open_tasks:
                raise LinkError(f"the coordinator opened more than {LIMITS.open_tasks} tasks")
            self._working[key] = asyncio.create_task(self._work(key, incoming))

    # Answers to the coordinator.

    async def _work(self, key: TaskKey, incoming: _Incoming) -> None:
        try:
            loop = asyncio.get_running_loop()
            worker = self._ahead if key.phase in AHEAD else self._worker
            answer = await loop.run_in_executor(worker, self._answer, key, incoming)
        finally:
            del self._working[key]
        if answer is None:
            return
        log("TaskAnswered", task=str(key), size_bytes=sum(map(len, answer.buffers)))
        self._answers[key] = answer
        kept = [other for other in self._answers if other.phase == key.phase]
        for oldest in kept[:-KEPT_ANSWERS]:
            del self._answers[oldest]
        asked = self._asked.get(key)
        if asked is not None and not asked.over:  # else the stream broke, and the task comes again
            self._announce(key)
        self._end_if_quiet()

    def _answer(self, key: TaskKey, incoming: _Incoming) -> Answer | None:
        """In the worker thread: the app's answer; None for a task that is over by now."""
        if key in self._over or time.monotonic() > incoming.deadline_s:
            return None
        return self._answer_task(key, incoming.task, incoming.arrays())

    def _announce(self, key: TaskKey) -> None:
        answer = self._answers[key]
        if answer.refusal is not None:
            self._refuse(key, *answer.refusal)
            return
        opening = wire.Answer(id=key.to_wire(), content=answer.content)
        if not answer.buffers:
            self._asked.pop(key, None)  # nothing more is said about it
            self._outgoing.put_nowait([answer_frame(opening, [])])
            return
        asked = self._asked.get(key)
        cleared = asked is not None and asked.cleared
        if cleared and fits(answer.content, answer.buffers):
            self._outgoing.put_nowait([answer_frame(opening, answer.buffers)])
            return
        self._announced.add(key)
        self._outgoing.put_nowait([answer_frame(opening, [])])
        if cleared:
            self._send_arrays(key)

    def _send_arrays(self, key: TaskKey) -> None:
        """Queues the bytes of an announced answer, once per announcement."""
        if key in self._announced and key in self._answers:
            self._announced.discard(key)
            self._outgoing.put_nowait(self._chunks(key, self._answers[key].buffers))
            self._end_if_quiet()

    def _chunks(self, key: TaskKey, buffers: list[bytes]) -> Iterator[bytes]:
        """Array bytes for as long as they are wanted: a slow line is not spent on what is over."""
        for offset, data in chunks(buffers):
            asked = self._asked.get(key)
            if asked is None or asked.over:
                return
            yield chunk_frame(key, offset, data)

    def _refuse(self, key: TaskKey, code: int, sentence: str) -> None:
        refusal = wire.Refusal(id=key.to_wire(), code=code, sentence=printable(sentence))
        self._outgoing.put_nowait([wire.MemberFrame(refusal=refusal)])


def check_welcome(frame: object) -> str:
    """The name by which the coordinator knows this member, from its first frame.

    Raises:
        LinkError: if the frame is no welcome, or of another protocol.
    """
    if not isinstance(frame, wire.CoordinatorFrame) or not frame.HasField("welcome"):
        raise LinkError("the coordinator closed the stream before a welcome")
    theirs = frame.welcome.protocol
    if theirs != PROTOCOL:
        remedy = "update this node" if theirs > PROTOCOL else "ask the operator to update it"
        raise LinkError(
            f"the coordinator speaks protocol {theirs} and this node {PROTOCOL}: {remedy}"
        )
    return printable(frame.welcome.member)


def _retry_s(error: grpc.aio.AioRpcError) -> float:
    """How long the coordinator asked this member to stay away, in seconds."""
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_KEY and str(value).isdecimal():
            return min(int(value) / 1000, LIMITS.retry_most_s)
    return 0.0
