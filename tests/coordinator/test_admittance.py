"""Who has a stream: a real port, real sessions, and a registry that changes under them."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from client_sdk.credentials import Credentials
from client_sdk.joining import install, own_request
from client_sdk.reach import server_facts
from client_sdk.session import Answer, Session
from coordinator.admittance import Admittance
from coordinator.authority import ServerCertificate
from coordinator.exchange import Answered, Outgoing
from coordinator.monitor import Event, MemberJoined, MemberLeft, Monitor
from coordinator.server import start_server
from coordinator.service import ExchangeService
from privacy.certificates import Authority, make_signing_request
from privacy.errors import LinkError
from privacy.identity import Identity
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import ArraySpec, TaskKey
from protos.tls import TlsMaterial
from tests.enrolled import HOUR, Clock, Enrolled, enrolled, node_config
from tests.tunnels import connect_proxy

NAMES = frozenset({"harbour", "meadow"})
DAY = dt.timedelta(days=1)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


class Port:
    """A coordinator's port whose certificate renews itself and whose registry decides."""

    def __init__(self, here: Enrolled, clock: Clock) -> None:
        self.here = here
        self.events: list[Event] = []
        self.admittance = Admittance(here.registry, clock=clock)
        self.service = ExchangeService(
            NAMES,
            Monitor(self.events.append),
            reconnect_grace_s=5.0,
            admittance=self.admittance,
        )
        self.certificate = ServerCertificate(
            here.authority, ("127.0.0.1",), lifetime=DAY, clock=clock
        )
        self.address = ""

    def look(self) -> None:
        """What `Admittance.watch` does every few seconds."""
        self.admittance.look()
        self.service.expel()

    async def until(self, kind: type[Event], count: int = 1) -> None:
        while sum(isinstance(event, kind) for event in self.events) < count:
            await asyncio.sleep(0.01)

    async def ask(self, round_number: int) -> list[str]:
        tasks = dict.fromkeys(self.service.connected, Outgoing(wire.Content(), []))
        key = TaskKey("study", round_number, 1, "confirm")
        outcomes = await self.service.exchange(key, tasks, timeout_s=20)
        return [name for name, outcome in outcomes.items() if isinstance(outcome, Answered)]


@asynccontextmanager
async def port(here: Enrolled, clock: Clock | None = None) -> AsyncIterator[Port]:
    one = Port(here, clock or Clock())
    server, one.address = await start_server(one.service, "127.0.0.1:0", one.certificate)
    try:
        yield one
    finally:
        await server.stop(grace=0)


def member(here: Enrolled, name: str, *, now: dt.datetime | None = None) -> Credentials:
    """A member that was admitted by its request."""
    path = here.new_node(name)
    config = node_config(path)
    request, signed = own_request(config, path.parent)
    here.registry.admit(request, signed, now=here.clock())
    certificate = here.authority.certify_member(
        name, request.signing_request.encode(), now=now or here.clock(), lifetime=DAY
    )
    install(config, here.authority.certificate, certificate)
    return Credentials(
        config.tls,
        member=name,
        identity=Identity.from_pem(config.identity.read_bytes()),
        enrolment=here.address,
    )


def answer(key: TaskKey, task: wire.Task, arrays: list[tuple[ArraySpec, bytes]]) -> Answer:
    return Answer(wire.Content(), [])


def session(
    here: Port, tls: TlsMaterial | Callable[[], TlsMaterial], proxy: str | None = None
) -> Session:
    return Session(
        here.address, tls, answer, most_task_bytes=lambda: 0, software="test", proxy=proxy
    )


