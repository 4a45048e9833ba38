"""Strangers at a coordinator's door: real ports, real TLS, real processes (ATTACKS N5, N6).

`benchmarks.many_members` has the same at full size, with the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.many_members.alliance import Enrolled, Process, process
from benchmarks.many_members.strangers import BODIES, HEADERS_WITHOUT_END
from client_sdk.enrolment import Enrolment

MEMBERS = 6
MOST_GROWTH = 24 << 20
"""`benchmarks.many_members` holds 16 MiB; on a busy machine more waits to be read."""


class Door:
    """A coordinator with members, and strangers before it."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.here = Enrolled(folder, MEMBERS)
        self.coordinator = running.enter_context(
            process("coordinator", folder, MEMBERS, "127.0.0.1:0")
        )
        self.members_port, self.enrolment_port = self.coordinator.ask("listen")
        self.members: Process = running.enter_context(
            process("members", self.members_port, self.here.tls)
        )
        self.members.ask("connect")
        self.coordinator.ask("assemble", MEMBERS)
        ports = (int(one.rpartition(":")[2]) for one in (self.members_port, self.enrolment_port))
        self.strangers = running.enter_context(process("strangers", *ports, self.here.stranger))

    def greet(self) -> str:
        """What an honest node is told at the enrolment port."""
        authority = self.here.stranger.authority
        with Enrolment(self.enrolment_port, authority, proxy=None) as service:
            return service.greet().alliance

    def all_are_well(self) -> bool:
        """Whether members are connected and answer, and newcomers are greeted."""
        trips = self.coordinator.ask("round_trips", self.here.names[0], 0.2)
        connected = self.coordinator.ask("connected")
        return bool(trips) and connected == MEMBERS and self.greet() == "many"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with ExitStack() as running:
        yield Door(tmp_path_factory.mktemp("door"), running)


@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind != HEADERS_WITHOUT_END])
def test_a_gibibyte_before_authentication_is_refused_early(door: Door, kind: str) -> None:
    before = door.coordinator.ask("forget_peak")
    door.strangers.ask("body", kind)
    assert door.coordinator.ask("peak_bytes") - before <= MOST_GROWTH
    assert door.all_are_well()


@pytest.mark.parametrize(
    "attack",
    [
        ("half_open", "members", 300),
        ("half_open", "enrolment", 300),
        ("slow", "members", 100),
        ("resets", 2000),
        ("trickle", 120),
    ],
    ids=lambda attack: "-".join(map(str, attack)),
)
def test_strangers_keep_nobody_from_the_coordinator(
    door: Door, attack: tuple[str | int, ...]
) -> None:
    door.strangers.ask("begin", *attack)
    try:
        assert door.all_are_well()
    finally:
        done = door.strangers.ask("end")
    assert done > 0


def test_all_members_come_back_when_every_connection_is_cut(door: Door) -> None:
    for _ in range(3):  # gRPC has died of this
        assert door.members.ask("cut") == MEMBERS
        door.coordinator.ask("assemble_again", MEMBERS, MEMBERS)
    assert door.all_are_well()
