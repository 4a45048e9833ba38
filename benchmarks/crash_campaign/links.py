"""Each member's way to the coordinator: a relay that can lose packets, delay, part and cut.

Loss is the kernel's: a packet filter on the relay's own sockets drops arriving segments before TCP
sees them, so nothing is acknowledged and both ends repeat and wait as they do on a bad line. A
partition is the same with all of them. Neither needs a privilege, `tc` or `nft`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

__all__ = ["Links", "drop_share"]

_T = TypeVar("_T")

SO_ATTACH_FILTER: Final = 26
LOAD, JUMP_AT_LEAST, RETURN = 0x20, 0x35, 0x06
RANDOM: Final = 0xFFFFF000 + 56
"""The classic packet filter's random word (linux/filter.h: SKF_AD_OFF + SKF_AD_RANDOM)."""
WORDS: Final = 1 << 32
AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: a close is a reset."""
PIECE_BYTES: Final = 1 << 16


def drop_share(to: Any, share: float) -> None:
    """Has a socket's arriving segments dropped, each with probability ``share``; 0 drops none."""
    limit = min(round(share * WORDS), WORDS - 1)
    code = [(LOAD, 0, 0, RANDOM), (JUMP_AT_LEAST, 1, 0, limit), (RETURN, 0, 0, 0)]
    code.append((RETURN, 0, 0, 0xFFFFFFFF))
    if share >= 1:
        code = [(RETURN, 0, 0, 0)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
    program = struct.pack("HP", len(code), ctypes.addressof(packed))
    to.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@dataclass(slots=True, eq=False)
class _Link:
    """One member's relay and what is wrong with it."""

    target: tuple[str, int]
    server: asyncio.Server
    loss: float = 0.0
    delay_s: float = 0.0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def spoil(self) -> None:
        """Puts the present loss on every socket."""
        for one in (*self.server.sockets, *(self._socket(writer) for writer in self.writers)):
            with contextlib.suppress(OSError):  # it is closed already
                drop_share(one, self.loss)

    def cut(self) -> None:
        """Resets every connection."""
        for writer in list(self.writers):
            with contextlib.suppress(OSError):  # it is closed already
                self._socket(writer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.transport.abort()

    @staticmethod
    def _socket(writer: asyncio.StreamWriter) -> Any:
        return writer.get_extra_info("socket")


class Links:
    """Relays of all members, on a thread of their own.

    Args:
        delay_s: of each piece in each direction, when nothing is wrong.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: dict[str, _Link] = {}
        self._relays: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, member: str, coordinator: str) -> str:
        """The address at which a member reaches the coordinator from now on."""
        host, _, port = coordinator.rpartition(":")
        return self._call(self._open(member, (host, int(port))))

    def lose(self, members: Collection[str], share: float, delay_s: float | None = None) -> None:
        """Loses this share of segments, and delays the rest by ``delay_s`` each way."""

        def spoil(link: _Link) -> None:
            link.loss = share
            link.delay_s = self._delay_s if delay_s is None else delay_s
            link.spoil()

        self._each(members, spoil)

    def mend(self, members: Collection[str]) -> None:
        """Loses and delays no more than before."""
        self.lose(members, 0.0)

    def cut(self, members: Collection[str]) -> None:
        """Resets members' connections."""
        self._each(members, _Link.cut)

    def _each(self, members: Collection[str], change: Callable[[_Link], None]) -> None:
        async def all_of_them() -> None:
            for member in members:
                change(self._links[member])

        self._call(all_of_them())

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # On the thread.

    async def _open(self, member: str, target: tuple[str, int]) -> str:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._relays.add(task)
                task.add_done_callback(self._relays.discard)
            await self._relay(self._links[member], reader, writer)

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        self._links[member] = _Link(target, server, delay_s=self._delay_s)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _relay(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there, back = await asyncio.open_connection(*link.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        link.writers |= pair
        link.spoil()
        try:
            directions = [_pipe(link, reader, back), _pipe(link, there, writer)]
            pipes = [asyncio.create_task(one) for one in directions]
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
        finally:
            link.writers -= pair
            for one in pair:
                one.transport.abort()

    async def _close(self) -> None:
        for link in self._links.values():
            link.server.close()
            link.loss = 0.0  # what waits behind it goes its way, and ends
            link.cut()
        await asyncio.gather(*self._relays, return_exceptions=True)


async def _pipe(link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries one direction until it ends; pieces keep their order and overlap in time."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)
    now_s = asyncio.get_running_loop().time

    async def carry() -> None:
        while True:
            due_s, data = await pieces.get()
            await asyncio.sleep(max(0.0, due_s - now_s()))
            while link.loss >= 1:  # what is here already does not pass either
                await asyncio.sleep(0.02)
            if not data:
                return
            writer.write(data)
            await writer.drain()

    carrying = asyncio.create_task(carry())
    try:
        while True:
            data = await reader.read(PIECE_BYTES)
            await pieces.put((now_s() + link.delay_s, data))
            if not data:
                break
        await carrying
    except OSError:
        return
    finally:
        carrying.cancel()
