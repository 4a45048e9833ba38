"""Secure aggregation over the real link: real nodes, one of which misbehaves in one phase."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict

from client_sdk.app import answerer, make_client_app
from client_sdk.contribution import contribution
from client_sdk.dataset import DataSource, load
from client_sdk.node import Node
from client_sdk.policy import Policy
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from client_sdk.session import Answer, Session
from client_sdk.sqlite_journal import SqliteJournal
from coordinator.aggregation import SecureAggregation
from coordinator.config import Deadlines
from coordinator.grid import Expectation, LinkGrid, task_key
from coordinator.monitor import Event, KeysFailed, MemberFaulted, Monitor
from coordinator.round import Release, Round
from coordinator.server import start_server
from coordinator.service import ExchangeService
from coordinator.standing import Standing
from privacy.errors import RoundFailed
from privacy.fixedpoint import SHARE_SCALE, Grid
from privacy.secagg import MaskingMember, model_hash
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, array_to_flower
from tests.conftest import Certificates, identity, make_contract, make_terms

SETTINGS = {"model": "logistic"}
DIMENSION = dimension(make_contract(), PropensitySettings.model_validate(SETTINGS))
TERMS = make_terms(
    members=5, dimension=DIMENSION, settings=SETTINGS, declared=10, noise_multiplier=4.0,
    rounds=24, max_attempts=30,
    deadlines={"keys_s": 50.0, "contribute_s": 50.0, "unmask_s": 50.0, "grace_s": 1.0,
               "keys_grace_s": 0.5},
)  # fmt: skip
NAMES = tuple(entry.name for entry in TERMS.roster)
BAD = "member-4"
DEADLINES = Deadlines(assemble_s=5.0)

Tamper = Callable[[TaskKey, Answer], Answer]


class Study:
    """A coordinator over real nodes, driven round by round from a thread of its own."""

    def __init__(
        self, service: ExchangeService, grid: LinkGrid, events: list[Event], nodes: dict[str, Node]
    ) -> None:
        self.service = service
        self.events = events
        self.nodes = nodes
        self.willing = set(NAMES)
        self.parameters = np.zeros(DIMENSION, np.float32)
        self._grid = grid
        self._ids = {name: number for number, name in enumerate(NAMES, start=2)}
        self.aggregation = SecureAggregation(
            TERMS, grid, Monitor(events.append), DEADLINES, self._ids, Standing()
        )

    def faults(self) -> str:
        return "\n".join(
            f"{one.member}: {one.sentence}" for one in self.events if isinstance(one, MemberFaulted)
        )

    def round(self, number: int, attempt: int = 1) -> Release:
        model = model_hash(self.parameters)
        unmasking, asked = self.aggregation.open(number, attempt, model, self.willing)
        round_ = Round(
            TERMS, round_number=number, attempt=attempt, cohort=unmasking.cohort.names,
            unmasking=unmasking,
        )  # fmt: skip
        content = RecordDict(
            {
                "task": ConfigRecord({"study": TERMS.label, "round": number, "attempt": attempt}),
                "terms": ConfigRecord({"terms_hash": TERMS.hash}),
                "keys": ConfigRecord({"key_set": unmasking.attempt.key_set}),
                "model": ArrayRecord({"parameters": array_to_flower(self.parameters)}),
            }
        )
        messages = [
            self._grid.create_message(content, "train.contribute", self._ids[name], str(number))
            for name in asked
        ]
        expectation = Expectation(
            least=round_.least, round=round_, patience_s=TERMS.deadlines.grace_s, needed=True
        )
        self._grid.expect(task_key(messages[0]), expectation)
        replies = self._grid.send_and_receive(messages, timeout=TERMS.deadlines.contribute_s)
        for name, reply in zip(asked, replies, strict=True):
            if reply.has_error():
                self.aggregation.lost(name)
        round_.close()
        self.aggregation.unmask(round_)
        return round_.release()


def open_node(folder: Path, name: str) -> Node:
    data = folder / f"{name}.csv"
    rows = [f"h{index},{index % 2},{index * 50},{index},A" for index in range(10)]
    data.write_text("household,responded,spend,trips,kind\n" + "\n".join(rows) + "\n")
    journal = SqliteJournal(
        folder / f"{name}.sqlite", origin=f"test/member/{name}", key=identity(f"{name}'s ledger")
    )
    journal.adopt(Policy().budget.rule())
    journal.approve(
        TERMS, profile=dict.fromkeys(range(1, 6), 1.0), most_studies=1, signature=bytes(64)
    )
    contract = make_contract()
    return Node(
        TERMS.entry(name), Policy(), contract, load(DataSource(path=data), contract), journal,
        lambda terms, parameters: None, identity(name),
    )  # fmt: skip


@asynccontextmanager
async def study(
    folder: Path, certificates: Certificates, tamper: Tamper | None = None
) -> AsyncIterator[Study]:
    events: list[Event] = []
    service = ExchangeService(frozenset(NAMES), Monitor(events.append), reconnect_grace_s=0.3)
    server, address = await start_server(service, "127.0.0.1:0", certificates.coordinator)
    ids = {name: number for number, name in enumerate(NAMES, start=2)}
    grid = LinkGrid(service, asyncio.get_running_loop(), ids)
    nodes = {name: open_node(folder, name) for name in NAMES}
    running = []
    for name, node in nodes.items():
        context = Context(
            run_id=1, node_id=ids[name], node_config={}, state=RecordDict(), run_config={}
        )
        honest = answerer(make_client_app(lambda _, node=node: node), context)
        answer = honest
        if tamper is not None and name == BAD:
            answer = lambda key, task, arrays, honest=honest: tamper(  # noqa: E731
                key, honest(key, task, arrays)
            )
        session = Session(
            address, certificates.member(name), answer,
            most_task_bytes=lambda: 4 * DIMENSION, software="test",
        )  # fmt: skip
        running.append(asyncio.create_task(session.run()))
    assert len(await service.assemble(NAMES, least=5, timeout_s=10)) == 5
    here = Study(service, grid, events, nodes)
    try:
        yield here
    finally:
        here.aggregation.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.stop(grace=0)


def play(
    folder: Path,
    certificates: Certificates,
    main: Callable[[Study], None],
    tamper: Tamper | None = None,
) -> Study:
    async def body() -> Study:
        async with study(folder, certificates, tamper) as here:
            await asyncio.wait_for(asyncio.to_thread(main, here), 60)
            return here

    return asyncio.run(body())


def changed(answer: Answer, **values: bytes) -> Answer:
    """The answer with other bytes in its signed record."""
    content = wire.Content()
    content.CopyFrom(answer.content)
    for record in content.configurations:
        if record.name == "signed":
            for key, value in values.items():
                record.values[key].blob = value
    return Answer(content, answer.buffers, answer.refusal)


def signed(answer: Answer, key: str) -> bytes:
    (record,) = [one for one in answer.content.configurations if one.name == "signed"]
    return record.values[key].blob


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_sums_are_those_of_the_plain_contributions(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: dict[int, dict[str, np.ndarray]] = {}
    whole = MaskingMember.mask

    def watched(self: MaskingMember, attempt: Any, vector: np.ndarray) -> bytes:
        plain.setdefault(attempt.round, {})[NAMES[self._index - 1]] = vector.copy()
        return whole(self, attempt, vector)

    monkeypatch.setattr(MaskingMember, "mask", watched)
    releases: list[Release] = []
    play(
        tmp_path, certificates, lambda here: releases.extend(here.round(n) for n in range(1, 21))
    )  # more than one run of key sets
    step = Grid.of(TERMS).step
    for release in releases:
        assert len(release.contributors) >= 4  # a busy machine may make one late
        vectors = [plain[release.round][name] for name in release.contributors]
        total = np.sum(vectors, axis=0, dtype=np.uint32)
        np.testing.assert_array_equal(release.total(), total.view(np.int32) * step)
        assert 0.1 * SHARE_SCALE < np.std(release.total() / step) < 100 * SHARE_SCALE


TAMPERS: dict[str, Callable[[Answer], Answer]] = {
    "a signature that is not one": lambda answer: changed(
        answer, signature=flipped(signed(answer, "signature"))
    ),
    "a signature of another length": lambda answer: changed(answer, signature=b"x"),
    "no signature": lambda answer: Answer(
        wire.Content(arrays=answer.content.arrays), answer.buffers
    ),
    "a refusal": lambda answer: Answer(wire.Content(), [], (99, "cannot")),
}


@pytest.mark.parametrize("tampering", TAMPERS)
@pytest.mark.parametrize(
    "phase", ["advertise", "share", "deliver", "contribute", "confirm", "unmask"]
)
def test_a_member_that_misbehaves_is_named_and_the_round_goes_on(
    tmp_path: Path, certificates: Certificates, phase: str, tampering: str
) -> None:
    def tamper(key: TaskKey, answer: Answer) -> Answer:
        return TAMPERS[tampering](answer) if key.phase == phase else answer

    releases: list[Release] = []
    here = play(tmp_path, certificates, lambda here: releases.append(here.round(1)), tamper)
    survives = phase in ("confirm", "unmask")
    assert releases[0].contributors == (NAMES if survives else NAMES[:4])
    if tampering != "a refusal":
        assert f"{BAD}: " in here.faults()
        assert f"phase {phase}" in here.faults()
        assert all(line.startswith(BAD) for line in here.faults().splitlines())


@pytest.mark.parametrize("phase", ["share", "unmask"])
def test_a_body_that_is_cut_short_is_named(
    tmp_path: Path, certificates: Certificates, phase: str
) -> None:
    """Signed all the same: by a member that makes mistakes with its own key."""
    key_of = identity(BAD)

    def tamper(key: TaskKey, answer: Answer) -> Answer:
        if key.phase != phase:
            return answer
        member = members[0].nodes[BAD].masking(TERMS)
        body = signed(answer, "body")[:-1]
        run = member._runs[-1]
        where = {"key_sets": run.key_sets, "cohort": run.keys}
        if phase == "unmask":
            (use,) = run.uses.values()
            where = {"attempt": use.attempt, "cohort": run.cohort_hash}
        statement = member._setup.statement(phase, 5, body, **where)
        return changed(answer, body=body, signature=member._setup.sign(key_of, phase, statement))

    members: list[Study] = []

    def main(here: Study) -> None:
        members.append(here)
        assert here.round(1).contributors == (NAMES if phase == "unmask" else NAMES[:4])

    here = play(tmp_path, certificates, main, tamper)
    assert f"phase {phase}: a message body is too short" in here.faults()


def test_a_false_share_is_left_out_and_its_revealer_named(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MaskingMember.unmask

    def unmask(self: MaskingMember, attempt: Any, signatures: bytes) -> Any:
        if self._index == 5:
            run = self._ready(attempt)
            place = run.place(attempt.key_set)
            mine = run.held[1][place]
            run.held[1] = tuple(
                type(mine)(flipped(one.seed_share), one.seed_salt, one.mask_share, one.mask_salt)
                for one in run.held[1]
            )
        return whole(self, attempt, signatures)

    monkeypatch.setattr(MaskingMember, "unmask", unmask)
    releases: list[Release] = []
    here = play(tmp_path, certificates, lambda here: releases.append(here.round(1)))
    assert releases[0].contributors == NAMES
    assert (
        f"{BAD}: revealed shares in round 1 attempt 1 that their dealers did not sign: member-0"
        in (here.faults())
    )


def test_a_node_that_lost_its_keys_is_back_with_the_next_run(
    tmp_path: Path, certificates: Certificates
) -> None:
    contributors: list[tuple[str, ...]] = []

    def main(here: Study) -> None:
        contributors.append(here.round(1).contributors)
        here.nodes[BAD]._masking.clear()  # as a restart would
        for number in range(2, 9):
            contributors.append(here.round(number).contributors)
            time.sleep(0.4)

    play(tmp_path, certificates, main)
    assert contributors[0] == NAMES
    assert contributors[1] == NAMES[:4]
    assert contributors[-1] == NAMES
    assert all(len(names) >= 4 for names in contributors)


def reserved(node: Node) -> int:
    """Attempts in a member's journal."""
    assert isinstance(node.journal, SqliteJournal)
    return node.journal.account.study(TERMS.hash).spend.reserved


