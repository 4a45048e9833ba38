"""The coordinator's end of the link: one authenticated stream per member, tasks out, answers in.

Everything here runs on one event loop, so an open round is touched by no other thread. Chunks of a
contribution go straight into the round; only its receipt is handed on.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from coordinator.admittance import Admittance
from coordinator.arrivals import Arrivals
from coordinator.exchange import Absent, Answered, Check, Exchange, Outcome, Outgoing, Refused
from coordinator.membership import Context, authenticate, greet
from coordinator.monitor import (
    MemberDeparted,
    MemberFaulted,
    MemberJoined,
    MemberLeft,
    MemberRefused,
    MemberRests,
    Monitor,
)
from coordinator.pace import Pace
from coordinator.patience import Patience
from coordinator.round import Contribution, Round
from coordinator.rpc_errors import Denied, denial
from privacy.errors import LinkError, MemberFault
from privacy.secagg import Signed
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, array_specs, blob_of, decode, printable
from protos.frames import ReceivedChunk
from protos.limits import LIMITS, RETRY_KEY

__all__ = ["ExchangeService"]


KEPT_REJECTIONS: Final = 16
"""Rejected keys remembered per stream, to pass over what was on its way."""


@dataclass(slots=True, eq=False)
class _Connection:
    """One member's stream. The queue is unbounded in items, but each refers to shared bytes."""

    member: str
    certificate: bytes
    outgoing: asyncio.Queue[wire.CoordinatorFrame | Exchange | None] = field(
        default_factory=asyncio.Queue
    )
    rejected: OrderedDict[TaskKey, None] = field(default_factory=OrderedDict)
    faults: int = 0

    def send(self, frame: wire.CoordinatorFrame | Exchange | None) -> None:
        if isinstance(frame, Exchange):
            self.rejected.pop(frame.key, None)
        self.outgoing.put_nowait(frame)

    def reject(self, key: TaskKey, sentence: str) -> None:
        self.rejected[key] = None
        while len(self.rejected) > KEPT_REJECTIONS:
            self.rejected.popitem(last=False)
        self.send(
            wire.CoordinatorFrame(rejection=wire.Rejection(id=key.to_wire(), sentence=sentence))
        )


