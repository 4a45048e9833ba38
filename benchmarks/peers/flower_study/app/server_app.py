"""The coordinator's half: adds the members' sums, takes steps, and says what it cost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import study
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()

JOIN_S, ROUND_S = 120.0, 30.0
LEARNING_RATE, MOMENTUM, SQUARES, AVERAGE_FROM = 0.3, 0.9, 0.999, 41


def epsilon(attempts: int) -> float:
    """What so many attempts cost a consumer that one member knows."""
    accountant = PLDAccountant()
    step = dp_event.PoissonSampledDpEvent(study.Q, dp_event.GaussianDpEvent(study.SIGMA))
    accountant.compose(step, attempts)
    return float(accountant.get_epsilon(study.DELTA))


def wait_for_nodes(grid: Grid) -> list[int]:
    """The nodes' ids, once enough are there."""
    until = time.monotonic() + JOIN_S
    while len(nodes := list(grid.get_node_ids())) < len(study.MEMBERS):
        if time.monotonic() > until:
            if len(nodes) >= len(study.MEMBERS) - study.DROPOUTS:
                break
            raise RuntimeError(f"{len(nodes)} of {len(study.MEMBERS)} members joined")
        time.sleep(0.2)
    return nodes


def attempt(grid: Grid, nodes: list[int], weights: np.ndarray, task: dict) -> np.ndarray | None:
    """The mean over one round's members; None if too few answered."""
    content = RecordDict(
        {
            "model": ArrayRecord({"weights": Array(weights)}),
            "task": ConfigRecord(task),
        }
    )
    messages = [
        Message(
            content=content, message_type="train", dst_node_id=node, group_id=str(task["round"])
        )
        for node in nodes
    ]
    total, declared, count = np.zeros(study.DIMENSION), 0, 0
    for reply in grid.send_and_receive(messages, timeout=ROUND_S):
        if reply.has_error():
            print(f"round {task['round']}: {reply.error.reason}")
            continue
        values = reply.content["sum"]["values"].numpy()
        if values.shape != (study.DIMENSION,) or not np.isfinite(values).all():
            continue
        total += values
        declared += study.DECLARED[str(reply.content["from"]["member"])]
        count += 1
    return total / (study.Q * declared) if count >= len(study.MEMBERS) - study.DROPOUTS else None


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; the model is written at the end."""
    config = {"rounds": 80, "folder": ".", "output": "model.npz"} | dict(context.run_config)
    rounds = int(config["rounds"])
    nodes = wait_for_nodes(grid)
    weights, mean = np.zeros(study.DIMENSION), np.zeros(study.DIMENSION)
    first, second = np.zeros(study.DIMENSION), np.zeros(study.DIMENSION)
    number, attempts = 1, 0
    while number <= rounds:
        if attempts >= rounds + study.SPARE:
            raise RuntimeError("all attempts are used")
        attempts += 1
        task = {"round": number, "folder": str(config["folder"])}
        gradient = attempt(grid, nodes, weights, task)
        if gradient is None:
            time.sleep(1.0)
            continue
        first = MOMENTUM * first + (1 - MOMENTUM) * gradient
        second = SQUARES * second + (1 - SQUARES) * gradient**2
        scale = np.sqrt(second / (1 - SQUARES**number)) + 1e-8
        weights = weights - LEARNING_RATE * (first / (1 - MOMENTUM**number)) / scale
        if number >= AVERAGE_FROM:
            mean += (weights - mean) / (number - AVERAGE_FROM + 1)
        number += 1
    published = mean if rounds >= AVERAGE_FROM else weights
    np.savez(Path(str(config["output"])), weights=published, epsilon=epsilon(attempts))
    print(f"{rounds} rounds, {attempts} attempts, epsilon {epsilon(attempts):.3f}")
