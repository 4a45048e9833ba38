"""Members that drip, stall, fall silent or come and go, over real TLS: no round waits for them.

Deadlines are so long that a round which waited for one of them would outlast the test.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_sdk.session import Answer
from coordinator.arrivals import JOINS
from coordinator.exchange import Absent, Answered, Outcome, Refused
from coordinator.monitor import MemberJoined, MemberLeft, MemberRests
from coordinator.round import Round
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey
from protos.limits import LIMITS, RETRY_KEY
from tests.conftest import Certificates
from tests.test_alliance import local_alliance, terms
from tests.test_link import (
    KEY,
    NAMES,
    ONES,
    TERMS,
    Alliance,
    RawMember,
    alliance,
    members,
    model,
    new_round,
    raw_member,
    run,
    sum_of,
)
from tests.tunnels import Tunnel

import grpc  # isort: skip  (after protos, which closes TLS 1.2)

LONG_S = 600.0
STRAGGLER = NAMES[4]


@pytest.fixture
def quick_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second or two instead of ten and twenty: what is tested is that there is an end."""
    quick = dataclasses.replace(
        LIMITS, keepalive_time_s=2.0, keepalive_timeout_s=1.0, ping_timeout_s=1.0
    )
    monkeypatch.setattr("coordinator.server.LIMITS", quick)
    monkeypatch.setattr("client_sdk.session.LIMITS", quick)


