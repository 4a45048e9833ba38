"""Secure aggregation over the link: key sets ahead of time, then confirm and unmask.

The protocol itself is in `privacy.secagg`; this module carries its messages. Keys and shares for
coming attempts travel on a thread of their own, while the present attempt is trained.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict

from coordinator.cohort import choose
from coordinator.config import Deadlines
from coordinator.grid import ABSENT_CODE, UNHEARD_CODE, Expectation, LinkGrid, task_key
from coordinator.monitor import KeysFailed, MemberFaulted, Monitor
from coordinator.round import Round
from coordinator.standing import Standing
from coordinator.witnessing import Ledgers, Witnessing
from privacy.errors import AllianceError, LedgerError, RoundFailed
from privacy.secagg import MOST_KEY_SETS, Attempt, Cohort, KeyExchange, KeySets, Setup, Unmasking
from privacy.terms import Terms
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import blob_of

__all__ = ["SecureAggregation"]

RUN: Final = min(16, MOST_KEY_SETS)
"""Key sets made at once where the cohort is small."""
RUN_BYTES: Final = 32 << 20
"""Sealed shares of one run held at the coordinator, about."""
DEAL_BYTES: Final = 162
"""One holder's hashes and sealed shares of one key set."""
RENEW_S: Final = 0.1
LONGEST_RENEW_S: Final = 30.0
"""Between the beginnings of two exchanges; twice as long each time where members stay missing."""
KEY_SETS_PER_START: Final = 1 << 18
"""Numbers of key sets that a coordinator has before it reaches those of its next start."""
PAUSE_S: Final = 0.5
"""After an exchange that failed, twice as long each time; exchanges spend nothing."""
SKIPPED: Final = 1 << 12
"""Key sets passed over after an exchange that failed: members may remember higher numbers."""

Take = Callable[[str, bytes, bytes], object]
"""Takes a member's signed body into a state machine."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Key sets that are ready, and the N members they were meant for."""

    cohort: Cohort
    chosen: tuple[str, ...]
    able: frozenset[str]
    """Members that hold their shares and may spend attempts."""


