"""The Flower strategy whose every train round is one private sum.

The same strategy runs over the alliance link and under Flower's simulation engine. On the link
contributions are masked, one has been added by the time its reply is here, and the reply is a
receipt; under simulation nothing is masked, and the reply carries the contribution, added here.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from client_sdk.recipes.catalogue import recipe_of
from coordinator.aggregation import SecureAggregation
from coordinator.cohort import choose
from coordinator.config import Deadlines
from coordinator.costs import Costs
from coordinator.grid import ABSENT_CODE, UNHEARD_CODE, Expectation, LinkGrid, task_key
from coordinator.monitor import (
    AttemptFailed,
    MemberRefused,
    MemberRests,
    Monitor,
    RoundClosed,
    StudyFinished,
    StudyOpened,
    StudyPaused,
)
from coordinator.proposal import Proposal
from coordinator.resumption import Resumption, mean_of
from coordinator.round import Round
from coordinator.standing import Standing
from coordinator.store import Status
from coordinator.witnessing import Ledgers
from privacy.errors import MemberFault, RoundFailed
from privacy.secagg import model_hash
from privacy.terms import Terms
from protos.codec import array_to_flower, flower_to_array

__all__ = ["PrivateSumStrategy", "Publish"]

FAILED_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
"""A failed attempt is spent: what made it fail gets time to mend, twice as long each time."""
PUBLISH_EVERY_S: Final = 1.0
ATTEMPTS_PER_START: Final = 10_000
"""A coordinator that starts again numbers attempts above those it may have opened and forgotten:
members answer no attempt twice."""

Publish = Callable[[npt.NDArray[np.float32], int, bool], str]
"""Keeps published parameters: (parameters, round, whether it is the last); says where."""


class PrivateSumStrategy(Strategy):
    """Runs one study: propose the terms, one private sum per round, publish.

    Args:
        terms: the study.
        monitor: is told what happens.
        publish: keeps each round's published parameters.
        deadlines: how long to wait.
        transport: one sentence on what the coordinator sees, for the record.
        certify: is called once the last model's publication stands under a cosigned head.
        ledgers: the coordinator's log and members'; None under simulation.
        resumption: keeps the public state, so that a study goes on where it was; None under
            simulation.
        proposal: who accepted the terms; members may still come to. Without one they are proposed
            when the study starts, as under simulation.
        costs: of the study; worked out if not given.

    Raises:
        ConfigurationError: if the study is over, or what is kept of it does not fit its log.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        monitor: Monitor,
        publish: Publish,
        deadlines: Deadlines,
        transport: str,
        certify: Callable[[], None] = lambda: None,
        ledgers: Ledgers | None = None,
        resumption: Resumption | None = None,
        proposal: Proposal | None = None,
        costs: Costs | None = None,
    ) -> None:
        self._terms = terms
        self._recipe = recipe_of(terms)
        self._proposal = proposal or Proposal(terms, monitor)
        self._monitor = monitor
        self._publish = publish
        self._deadlines = deadlines
        self._transport = transport
        self._certify = certify
        self._ledgers = ledgers
        self._resumption = resumption
        self._costs = costs or Costs.of(terms)
        self._state = self._recipe.initial_state(terms)
        self._model: bytes | None = None
        self._names: dict[int, str] = {}
        self._standing = Standing(
            tell=lambda rest: monitor.emit(MemberRests(rest.member, rest.sentence, rest.seconds))
        )
        self._aggregation: SecureAggregation | None = None
        self._round: Round | None = None
        self._asked: tuple[str, ...] = ()
        self._opened_s = 0.0
        self._published_s = -math.inf
        self.attempts = 0
        self._draining = threading.Event()
        self._drained_for = ""
        self._start_number = 1
        self._rounds_before = 0
        self._attempts_before = 0
        if resumption is not None:
            resumed = resumption.resume()
            self._state, self._rounds_before = resumed.state, resumed.round
            self.attempts, self._start_number = resumed.attempts, resumed.starts.number
            self._attempts_before = (self._start_number - 1) * ATTEMPTS_PER_START

    def drain(self, sentence: str) -> None:
        """Lets the open round end and begins no other; `start` then returns. From any thread.

        Args:
            sentence: why.
        """
        self._drained_for = self._drained_for or sentence
        self._draining.set()

    def summary(self) -> None:
        """Nothing: the monitor says it all."""

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 0,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Runs the whole study; rounds and parameters come from the terms, not from here.

        Raises:
            RoundFailed: if too few members are willing, or the attempts are used up.
        """
        started_s = time.perf_counter()
        self._propose(grid)
        if isinstance(grid, LinkGrid):
            node_ids = {name: node_id for node_id, name in self._names.items()}
            self._aggregation = SecureAggregation(
                self._terms, grid, self._monitor, self._deadlines, node_ids, self._standing,
                self._ledgers, self.attempts, self._start_number,
            )  # fmt: skip
        try:
            result = self._learn(grid)
            if self._draining.is_set():
                return result
            where = self._publish(
                self._recipe.published(self._state), self._terms.privacy.rounds, True
            )
            if self._aggregation is not None:
                self._aggregation.settle(set(self._proposal.accepted))
            self._certify()
        finally:
            if self._aggregation is not None:
                self._aggregation.close()
            if self._resumption is not None:
                self._resumption.close()
        publish_s = self._terms.deadlines.publish_s
        grid.send_and_receive(self._publication(grid), timeout=publish_s)
        self._set_status(Status.FINISHED)
        self._monitor.emit(
            StudyFinished(
                self._terms.study,
                self._terms.privacy.rounds,
                self.attempts,
                time.perf_counter() - started_s,
                where,
            )
        )
        return result

    def _learn(self, grid: Grid) -> Result:
        """All rounds, one private sum each."""
        arrays, result = self._arrays(), Result()
        contribute_s = self._terms.deadlines.contribute_s
        for round_number in range(self._rounds_before + 1, self._terms.privacy.rounds + 1):
            attempt = self._attempts_before
            while True:
                if self._draining.is_set():
                    self._pause(round_number - 1)
                    return result
                attempt += 1
                messages = self._open(round_number, attempt, arrays, grid)
                replies = grid.send_and_receive(messages, timeout=contribute_s)
                released, _ = self.aggregate_train(round_number, replies)
                if released is not None:
                    break
                failed = attempt - self._attempts_before
                time.sleep(min(FAILED_PAUSE_S * 2 ** (failed - 1), LONGEST_PAUSE_S))
            arrays = result.arrays = released
        return result

    def _pause(self, round_number: int) -> None:
        self._set_status(Status.PAUSED, self._drained_for)
        self._monitor.emit(
            StudyPaused(self._terms.study, round_number, self.attempts, self._drained_for)
        )

    def _set_status(self, status: Status, sentence: str = "") -> None:
        if self._resumption is not None:
            self._resumption.studies.set_status(self._terms.hash, status, sentence)

    # Proposing and publishing.

    def _propose(self, grid: Grid) -> None:
        """Sees that enough members accepted the terms, and tells what the study costs.

        Raises:
            RoundFailed: if fewer than N - D did.
        """
        if isinstance(grid, LinkGrid):
            self._names = {grid.node_id(one.name): one.name for one in self._terms.roster}
            if self._ledgers is not None:
                self._proposal.open_logs(self._ledgers.mirror)
        else:
            self._proposal.gather(grid, self._deadlines.assemble_s)
            self._names = self._proposal.nodes
        if not self._proposal.enough:
            raise RoundFailed(f"study {self._terms.study}: {self._proposal.shortage()}")
        willing = self._proposal.accepted
        self._monitor.emit(
            StudyOpened(
                self._terms.study,
                self._terms.hash,
                tuple(entry.name for entry in self._terms.roster if entry.name in willing),
                self._terms.privacy.rounds,
                self._terms.privacy.delta,
                {str(m): epsilon for m, epsilon in self._costs.profile.items()},
                self._costs.local_profile[1],
                {str(m): epsilon for m, epsilon in self._costs.local_profile.items()},
                self._transport,
            )
        )

    def _publication(self, grid: Grid) -> list[Message]:
        arrays = ArrayRecord({"parameters": array_to_flower(self._recipe.published(self._state))})
        task = self._task(self._terms.privacy.rounds, 1)
        terms = ConfigRecord({"terms_hash": self._terms.hash})
        content = RecordDict({"task": task, "terms": terms, "model": arrays})
        return [
            grid.create_message(content, "train.publish", node_id, str(self._terms.privacy.rounds))
            for node_id, name in self._names.items()
            if name in self._proposal.accepted
        ]

    # One round.

    def _open(
        self, round_number: int, attempt: int, arrays: ArrayRecord, grid: Grid
    ) -> list[Message]:
        """Opens an attempt: who is in it, where contributions go, and the messages.

        Raises:
            RoundFailed: if the attempts are used up or too few members are present.
        """
        if self.attempts >= self._terms.privacy.max_attempts:
            raise RoundFailed(
                f"round {round_number}: all {self._terms.privacy.max_attempts} attempts of the "
                "terms are used; propose a new study"
            )
        accepted = set(self._proposal.accepted)
        if self._aggregation is None:
            present = {self._names[node] for node in grid.get_node_ids() if node in self._names}
            least = self._terms.privacy.least_survivors
            willing = self._standing.askable(accepted, present=present, least=least)
            unmasking, self._asked = None, choose(self._terms, willing=willing, present=present)
            cohort = self._asked
        else:
            model = self._model_hash()
            unmasking, self._asked = self._aggregation.open(round_number, attempt, model, accepted)
            cohort = unmasking.cohort.names
        self.attempts += 1
        self._opened_s = time.perf_counter()
        keep = None
        if self._ledgers is not None:
            keep = self._ledgers.evidence.rounds.keep(self._terms.label, round_number, attempt)
        self._round = Round(
            self._terms, round_number=round_number, attempt=attempt, cohort=cohort,
            unmasking=unmasking, keep=keep,
        )  # fmt: skip
        config = ConfigRecord({"terms_hash": self._terms.hash})
        messages = list(self.configure_train(round_number, arrays, config, grid))
        if isinstance(grid, LinkGrid) and messages:
            expectation = Expectation(
                least=self._round.least, round=self._round, needed=True,
                patience_s=self._terms.deadlines.grace_s,
            )  # fmt: skip
            grid.expect(task_key(messages[0]), expectation)
        return messages

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One ``train.contribute`` message for each member of the open attempt."""
        open_round = self._expect_round()
        content = RecordDict(
            {
                "task": self._task(server_round, open_round.attempt),
                "terms": config,
                "model": arrays,
            }
        )
        if open_round.unmasking is not None:
            key_set = open_round.unmasking.attempt.key_set
            content["keys"] = ConfigRecord({"key_set": key_set})
        return [
            grid.create_message(content, "train.contribute", node_id, str(server_round))
            for node_id, name in self._names.items()
            if name in self._asked
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Closes the open attempt; the next parameters, or None where it failed."""
        open_round = self._expect_round()
        for reply in replies:
            name = self._names[reply.metadata.src_node_id]
            if not reply.has_error():
                self._standing.good(name)
            elif self._aggregation is None:
                self._standing.strike(name)
            else:
                self._aggregation.missed(name, reply)
                if reply.error.code not in (ABSENT_CODE, UNHEARD_CODE):
                    self._aggregation.lost(name)
            if not reply.has_error():
                self._add_simulated(open_round, name, reply)
        try:
            open_round.close()
            if self._aggregation is not None:
                self._aggregation.unmask(open_round)
            release = open_round.release()
        except RoundFailed as error:
            if self._aggregation is not None:
                self._aggregation.leave_out(error.members)
            if self._ledgers is not None:
                self._ledgers.evidence.failed(self._terms, open_round, str(error))
            self._monitor.emit(AttemptFailed(server_round, open_round.attempt, str(error)))
            return None, None
        evidence = self._ledgers.evidence if self._ledgers is not None else None
        kept = evidence.sums.write(self._terms, release) if evidence is not None else None
        mean = mean_of(self._terms, release.total(), release.contributors)
        self._state = self._recipe.fold(self._state, mean, self._terms)
        self._model = None
        if evidence is not None and kept is not None:
            evidence.released(self._terms, open_round, release, kept, self._model_hash())
        if self._resumption is not None:
            self._resumption.keep(self._state, server_round)
        self._publish_now_and_then(server_round)
        seconds = time.perf_counter() - self._opened_s
        chosen = self._aggregation.chosen if self._aggregation else open_round.cohort
        self._monitor.emit(
            RoundClosed(
                server_round,
                open_round.attempt,
                release.contributors,
                tuple(name for name in chosen if name not in release.contributors),
                seconds,
                self.attempts,
                self._costs.spent[self.attempts],
            )
        )
        return self._arrays(), MetricRecord({"seconds": seconds})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: an evaluation is a private sum of its own."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing: see `configure_evaluate`."""
        return None

    def _publish_now_and_then(self, round_number: int) -> None:
        """Publishes the newest parameters, at most once a second; the last ones always are."""
        now_s = time.perf_counter()
        if now_s - self._published_s >= PUBLISH_EVERY_S:
            self._published_s = now_s
            self._publish(self._recipe.published(self._state), round_number, False)

    def _add_simulated(self, open_round: Round, name: str, reply: Message) -> None:
        """Adds a contribution that came inside its reply; a receipt needs nothing more."""
        record = reply.content.get("contribution")
        if not isinstance(record, ArrayRecord):
            return
        try:
            array = flower_to_array(record["sum"])
            open_round.announce(name, array.dtype.name, array.shape)
            open_round.cleared()
            open_round.add(name, 0, array.tobytes())
        except MemberFault as error:
            open_round.drop(name)
            self._monitor.emit(MemberRefused(name, "contribute", error.what))

    def _model_hash(self) -> bytes:
        """`model_hash` of the public state, worked out once per round."""
        if self._model is None:
            self._model = model_hash(self._state.parameters)
        return self._model

    def _arrays(self) -> ArrayRecord:
        return ArrayRecord({"parameters": array_to_flower(self._state.parameters)})

    def _task(self, round_number: int, attempt: int) -> ConfigRecord:
        return ConfigRecord({"study": self._terms.label, "round": round_number, "attempt": attempt})

    def _expect_round(self) -> Round:
        if self._round is None:
            raise RoundFailed("no attempt is open; start() opens them")
        return self._round
