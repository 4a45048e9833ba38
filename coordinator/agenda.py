"""Which study runs when: offers all, runs one after another, and does what the operator asks.

The operator's commands write what is wanted into the database; this looks there twice a second,
offers every study that is not over to its members, and runs those that are wanted running and that
enough members signed, first started first. What a study needs of its members, others' rounds do not
wait for: proposals travel beside them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from coordinator.evidence import Evidence
from coordinator.monitor import (
    Event,
    MemberJoined,
    Monitor,
    StudyFinished,
    StudyStopped,
    StudyWaits,
)
from coordinator.proposal import Proposal
from coordinator.store import Answer, Status, StudyRecord, StudyStore, Wanted
from privacy.errors import AllianceError, RoundFailed
from privacy.terms import Terms, TermsHash
from protos.logs import log

__all__ = ["Agenda", "Names", "Running"]

LOOK_S: Final = 0.5
"""Between two looks at what the operator wants."""
RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 300.0
"""A study whose members stay away is tried again after this, twice as long each time."""


class Running(Protocol):
    """A study that runs: `coordinator.strategy` behind Flower's ServerApp."""

    @property
    def attempts(self) -> int:
        """Spent so far."""

    def run(self, grid: Grid) -> None:
        """Runs it to its end, or until `drain`.

        Raises:
            RoundFailed: if it cannot go on now.
        """

    def drain(self, sentence: str) -> None:
        """Lets the open round end and begins no other; from any thread."""


class Names(Container[str]):
    """Who may open a stream as far as studies are concerned; a registry says more.

    Args:
        everybody: whether a registry decides, so that members may wait for their first study.
    """

    def __init__(self, *, everybody: bool) -> None:
        self._everybody = everybody
        self._names: frozenset[str] = frozenset()

    def __contains__(self, name: object, /) -> bool:
        return self._everybody or name in self._names

    def add(self, terms: Terms) -> None:
        """Lets a study's members in."""
        self._names |= {entry.name for entry in terms.roster}


