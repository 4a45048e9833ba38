"""A node's session without a coordinator: what it does with tasks whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client_sdk.session import Answer, Session
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey
from protos.limits import LIMITS
from protos.tls import TlsMaterial

KEY = TaskKey("coupons", 1, 1, "contribute")
SUM = np.ones(3 * LIMITS.chunk_bytes // 4, dtype=np.uint32)
CHUNKS = 3


class Node:
    """A session that is handed frames, and keeps what it would have written."""

    def __init__(self, *, longest_s: float = 60.0) -> None:
        self.began: list[TaskKey] = []
        self.session = Session(
            "nowhere:1", TlsMaterial(b"", b"", b""), self._answer, most_task_bytes=lambda: 0,
            software="test", longest_s=lambda _: longest_s,
        )  # fmt: skip

    def _answer(self, key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        self.began.append(key)
        content = wire.Content()
        group = content.arrays.add(name="contribution")
        group.headers.add(name="sum", dtype=wire.DTYPE_UINT32, shape=SUM.shape)
        return Answer(content, [SUM.tobytes()])

    async def ask(self, *, deadline_ms: int = 60_000) -> None:
        task = wire.Task(id=KEY.to_wire(), deadline_ms=deadline_ms, cleared=True)
        self.session._take(wire.CoordinatorFrame(task=task))
        await asyncio.gather(*self.session._working.values())

    def reject(self) -> None:
        rejection = wire.Rejection(id=KEY.to_wire(), sentence="it is over")
        self.session._take(wire.CoordinatorFrame(rejection=rejection))

    def written(self, *, after_first: Callable[[], None] = lambda: None) -> int:
        """Frames with array bytes; ``after_first`` is called when one of them is out."""
        count = 0
        while not self.session._outgoing.empty():
            for frame in self.session._outgoing.get_nowait() or ():
                if len(frame) > 1000:  # type: ignore[arg-type]
                    count += 1
                    if count == 1:
                        after_first()
        return count


def test_an_upload_ends_when_its_task_is_over() -> None:
    async def main() -> None:
        whole, cut = Node(), Node()
        await whole.ask()
        assert whole.written() == CHUNKS
        await cut.ask()
        assert cut.written(after_first=cut.reject) == 1
        await cut.ask()  # asked again, it sends the same from the beginning
        assert cut.written() == CHUNKS
        assert cut.began == [KEY]

    asyncio.run(main())


def test_an_upload_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        node = Node()
        await node.ask()

        def an_hour_later() -> None:
            monkeypatch.setattr("client_sdk.session.time.monotonic", lambda: float("inf"))

        assert node.written(after_first=an_hour_later) == 1

    asyncio.run(main())


@pytest.mark.parametrize(("deadline_ms", "longest_s"), [(60_000, -1.0), (0, 60.0)])
def test_a_task_whose_time_is_over_is_not_begun(deadline_ms: int, longest_s: float) -> None:
    """Whichever says so: the coordinator's deadline, or the terms' that were signed."""

    async def main() -> None:
        node = Node(longest_s=longest_s)
        await node.ask(deadline_ms=deadline_ms)
        assert node.began == []
        assert node.written() == 0

    asyncio.run(main())


def test_answers_without_arrays_make_nobody_forget_an_upload() -> None:
    async def main() -> None:
        node = Node()
        await node.ask()

        def many_others() -> None:
            for number in range(100):
                key = KEY._replace(attempt=number, phase="witness")
                node.session._answers[key] = Answer(wire.Content(), [])
                task = wire.Task(id=key.to_wire(), deadline_ms=60_000)
                node.session._take(wire.CoordinatorFrame(task=task))

        assert node.written(after_first=many_others) == CHUNKS

    asyncio.run(main())
