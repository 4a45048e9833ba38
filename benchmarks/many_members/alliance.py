"""The coordinator's process and its members' processes: real ports, real sessions, real TLS.

The coordinator has what `alliance-coordinator run` opens to the network: the members' port with a
certificate that renews itself, the registry's say on each stream, and the enrolment port beside it.
Members are `client_sdk.session.Session` objects, some hundreds in one process, which share their
worker threads; each has its own keys, certificate and connection.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.secagg.costs import study
from client_sdk.session import Answer, Session
from coordinator.admittance import Admittance
from coordinator.authority import EnrolmentConfig, ServerCertificate, init_authority
from coordinator.enrolment import start_enrolment
from coordinator.exchange import Answered, Outgoing
from coordinator.monitor import Event, MemberLeft, Monitor
from coordinator.registry import Registry
from coordinator.round import Round
from coordinator.server import start_server
from coordinator.service import ExchangeService
from privacy.certificates import make_signing_request, make_tls_key
from privacy.identity import Identity
from privacy.membership import MembershipRequest, sign_request
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import ArraySpec, TaskKey
from protos.memory import settle
from protos.tls import TlsMaterial

__all__ = ["ALLIANCE", "DIMENSION", "Enrolled", "Process", "process"]

ALLIANCE: Final = "many"
DIMENSION: Final = 100_000
LONGEST_WAIT_S: Final = 600.0
ROUND_S: Final = 300.0
DAY: Final = dt.timedelta(days=1)


class Enrolled:
    """An authority and a registry in a folder, with members whose keys are kept here.

    Args:
        folder: an empty one.
        members: how many; named as the study of that size names them.
    """

    def __init__(self, folder: Path, members: int) -> None:
        self.folder = folder
        self.names = study(members, 1, 1, DIMENSION).names
        now = dt.datetime.now(dt.UTC)
        authority = init_authority(folder / "authority", ALLIANCE, years=1, now=now)
        registry = Registry(folder / "registry.sqlite")
        self.tls: dict[str, TlsMaterial] = {}
        for name in self.names:
            key, identity = make_tls_key(), Identity.generate()
            request = MembershipRequest(
                alliance=ALLIANCE,
                member=name,
                identity=identity.public,
                ledger=Identity.generate().public,
                declared_consumers=10,
                signing_request=make_signing_request(key, name).decode(),
            )
            registry.admit(request, sign_request(identity, request), now=now)
            issued = authority.certify_member(
                name, request.signing_request.encode(), now=now, lifetime=DAY
            )
            self.tls[name] = TlsMaterial(key, issued, authority.certificate)
        stranger = authority.issue_member("stranger", now=now, lifetime=DAY)
        self.stranger = TlsMaterial(stranger.key, stranger.certificate, authority.certificate)


class Process:
    """Another process that does what it is told over a pipe, one thing at a time."""

    def __init__(self, pipe: Connection, process: Any) -> None:
        self._pipe = pipe
        self._process = process

    def ask(self, what: str, *arguments: Any) -> Any:
        """Has it do something; what came of it.

        Raises:
            TimeoutError: if nothing came.
            RuntimeError: if it failed.
        """
        self.tell(what, *arguments)
        return self.answer()

    def tell(self, what: str, *arguments: Any) -> None:
        """Has it do something; `answer` waits for it."""
        self._pipe.send((what, arguments))

    def answer(self) -> Any:
        """What came of what it was told."""
        if not self._pipe.poll(LONGEST_WAIT_S):
            raise TimeoutError("a process does not answer")
        try:
            failed, said = self._pipe.recv()
        except EOFError as error:
            self._process.join(5)
            raise RuntimeError(f"a process ended with {self._process.exitcode}") from error
        if failed:
            raise RuntimeError(said)
        return said

    def kill(self) -> None:
        """Kills it at once."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


@contextmanager
def process(kind: str, *arguments: Any) -> Iterator[Process]:
    """A fresh interpreter that is the ``coordinator``, ``members`` or a ``stranger``."""
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe()
    started = fresh.Process(target=_main, args=(kind, there, arguments), daemon=True)
    started.start()
    there.close()
    try:
        yield Process(here, started)
    finally:
        started.kill()
        started.join()
        here.close()


def _main(kind: str, pipe: Connection, arguments: tuple[Any, ...]) -> None:
    from benchmarks.many_members.strangers import Strangers

    kinds = {"coordinator": _Coordinator, "members": _Members, "strangers": Strangers}
    logging.disable(logging.CRITICAL)  # a thousand sessions tell that their stream broke
    settle()
    asyncio.run(_serve(kinds[kind](*arguments), pipe))


async def _serve(actor: Any, pipe: Connection) -> None:
    """Does what it is told, until the pipe is closed."""
    while True:
        try:
            what, arguments = await asyncio.to_thread(pipe.recv)
        except (EOFError, OSError):
            return
        try:
            pipe.send((False, await getattr(actor, what)(*arguments)))
        except Exception as error:
            pipe.send((True, repr(error)))


