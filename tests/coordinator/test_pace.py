"""Places for sending long tasks, with streams that take frames when they are told to."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.exchange import Exchange, Outgoing
from coordinator.pace import Pace
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey
from protos.limits import LIMITS

KEY = TaskKey("coupons", 1, 1, "contribute")
NAMES = tuple(f"member-{index}" for index in range(6))
LONG = Outgoing(wire.Content(), [bytes(LIMITS.chunk_bytes), bytes(8)])
SHORT = Outgoing(wire.Content(), [bytes(8)])


def opened(outgoing: Outgoing) -> Exchange:
    return Exchange(KEY, dict.fromkeys(NAMES, outgoing), None, 0.0, 1e6)


class Streams:
    """Takes frames of members whose gate is open; counts who is being sent something."""

    def __init__(self, *, closed: tuple[str, ...] = ()) -> None:
        self.gates = {name: asyncio.Event() for name in NAMES}
        for name in NAMES:
            if name not in closed:
                self.gates[name].set()
        self.sending = 0
        self.most = 0
        self.through: list[str] = []

    async def send(self, pace: Pace, exchange: Exchange, member: str) -> None:
        async def write(frame: bytes) -> None:
            self.sending += 1
            self.most = max(self.most, self.sending)
            try:
                await asyncio.sleep(0)
                await self.gates[member].wait()
            finally:
                self.sending -= 1

        await pace.send(exchange, member, write)
        self.through.append(member)


def test_short_tasks_wait_their_turn_where_there_is_a_great_deal_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(most: int) -> None:
        streams, exchange = Streams(), opened(SHORT)
        pace = Pace(2, patience_s=60)
        await asyncio.gather(*(streams.send(pace, exchange, name) for name in NAMES))
        assert streams.most == most

    monkeypatch.setattr("coordinator.exchange.AT_ONCE_BYTES", 8 * len(NAMES))
    asyncio.run(main(len(NAMES)))
    monkeypatch.setattr("coordinator.exchange.AT_ONCE_BYTES", 8 * len(NAMES) - 1)
    asyncio.run(main(2))


def test_a_few_are_sent_a_long_task_at_once_and_the_rest_in_turn() -> None:
    async def main() -> None:
        streams, exchange = Streams(), opened(LONG)
        pace = Pace(2, patience_s=60)
        await asyncio.gather(*(streams.send(pace, exchange, name) for name in NAMES))
        assert streams.most == 2
        assert streams.through == list(NAMES)
        assert exchange.queued == set()

    asyncio.run(main())


def test_short_tasks_wait_for_nobody() -> None:
    async def main() -> None:
        streams = Streams(closed=NAMES[:2])
        pace = Pace(2, patience_s=60)
        sending = [
            asyncio.create_task(streams.send(pace, opened(LONG), name)) for name in NAMES[:2]
        ]
        await asyncio.sleep(0.01)
        await streams.send(pace, opened(SHORT), NAMES[2])
        for task in sending:
            task.cancel()

    asyncio.run(main())


def test_one_that_stands_still_steps_aside_and_still_finishes() -> None:
    async def main() -> None:
        streams, exchange = Streams(closed=NAMES[:2]), opened(LONG)
        pace = Pace(2, patience_s=0.01)
        sending = [asyncio.create_task(streams.send(pace, exchange, name)) for name in NAMES]
        await asyncio.wait(sending[2:])
        assert streams.through == list(NAMES[2:])
        for name in NAMES[:2]:
            streams.gates[name].set()
        await asyncio.gather(*sending)
        assert sorted(streams.through) == sorted(NAMES)
        again = Streams()
        await asyncio.gather(*(again.send(pace, exchange, name) for name in NAMES))
        assert again.most == 2  # a place given up is given back once

    asyncio.run(main())


def test_a_stream_that_breaks_gives_its_place_back() -> None:
    async def main() -> None:
        streams, exchange = Streams(closed=NAMES[:3]), opened(LONG)
        pace = Pace(1, patience_s=60)
        sending = [asyncio.create_task(streams.send(pace, exchange, name)) for name in NAMES[:3]]
        await asyncio.sleep(0.01)
        assert exchange.queued == set(NAMES[1:3])
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        assert exchange.queued == set()
        await streams.send(pace, exchange, NAMES[3])
        assert streams.through == [NAMES[3]]

    asyncio.run(main())
