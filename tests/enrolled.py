"""An authority, a registry and a real enrolment port, for tests on either side of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client_sdk.config import NodeConfig
from client_sdk.joining import NewMember, init
from coordinator.authority import EnrolmentConfig, init_authority, open_authority, utc_now
from coordinator.enrolment import start_enrolment
from coordinator.registry import Registry
from privacy.certificates import certificate_facts
from privacy.membership import Invitation
from protos.config import read_config

HOUR = dt.timedelta(hours=1)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def __call__(self) -> dt.datetime:
        return utc_now() + self.ahead


class Enrolled:
    """One alliance's operator, with its enrolment port open at ``address``."""

    def __init__(self, folder: Path, clock: Callable[[], dt.datetime]) -> None:
        self.folder = folder
        self.clock = clock
        init_authority(folder / "authority", "test", years=1, now=clock())
        self.config = EnrolmentConfig(
            listen="127.0.0.1:0",
            address="127.0.0.1:1",
            hosts=("127.0.0.1", "localhost"),
            authority=folder / "authority",
            registry=folder / "registry.sqlite",
        )
        self.registry = Registry(self.config.registry)
        self.authority = open_authority(self.config.authority, now=clock())
        self.address = ""

    @contextmanager
    def open(self) -> Iterator[None]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            server, self.address = await start_enrolment(self.config, clock=self.clock)
            ready.set()
            await stop.wait()
            await server.stop(grace=0)

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            assert ready.wait(30)
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    def invite(self, name: str, *, hours: float = 1, replace: bool = False) -> Invitation:
        expires = (self.clock() + hours * HOUR).replace(microsecond=0)
        return Invitation(
            name,
            self.address,
            expires,
            self.registry.invite(name, expires=expires, replace=replace),
            certificate_facts(self.authority.certificate).fingerprint,
        )

    def new_node(self, name: str, *, folder: Path | None = None, proxy: str | None = None) -> Path:
        """A node's folder after `alliance-node init`; its node.toml."""
        folder = folder or self.folder / name
        init(
            folder,
            NewMember(
                alliance="test",
                member=name,
                coordinator="127.0.0.1:1",
                declared_consumers=20,
                contract="contract.json",
                enrolment=self.address,
                data="data.csv",
                proxy=proxy,
            ),
        )
        return folder / "node.toml"


def node_config(path: Path) -> NodeConfig:
    return read_config(path, NodeConfig).relative_to(path.parent)


@contextmanager
def enrolled(folder: Path, clock: Callable[[], dt.datetime] = utc_now) -> Iterator[Enrolled]:
    here = Enrolled(folder, clock)
    with here.open():
        yield here
