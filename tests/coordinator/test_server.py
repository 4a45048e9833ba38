"""The members' port, where a process of its own is needed to see what it does to one."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, resource, sys
from coordinator.monitor import Monitor
from coordinator.server import start_server
from coordinator.service import ExchangeService
from protos.tls import TlsMaterial
from tests.conftest import Certificates

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    service = ExchangeService(frozenset(), Monitor(lambda _: None))
    server, _ = await start_server(service, "127.0.0.1:0", Certificates().coordinator)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await server.stop(None)
    sys.exit(soft < min(hard, 4096))

asyncio.run(main())
"""


def test_a_thousand_streams_are_not_too_many_files() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
