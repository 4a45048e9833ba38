"""Runs Flower's SecAgg+ in one process and writes what it cost; the peer's interpreter runs it.

Usage: ``python secagg_app.py REQUEST.json``. Members are ``ClientApp`` objects with Flower's own
``secaggplus_mod``; the server is Flower's own ``SecAggPlusWorkflow``. Only the transport between
them is ours, and it is left out of every figure.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import FitIns, Parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat
from flwr.compat.common import recorddict_compat
from flwr.server import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp import Grid
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from flwr.supercore.task_identity import TaskIdentity

_LARGEST = 1024  # vectors hold whole numbers below it; it maps to Flower's clipping range


class _Member(NumPyClient):
    """Returns its vector at once, with the largest weight that the server allows."""

    def __init__(self, vector: np.ndarray, weight: int) -> None:
        self._vector, self._weight = vector, weight

    def fit(self, parameters: Any, config: Any) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        return [self._vector], self._weight, {}


class _Members:
    """The members' side: one context each, stages timed without the transport."""

    def __init__(self, workflow: SecAggPlusWorkflow, seed: int, coordinates: int) -> None:
        self._workflow, self._seed, self._coordinates = workflow, seed, coordinates
        self._contexts: dict[int, Context] = {}
        self._vector = np.zeros(0, dtype=np.float32)
        self._app = ClientApp(client_fn=self._client, mods=[secaggplus_mod])
        self.timings: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.sent_bytes = 0

    def answer(self, message: Message) -> Message:
        """Returns one member's reply to one message and adds what it cost to ``timings``."""
        node = message.metadata.dst_node_id
        context = self._contexts.setdefault(node, Context(1, node, {}, RecordDict(), {}))
        stage = str(message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
        if stage == Stage.COLLECT_MASKED_VECTORS:
            source = np.random.default_rng([self._seed, node - 1])
            numbers = source.integers(-1000, 1001, self._coordinates)
            # A power of two, so float32 and Flower's grid both hold the quotient exactly.
            self._vector = (numbers / (_LARGEST / self._workflow.clipping_range)).astype(np.float32)
        # The mod takes entries out of the record, and all members get the same one here.
        message.content = copy.deepcopy(message.content)
        wall, cpu = time.perf_counter(), time.process_time()
        reply = self._app(message, context)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.timings[stage].append((1000 * wall, 1000 * cpu))
        if stage == Stage.COLLECT_MASKED_VECTORS:
            arrays = reply.content.config_records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
            self.sent_bytes = sum(len(array) for array in arrays)
        return reply

    def stages(self) -> dict[str, dict[str, float]]:
        """Medians per stage."""
        return {
            stage: {"wall_ms": median(w for w, _ in costs), "cpu_ms": median(c for _, c in costs)}
            for stage, costs in self.timings.items()
        }

    def _client(self, context: Context) -> Client:
        return _Member(self._vector, int(self._workflow.max_weight)).to_client()


class _InProcessGrid(Grid):
    """Hands every message to its member at once; drops members before they send their vector."""

    def __init__(self, members: _Members, dropped: set[int]) -> None:
        self._members, self._dropped = members, dropped
        self._last: list[Message] = []
        self.outside_s = 0.0
        self.replay = False

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Returns the replies; with ``replay`` set, those of the last call once more."""
        begun = time.perf_counter()
        if not self.replay:
            self._last = []
            for message in messages:
                stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
                absent = message.metadata.dst_node_id in self._dropped
                if not (absent and stage == Stage.COLLECT_MASKED_VECTORS):
                    self._last.append(_from_member(message, self._members.answer(message)))
        self.outside_s += time.perf_counter() - begun
        return self._last

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the SecAgg+ workflow does not call this")

    set_run = create_message = get_node_ids = push_messages = pull_messages = _unused
    run = property(_unused)


class _Proxy:
    """All that the workflow asks of a client proxy."""

    def __init__(self, node: int) -> None:
        self.node_id = node


class _Strategy(FedAvg):
    """Asks every member and keeps the mean that the workflow unmasked."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self._members = members
        self.mean = np.zeros(0)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
        return [(_Proxy(1 + i), FitIns(parameters, {})) for i in range(self._members)]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        if failures:
            raise RuntimeError(f"members failed: {failures}")
        (self.mean,) = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}


