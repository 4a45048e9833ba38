"""Nodes and coordinators of other versions, over real TLS: they work, or are told what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client_sdk.session import Session
from coordinator.exchange import Answered
from coordinator.monitor import MemberJoined
from privacy.errors import LinkError
from protos import frames
from protos.limits import PROTOCOL
from tests.conftest import Certificates
from tests.test_link import NAMES, ONES, alliance, honest, members, new_round, run, sum_of
from tests.vectors.wire.generate import UNKNOWN


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [(PROTOCOL - 1, "update the node"), (PROTOCOL + 1, "ask the operator to update it")],
)
def test_a_node_of_another_protocol_is_told_which_side_to_update(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, protocol: int, remedy: str
) -> None:
    monkeypatch.setattr("client_sdk.session.PROTOCOL", protocol)

    async def main() -> None:
        async with alliance(certificates) as here:
            session = Session(
                here.address, certificates.member(NAMES[0]), honest,
                most_task_bytes=lambda: 0, software="alliance 9.9.9",
            )  # fmt: skip
            with pytest.raises(LinkError) as refused:
                await session.run()
            assert remedy in str(refused.value)
            assert f"it says {protocol} (alliance 9.9.9)" in str(refused.value)
            assert here.service.connected == []

    run(main)


def with_fields_unknown_here(
    serialized: Callable[[Any], bytes],
) -> Callable[[Any], bytes]:
    """Frames as a side writes them that knows a field more; array bytes travel as they are."""
    return lambda frame: serialized(frame) + (b"" if isinstance(frame, bytes) else UNKNOWN)


@pytest.mark.parametrize("side", ["client_sdk.session", "coordinator.server"])
def test_a_side_of_a_newer_minor_version_works(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(f"{side}.serialized", with_fields_unknown_here(frames.serialized))

    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates):
            round_ = new_round()
            outcomes = await here.ask(round_, least=5)
            assert all(isinstance(outcome, Answered) for outcome in outcomes.values())
            np.testing.assert_array_equal(sum_of(round_), 5 * ONES)
            assert here.faults() == []

    run(main)


def test_the_operator_sees_what_each_node_runs(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates, NAMES[:1]):
            (joined,) = [event for event in here.events if isinstance(event, MemberJoined)]
            assert joined.software == "test"

    run(main)
