"""Which study runs when, and who is asked to sign it: scripted members, a real database and log."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from coordinator import agenda as agenda_module
from coordinator.agenda import Agenda, Names
from coordinator.evidence import Evidence
from coordinator.grid import LinkGrid
from coordinator.monitor import MemberJoined, Monitor, StudyStopped, StudyWaits
from coordinator.proposal import Proposal
from coordinator.service import ExchangeService
from coordinator.store import Answer, Status, StudyStore, Wanted
from privacy.acceptance import sign_acceptance
from privacy.errors import RoundFailed
from privacy.terms import Terms
from tests.conftest import identity, make_terms

PATIENCE_S = 60.0
FIRST = make_terms().model_copy(update={"study": "first"})
SECOND = make_terms().model_copy(update={"study": "second"})


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


class Members:
    """What members answer, and what they were asked."""

    def __init__(self) -> None:
        self.here = [f"member-{index}" for index in range(5)]
        self.answers: dict[str, str] = {}
        """By member: ``wait`` or ``refuse``; else it signs."""
        self.asked: list[tuple[str, str, str]] = []

    def answer(self, member: str, message: Message) -> Message:
        kind = message.metadata.message_type
        study = str(message.content.config_records["task"]["study"])
        self.asked.append((kind, study.partition("@")[0], member))
        if kind == "train.stop":
            return Message(RecordDict(), reply_to=message)
        how = self.answers.get(member)
        if how == "wait":
            waiting = ConfigRecord({"sentence": "its rules do not say"})
            return Message(RecordDict({"waiting": waiting}), reply_to=message)
        if how == "refuse":
            return Message(Error(1, "too costly"), reply_to=message)
        terms = Terms.from_json(str(message.content.config_records["terms"]["document"]))
        key = identity(f"ledger of {member}").public
        signature = sign_acceptance(identity(member), terms, member=member, ledger_key=key)
        acceptance = ConfigRecord(
            {
                "member": member, "terms_hash": terms.hash, "ledger_key": key,
                "signature": signature,
            }
        )  # fmt: skip
        return Message(RecordDict({"acceptance": acceptance}), reply_to=message)

    def times(self, kind: str, study: str, member: str) -> int:
        return self.asked.count((f"train.{kind}", study, member))


class Link(LinkGrid):
    """The link without one."""

    def __init__(self, terms: Terms, members: Members) -> None:
        service = ExchangeService((), Monitor())
        ids = {entry.name: place for place, entry in enumerate(terms.roster, start=2)}
        super().__init__(service, asyncio.new_event_loop(), ids)
        self._members = members

    def close(self) -> None:
        self._loop.close()

    def get_node_ids(self) -> list[int]:
        return [self.node_id(name) for name in self._members.here]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        return [
            self._members.answer(self.member(one.metadata.dst_node_id), one) for one in messages
        ]


class Run:
    """A study that runs until it is told to end."""

    def __init__(self, terms: Terms, studies: StudyStore) -> None:
        self.terms, self.studies = terms, studies
        self.attempts = 0
        self.fails = ""
        self.end, self.began = threading.Event(), threading.Event()
        self.drained = ""

    def run(self, grid: Any) -> None:
        self.studies.start(self.terms.hash)
        self.began.set()
        if self.fails:
            raise RoundFailed(self.fails)
        assert self.end.wait(PATIENCE_S)
        status = Status.PAUSED if self.drained else Status.FINISHED
        self.studies.set_status(self.terms.hash, status, self.drained)

    def drain(self, sentence: str) -> None:
        self.drained = sentence
        self.end.set()


class Office:
    """A coordinator's agenda over scripted members."""

    def __init__(self, folder: Path, members: Members) -> None:
        self.members, self.folder = members, folder
        self.events: list[Any] = []
        self.runs: list[Run] = []
        self.fails = ""
        self.attempts = 0
        self.error: Exception | None = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'coordinator.sqlite'}"

    @contextmanager
    def open(self, *, until_finished: bool = False, assemble_s: float = 60.0) -> Iterator[Agenda]:
        """A coordinator's process, from its start to SIGTERM."""
        links: list[Link] = []

        def grid_of(terms: Terms) -> Link:
            links.append(Link(terms, self.members))
            return links[-1]

        def begin(proposal: Proposal) -> Run:
            run = Run(proposal.terms, studies)
            run.fails, run.attempts = self.fails, self.attempts
            self.runs.append(run)
            return run

        with StudyStore(self.url) as studies:
            evidence = Evidence(self.folder, "test", keep_bytes=0)
            agenda = Agenda(
                studies, evidence, Monitor(self.events.append), names=Names(everybody=False),
                grid_of=grid_of, admissions=lambda _: b"", begin=begin, assemble_s=assemble_s,
            )  # fmt: skip

            def work() -> None:
                try:
                    agenda.run(until_finished=until_finished)
                except RoundFailed as error:
                    self.error = error

            thread = threading.Thread(target=work)
            thread.start()
            try:
                yield agenda
            finally:
                agenda.drain()
                thread.join()
                evidence.close()
                for link in links:
                    link.close()

    def do(self, terms: Terms, wanted: Wanted) -> None:
        """As a command does it, from another process."""
        with StudyStore(self.url, running=False) as studies:
            studies.propose(terms, now_ms=time.time_ns() // 1_000_000)
            studies.want(terms.hash, wanted, now_ms=time.time_ns() // 1_000_000)

    def status(self, terms: Terms) -> Status:
        with StudyStore(self.url, running=False) as studies:
            record = studies.study(terms.hash)
        assert record is not None
        return record.status

    def answer(self, terms: Terms, member: str) -> Answer | None:
        with StudyStore(self.url, running=False) as studies:
            return studies.answers(terms.hash).get(member, (None, ""))[0]

    def started(self, count: int) -> Run:
        until(lambda: len(self.runs) >= count and self.runs[count - 1].began.is_set())
        return self.runs[count - 1]


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.setattr(agenda_module, "LOOK_S", 0.1)
    monkeypatch.setattr(agenda_module, "RETRY_S", 0.1)
    monkeypatch.setattr("coordinator.proposal.ASK_S", 0.05)
    return Office(tmp_path, Members())


def test_a_study_is_offered_at_once_and_runs_when_it_is_started(office: Office) -> None:
    with office.open():
        office.do(FIRST, Wanted.PROPOSED)
        until(lambda: office.answer(FIRST, "member-4") is Answer.ACCEPTED)
        assert office.runs == []
        office.do(FIRST, Wanted.RUNNING)
        office.started(1).end.set()
        until(lambda: office.status(FIRST) is Status.FINISHED)
    assert office.members.times("propose", "first", "member-0") == 1


def test_studies_run_one_after_another_first_started_first_and_are_offered_meanwhile(
    office: Office,
) -> None:
    office.do(SECOND, Wanted.PROPOSED)
    office.do(FIRST, Wanted.RUNNING)
    with office.open():
        running = office.started(1)
        office.do(SECOND, Wanted.RUNNING)
        until(lambda: office.answer(SECOND, "member-0") is Answer.ACCEPTED)
        assert [run.terms.study for run in office.runs] == ["first"]
        running.end.set()
        office.started(2).end.set()
        until(lambda: office.status(SECOND) is Status.FINISHED)
    assert [run.terms.study for run in office.runs] == ["first", "second"]


def test_too_few_signatures_start_nothing_and_who_is_missing_is_said_once(office: Office) -> None:
    office.members.answers = {"member-1": "wait", "member-2": "refuse"}
    office.do(FIRST, Wanted.RUNNING)
    with office.open():
        until(lambda: any(isinstance(event, StudyWaits) for event in office.events))
        until(lambda: office.members.times("propose", "first", "member-1") > 5)
        assert office.runs == []
        (said,) = [event for event in office.events if isinstance(event, StudyWaits)]
        assert "3 members accepted the terms, 4 are needed" in said.sentence
        assert "people have yet to decide at member-1" in said.sentence
        assert "refused by member-2" in said.sentence
        del office.members.answers["member-1"]  # somebody there approved
        office.started(1)
    assert office.members.times("propose", "first", "member-2") == 1
    assert office.members.times("propose", "first", "member-0") == 1


def test_a_member_that_refused_is_asked_again_when_it_connects_anew(office: Office) -> None:
    office.members.answers = {"member-2": "refuse"}
    office.do(FIRST, Wanted.PROPOSED)
    with office.open() as agenda:
        until(lambda: office.answer(FIRST, "member-2") is Answer.REFUSED)
        office.members.answers = {}
        agenda.take(MemberJoined("member-2", "here"))
        until(lambda: office.answer(FIRST, "member-2") is Answer.ACCEPTED)


def test_members_that_had_not_signed_before_a_restart_are_asked_in_the_study_that_goes_on(
    office: Office,
) -> None:
    office.members.here.remove("member-4")
    office.do(FIRST, Wanted.RUNNING)
    with office.open(assemble_s=0.2):
        office.started(1)
    asked = office.members.times("propose", "first", "member-0")
    office.members.here.append("member-4")
    with office.open():
        office.started(2)  # at once: enough signed before
        until(lambda: office.answer(FIRST, "member-4") is Answer.ACCEPTED)
    assert office.members.times("propose", "first", "member-0") == asked == 1


def test_a_paused_study_holds_over_a_restart_and_goes_on_when_it_is_started(
    office: Office,
) -> None:
    office.do(FIRST, Wanted.RUNNING)
    with office.open():
        office.started(1)
        office.do(FIRST, Wanted.PAUSED)
        until(lambda: office.status(FIRST) is Status.PAUSED)
    assert office.runs[0].drained == "the operator asked for it to be paused"
    with office.open():
        time.sleep(0.5)
        assert len(office.runs) == 1
        office.do(FIRST, Wanted.RUNNING)
        office.started(2)
    assert office.runs[1].drained == "the coordinator was ended"
    with office.open():
        office.started(3)  # what SIGTERM ended goes on by itself


def test_a_stopped_study_is_over_and_every_member_is_told_late_ones_too(office: Office) -> None:
    office.members.here.remove("member-4")
    office.do(FIRST, Wanted.RUNNING)
    with office.open(assemble_s=0.2):
        office.started(1)
        office.do(FIRST, Wanted.STOPPED)
        until(lambda: office.members.times("stop", "first", "member-0") == 1)
        assert office.status(FIRST) is Status.STOPPED
    office.members.here.append("member-4")
    with office.open():
        until(lambda: office.members.times("stop", "first", "member-4") == 1)
    assert len(office.runs) == 1
    assert office.members.times("propose", "first", "member-4") == 0


def test_a_study_whose_members_stay_away_is_tried_again(office: Office) -> None:
    office.fails = "3 members are present and accept the terms; the terms demand 4"
    office.do(FIRST, Wanted.RUNNING)
    with office.open():
        office.started(2)
        office.fails = ""
        until(lambda: not office.runs[-1].fails and office.runs[-1].began.is_set())
    assert any(
        isinstance(event, StudyWaits) and "the terms demand 4; tried again in" in event.sentence
        for event in office.events
    )


def test_a_study_without_attempts_left_is_over(office: Office) -> None:
    office.fails, office.attempts = "all 12 attempts of the terms are used", 12
    office.do(FIRST, Wanted.RUNNING)
    with office.open():
        until(lambda: office.status(FIRST) is Status.STOPPED)
        time.sleep(0.3)
    assert len(office.runs) == 1
    assert any(isinstance(event, StudyStopped) for event in office.events)


@pytest.mark.parametrize("here", [0, 3])
def test_until_finished_says_in_time_who_did_not_sign(office: Office, here: int) -> None:
    office.members.here = office.members.here[:here]
    office.do(FIRST, Wanted.RUNNING)
    with office.open(until_finished=True, assemble_s=0.3):
        until(lambda: office.error is not None)
    assert f"{here} members accepted the terms, 4 are needed; not heard of: " in str(office.error)


def test_names_are_those_of_all_studies_or_the_registry_s() -> None:
    names = Names(everybody=False)
    assert "member-0" not in names
    names.add(FIRST)
    assert "member-0" in names
    assert "stranger" not in names
    assert "stranger" in Names(everybody=True)