class _Measured:
    """What every process can tell of itself."""

    async def memory_bytes(self) -> int:
        return _memory("VmRSS")

    async def peak_bytes(self) -> int:
        """The peak since `forget_peak`."""
        return _memory("VmHWM")

    async def forget_peak(self) -> int:
        """Begins a new peak; the memory in use now."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _memory("VmRSS")

    async def processor_s(self) -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


class _Coordinator(_Measured):
    """The coordinator's process.

    Args:
        folder: with authority and registry.
        members: how many there are.
        address: where to listen; the port may be 0.
    """

    def __init__(self, folder: Path, members: int, address: str) -> None:
        self._terms = study(members, 1, 1, DIMENSION, rounds=100).terms
        self._names = tuple(entry.name for entry in self._terms.roster)
        self._address = address
        self._config = EnrolmentConfig(
            listen="127.0.0.1:0",
            address="127.0.0.1:1",
            hosts=("127.0.0.1",),
            authority=folder / "authority",
            registry=folder / "registry.sqlite",
        )
        self._admittance = Admittance(Registry(self._config.registry))
        self._left = 0
        self._service = ExchangeService(
            frozenset(self._names), Monitor(self._note), admittance=self._admittance
        )
        self._tasks: list[Any] = []
        self._pings = 0

    def _note(self, event: Event) -> None:
        self._left += isinstance(event, MemberLeft)

    async def listen(self) -> tuple[str, str]:
        """Opens both ports; their addresses."""
        certificate = ServerCertificate.of(self._config)
        server, address = await start_server(self._service, self._address, certificate)
        enrolment, other = await start_enrolment(self._config)
        watching = asyncio.create_task(self._admittance.watch(self._service.expel))
        self._tasks = [server, enrolment, watching]
        return address, other

    async def assemble(self, count: int) -> float:
        """Waits until so many are connected; seconds."""
        begun_s = time.monotonic()
        there = await self._service.assemble(self._names, least=count, timeout_s=LONGEST_WAIT_S)
        if len(there) < count:
            raise TimeoutError(f"{len(there)} of {count} members are connected")
        return time.monotonic() - begun_s

    async def assemble_again(self, count: int, cut: int) -> float:
        """Waits until ``cut`` streams were seen to end, and so many are connected again."""
        begun_s = time.monotonic()
        while self._left < cut or len(self._service.connected) < count:
            if time.monotonic() - begun_s > LONGEST_WAIT_S:
                raise TimeoutError(f"{self._left} of {cut} streams ended")
            await asyncio.sleep(0.01)
        self._left = 0
        return time.monotonic() - begun_s

    async def connected(self) -> int:
        """How many members have a stream."""
        return len(self._service.connected)

    async def round(self, number: int) -> float:
        """A model to everybody and a vector from everybody, added and receipted; seconds."""
        round_ = Round(self._terms, round_number=number, attempt=1, cohort=self._names)
        content = wire.Content()
        group = content.arrays.add(name="model")
        group.headers.add(name="parameters", dtype=wire.DTYPE_FLOAT32, shape=[DIMENSION])
        task = Outgoing(content, [np.zeros(DIMENSION, np.float32).tobytes()])
        key = TaskKey(self._terms.label, number, 1, "contribute")
        begun_s = time.monotonic()
        outcomes = await self._service.exchange(
            key, dict.fromkeys(self._names, task), timeout_s=ROUND_S, round_=round_,
            least=len(self._names),
        )  # fmt: skip
        took_s = time.monotonic() - begun_s
        answered = sum(isinstance(one, Answered) for one in outcomes.values())
        if answered < len(self._names) or not (round_._sum == answered).all():
            raise ValueError(f"{answered} of {len(self._names)} answered, or their sum is wrong")
        return took_s

    async def round_trips(self, name: str, seconds: float) -> list[float]:
        """Short tasks to one member, one after the other; seconds each."""
        took_s, until_s = [], time.monotonic() + seconds
        while (begun_s := time.monotonic()) < until_s:
            self._pings += 1
            key = TaskKey(self._terms.label, self._pings, 1, "confirm")
            outcomes = await self._service.exchange(
                key, {name: Outgoing(wire.Content(), [])}, timeout_s=10.0
            )
            if not isinstance(outcomes[name], Answered):
                raise ValueError(f"{name} does not answer")
            took_s.append(time.monotonic() - begun_s)
            await asyncio.sleep(0.005)
        return took_s


class _Members(_Measured):
    """A process of members.

    Args:
        address: the coordinator's.
        tls: by member.
    """

    def __init__(self, address: str, tls: dict[str, TlsMaterial]) -> None:
        self._port = int(address.rpartition(":")[2])
        self._workers = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
        content = wire.Content()
        group = content.arrays.add(name="contribution")
        group.headers.add(name="sum", dtype=wire.DTYPE_UINT32, shape=[DIMENSION])
        self._vector = Answer(content, [np.ones(DIMENSION, np.uint32).tobytes()])
        self._sessions = [self._session(address, material) for material in tls.values()]
        self._running: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        """Begins to connect everybody."""
        self._running = [asyncio.create_task(session.run()) for session in self._sessions]

    async def cut(self) -> int:
        """Cuts every connection to the coordinator without a word; how many."""
        cut = 0
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                if not str(entry.readlink()).startswith("socket:"):
                    continue
                with socket.socket(fileno=os.dup(int(entry.name))) as one:
                    if one.family == socket.AF_UNIX or one.getpeername()[1] != self._port:
                        continue
                    one.shutdown(socket.SHUT_RDWR)
                    cut += 1
        return cut

    def _session(self, address: str, material: TlsMaterial) -> Session:
        session = Session(
            address, material, self._answer, most_task_bytes=lambda: 4 * DIMENSION,
            software="light",
        )  # fmt: skip
        session._worker, session._ahead = self._workers  # two threads each would be two thousand
        return session

    def _answer(self, key: TaskKey, _: wire.Task, __: list[tuple[ArraySpec, bytes]]) -> Answer:
        return self._vector if key.phase == "contribute" else Answer(wire.Content(), [])


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"the kernel does not tell {name}")
