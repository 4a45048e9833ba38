"""Runs Flower's SecAgg+ in the peer's own interpreter and returns what it cost.

Everything measured is Flower's: ``secaggplus_mod`` around a ``ClientApp`` on the members' side and
the stages of ``SecAggPlusWorkflow`` on the server's, with that workflow's stock clipping range,
quantisation range, modulus and largest weight.

What favours the peer: messages are handed over in memory, so serialisation, hashing, storage,
transport, polling and the process per message are left out; the model is not sent down; members
return their vector at once; the strategy keeps the unmasked mean and does not average a second
time; every server stage has all replies at hand and waiting is not counted; vectors are float32 and
need no second array. Its masks come from NumPy's Mersenne Twister with a seed folded to 32 bits,
which is fast and no secure generator, and its keys are not authenticated. What is against it: its
Shamir sharing is plain Python and opens every secret from all shares that arrive, not from as many
as the threshold asks; its private keys are shared as PEM text of 306 bytes; its threads wait for
Python's lock, so that a second processor gains it little. The server is measured on the complete
graph, where the sparse graph that gives SecAgg+ its name would have fewer shares to open.

Vectors: member i's is ``numpy.random.default_rng([seed, i]).integers(-1000, 1001, coordinates)``.
Divided by 128 it falls on Flower's grid, so that its quantisation rounds nothing away.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.environment import PeerError, environment

# The same name and requirements as the other measurement of this peer: one installation.
from benchmarks.peers.flower_rounds.deployment import _REQUIREMENTS

__all__ = [
    "PEER_NAME",
    "ClientCost",
    "ServerCost",
    "StageCost",
    "measure_client",
    "measure_server",
]

PEER_NAME = "flwr 1.41 SecAgg+"

_APP = Path(__file__).resolve().parent / "app" / "secagg_app.py"
_STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
_MOST_MEMBERS = 1000  # the weights of 1024 overflow the stock modulus
_TAIL_CHARS = 3000


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage's milliseconds; processor time is that of all threads together."""

    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class ClientCost:
    """One member's work in one round: medians per stage, in the protocol's order.

    ``masked_vector_bytes`` is the masked vector as Flower serialises it; ``threads`` is how many
    processors it was allowed, and the ratio of the two sums how many it kept busy.
    """

    stages: dict[str, StageCost]
    masked_vector_bytes: int
    threads: int

    @property
    def wall_ms(self) -> float:
        """The sum of the stages' medians."""
        return math.fsum(stage.wall_ms for stage in self.stages.values())

    @property
    def cpu_ms(self) -> float:
        """The sum of the stages' medians."""
        return math.fsum(stage.cpu_ms for stage in self.stages.values())


@dataclass(frozen=True, slots=True)
class ServerCost:
    """One round on the complete graph: the server's own work and the sum that it published.

    ``stages_ms`` is wall time of the server alone; ``unmask`` is the median of the trials, the
    others are one measurement. ``member_stages`` are medians over the members of the same round
    (members that dropped out count up to their last stage). ``total`` is the decoded sum of the
    vectors of ``survivors`` (float64, shape (coordinates,)); under Flower's settings a coordinate
    of it may be off by less than ``quantisation_error`` for arbitrary reals; for these vectors
    only float64 rounding is left.
    """

    stages_ms: dict[str, float]
    member_stages: dict[str, StageCost]
    survivors: tuple[int, ...]
    total: NDArray[np.float64]
    quantisation_error: float
    threads: int

    @property
    def unmask_ms(self) -> float:
        """Reconstruction of the shares and removal of the masks, with decoding."""
        return self.stages_ms["unmask"]


def measure_client(
    coordinates: int,
    neighbours: int,
    *,
    trials: int = 5,
    threshold: int | None = None,
    seed: int = 0,
    threads: int = 2,
    timeout_s: float = 600.0,
) -> ClientCost:
    """Returns what one member spends on one round; one more trial before is a warm-up.

    The neighbours' keys and encrypted shares are made beforehand and not counted.

    Args:
        coordinates: length of the vector.
        neighbours: members it shares a mask with, itself not counted, at least 2.
        trials: rounds of which the medians are taken.
        threshold: shares that open a secret; a majority of neighbours and itself if left out.
        seed: of the vector.
        threads: processors that the peer may use.
        timeout_s: seconds after which the peer is stopped.

    Returns:
        Medians per stage.

    Raises:
        PeerError: an argument is out of range, or the peer could not be installed, failed or took
            longer than ``timeout_s``.
    """
    shares = neighbours + 1
    threshold = _checked(coordinates, shares, shares, threshold, trials, threads)
    with tempfile.TemporaryDirectory(prefix="flower-secagg-") as name:
        request = {
            "part": "client",
            "coordinates": coordinates,
            "neighbours": neighbours,
            "threshold": threshold,
            "trials": trials,
            "seed": seed,
            "threads": threads,
        }
        result = _run(Path(name).resolve(), request, timeout_s)
    return ClientCost(
        _stage_costs(result["stages"]), int(result["masked_vector_bytes"]), int(result["threads"])
    )


