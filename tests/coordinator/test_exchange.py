"""What each member of one open task is sent."""

from __future__ import annotations

import pytest

from coordinator.exchange import Exchange, Outgoing
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey
from protos.frames import ReceivedChunk, coordinator_frame
from protos.limits import LIMITS

KEY = TaskKey("coupons", 1, 1, "contribute")


def content(text: str) -> wire.Content:
    made = wire.Content()
    made.configurations.add(name="terms").values["terms_hash"].text = text
    return made


def sent(exchange: Exchange, member: str, now_s: float) -> wire.Task:
    """The one frame of a task that fits into one."""
    (frame,) = exchange.frames(member, now_s)
    read = coordinator_frame(frame)
    assert isinstance(read, wire.CoordinatorFrame)
    return read.task


def test_each_member_is_sent_its_own_task_with_the_time_that_is_left() -> None:
    one, other = Outgoing(content("a"), [b"1234"]), Outgoing(content("b"), [b"5678"])
    tasks = {"ada": one, "bob": one, "cyd": other}
    exchange = Exchange(KEY, tasks, None, 0.0, 10.0)
    for now_s, member in ((1.0, "ada"), (1.0, "bob"), (1.0, "cyd"), (1.0, "ada"), (4.0, "ada")):
        task = sent(exchange, member, now_s)
        assert TaskKey.of(task.id) == KEY
        assert task.content == tasks[member].content
        assert [task.data] == tasks[member].buffers
        assert task.deadline_ms == pytest.approx(1000 * (10 - now_s))


def test_a_task_beyond_one_frame_is_announced_and_follows_in_chunks() -> None:
    data = bytes(range(256)) * (LIMITS.chunk_bytes // 256) + b"end"
    exchange = Exchange(KEY, {"ada": Outgoing(content("a"), [data])}, None, 0.0, 10.0)
    opening, *rest = map(coordinator_frame, exchange.frames("ada", 0.0))
    assert isinstance(opening, wire.CoordinatorFrame)
    assert not opening.task.data
    chunks = [chunk for chunk in rest if isinstance(chunk, ReceivedChunk)]
    assert len(chunks) == len(rest) == 2
    assert b"".join(chunk.data for chunk in chunks) == data


def test_nothing_is_sent_once_it_is_over() -> None:
    exchange = Exchange(KEY, {"ada": Outgoing(content("a"), [b"1234"])}, None, 0.0, 10.0)
    assert list(exchange.frames("ada", 0.0))
    exchange.end()
    assert list(exchange.frames("ada", 0.0)) == []