@asynccontextmanager
async def running(one: Session) -> AsyncIterator[Awaitable[None]]:
    task = asyncio.create_task(one.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_revoked_member_s_stream_ends_and_it_is_told_why(tmp_path: Path) -> None:
    with enrolled(tmp_path) as operator:
        harbour, meadow = member(operator, "harbour"), member(operator, "meadow")

        async def main() -> None:
            async with (
                port(operator) as here,
                running(session(here, harbour.material)) as ending,
                running(session(here, meadow.material)),
            ):
                await here.until(MemberJoined, 2)
                operator.registry.revoke("harbour", "left the alliance", now=operator.clock())
                here.look()
                with pytest.raises(LinkError, match="harbour was revoked: left the alliance"):
                    await ending
                assert here.service.connected == ["meadow"]
                assert await here.ask(1) == ["meadow"]

        run(main)


def test_the_registry_is_looked_at_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator import admittance

    assert admittance.POLL_S + 5 < admittance.OLDEST_S < 60
    monkeypatch.setattr(admittance, "POLL_S", 0.05)
    with enrolled(tmp_path) as operator:
        harbour = member(operator, "harbour")

        async def main() -> None:
            async with port(operator) as here, running(session(here, harbour.material)) as ending:
                await here.until(MemberJoined)
                watching = asyncio.create_task(here.admittance.watch(here.service.expel))
                operator.registry.revoke("harbour", "stolen", now=operator.clock())
                with pytest.raises(LinkError, match="revoked: stolen"):
                    await ending
                watching.cancel()

        run(main)


@pytest.mark.parametrize("bad", ["none", "unadmitted", "other_authority", "expired", "early"])
def test_a_bad_certificate_gets_no_stream(tmp_path: Path, bad: str) -> None:
    with enrolled(tmp_path) as operator:
        harbour = member(operator, "harbour").material()
        authority = operator.authority
        if bad == "other_authority":
            authority = Authority("test", now=operator.clock(), lifetime=DAY)
        name = "meadow" if bad == "unadmitted" else "harbour"
        ago = {"expired": 2 * DAY, "early": -HOUR}.get(bad, dt.timedelta())
        certificate = authority.certify_member(
            name,
            make_signing_request(harbour.key, name),
            now=operator.clock() - ago,
            lifetime=DAY,
        )
        shown = harbour._replace(certificate=certificate)

        async def main() -> None:
            async with port(operator) as here:
                if bad == "none":
                    server_facts(here.address, proxy=None, timeout_s=10)
                    await asyncio.sleep(0.2)
                elif bad == "unadmitted":
                    with pytest.raises(LinkError, match="meadow is not admitted"):
                        await session(here, shown).run()
                else:
                    async with running(session(here, shown)):
                        await asyncio.sleep(0.5)
                assert here.service.connected == []
                async with running(session(here, harbour)):  # the port is in order
                    await here.until(MemberJoined)

        run(main)


def test_somebody_else_s_certificate_is_of_no_use_without_its_key(tmp_path: Path) -> None:
    with enrolled(tmp_path) as operator:
        harbour, meadow = member(operator, "harbour"), member(operator, "meadow")
        mixed = harbour.material()._replace(certificate=meadow.material().certificate)

        async def main() -> None:
            async with port(operator) as here:
                async with running(session(here, mixed)):
                    await asyncio.sleep(0.5)
                assert here.service.connected == []

        run(main)


def test_a_replaced_tls_key_is_refused_and_the_new_one_taken_in_mid_study(tmp_path: Path) -> None:
    with enrolled(tmp_path) as operator:
        harbour = member(operator, "harbour")
        old = harbour.material()

        async def main() -> None:
            async with port(operator) as here:
                one = session(here, harbour.material)
                async with running(one):
                    await here.until(MemberJoined)
                    assert await here.ask(1) == ["harbour"]
                    await asyncio.to_thread(harbour.renew, new_key=True)
                    one.reconnect()
                    assert await here.ask(2) == ["harbour"]  # the round waits for the new stream
                    await here.until(MemberJoined, 2)
                    here.look()
                    assert await here.ask(3) == ["harbour"]
                    assert here.service.connected == ["harbour"]
                await here.until(MemberLeft, 2)
                async with running(session(here, old)):  # who has the old key
                    await asyncio.sleep(0.5)
                    assert here.service.connected == []

        run(main)


def test_a_stream_ends_with_its_certificate_s_time_and_comes_back_with_another(
    tmp_path: Path,
) -> None:
    clock = Clock()
    with enrolled(tmp_path) as operator:
        harbour = member(operator, "harbour", now=operator.clock() - 12 * HOUR)

        async def main() -> None:
            async with port(operator, clock) as here, running(session(here, harbour.material)):
                await here.until(MemberJoined)
                await asyncio.to_thread(harbour.renew)  # and nobody tells the session
                here.look()
                assert here.service.connected == ["harbour"]
                clock.ahead = 13 * HOUR
                here.look()
                await here.until(MemberLeft)
                await here.until(MemberJoined, 2)
                here.look()
                assert await here.ask(1) == ["harbour"]

        run(main)


def test_the_coordinator_s_own_certificate_is_renewed_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    with enrolled(tmp_path) as operator:
        harbour = member(operator, "harbour")

        async def main() -> None:
            async with port(operator, clock) as here, running(session(here, harbour.material)):
                await here.until(MemberJoined)
                first = await asyncio.to_thread(shown, here)
                clock.ahead = dt.timedelta(hours=17)
                assert await asyncio.to_thread(shown, here) != first
                assert here.service.connected == ["harbour"]

        run(main)


def test_a_session_goes_through_its_proxy(tmp_path: Path) -> None:
    seen: list[str] = []
    with enrolled(tmp_path) as operator, connect_proxy(seen) as proxy:
        harbour = member(operator, "harbour")

        async def main() -> None:
            async with port(operator) as here:
                async with running(session(here, harbour.material, proxy)):
                    await here.until(MemberJoined)
                    assert await here.ask(1) == ["harbour"]
                assert seen == [here.address]

        run(main)


def shown(here: Port) -> bytes:
    return server_facts(here.address, proxy=None, timeout_s=10).certificate


def test_a_registry_that_cannot_be_read_lets_nobody_in_and_ends_nobody_s_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enrolled(tmp_path) as operator:
        harbour = member(operator, "harbour")
        certificate = harbour.material().certificate
        admittance = Admittance(operator.registry)
        assert admittance.refusal("harbour", certificate) is None
        monkeypatch.setattr("coordinator.admittance.OLDEST_S", -1.0)
        refusal = admittance.refusal("harbour", certificate)
        assert refusal is not None
        assert not refusal.lasting