def measure_client(request: dict[str, Any]) -> dict[str, Any]:
    """One member's four stages against ``neighbours`` peers, of which only the keys exist."""
    neighbours, threshold = request["neighbours"], request["threshold"]
    workflow = SecAggPlusWorkflow(1.0, threshold)
    members = _Members(workflow, request["seed"], request["coordinates"])
    own = 1 + neighbours // 2  # half of the masks are added, half subtracted
    peers = {
        node: (generate_key_pairs(), generate_key_pairs())
        for node in range(1, neighbours + 2)
        if node != own
    }
    for trial in range(1 + request["trials"]):
        if trial == 1:
            members.timings.clear()  # the first one was the warm-up
        setup = {
            Key.SAMPLE_NUMBER: neighbours + 1,
            Key.SHARE_NUMBER: neighbours + 1,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: workflow.clipping_range,
            Key.TARGET_RANGE: workflow.quantization_range,
            Key.MOD_RANGE: workflow.modulus_range,
            Key.MAX_WEIGHT: workflow.max_weight,
        }
        keys = _ask(members, own, Stage.SETUP, setup)
        public = {
            str(node): [public_key_to_bytes(pair[1]) for pair in pairs]
            for node, pairs in peers.items()
        }
        public[str(own)] = [keys[Key.PUBLIC_KEY_1], keys[Key.PUBLIC_KEY_2]]
        _ask(members, own, Stage.SHARE_KEYS, public)
        own_key = bytes_to_public_key(keys[Key.PUBLIC_KEY_2])
        shares = {
            Key.SOURCE_LIST: list(peers),
            Key.CIPHERTEXT_LIST: [_shares_of(node, peers[node], own, own_key) for node in peers],
        }
        _ask(members, own, Stage.COLLECT_MASKED_VECTORS, shares)
        alive = {Key.ACTIVE_NODE_ID_LIST: [own, *peers], Key.DEAD_NODE_ID_LIST: []}
        _ask(members, own, Stage.UNMASK, alive)
    return {"stages": members.stages(), "masked_vector_bytes": members.sent_bytes}


def measure_server(request: dict[str, Any]) -> dict[str, Any]:
    """A whole round of ``members`` on the complete graph; the unmask stage is repeated."""
    count, dropouts = request["members"], request["dropouts"]
    workflow = SecAggPlusWorkflow(1.0, request["threshold"])
    members = _Members(workflow, request["seed"], request["coordinates"])
    grid = _InProcessGrid(members, set(range(1 + count - dropouts, 1 + count)))
    strategy = _Strategy(count)
    context = LegacyContext(Context(1, 0, {}, RecordDict(), {}), strategy=strategy)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
    nothing = recorddict_compat.parameters_to_arrayrecord(Parameters([], "numpy.ndarray"), True)
    context.state.array_records[MAIN_PARAMS_RECORD] = nothing
    state = WorkflowState()
    stages: dict[str, float] = {}
    steps: dict[str, Callable[..., bool]] = {
        Stage.SETUP: workflow.setup_stage,
        Stage.SHARE_KEYS: workflow.share_keys_stage,
        Stage.COLLECT_MASKED_VECTORS: workflow.collect_masked_vectors_stage,
    }
    for stage, step in steps.items():
        stages[stage] = _server_ms(step, grid, context, state)
    unmask = []
    for _ in range(request["trials"]):
        again = copy.copy(state)  # the stage takes the vector out and edits the neighbours
        again.nid_to_neighbours = copy.deepcopy(state.nid_to_neighbours)
        unmask.append(_server_ms(workflow.unmask_stage, grid, context, again))
        grid.replay = True
    stages[Stage.UNMASK] = median(unmask)
    survivors = count - dropouts
    scale = _LARGEST / workflow.clipping_range
    (strategy.mean * (survivors * scale)).astype("<f8").tofile(request["total"])
    step_size = 2 * workflow.clipping_range / workflow.quantization_range * scale
    return {
        "stages_ms": stages,
        "member_stages": members.stages(),
        "survivors": list(range(survivors)),
        "quantisation_error": survivors * step_size,
    }


def _ask(members: _Members, node: int, stage: str, config: dict[str, Any]) -> ConfigRecord:
    """Sends one stage's message to the measured member, as the workflow would."""
    nothing = FitIns(Parameters([], "numpy.ndarray"), {})
    content = recorddict_compat.fitins_to_recorddict(nothing, True)
    content.config_records[RECORD_KEY_CONFIGS] = ConfigRecord({**config, Key.STAGE: stage})
    message = Message(content, dst_node_id=node, message_type="train", group_id="1")
    return members.answer(message).content.config_records[RECORD_KEY_CONFIGS]


def _shares_of(node: int, pairs: Any, own: int, own_key: Any) -> bytes:
    """Returns what a peer sends: two encrypted shares of the real length, never put together."""
    (masking_key, _), (sealing_key, _) = pairs
    seed_share = create_shares(os.urandom(32), 2, 2)[0]
    key_share = create_shares(private_key_to_bytes(masking_key), 2, 2)[0]
    plaintext = share_keys_plaintext_concat(node, own, seed_share, key_share)
    return encrypt(generate_shared_key(sealing_key, own_key), plaintext)


def _from_member(message: Message, reply: Message) -> Message:
    """Checks that a reply carries its member's id, by which the workflow tells members apart."""
    if reply.has_error() or reply.metadata.src_node_id != message.metadata.dst_node_id:
        raise RuntimeError(f"member {message.metadata.dst_node_id}: no proper reply")
    return reply


def _server_ms(
    step: Callable[..., bool], grid: _InProcessGrid, context: LegacyContext, state: WorkflowState
) -> float:
    """Runs one stage of the workflow; milliseconds of the server alone, without the members."""
    outside_s, begun = grid.outside_s, time.perf_counter()
    if not step(grid, context, state):
        raise RuntimeError(f"{step.__name__}: the workflow halted")
    return 1000 * (time.perf_counter() - begun - (grid.outside_s - outside_s))


def main() -> None:
    """Reads the request, measures and writes the result beside it."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    result = (measure_client if request["part"] == "client" else measure_server)(request)
    result["threads"] = len(os.sched_getaffinity(0))
    Path(request["output"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
