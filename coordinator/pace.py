"""How many members are sent long tasks at once: their bytes wait in memory until they are through.

gRPC copies a frame before it sends it. If a thousand members were sent a model at once, that would
be a thousand frames; a few at a time are as fast, and the first upload while the last download.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from coordinator.exchange import Exchange

__all__ = ["PATIENCE_S", "PLACES", "Pace"]

PLACES: Final = 8
"""Members that are being sent a long task at once."""
PATIENCE_S: Final = 0.05
"""A frame that takes longer costs its member the place, not the rest: a thousand members that are
slow or half open begin within seven seconds."""

Write = Callable[[bytes], Awaitable[None]]


class Pace:
    """Places for sending long tasks, handed on as members finish or stand still.

    Args:
        places: how many there are.
        patience_s: the time for one frame after which a member goes on without its place.
    """

    def __init__(self, places: int = PLACES, patience_s: float = PATIENCE_S) -> None:
        self._places = asyncio.Semaphore(places)
        self._patience_s = patience_s

    async def send(self, exchange: Exchange, member: str, write: Write) -> None:
        """Sends a member its task; where it is long, once it has a place."""
        loop = asyncio.get_running_loop()
        if not exchange.is_long(member):
            for frame in exchange.frames(member, loop.time()):
                await write(frame)
            return
        exchange.queued.add(member)
        try:
            await self._places.acquire()
        finally:
            exchange.queued.discard(member)
        await self._send_long(exchange.frames(member, loop.time()), write)

    async def _send_long(self, frames: Iterator[bytes], write: Write) -> None:
        """Sends frames from a place that is given up at the end, or when one takes too long."""
        loop, place = asyncio.get_running_loop(), [self._places]

        def leave() -> None:
            for held in place:
                held.release()
            place.clear()

        try:
            for frame in frames:
                timer = loop.call_later(self._patience_s, leave)
                try:
                    await write(frame)
                finally:
                    timer.cancel()
        finally:
            leave()