class SecureAggregation:
    """What a study's rounds need of secure aggregation.

    Args:
        terms: of the study.
        grid: the link.
        monitor: is told who misbehaves.
        deadlines: how long to wait.
        node_ids: by name, of the members that accepted the terms.
        standing: whom to ask.
        ledgers: the coordinator's log and those of members; None where nothing is evidence.
        attempts: opened before.
        start: how often a coordinator began to run this study, this time included.

    Raises:
        TermsError: if the terms' cohorts are too large.
    """

    def __init__(
        self,
        terms: Terms,
        grid: LinkGrid,
        monitor: Monitor,
        deadlines: Deadlines,
        node_ids: Mapping[str, int],
        standing: Standing,
        ledgers: Ledgers | None = None,
        attempts: int = 0,
        start: int = 1,
    ) -> None:
        self._terms = terms
        self._setup = Setup.of(terms)
        self._grid = grid
        self._monitor = monitor
        self._deadlines = deadlines
        self._node_ids = node_ids
        self._count = _run_length(self._setup)
        self._standing = standing
        self._ledgers = ledgers
        self._witnessing = (
            Witnessing(terms, ledgers.evidence, ledgers.mirror, monitor, self._ask)
            if ledgers
            else None
        )
        self._attempts_left = terms.privacy.max_attempts - attempts
        self._closed = threading.Event()
        # Above what members remember of an earlier start; where it is not, `SKIPPED` helps.
        self._next = 1 + max(0, start - 1) * KEY_SETS_PER_START
        self._run: _Run | None = None
        self._key_set = 0
        self._lost: set[str] = set()
        self._ahead: Future[_Run] | None = None
        self._ahead_s = -math.inf
        self._renew_s = RENEW_S
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="key-exchange")

    def close(self) -> None:
        """Ends the thread of the key exchange; call when the study is over."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def open(
        self, round_number: int, attempt: int, model: bytes, willing: set[str]
    ) -> tuple[Unmasking, tuple[str, ...]]:
        """A key set for one attempt; waits for one where none is ready.

        Args:
            round_number: from 1.
            attempt: from 1 in each round.
            model: `privacy.secagg.model_hash` of the public state.
            willing: members that may be asked.

        Returns:
            The attempt's state machine, and the members to ask for a contribution.

        Raises:
            RoundFailed: if too few members are present, or no key exchange succeeds.
        """
        asking = self._askable(willing)
        self._take_ahead(asking)
        run = self._run
        if run is None or not self._usable(run, self._present(asking)):
            run = self._exchange_now(willing)
            asking = self._askable(willing)
        attempted = Attempt(self._key_set, round_number, attempt, model)
        self._key_set += 1
        self._attempts_left -= 1
        able = run.able & asking - self._lost  # whoever rests is not asked in mid-run either
        asked = tuple(name for name in run.cohort.names if name in able)
        self._start_ahead(run, asking, self._terms.privacy.rounds - round_number)
        return Unmasking(run.cohort, attempted), asked

    @property
    def chosen(self) -> tuple[str, ...]:
        """The N members that the present key sets were meant for, in roster order."""
        return self._run.chosen if self._run else ()

    def unmask(self, round_: Round) -> None:
        """Has the survivors of a closed round confirm each other and reveal what unmasks its sum.

        Where nobody may drop they revealed it along with their contributions.

        Raises:
            RoundFailed: if fewer than t members answer one of the two phases.
        """
        unmasking = round_.unmasking
        if unmasking is None:
            return
        lists = unmasking.close()
        if unmasking.is_revealed:
            return
        self._phase(
            "confirm", unmasking, unmasking.survivors, lists,
            lambda name, _, signature: unmasking.take_confirmation(name, signature),
        )  # fmt: skip
        signatures = unmasking.signatures()
        self._phase("unmask", unmasking, unmasking.confirmed, signatures, unmasking.take_unmask)

    def leave_out(self, members: tuple[str, ...]) -> None:
        """Takes members that were found cheating into no further cohort."""
        for name in members:
            self._standing.leave_out(name)
        if self._run is not None and self._tainted(self._run):
            self._run = None

    def missed(self, member: str, reply: Message) -> None:
        """Notes that a member refused, failed or kept silent."""
        if reply.error.code == ABSENT_CODE:
            connected = self._node_ids[member] in self._grid.get_node_ids()
            self._standing.silent(member, connected=connected)
        elif reply.error.code != UNHEARD_CODE:
            self._standing.strike(member)

    def lost(self, member: str) -> None:
        """A member refused to contribute: it may have lost its keys, and waits for new ones."""
        self._lost.add(member)

    # Which key sets are used.

    def _askable(self, willing: set[str]) -> set[str]:
        least = self._terms.privacy.least_survivors
        return self._standing.askable(willing, present=self._present(willing), least=least)

    def _tainted(self, run: _Run) -> bool:
        """Whether a cheater dealt shares in a run: its secrets are needed and cannot be rebuilt."""
        return any(self._standing.cheated(name) for name in run.cohort.names)

    def _present(self, willing: set[str]) -> set[str]:
        connected = {self._grid.member(node_id) for node_id in self._grid.get_node_ids()}
        return willing & connected

    def _usable(self, run: _Run, present: set[str]) -> bool:
        """Whether the next key set can still give a sum."""
        there = present & run.able - self._lost
        return (
            self._key_set in run.cohort.key_sets
            and len(there) >= self._terms.privacy.least_survivors
        )

    def _take_ahead(self, willing: set[str]) -> None:
        """Goes over to the run that was prepared, once the present one is used up or lacks more."""
        if self._ahead is None or not self._ahead.done():
            return
        present = self._present(willing)
        prepared = self._finished(self._ahead)
        if prepared is None or self._tainted(prepared):
            self._ahead = None
            return
        here = self._run.able - self._lost if self._run else frozenset[str]()
        gains = len(present & prepared.able) > len(present & here)
        if self._run is None or self._key_set not in self._run.cohort.key_sets or gains:
            self._ahead = None
            self._use(prepared)

    def _use(self, run: _Run) -> None:
        self._run = run
        self._key_set, self._lost = run.cohort.key_sets.first, set()

    def _start_ahead(self, run: _Run, willing: set[str], rounds_left: int) -> None:
        """Begins to prepare the next run, if it is time to."""
        if self._ahead is not None:
            return
        left = self._left(run)
        present = self._present(willing)
        there = present & run.able - self._lost
        lacks = len(there) < min(len(present), self._terms.privacy.cohort_size)
        waited = time.monotonic() - self._ahead_s > self._renew_s
        if rounds_left and waited and (left < min(self._count // 2 + 1, rounds_left) or lacks):
            self._renew_s = min(2 * self._renew_s, LONGEST_RENEW_S) if lacks else RENEW_S
            self._ahead_s = time.monotonic()
            self._ahead = self._thread.submit(self._exchange, willing)

    def _left(self, run: _Run) -> int:
        """Key sets of a run that no attempt has used."""
        return max(0, run.cohort.key_sets.first + run.cohort.key_sets.count - self._key_set)

    def _finished(self, exchange: Future[_Run]) -> _Run | None:
        """What an exchange led to, once it has; None if it failed, which is told.

        Raises:
            LedgerError: if this coordinator's own log went back.
        """
        try:
            return exchange.result()
        except LedgerError:
            raise
        except AllianceError as error:
            if isinstance(error, RoundFailed):
                self.leave_out(error.members)
            self._next += SKIPPED
            self._ahead_s = time.monotonic()
            self._monitor.emit(KeysFailed(str(error)))
            return None

    def _exchange_now(self, willing: set[str]) -> _Run:
        """A run of key sets, now: the one on its way, or new ones.

        Raises:
            RoundFailed: if none came about in ``assemble_s``: too few members, or no exchange.
        """
        least, pause_s = self._terms.privacy.least_survivors, PAUSE_S
        until_s = time.monotonic() + self._deadlines.assemble_s
        while True:
            asked = self._askable(willing)
            left_s = max(0.0, until_s - time.monotonic())
            self._grid.assemble(asked, least=least, timeout_s=left_s)
            ahead, self._ahead = self._ahead, None
            run = self._finished(ahead or self._thread.submit(self._exchange, asked))
            if run is not None and not self._tainted(run):
                self._use(run)
                if self._usable(run, self._present(asked)):
                    return run
            if time.monotonic() + pause_s >= until_s:
                choose(self._terms, willing=asked, present=self._present(asked))  # says who lacks
                raise RoundFailed(
                    f"no {least} members exchanged keys within {self._deadlines.assemble_s:g} s; "
                    "the events above say who is missing"
                )
            time.sleep(pause_s)
            pause_s *= 2

    # The phases ahead of time; on a thread of their own.

    def _exchange(self, willing: set[str]) -> _Run:
        """One key exchange.

        Raises:
            RoundFailed: if fewer than N - D members take part to its end.
        """
        key_sets = KeySets(self._next, self._count)
        self._next += self._count
        keep = self._ledgers is not None and self._ledgers.evidence.rounds.keeps
        exchange = KeyExchange(self._setup, key_sets, keep=keep)
        present = self._present(willing)
        chosen = choose(self._terms, willing=willing, present=present)
        asked = tuple(name for name in chosen if name in present)
        keys = {"first": key_sets.first, "count": key_sets.count}
        number = secrets.randbits(31)  # no member answers it from what it kept of another exchange
        advertise = dict.fromkeys(asked, self._content(keys, 0, number))
        self._collect("advertise", advertise, exchange.take_advertisement, ahead=True)
        offer = self._content(keys | {"body": exchange.offer()}, 0, number)
        share = dict.fromkeys(exchange.advertisers, offer)
        self._collect("share", share, exchange.take_shares, ahead=True)
        deliver = {
            name: self._content(keys | {"body": exchange.delivery(name)}, 0, number)
            for name in exchange.close()
        }

        def take_ready(name: str, body: bytes, signature: bytes) -> None:
            for dealer in exchange.take_ready(name, body, signature):
                what = f"{key_sets}: complains of what {dealer} dealt; one of the two is at fault"
                self._monitor.emit(MemberFaulted(name, what))

        self._collect("deliver", deliver, take_ready, ahead=True)
        cohort = exchange.finish()
        for name in cohort.ready_names:
            self._standing.good(name)
        return _Run(cohort, chosen, self._granted(cohort))

    def _granted(self, cohort: Cohort) -> frozenset[str]:
        """Members that hold their shares, and whose coming attempts are reserved and witnessed.

        Raises:
            RoundFailed: if they are fewer than N - D.
        """
        if self._witnessing is None:
            return frozenset(cohort.ready_names)
        left = self._left(self._run) if self._run else 0
        # One more: what is open now may count as unused at a member that has not finished it.
        ahead = min(left + cohort.key_sets.count, self._attempts_left) + 1
        granted = frozenset(self._witnessing.grant(cohort.ready_names, ahead))
        least = self._terms.privacy.least_survivors
        if len(granted) < least:
            raise RoundFailed(
                f"{cohort.key_sets}: {len(granted)} members may spend attempts and the terms "
                f"demand {least}; the events above say why the others may not"
            )
        return granted

    def settle(self, willing: set[str]) -> None:
        """Has the log's newest head cosigned, and hands members the receipts they lack.

        Waits for a quorum: a coordinator that starts again after the last round has nobody yet.
        """
        if self._witnessing is not None:
            asked = self._askable(willing)
            least, wait_s = min(self._terms.quorum, len(asked)), self._deadlines.assemble_s
            self._grid.assemble(asked, least=least, timeout_s=wait_s)
            present = sorted(self._present(asked))
            self._thread.submit(self._witnessing.grant, present, 0).result()

    # Messages.

    def _ask(
        self, phase: str, bodies: Mapping[str, bytes], take: Callable[[str, bytes], None]
    ) -> None:
        number = secrets.randbits(31)
        contents = {name: self._content({"body": body}, 0, number) for name, body in bodies.items()}
        self._collect(phase, contents, lambda name, body, _: take(name, body), ahead=True)

    def _phase(
        self, phase: str, unmasking: Unmasking, members: tuple[str, ...], body: bytes, take: Take
    ) -> None:
        attempt = unmasking.attempt
        keys: dict[str, int | bytes] = {"key_set": attempt.key_set, "body": body}
        content = self._content(keys, attempt.round, attempt.attempt)
        self._collect(phase, dict.fromkeys(members, content), take, ahead=False)

    def _collect(
        self, phase: str, contents: Mapping[str, RecordDict], take: Take, *, ahead: bool
    ) -> None:
        """Sends each member its content; answers are taken as they arrive, faults are told."""
        messages = {
            name: self._grid.create_message(
                content, f"train.{phase}", self._node_ids[name], str(content["task"]["round"])
            )
            for name, content in contents.items()
        }
        if not messages:
            return
        if self._closed.is_set():
            raise RoundFailed("the study is over")
        privacy, deadlines = self._terms.privacy, self._terms.deadlines
        expectation = Expectation(
            least=privacy.least_survivors if ahead else privacy.threshold,
            patience_s=deadlines.keys_grace_s if ahead else deadlines.grace_s,
            needed=not ahead,
            check=lambda name, content: self._take(name, content, take),
        )
        self._grid.expect(task_key(next(iter(messages.values()))), expectation)
        replies = self._grid.send_and_receive(messages.values(), timeout=deadlines.of(phase))
        for name, reply in zip(messages, replies, strict=True):
            if reply.has_error():  # the service has told
                self.missed(name, reply)

    def _take(self, name: str, content: wire.Content, take: Take) -> None:
        """Gives an answer to its state machine as it arrives, on the service's loop.

        Raises:
            MemberFault: if it is not what it should be.
        """
        take(name, blob_of(content, "signed", "body"), blob_of(content, "signed", "signature"))

    def _content(
        self, keys: Mapping[str, int | bytes], round_number: int, attempt: int
    ) -> RecordDict:
        return RecordDict(
            {
                "task": ConfigRecord(
                    {"study": self._terms.label, "round": round_number, "attempt": attempt}
                ),
                "terms": ConfigRecord({"terms_hash": self._terms.hash}),
                "keys": ConfigRecord(dict(keys)),
            }
        )


def _run_length(setup: Setup) -> int:
    """How many key sets are made at once: fewer where a cohort's shares take much memory."""
    size = setup.terms.privacy.cohort_size
    each_bytes = DEAL_BYTES * size * setup.graph.holders(size)
    return max(1, min(RUN, RUN_BYTES // each_bytes))