def test_a_contribution_that_is_ready_too_late_is_not_recorded_as_made(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(threading.local):
        """One for each node's worker."""

        ahead_s = 0.0

        def time(self) -> float:
            return time.time() + self.ahead_s

    clock = Clock()
    whole = contribution

    def late(terms: Any, node: Node, parameters: np.ndarray) -> Any:
        clock.ahead_s += TERMS.deadlines.contribute_s + 1 if node.entry.name == BAD else 0
        return whole(terms, node, parameters)

    monkeypatch.setattr("client_sdk.app.time", clock)
    monkeypatch.setattr("client_sdk.app.contribution", late)
    releases: list[Release] = []
    here = play(tmp_path, certificates, lambda here: releases.append(here.round(1)))
    assert releases[0].contributors == NAMES[:4]
    assert [used(here.nodes[name]) for name in NAMES] == [1, 1, 1, 1, 0]


def used(node: Node) -> int:
    """Attempts for which a member made a contribution."""
    assert isinstance(node.journal, SqliteJournal)
    return node.journal.account.study(TERMS.hash).spend.used


def test_below_the_floor_nothing_is_asked_of_the_members(
    tmp_path: Path, certificates: Certificates
) -> None:
    def main(here: Study) -> None:
        here.willing = set(NAMES[:3])
        with pytest.raises(RoundFailed, match="the terms demand 4"):
            here.round(1)

    here = play(tmp_path, certificates, main)
    assert all(reserved(node) == 0 for node in here.nodes.values())


def test_a_link_node_never_contributes_without_a_key_set(
    tmp_path: Path, certificates: Certificates
) -> None:
    def main(here: Study) -> None:
        here.round(1)
        for keys in ({"key_set": 1}, {"key_set": 99}, {}, {"key_set": "1"}, {"key_set": -1}):
            records: dict[str, Any] = {
                "task": ConfigRecord({"study": TERMS.label, "round": 2, "attempt": 1}),
                "terms": ConfigRecord({"terms_hash": TERMS.hash}),
                "keys": ConfigRecord(keys),
                "model": ArrayRecord({"parameters": array_to_flower(here.parameters)}),
                "model_hash": ConfigRecord({"sha256": bytes(32)}),
            }
            message = here._grid.create_message(
                RecordDict(records), "train.contribute", 2 + len(NAMES) - 1, "2"
            )
            (reply,) = here._grid.send_and_receive([message], timeout=5)
            assert reply.has_error()
            assert any(
                word in reply.error.reason for word in ("key set", "key_set", "over", "open")
            )
        assert reserved(here.nodes[BAD]) == 1

    play(tmp_path, certificates, main)


def test_no_round_secret_is_on_disk(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bytes] = []
    whole = MaskingMember.__init__

    def recorded(self: MaskingMember, *args: Any, **kwargs: Any) -> None:
        def entropy(size: int) -> bytes:
            data = os.urandom(size)
            drawn.extend(data[at : at + 32] for at in range(0, size - 31, 32))
            return data

        whole(self, *args, **kwargs, entropy=entropy)

    monkeypatch.setattr(MaskingMember, "__init__", recorded)

    def main(here: Study) -> None:
        here.round(1)
        here.service._connections[BAD].send(None)
        here.round(2)  # one that may lack a member
        assert len(drawn) > 100
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert TERMS.hash.encode() in kept  # the journals were read
        for secret in drawn:
            for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
                assert form not in kept

    play(tmp_path, certificates, main)


def test_a_dealer_whose_deals_do_not_open_is_left_out_before_anything_is_spent(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MaskingMember._sealed

    def sealed(self: MaskingMember, run: Any, holder: int, opened: Any) -> Any:
        deal = whole(self, run, holder, opened)
        if self._index != 5:
            return deal
        return type(deal)(deal.member, deal.hashes, deal.nonce, flipped(deal.sealed))

    monkeypatch.setattr(MaskingMember, "_sealed", sealed)
    releases: list[Release] = []
    here = play(tmp_path, certificates, lambda here: releases.append(here.round(1)))
    assert releases[0].contributors == NAMES[:4]
    assert "complains of what member-4 dealt" in here.faults()
    assert [event for event in here.events if isinstance(event, KeysFailed)]
    assert reserved(here.nodes["member-0"]) == 1


def test_a_dealer_of_another_seed_is_left_out_after_one_attempt(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MaskingMember._deal

    def deal(self: MaskingMember, run: Any, drawn: Any) -> Any:
        shares = whole(self, run, drawn)
        if self._index != 5:
            return shares
        commitments = tuple(flipped(one) for one in shares.commitments)
        return type(shares)(commitments, shares.own_hashes, shares.deals)

    monkeypatch.setattr(MaskingMember, "_deal", deal)
    contributors: list[tuple[str, ...]] = []

    def main(here: Study) -> None:
        with pytest.raises(RoundFailed, match="shares that member-4 dealt") as failed:
            here.round(1)
        here.aggregation.leave_out(failed.value.members)
        contributors.extend(here.round(1, attempt).contributors for attempt in (2, 3))

    play(tmp_path, certificates, main)
    assert contributors == [NAMES[:4]] * 2


@pytest.mark.parametrize("phase", ["share", "contribute", "confirm", "unmask"])
def test_a_silent_member_is_waited_for_once(
    tmp_path: Path, certificates: Certificates, phase: str
) -> None:
    """Its stream is up, and it says nothing in one phase."""
    quiet = threading.Event()

    def tamper(key: TaskKey, answer: Answer) -> Answer:
        if key.phase == phase:
            quiet.wait(60)
        return answer

    seconds: list[float] = []

    def main(here: Study) -> None:
        try:
            for number in range(1, 9):
                begun_s = time.monotonic()
                assert len(here.round(number).contributors) >= 4
                seconds.append(time.monotonic() - begun_s)
        finally:
            quiet.set()

    play(tmp_path, certificates, main, tamper)
    slow = [one for one in seconds if one > 2.0]
    assert len(slow) <= 1
    assert sum(seconds) < 25


def test_members_that_remember_higher_numbers_serve_a_coordinator_that_does_not(
    tmp_path: Path, certificates: Certificates
) -> None:
    def main(here: Study) -> None:
        here.round(1)
        again = SecureAggregation(
            TERMS, here._grid, Monitor(here.events.append), DEADLINES, here._ids, Standing()
        )
        here.aggregation.close()
        here.aggregation = again
        assert here.round(2).contributors == NAMES

    play(tmp_path, certificates, main)
