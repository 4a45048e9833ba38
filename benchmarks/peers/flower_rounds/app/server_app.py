"""The coordinator's side: times rounds through the Grid and checks every sum."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()

_JOIN_S = 120.0
_REPLY_S = 120.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the rounds and writes their seconds, one number per round, as a JSON list."""
    config = context.run_config
    rounds, members = int(config["rounds"]), int(config["members"])
    nodes = _wait_for_nodes(grid, members)
    # Whole numbers below 2^24: float32 holds each vector and each sum exactly.
    start = np.arange(int(config["dimension"]), dtype=np.float32) % 1000
    seconds = []
    for number in range(1, rounds + 1):
        vector = start + np.float32(number)
        begun = time.perf_counter()
        total = _round(grid, nodes, vector, number)
        seconds.append(time.perf_counter() - begun)
        expected = members * vector + np.float32(members * (members - 1) // 2)
        if not np.array_equal(total, expected):
            raise RuntimeError(f"round {number}: the sum is wrong")
    Path(str(config["output"])).write_text(json.dumps(seconds), encoding="utf-8")


def _wait_for_nodes(grid: Grid, members: int) -> list[int]:
    """Returns the nodes' ids once all members are connected; not part of any round."""
    deadline = time.monotonic() + _JOIN_S
    while len(nodes := list(grid.get_node_ids())) < members:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(nodes)} of {members} nodes joined in {_JOIN_S:.0f} s")
        time.sleep(0.1)
    return nodes


def _round(grid: Grid, nodes: list[int], vector: np.ndarray, number: int) -> np.ndarray:
    """Sends the vector to every node and returns the sum of the replies."""
    record = ArrayRecord({"values": Array(vector)})
    messages = [
        Message(
            content=RecordDict({"vector": record}),
            message_type="train",
            dst_node_id=node,
            group_id=str(number),
        )
        for node in nodes
    ]
    replies = list(grid.send_and_receive(messages, timeout=_REPLY_S))
    if len(replies) != len(nodes):
        raise RuntimeError(f"round {number}: {len(replies)} of {len(nodes)} nodes replied")
    total = np.zeros_like(vector)
    for reply in replies:
        if reply.has_error():
            raise RuntimeError(f"round {number}: {reply.error.reason}")
        total += reply.content["vector"]["values"].numpy()
    return total