class Agenda:
    """The studies of one coordinator, on a thread of the caller's.

    Args:
        studies: what is wanted, and what became of it.
        evidence: the coordinator's log.
        monitor: is told what happens.
        names: who may open a stream; grows with the studies.
        grid_of: the link as one study sees it.
        admissions: members' vouches for each other.
        begin: makes a study ready to run.
        assemble_s: how long a study that is to start waits for members that were not heard of.
    """

    def __init__(
        self,
        studies: StudyStore,
        evidence: Evidence,
        monitor: Monitor,
        *,
        names: Names,
        grid_of: Callable[[Terms], Grid],
        admissions: Callable[[Terms], bytes],
        begin: Callable[[Proposal], Running],
        assemble_s: float,
    ) -> None:
        self._studies = studies
        self._evidence = evidence
        self._monitor = monitor
        self._names = names
        self._grid_of = grid_of
        self._admissions = admissions
        self._begin = begin
        self._assemble_s = assemble_s
        self._records: list[StudyRecord] = []
        self._proposals: dict[TermsHash, Proposal] = {}
        self._grids: dict[TermsHash, Grid] = {}
        self._asking: dict[TermsHash, Future[None]] = {}
        self._stopped: dict[TermsHash, set[str]] = {}
        """Members that were told that a study is over, by study."""
        self._seen_s: dict[tuple[TermsHash, int], float] = {}
        self._retry: dict[TermsHash, tuple[float, float]] = {}
        """When a study is tried again, and after how long."""
        self._said: dict[TermsHash, str] = {}
        self._ran: set[TermsHash] = set()
        self._running: tuple[TermsHash, Running] | None = None
        self._draining = threading.Event()
        self._looking = threading.Lock()
        self._askers = ThreadPoolExecutor(4, thread_name_prefix="proposals")
        self.look()

    def take(self, event: Event) -> None:
        """A sink of events: a member that connects is asked what it has not answered."""
        if isinstance(event, MemberJoined):
            for proposal in list(self._proposals.values()):
                proposal.came(event.member)

    def drain(self) -> None:
        """Lets the open round end; `run` then returns. From any thread."""
        self._draining.set()
        if self._running is not None:
            self._running[1].drain("the coordinator was ended")

    def look(self) -> None:
        """Reads what is wanted, and acts on it as far as that needs no member."""
        with self._looking:
            self._records = self._studies.studies()
            for record in self._records:
                self._names.add(record.terms)
                running = self._running
                here = running is not None and running[0] == record.terms.hash
                if running is not None and here and record.wanted is not Wanted.RUNNING:
                    running[1].drain(f"the operator asked for it to be {record.wanted.value}")
                elif record.wanted is Wanted.STOPPED and not here and not record.over:
                    self._stop(record)

    def run(self, *, until_finished: bool) -> None:
        """Offers and runs studies until `drain`.

        Args:
            until_finished: whether to return when no study is wanted running any more.

        Raises:
            AllianceError: if the coordinator may not go on.
        """
        offering = threading.Thread(target=self._offer, name="agenda", daemon=True)
        offering.start()
        try:
            while not self._draining.is_set():
                wanted = self._wanted()
                record = next((one for one in wanted if self._ready(one, until_finished)), None)
                if record is not None:
                    self._run(record, raises=until_finished)
                elif until_finished and not wanted:
                    break
                else:
                    self._draining.wait(LOOK_S / 5)
        finally:
            self._draining.set()
            offering.join()
            self._askers.shutdown(wait=False, cancel_futures=True)
        if until_finished:
            self._tell_finished()

    # Offering.

    def _offer(self) -> None:
        """Looks and asks, again and again; on a thread of its own."""
        looked_s = time.monotonic()
        while not self._draining.wait(LOOK_S / 5):
            try:
                if time.monotonic() - looked_s >= LOOK_S:
                    self.look()
                    looked_s = time.monotonic()
                for record in self._records:
                    if not record.over:
                        self._ask(record)
                    elif record.status is Status.STOPPED:
                        self._tell_stopped(record)
            except Exception as error:  # the next look may go better; rounds do not depend on it
                log("StudiesUnread", error=error)

    def _ask(self, record: StudyRecord) -> None:
        """Asks the members of a study that are due, unless some are being asked."""
        busy = self._asking.get(record.terms.hash)
        if busy is not None and not busy.done():
            return
        proposal, grid = self._proposal(record.terms), self._grid(record.terms)
        due = proposal.due(grid, time.monotonic())
        if due:
            self._asking[record.terms.hash] = self._askers.submit(self._asked, proposal, grid, due)

    def _asked(self, proposal: Proposal, grid: Grid, due: list[int]) -> None:
        try:
            proposal.ask(grid, due)
        except Exception as error:  # members are asked again
            log("StudyUnproposed", error=error, study=proposal.terms.study)

    def _proposal(self, terms: Terms) -> Proposal:
        if terms.hash not in self._proposals:

            def note(member: str, answer: Answer, sentence: str) -> None:
                self._studies.answered(terms.hash, member, answer, sentence)

            self._proposals[terms.hash] = Proposal(
                terms,
                self._monitor,
                admissions=self._admissions,
                evidence=self._evidence,
                note=note,
            )
        return self._proposals[terms.hash]

    def _grid(self, terms: Terms) -> Grid:
        if terms.hash not in self._grids:
            self._grids[terms.hash] = self._grid_of(terms)
        return self._grids[terms.hash]

    # Running.

    def _wanted(self) -> list[StudyRecord]:
        """Studies that are to run, first started first."""
        wanted = [one for one in self._records if one.wanted is Wanted.RUNNING and not one.over]
        return sorted(wanted, key=lambda record: record.wanted_ms)

    def _ready(self, record: StudyRecord, until_finished: bool) -> bool:
        """Whether a study may run now: enough members signed, and the others had their time.

        Raises:
            RoundFailed: if ``until_finished`` and too few signed in time.
        """
        now_s, terms = time.monotonic(), record.terms
        if self._retry.get(terms.hash, (0.0, 0.0))[0] > now_s:
            return False
        proposal = self._proposal(terms)
        seen_s = self._seen_s.setdefault((terms.hash, record.wanted_ms), now_s)
        in_time = now_s - seen_s < self._assemble_s
        if proposal.enough:
            before = len(proposal.accepted_before) >= terms.privacy.least_survivors
            return before or proposal.heard or not in_time
        asking = self._asking.get(terms.hash)
        asked = asking is not None and not asking.done()
        if not in_time and not asked and not proposal.due(self._grid(terms), now_s):
            if until_finished:
                raise RoundFailed(f"study {terms.study}: {proposal.shortage()}")
            self._say(record, proposal.shortage())
        elif proposal.heard:
            self._say(record, proposal.shortage())
        return False

    def _run(self, record: StudyRecord, *, raises: bool) -> None:
        """Runs one study until it ends, holds or fails."""
        terms = record.terms
        self._ran.add(terms.hash)
        running = self._begin(self._proposal(terms))
        self._running = (terms.hash, running)
        self.look()  # it may have been paused or stopped meanwhile
        if self._draining.is_set():
            running.drain("the coordinator was ended")
        try:
            running.run(self._grid(terms))
        except RoundFailed as error:
            if raises:
                raise
            self._failed(record, running, str(error))
        else:
            self._retry.pop(terms.hash, None)
        finally:
            self._running = None
        self.look()

    def _failed(self, record: StudyRecord, running: Running, sentence: str) -> None:
        """A study could not go on: it is tried again, or is over if nothing is left to try with."""
        terms = record.terms
        if running.attempts >= terms.privacy.max_attempts:
            self._studies.set_status(terms.hash, Status.STOPPED, sentence)
            self._monitor.emit(StudyStopped(terms.label, sentence))
            return
        after_s = min(2 * self._retry.get(terms.hash, (0.0, RETRY_S / 2))[1], LONGEST_RETRY_S)
        self._retry[terms.hash] = (time.monotonic() + after_s, after_s)
        self._studies.set_status(terms.hash, Status.PAUSED, sentence)
        self._say(record, f"{sentence}; tried again in {after_s:.0f} s")

    def _say(self, record: StudyRecord, sentence: str) -> None:
        """Says why a study does not run yet, once."""
        if self._said.get(record.terms.hash) != sentence:
            self._said[record.terms.hash] = sentence
            self._studies.set_status(record.terms.hash, record.status, sentence)
            self._monitor.emit(StudyWaits(record.terms.label, sentence))

    # Ends.

    def _stop(self, record: StudyRecord) -> None:
        self._studies.set_status(record.terms.hash, Status.STOPPED, "the operator stopped it")
        self._monitor.emit(StudyStopped(record.terms.label, "the operator stopped it"))

    def _tell_stopped(self, record: StudyRecord) -> None:
        """Tells members once each that a study is over, so that what it earmarked is free again."""
        terms = record.terms
        busy = self._asking.get(terms.hash)
        if busy is not None and not busy.done():
            return
        grid, told = self._grid(terms), self._stopped.setdefault(terms.hash, set())
        present = [node_id for node_id in grid.get_node_ids() if str(node_id) not in told]
        if present:
            told.update(map(str, present))
            self._asking[terms.hash] = self._askers.submit(self._send_stop, terms, grid, present)

    def _send_stop(self, terms: Terms, grid: Grid, node_ids: list[int]) -> None:
        content = RecordDict(
            {
                "task": ConfigRecord({"study": terms.label, "round": 0, "attempt": 1}),
                "terms": ConfigRecord({"terms_hash": terms.hash}),
            }
        )
        messages = [grid.create_message(content, "train.stop", node, "0") for node in node_ids]
        try:
            grid.send_and_receive(messages, timeout=terms.deadlines.publish_s)
        except AllianceError as error:
            log("StudyUntold", error=error, study=terms.study)

    def _tell_finished(self) -> None:
        """Says of studies that an earlier process finished that they are."""
        for record in self._records:
            if record.status is Status.FINISHED and record.terms.hash not in self._ran:
                rounds = record.terms.privacy.rounds
                attempts = self._evidence.told(record.terms).attempts
                self._monitor.emit(StudyFinished(record.terms.study, rounds, attempts, 0.0, ""))