@pytest.fixture
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members may send at once, as where vectors are long."""
    monkeypatch.setattr("coordinator.round.UNDO_BYTES", 0)


async def ask(here: Alliance, round_: Round, *, timeout_s: float = LONG_S) -> dict[str, Outcome]:
    key = KEY._replace(round=round_.round_number)
    return await here.service.exchange(
        key, dict.fromkeys(NAMES, model()), timeout_s=timeout_s, round_=round_, least=4,
        patience_s=0.2, needed=True,
    )  # fmt: skip


@asynccontextmanager
async def dripping(member: RawMember, key: TaskKey = KEY) -> AsyncIterator[None]:
    """A member that sends a few bytes at a time, far more often than the stall limit demands."""

    async def drip() -> None:
        await member.until("task")
        await member.announce(key)
        await member.until("clear")
        for offset in range(0, ONES.nbytes, 400):
            await member.chunk(offset, ONES.tobytes()[offset : offset + 400], key)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_member_that_drips_holds_no_round(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(STRAGGLER)) as slow,
            dripping(slow),
        ):
            round_ = new_round()
            outcomes = await ask(here, round_)
            assert outcomes[STRAGGLER] == Absent(late=True)
            round_.close()
            np.testing.assert_array_equal(sum_of(round_), 4 * ONES)

    run(main)


def test_a_member_that_stalls_every_second_round_holds_none(certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:4]),
            raw_member(here.address, certificates.member(STRAGGLER)) as slow,
        ):

            async def answer_every_second() -> None:
                while True:
                    key = TaskKey.of((await slow.until("task")).id)
                    if key.round % 2:
                        continue
                    await slow.announce(key)
                    await slow.until("clear")
                    for start in range(0, ONES.nbytes, LIMITS.chunk_bytes):
                        part = ONES.tobytes()[start : start + LIMITS.chunk_bytes]
                        await slow.chunk(start, part, key)

            answering = asyncio.create_task(answer_every_second())
            for number in range(1, 7):
                round_ = Round(TERMS, round_number=number, attempt=1, cohort=NAMES)
                await ask(here, round_)
                assert len(round_.contributions) >= 4
            answering.cancel()

    run(main)


def test_members_that_drip_do_not_keep_others_from_sending(
    certificates: Certificates, one_after_the_other: None
) -> None:
    """Both places are taken by members that stay just inside the stall limit."""

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            raw_member(here.address, certificates.member(NAMES[3])) as first,
            raw_member(here.address, certificates.member(NAMES[4])) as second,
            dripping(first),
            dripping(second),
        ):
            round_ = new_round()
            asking = asyncio.create_task(
                here.service.exchange(
                    KEY, dict.fromkeys(NAMES, model()), timeout_s=10, round_=round_, least=3
                )
            )
            while len(round_._uploads) < 2:
                await asyncio.sleep(0.01)
            async with members(here, certificates, NAMES[:3]):
                outcomes = await asking
            assert [type(outcomes[name]) for name in NAMES] == [Answered] * 3 + [Refused] * 2
            np.testing.assert_array_equal(sum_of(round_), 3 * ONES)

    run(main)


def test_a_round_that_cannot_succeed_is_over_at_once(certificates: Certificates) -> None:
    def refuse(key: TaskKey, task: wire.Task, arrays: Any) -> Answer:
        return Answer(wire.Content(), [], (3, "no"))

    async def main() -> None:
        async with (
            alliance(certificates) as here,
            members(here, certificates, NAMES[:2], refuse),
            raw_member(here.address, certificates.member(NAMES[2])),
            raw_member(here.address, certificates.member(NAMES[3])),
            raw_member(here.address, certificates.member(NAMES[4])),
        ):
            outcomes = await ask(here, new_round())
            assert [outcomes[name] for name in NAMES[2:]] == [Absent(late=False)] * 3
            assert here.service._late == set()

    run(main)


def test_a_half_open_stream_holds_no_round(certificates: Certificates) -> None:
    async def main() -> None:
        async with alliance(certificates) as here, members(here, certificates, NAMES[:4]):
            tunnel = Tunnel(here.address)
            with tunnel.open() as address:
                async with raw_member(address, certificates.member(STRAGGLER)):
                    tunnel.halt()
                    round_ = new_round()
                    outcomes = await ask(here, round_)
                    assert outcomes[STRAGGLER] == Absent(late=True)
                    round_.close()
                    np.testing.assert_array_equal(sum_of(round_), 4 * ONES)

    run(main)


def test_a_node_leaves_a_stream_that_is_half_open_for_a_new_one(
    certificates: Certificates, quick_keepalive: None
) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            tunnel = Tunnel(here.address)
            with tunnel.open() as address:
                behind = Alliance(here.service, address, here.events)
                async with members(behind, certificates, NAMES[4:]):
                    tunnel.halt()
                    while sum(isinstance(one, MemberJoined) for one in here.events) < 2:
                        await asyncio.sleep(0.05)
                    assert tunnel.connections >= 2
                    outcomes = await here.ask(new_round(), least=1)
                    assert isinstance(outcomes[STRAGGLER], Answered)

    run(main)


def test_the_coordinator_ends_a_stream_that_is_half_open(
    certificates: Certificates, quick_keepalive: None
) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            tunnel = Tunnel(here.address)
            with tunnel.open() as address:
                async with raw_member(address, certificates.member(STRAGGLER)):
                    tunnel.halt()
                    while STRAGGLER in here.service.connected:
                        await asyncio.sleep(0.05)
                    assert [one for one in here.events if isinstance(one, MemberLeft)]

    run(main)


def test_a_member_that_comes_and_goes_is_told_when_to_come_back(
    certificates: Certificates,
) -> None:
    async def main() -> None:
        async with alliance(certificates) as here:
            tls = certificates.member(STRAGGLER)
            for _ in range(JOINS):
                async with raw_member(here.address, tls):
                    pass
            for _ in range(2):  # and not each time for longer
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    async with raw_member(here.address, tls):
                        pass
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "connects too often" in str(refused.value.details())
                (wait_ms,) = [v for k, v in refused.value.trailing_metadata() if k == RETRY_KEY]
                assert 0 < int(wait_ms) <= 5000
            (rest,) = [one for one in here.events if isinstance(one, MemberRests)]
            assert (rest.member, rest.seconds) == (STRAGGLER, 5.0)
            async with members(here, certificates, NAMES[:1]):  # nobody else is kept away
                pass
            async with members(here, certificates, NAMES[4:]):  # it comes back by itself
                assert STRAGGLER in here.service.connected

    run(main)


def test_a_node_that_is_stopped_holds_no_round_rests_and_recovers(tmp_path: Path) -> None:
    """SIGSTOP: its streams stay up, and it says nothing."""
    study = terms(rounds=4000, spare=400)
    study = study.model_copy(
        update={
            "privacy": study.privacy.model_copy(update={"noise_multiplier": 120.0}),
            "deadlines": study.deadlines.model_copy(
                update={"contribute_s": LONG_S, "unmask_s": LONG_S, "keys_s": LONG_S}
            ),
        }
    )
    stopped = "member-4"
    story: list[str] = []
    with local_alliance(tmp_path, study) as here:
        for event in here.events():
            kind, state = event["event"], len(story)
            if kind == "RoundClosed" and state == 0 and event["round"] == 3:
                os.kill(here.nodes[stopped].pid, signal.SIGSTOP)
                story.append("stopped")
            if kind == "RoundClosed" and state == 1 and stopped in event["missing"]:
                story.append("missed")
            if kind == "MemberRests" and state == 2:
                assert event["member"] == stopped
                assert "missed" in event["sentence"]
                os.kill(here.nodes[stopped].pid, signal.SIGCONT)
                story.append("rests")
            if kind == "RoundClosed" and state == 3 and stopped in event["contributors"]:
                story.append("recovered")
                break
    assert story == ["stopped", "missed", "rests", "recovered"]
