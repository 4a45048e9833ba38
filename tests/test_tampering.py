"""Bytes that are changed between a member and the coordinator (ATTACKS N3, N4): real TLS."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from client_sdk.session import Session
from coordinator.exchange import Answered
from protos.tls import TlsMaterial
from tests.conftest import Certificates
from tests.test_link import (
    DIMENSION,
    NAMES,
    ONES,
    alliance,
    honest,
    members,
    new_round,
    run,
    sum_of,
)
from tests.tunnels import listening

Change = Callable[[bytes, bytes], bytes]
"""A part and the one after it, in the order sent; what travels instead."""

CHANGES: dict[str, Change] = {
    "flip": lambda first, second: bytes([first[0] ^ 1]) + first[1:] + second,
    "truncate": lambda first, second: first[: len(first) // 2] + second,
    "reorder": lambda first, second: second + first,
    "duplicate": lambda first, second: first + first + second,
    "replay": lambda first, second: first + second + first,
    "insert": lambda first, second: first + bytes(7) + second,
}
UNTOUCHED = 200_000
"""Bytes that pass before the change: greetings, and the beginning of an upload."""


class Relay:
    """Passes bytes on, and changes them once in its first connection."""

    def __init__(self, target: str, change: Change) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._change = change
        self.connections = 0
        self.changed = 0

    def __call__(self, client: socket.socket) -> None:
        self.connections += 1
        first = self.connections == 1
        with socket.create_connection(self._target) as server:
            down = threading.Thread(target=self._pass, args=(server, client), daemon=True)
            down.start()
            self._tamper(client, server) if first else self._pass(client, server)
            for one in (client, server):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            down.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(1 << 14):
                sink.sendall(part)

    def _tamper(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while part := client.recv(1 << 14):
                passed += len(part)
                if passed > UNTOUCHED and not self.changed:
                    self.changed += 1
                    part = self._change(part, client.recv(1 << 14))
                server.sendall(part)


@pytest.mark.parametrize("name", CHANGES)
def test_changed_bytes_end_the_stream_and_everybody_counts_once(
    certificates: Certificates, name: str
) -> None:
    async def main() -> None:
        async with alliance(certificates, grace_s=50) as here:
            relay = Relay(here.address, CHANGES[name])
            with listening(relay) as address:
                tls: TlsMaterial = certificates.member(NAMES[0])
                session = Session(
                    address, tls, honest, most_task_bytes=lambda: 4 * DIMENSION, software="test"
                )
                running = asyncio.create_task(session.run())
                async with members(here, certificates, NAMES[1:]):
                    await here.service.assemble(NAMES, least=len(NAMES), timeout_s=10)
                    round_ = new_round()
                    outcomes = await here.ask(round_, timeout_s=50, least=5)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                assert all(isinstance(one, Answered) for one in outcomes.values())
                np.testing.assert_array_equal(sum_of(round_), 5 * ONES)
                assert (relay.changed, relay.connections) == (1, 2)
                assert here.faults() == []  # TLS saw it, and no frame came of it

    run(main)
