"""Whole rounds over real gRPC and mutual TLS: a process for the coordinator, one for members."""

from __future__ import annotations

import asyncio
import datetime as dt
import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from benchmarks.secagg.costs import WrongResult, study
from benchmarks.secagg.crowd import Scene, crowd, model_of, vector_of
from coordinator.aggregation import SecureAggregation
from coordinator.config import Deadlines
from coordinator.grid import COORDINATOR_NODE_ID, Expectation, LinkGrid, task_key
from coordinator.monitor import Event, MemberJoined, MemberLeft, Monitor
from coordinator.round import Round
from coordinator.server import start_server
from coordinator.service import ExchangeService
from coordinator.standing import Standing
from privacy.certificates import Authority
from privacy.fixedpoint import Grid, RingVector, decode
from privacy.secagg import Setup, Unmasking, model_hash
from protos.codec import array_to_flower
from protos.memory import settle
from protos.tls import TlsMaterial

__all__ = ["RoundCost", "measure_rounds"]

PATIENT: Final = Deadlines(assemble_s=600.0)
LONGEST_WAIT_S: Final = 3600.0
LIFETIME: Final = dt.timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class RoundCost:
    """One round as the coordinator saw it. Times are seconds, memory bytes.

    Args:
        seconds: from the first task to the unmasked sum.
        with_model: whether members were sent the model first; their contributions are there anyway.
        model_s: of these, until the last member had the model.
        collect_s: of these, until the last contribution was added and receipted.
        consent_s: confirm and unmask, their messages and checks.
        removal_s: rebuilding secrets, removing masks, decoding.
        server_cpu_s: the coordinator's processor time.
        members_cpu_s: that of the process with all simulated members.
        idle_bytes: the coordinator's memory before the round: connections, keys, the model.
        growth_bytes: peak of the round above that.
    """

    seconds: float
    with_model: bool
    model_s: float
    collect_s: float
    consent_s: float
    removal_s: float
    server_cpu_s: float
    members_cpu_s: float
    idle_bytes: int
    growth_bytes: int


def measure_rounds(
    members: int, dimension: int, *, colluders: int, dropouts: int, models: Sequence[bool]
) -> list[RoundCost]:
    """Rounds in which nobody drops; every sum is checked bit by bit.

    Args:
        members: N.
        dimension: coordinates.
        colluders: c.
        dropouts: D.
        models: of each round, whether members are sent the model first.

    Raises:
        WrongResult: if a sum is wrong, or one of the two processes ended.
    """
    rounds = len(models)
    setup = study(members, colluders, dropouts, dimension, rounds=rounds)
    scene = Scene(setup.terms.model_dump_json(), rounds)
    authority = _Authority()
    costs = []
    with _process(coordinate, scene, authority.coordinator()) as server:
        address = _expect(server, "listening")[0]
        with _process(crowd, scene, address, authority.members(setup)) as simulated:
            for number, with_model in enumerate(models, start=1):
                _expect(simulated, "ready", server)
                server.send(with_model)
                figures = _expect(server, "round", simulated)
                simulated.send("go on")
                model_s, receipt_s, cpu_s = _expect(simulated, "marks", server)
                costs.append(_cost(figures[0], model_s, receipt_s, cpu_s))
                if number == rounds:
                    server.send("end")
    return costs


def _cost(figures: dict[str, Any], model_s: float, receipt_s: float, cpu_s: float) -> RoundCost:
    begun_s = figures.pop("begun_s")
    return RoundCost(
        model_s=model_s - begun_s, collect_s=receipt_s - begun_s, members_cpu_s=cpu_s, **figures
    )


class _Authority:
    """A throw-away authority for one measurement."""

    def __init__(self) -> None:
        self._now = dt.datetime.now(dt.UTC)
        self._authority = Authority("benchmark", now=self._now, lifetime=LIFETIME)

    def coordinator(self) -> TlsMaterial:
        issued = self._authority.issue_coordinator(["127.0.0.1"], now=self._now, lifetime=LIFETIME)
        return TlsMaterial(issued.key, issued.certificate, self._authority.certificate)

    def members(self, setup: Setup) -> dict[str, TlsMaterial]:
        every = {}
        for name in setup.names:
            issued = self._authority.issue_member(name, now=self._now, lifetime=LIFETIME)
            every[name] = TlsMaterial(issued.key, issued.certificate, self._authority.certificate)
        return every


@contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Connection]:
    """A fresh interpreter that runs ``target(pipe, *arguments)``; ended when the context is."""
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe()
    process = fresh.Process(target=target, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield here
        process.join(10)
    finally:
        process.kill()
        process.join()
        here.close()


def _expect(pipe: Connection, what: str, other: Connection | None = None) -> tuple[Any, ...]:
    """The next report of a process; ``other`` has nothing to say meanwhile, unless it failed.

    Raises:
        WrongResult: if one of them ended, or reports something else.
    """
    pipes = [pipe] if other is None else [pipe, other]
    ready = wait(pipes, LONGEST_WAIT_S)
    if not ready:
        raise WrongResult(f"no {what} after {LONGEST_WAIT_S:.0f} s")
    speaker = pipe if pipe in ready else pipes[-1]
    try:
        kind, *rest = speaker.recv()
    except EOFError as error:
        raise WrongResult(f"a process ended before {what}; its last words are above") from error
    if kind != what:
        raise WrongResult(f"{kind} instead of {what}: {rest}")
    return tuple(rest)


# The coordinator's process.


def coordinate(pipe: Connection, scene: Scene, tls: TlsMaterial) -> None:
    """The process: the real service, grid, aggregation and rounds.

    Sends ``("listening", address)``, then ``("round", figures)`` whenever it is told whether to
    send the model; ends on "end".
    """
    asyncio.run(_coordinate(pipe, scene, tls))


async def _coordinate(pipe: Connection, scene: Scene, tls: TlsMaterial) -> None:
    setup = scene.setup
    faults: list[Event] = []

    def note(event: Event) -> None:
        if not isinstance(event, MemberJoined | MemberLeft):
            faults.append(event)

    monitor = Monitor(note)
    service = ExchangeService(frozenset(setup.names), monitor)
    server, address = await start_server(service, "127.0.0.1:0", tls)
    pipe.send(("listening", address))
    node_ids = {
        name: COORDINATOR_NODE_ID + index for index, name in enumerate(setup.names, start=1)
    }
    grid = LinkGrid(service, asyncio.get_running_loop(), node_ids)
    settle()
    try:
        await asyncio.to_thread(
            _Study(pipe, setup, grid, monitor, node_ids, faults).run, scene.rounds
        )
    except BaseException as error:
        pipe.send(("failed", repr(error)))
        raise
    finally:
        service.close()
        await server.stop(grace=0.5)


class _Study:
    """Drives rounds as the strategy does."""

    def __init__(
        self,
        pipe: Connection,
        setup: Setup,
        grid: LinkGrid,
        monitor: Monitor,
        node_ids: dict[str, int],
        faults: list[Event],
    ) -> None:
        self._pipe = pipe
        self._terms = setup.terms
        self._grid = grid
        self._node_ids = node_ids
        self._faults = faults
        self._aggregation = SecureAggregation(
            self._terms, grid, monitor, PATIENT, node_ids, Standing()
        )
        self._parameters = model_of(self._terms.dimension)
        self._model = ArrayRecord({"parameters": array_to_flower(self._parameters)})
        self._expected = self._true_sum()

    def run(self, rounds: int) -> None:
        """Every round, once it is told to go."""
        willing = set(self._node_ids)
        self._grid.assemble(willing, least=len(willing), timeout_s=PATIENT.assemble_s)
        model = model_hash(self._parameters)
        try:
            for number in range(1, rounds + 1):
                unmasking, asked = self._aggregation.open(number, 1, model, willing)
                with_model = self._pipe.recv()
                self._pipe.send(("round", self._round(unmasking, asked, with_model)))
            self._pipe.recv()
        finally:
            self._aggregation.close()

    def _round(
        self, unmasking: Unmasking, asked: tuple[str, ...], with_model: bool
    ) -> dict[str, float | int]:
        """One round; its figures.

        Raises:
            WrongResult: if the sum is not exactly that of all members, or somebody misbehaved.
        """
        attempt = unmasking.attempt
        _forget_peak()
        idle_bytes, cpu_s, begun_s = _memory("VmRSS"), _cpu_s(), time.monotonic()
        round_ = Round(
            self._terms, round_number=attempt.round, attempt=attempt.attempt,
            cohort=unmasking.cohort.names, unmasking=unmasking,
        )  # fmt: skip
        messages = self._messages(unmasking, asked, with_model)
        self._grid.expect(task_key(messages[0]), Expectation(least=round_.least, round=round_))
        self._grid.send_and_receive(messages, timeout=self._terms.deadlines.contribute_s)
        round_.close()
        collected_s = time.monotonic()
        self._aggregation.unmask(round_)
        agreed_s = time.monotonic()
        release = round_.release()
        ended_s = time.monotonic()
        figures = {
            "begun_s": begun_s,
            "with_model": with_model,
            "seconds": ended_s - begun_s,
            "consent_s": agreed_s - collected_s,
            "removal_s": ended_s - agreed_s,
            "server_cpu_s": _cpu_s() - cpu_s,
            "idle_bytes": idle_bytes,
            "growth_bytes": _memory("VmHWM") - idle_bytes,
        }
        if self._faults or len(release.contributors) != len(self._node_ids):
            raise WrongResult(f"{len(release.contributors)} contributed; {self._faults[:3]}")
        if not np.array_equal(release.total(), self._expected):
            raise WrongResult("the released sum is not that of the members' vectors")
        return figures

    def _messages(
        self, unmasking: Unmasking, asked: tuple[str, ...], with_model: bool
    ) -> list[Message]:
        attempt = unmasking.attempt
        content = RecordDict(
            {
                "task": ConfigRecord(
                    {
                        "study": self._terms.label,
                        "round": attempt.round,
                        "attempt": attempt.attempt,
                    }
                ),
                "terms": ConfigRecord({"terms_hash": self._terms.hash}),
                "keys": ConfigRecord({"key_set": attempt.key_set}),
            }
        )
        if with_model:
            content["model"] = self._model
        return [
            self._grid.create_message(
                content, "train.contribute", self._node_ids[name], str(attempt.round)
            )
            for name in asked
        ]

    def _true_sum(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The sum of all members' vectors, decoded; decoding maps no two ring sums to one."""
        whole = np.zeros(self._terms.dimension, dtype=np.int64)
        for index in self._node_ids.values():
            whole += vector_of(index - COORDINATOR_NODE_ID, self._terms.dimension)
        ring: RingVector = whole.astype("<u4")
        return decode(ring, Grid.of(self._terms))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory(field: str) -> int:
    """VmRSS or VmHWM (its peak) of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"the kernel does not tell {field}")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