def measure_server(
    coordinates: int,
    members: int,
    *,
    dropouts: int = 0,
    trials: int = 1,
    threshold: int | None = None,
    seed: int = 0,
    threads: int = 2,
    timeout_s: float = 1800.0,
) -> ServerCost:
    """Returns what the server spends on one round in which every member masks with every other.

    The members' own work runs first, one after the other, and takes most of the time: minutes for
    100 members. Each trial repeats the unmask stage on the same replies.

    Args:
        coordinates: length of the vectors.
        members: members of the round, at least 3.
        dropouts: members, the last ones, that share keys and then send no vector.
        trials: repetitions of the unmask stage, of which the median is taken.
        threshold: shares that open a secret; a majority of the members if left out.
        seed: of the vectors.
        threads: processors that the peer may use.
        timeout_s: seconds after which the peer is stopped.

    Returns:
        The server's stages, the members' stages and the decoded sum.

    Raises:
        PeerError: an argument is out of range, or the peer could not be installed, failed or took
            longer than ``timeout_s``.
    """
    if dropouts < 0:
        raise PeerError("flower: dropouts must not be negative")
    threshold = _checked(coordinates, members, members - dropouts, threshold, trials, threads)
    with tempfile.TemporaryDirectory(prefix="flower-secagg-") as name:
        folder = Path(name).resolve()
        total = folder / "total.f64"
        request = {
            "part": "server",
            "coordinates": coordinates,
            "members": members,
            "dropouts": dropouts,
            "threshold": threshold,
            "trials": trials,
            "seed": seed,
            "threads": threads,
            "total": str(total),
        }
        result = _run(folder, request, timeout_s)
        vector = np.fromfile(total, dtype="<f8")
    if vector.shape != (coordinates,):
        raise PeerError(f"flower: the sum has {vector.size} of {coordinates} coordinates")
    return ServerCost(
        stages_ms={stage: float(result["stages_ms"][stage]) for stage in _STAGES},
        member_stages=_stage_costs(result["member_stages"]),
        survivors=tuple(int(member) for member in result["survivors"]),
        total=vector.astype(np.float64),
        quantisation_error=float(result["quantisation_error"]),
        threads=int(result["threads"]),
    )


def _checked(
    coordinates: int, shares: int, answering: int, threshold: int | None, trials: int, threads: int
) -> int:
    """Returns the threshold, a majority of the shares if none is given."""
    if min(coordinates, trials, threads) < 1:
        raise PeerError("flower: coordinates, trials and threads must be at least 1")
    if not 3 <= shares <= _MOST_MEMBERS:
        raise PeerError(f"flower: a member and its neighbours must be 3 to {_MOST_MEMBERS}")
    chosen = shares // 2 + 1 if threshold is None else threshold
    if not 2 <= chosen <= answering:
        raise PeerError(f"flower: the threshold {chosen} must be 2 to {answering}")
    return chosen


def _run(folder: Path, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Runs the app on one request and returns its result."""
    python = environment("flower", _REQUIREMENTS) / "bin" / "python"
    output, asked, log = folder / "result.json", folder / "request.json", folder / "app.log"
    asked.write_text(json.dumps({**request, "output": str(output)}), encoding="utf-8")
    variables = {
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": str(request["threads"]),
        "OPENBLAS_NUM_THREADS": str(request["threads"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                [str(python), str(_APP), str(asked)],
                env=variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(
                f"flower: SecAgg+ took more than {timeout_s:.0f} s; give it fewer members or "
                f"coordinates, or more time\n{_tail(log)}"
            ) from None
    if done.returncode or not output.is_file():
        raise PeerError(f"flower: SecAgg+ ended with {done.returncode}\n{_tail(log)}")
    result = json.loads(output.read_text(encoding="utf-8"))
    if not isinstance(result, dict):
        raise PeerError("flower: SecAgg+ reported no figures")
    return result


def _stage_costs(stages: dict[str, dict[str, float]]) -> dict[str, StageCost]:
    """Returns the stages in the protocol's order; all must be there and finite."""
    costs = {
        stage: StageCost(float(stages[stage]["wall_ms"]), float(stages[stage]["cpu_ms"]))
        for stage in _STAGES
    }
    if not all(math.isfinite(cost.wall_ms) and cost.wall_ms > 0 for cost in costs.values()):
        raise PeerError(f"flower: SecAgg+ reported {stages}")
    return costs


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARS:]