class ExchangeService:
    """Keeps one stream per member and carries tasks over it.

    Args:
        roster: names that may connect, as their certificates give them.
        monitor: is told who comes, goes and misbehaves.
        reconnect_grace_s: an absent member is waited for this long, not for the whole deadline.
        admittance: the registry's say on who may connect; without one the roster's is enough.
    """

    def __init__(
        self,
        roster: Container[str],
        monitor: Monitor,
        *,
        reconnect_grace_s: float = 1.0,
        admittance: Admittance | None = None,
    ) -> None:
        self._roster = roster
        self._admittance = admittance
        self._monitor = monitor
        self._grace_s = reconnect_grace_s
        self._connections: dict[str, _Connection] = {}
        self._late: set[tuple[str, str]] = set()
        """Members with the phase they missed last; an answer to that phase clears it."""
        self._open: dict[TaskKey, Exchange] = {}
        self._arrivals = asyncio.Event()
        self._departed: frozenset[str] = frozenset()
        self._pace = Pace()
        self._flapping = Arrivals()

    @property
    def connected(self) -> list[str]:
        """Members whose stream is up."""
        return list(self._connections)

    async def assemble(
        self, members: Collection[str], *, least: int, timeout_s: float
    ) -> list[str]:
        """Waits until ``least`` of ``members`` are connected or the time is up; who is."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while len(there := [name for name in members if name in self._connections]) < least:
            self._arrivals.clear()
            if not await _wait(self._arrivals, deadline_s):
                break
        return there

    async def exchange(
        self,
        key: TaskKey,
        tasks: Mapping[str, Outgoing],
        *,
        timeout_s: float,
        round_: Round | None = None,
        least: int = 0,
        patience_s: float | None = None,
        needed: bool = False,
        reconnect_s: float | None = None,
        check: Check | None = None,
    ) -> dict[str, Outcome]:
        """Sends a task to members and collects their answers; never waits past ``timeout_s``.

        Who is waited for, and how long, is in `coordinator.patience`. A member that comes back
        while the task is open is sent the task again.

        Args:
            key: what the task is.
            tasks: by member.
            timeout_s: the deadline, from now.
            round_: where contributions go; without one an answer may carry no arrays.
            least: answers that are enough.
            patience_s: how long to wait for the others then; None if nobody is hurried.
            needed: whether fewer are of no use.
            reconnect_s: how long to wait for a member whose stream broke, if not as always.
            check: is given each answer as it arrives; one it finds at fault does not count.

        Raises:
            LinkError: if a task of that key is open already.
        """
        if key in self._open:
            raise LinkError(f"{key}: is open already")
        now_s = asyncio.get_running_loop().time()
        patience = Patience(
            least=least, grace_s=patience_s, needed=needed,
            reconnect_s=self._grace_s if reconnect_s is None else reconnect_s,
        )  # fmt: skip
        late = {member for member, phase in self._late if phase == key.phase}
        exchange = Exchange(
            key, tasks, round_, now_s, now_s + timeout_s, check=check, patience=patience, late=late
        )
        self._open[key] = exchange
        for member in tasks:
            if member in self._connections:
                self._connections[member].send(exchange)
            else:
                exchange.waiting.leave(member, now_s)
        loop = asyncio.get_running_loop()
        try:
            while (until_s := exchange.wait_until(loop.time())) is not None:
                exchange.changed.clear()
                await _wait(exchange.changed, until_s)
                self._end_overdue(exchange)
        finally:
            self._end(exchange)
        return exchange.outcomes

    def _end_overdue(self, exchange: Exchange) -> None:
        """Frees the places of uploads that stand still, or keep others from theirs."""
        now_s = asyncio.get_running_loop().time()
        for member in exchange.uploads.overdue(now_s, crowded=exchange.crowded):
            if member in self._connections:
                what = f"its upload for {exchange.key} stands still, or is too slow for the others"
                self._fault(self._connections[member], exchange, MemberFault(member, what))

    def _end(self, exchange: Exchange) -> None:
        """Closes a task: whoever has not answered is late, and is told so."""
        del self._open[exchange.key]
        missed = exchange.missed(asyncio.get_running_loop().time())
        self._late |= {(member, exchange.key.phase) for member in missed}
        for member in exchange.tasks:
            if member in exchange.outcomes:
                continue
            exchange.outcomes[member] = Absent(member in missed)
            if exchange.round is not None:
                exchange.round.drop(member)
            if member in self._connections:
                self._connections[member].reject(exchange.key, f"{exchange.key} is over")
        exchange.end()

    def expel(self) -> None:
        """Ends streams of members that may not connect any more; they are told when they try.

        Members that left the alliance are told to the monitor, once.
        """
        departed = self._admittance.departed if self._admittance else frozenset()
        for member in sorted(departed - self._departed):
            self._monitor.emit(MemberDeparted(member))
        self._departed = departed
        for connection in list(self._connections.values()):
            if self._admittance and self._admittance.refusal(
                connection.member, connection.certificate, again=False
            ):
                self._leave(connection)

    def close(self) -> None:
        """Ends every stream; members will try to come back."""
        for connection in self._connections.values():
            connection.send(None)

    # One member's stream.

    async def connect(self, _requests: object, context: Context) -> None:
        """Serves one member until it leaves; refuses before reading a message if it may not.

        Frames are read from the context: gRPC's iterator would hold on to each until the next one.
        """
        try:
            member, certificate = authenticate(context, self._roster, self._admittance)
            self._expect_calm(member)
            software = await greet(member, context)
        except Denied as reason:
            status, sentence = denial(reason)
            metadata = ((RETRY_KEY, str(round(reason.retry_s * 1000))),) if reason.retry_s else ()
            await context.abort(status, sentence, metadata)
            return
        connection = _Connection(member, certificate)
        if (previous := self._connections.get(member)) is not None:
            self._leave(previous)  # the newer stream wins: the older one is half open
        self._connections[member] = connection
        self._monitor.emit(MemberJoined(member, context.peer(), software))
        self._arrivals.set()
        for exchange in self._open.values():
            if member in exchange.tasks and member not in exchange.outcomes:
                connection.send(exchange)
                exchange.waiting.join(member)
                exchange.changed.set()
        reader = asyncio.create_task(self._read(connection, context))
        try:
            while (item := await connection.outgoing.get()) is not None:
                if isinstance(item, Exchange):
                    await self._pace.send(item, member, context.write)
                else:
                    await context.write(item)
                del item
        except asyncio.CancelledError:
            pass  # grpc cancels the handler of a stream that is gone; there is nothing to answer
        finally:
            reader.cancel()
            self._leave(connection)

    def _expect_calm(self, member: str) -> None:
        """Counts a member's stream.

        Raises:
            Denied: if it connects too often.
        """
        now_s = asyncio.get_running_loop().time()
        pause_s = self._flapping.pause_s(member, now_s)
        if not pause_s:
            rest = self._flapping.join(member, now_s)
            if rest is None:
                return
            self._monitor.emit(MemberRests(member, rest.sentence, rest.seconds))
            pause_s = rest.seconds
        raise Denied("flaps", f"come back in {math.ceil(pause_s)} s", retry_s=pause_s)

    async def _read(self, connection: _Connection, context: Context) -> None:
        """Takes frames off one stream until it ends; holds none while it waits for the next."""
        try:
            while self._take_next(connection, await context.read()):
                pass
        except (grpc.RpcError, grpc.aio.UsageError, DecodeError, asyncio.InvalidStateError):
            pass  # the stream is gone; leaving is handled below, once
        finally:
            connection.send(None)

    def _leave(self, connection: _Connection) -> None:
        """Forgets a stream that ended, unless a newer one took its place."""
        connection.send(None)
        member = connection.member
        if self._connections.get(member) is not connection:
            return
        del self._connections[member]
        self._monitor.emit(MemberLeft(member))
        for exchange in self._open.values():
            exchange.waiting.leave(member, asyncio.get_running_loop().time())
            exchange.uploads.end(member)
            if exchange.round is not None and member in exchange.tasks:
                exchange.round.drop(member)
                self._clear_next(exchange)
            exchange.changed.set()

    # Frames of one member.

    def _take_next(self, connection: _Connection, frame: object) -> bool:
        """Takes one frame; whether another is waited for."""
        if not isinstance(frame, wire.MemberFrame | ReceivedChunk):
            return False
        try:
            self._take(connection, frame)
        except (MemberFault, LinkError) as error:
            what = error.what if isinstance(error, MemberFault) else str(error)
            self._monitor.emit(MemberFaulted(connection.member, what))
            connection.faults += 1
        return connection.faults < LIMITS.faults

    def _take(self, connection: _Connection, frame: wire.MemberFrame | ReceivedChunk) -> None:
        if self._connections.get(connection.member) is not connection:
            return
        if isinstance(frame, ReceivedChunk):
            self._take_chunk(connection, frame)
            return
        kind = frame.WhichOneof("frame")
        if kind == "chunk":
            self._take_chunk(connection, frame.chunk)
        elif kind == "answer":
            self._take_answer(connection, frame.answer)
        elif kind == "refusal":
            self._take_refusal(connection, frame.refusal)
        else:
            raise MemberFault(connection.member, f"sent an unexpected frame ({kind})")

    def _exchange_of(self, connection: _Connection, key: TaskKey) -> Exchange:
        """The open task a member speaks of."""
        exchange = self._open.get(key)
        if exchange is None or connection.member not in exchange.tasks:
            connection.reject(key, f"{key} is not open for you")
            raise MemberFault(connection.member, f"answered {key}, which is not open for it")
        if connection.member in exchange.outcomes:
            connection.reject(key, f"{key} is answered already")
            raise MemberFault(connection.member, f"answered {key} twice")
        return exchange

    def _take_answer(self, connection: _Connection, answer: wire.Answer) -> None:
        member, key = connection.member, TaskKey.of(answer.id)
        if key in connection.rejected:
            return  # was on its way when the rejection went out
        exchange = self._exchange_of(connection, key)
        try:
            if exchange.round is None:
                array_specs(answer.content, most_bytes=0)
                decode(answer.content)
                if exchange.check is not None:
                    exchange.check(member, answer.content)
                self._late.discard((member, key.phase))
                exchange.settle(member, Answered(answer.content))
                return
            specs = array_specs(answer.content, most_bytes=exchange.round.size_bytes)
            if len(specs) != 1:
                raise MemberFault(member, f"announced {len(specs)} arrays for one contribution")
            signature, body, last = (
                blob_of(answer.content, record, key)
                for record, key in (
                    ("signed", "signature"), ("revealed", "body"), ("revealed", "signature"),
                )
            )  # fmt: skip
            revealed = Signed(body, last) if body else None
            exchange.round.announce(member, specs[0].dtype, specs[0].shape, signature, revealed)
            self._clear_next(exchange)
            data = answer.data  # protobuf copies it each time
            if data and exchange.round.all_cleared:
                self._add(connection, exchange, 0, data)
        except (MemberFault, LinkError) as error:
            self._fault(connection, exchange, error)

    def _take_chunk(self, connection: _Connection, chunk: wire.Chunk | ReceivedChunk) -> None:
        key = TaskKey.of(chunk.id)
        if key in connection.rejected:
            return  # was on its way when the rejection went out
        exchange = self._exchange_of(connection, key)
        try:
            self._add(connection, exchange, chunk.offset, chunk.data)
        except MemberFault as error:
            self._fault(connection, exchange, error)

    def _add(
        self, connection: _Connection, exchange: Exchange, offset: int, data: bytes | memoryview
    ) -> None:
        """Adds array bytes to the open round, and settles with the last of them.

        Raises:
            MemberFault: if they are not the ones that are due.
        """
        if exchange.round is None:
            raise MemberFault(connection.member, f"sent array bytes for {exchange.key}")
        receipt = exchange.round.add(connection.member, offset, data)
        exchange.uploads.move(connection.member, asyncio.get_running_loop().time())
        if receipt is not None:
            self._reveal(connection, exchange.round)
            self._settle(connection, exchange, receipt)
            self._clear_next(exchange)

    def _reveal(self, connection: _Connection, round_: Round) -> None:
        """Takes what came along with a contribution; a fault there does not undo that one."""
        try:
            round_.reveal(connection.member)
        except MemberFault as error:
            self._monitor.emit(MemberFaulted(connection.member, error.what))

    def _take_refusal(self, connection: _Connection, refusal: wire.Refusal) -> None:
        key = TaskKey.of(refusal.id)
        if key in connection.rejected:
            return
        exchange = self._exchange_of(connection, key)
        sentence = printable(refusal.sentence)
        self._late.discard((connection.member, exchange.key.phase))
        if exchange.round is not None:
            exchange.round.drop(connection.member)
            self._clear_next(exchange)
        self._monitor.emit(MemberRefused(connection.member, str(key), sentence))
        exchange.settle(connection.member, Refused(refusal.code, sentence))

    def _settle(
        self, connection: _Connection, exchange: Exchange, contribution: Contribution
    ) -> None:
        self._late.discard((connection.member, exchange.key.phase))
        receipt = wire.Receipt(id=exchange.key.to_wire(), sha256=contribution.sha256)
        connection.send(wire.CoordinatorFrame(receipt=receipt))
        exchange.settle(connection.member, Answered(contribution))

    def _fault(
        self, connection: _Connection, exchange: Exchange, error: MemberFault | LinkError
    ) -> None:
        """The member's answer is not used; the round goes on without it."""
        what = error.what if isinstance(error, MemberFault) else str(error)
        if exchange.round is not None:
            exchange.round.drop(connection.member)
            self._clear_next(exchange)
        connection.reject(exchange.key, what)
        self._monitor.emit(MemberFaulted(connection.member, what))
        exchange.settle(connection.member, Refused(0, what))

    def _clear_next(self, exchange: Exchange) -> None:
        """Tells members that may send now."""
        if exchange.round is None:
            return
        clear = wire.CoordinatorFrame(clear=wire.Clear(id=exchange.key.to_wire()))
        for member in exchange.round.cleared():
            exchange.uploads.begin(member, asyncio.get_running_loop().time())
            if member in self._connections and not exchange.round.all_cleared:
                self._connections[member].send(clear)


async def _wait(event: asyncio.Event, until_s: float) -> bool:
    """Waits for an event until a moment of the loop's clock; whether it came."""
    try:
        async with asyncio.timeout_at(until_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
