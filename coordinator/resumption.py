"""The public state of a study, kept so that it can be rebuilt exactly as the log says it was.

A release's sum is durable before the log names it, and that before anybody acts on it. The
state, several times as large, follows now and then and beside the rounds; from the newest one that
the log confirms, the sums lead on.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from client_sdk.recipes.catalogue import State, recipe_of
from coordinator.evidence import Evidence
from coordinator.store import Starts, StudyStore
from privacy.errors import AllianceError, ConfigurationError
from privacy.fixedpoint import Grid, decode
from privacy.secagg import model_hash
from privacy.terms import Terms
from protos.logs import log

__all__ = ["Resumed", "Resumption", "mean_of"]

STATE_EVERY_S: Final = 5.0


def mean_of(
    terms: Terms, total: npt.NDArray[np.float64], contributors: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    """Rule R11: divided by q times the survivors' declared consumers, never by a count."""
    declared = sum(terms.entry(name).declared_consumers for name in contributors)
    return total / (terms.privacy.sampling_probability * declared)


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a study goes on.

    Args:
        state: the public state after ``round``.
        attempts: spent so far; every crash may have cost one more than the log knows.
    """

    state: State
    round: int
    attempts: int
    starts: Starts


class Resumption:
    """Keeps a study's public state, and finds it again.

    Args:
        terms: of the study.
        evidence: the coordinator's log.
        studies: the database.
    """

    def __init__(self, terms: Terms, evidence: Evidence, studies: StudyStore) -> None:
        self._terms = terms
        self._recipe = recipe_of(terms)
        self._evidence = evidence
        self.studies = studies
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="public-state")
        self._writing: Future[None] | None = None
        self._kept_s = time.monotonic()

    def resume(self) -> Resumed:
        """Notes that this coordinator begins to run the study; where it goes on.

        Raises:
            ConfigurationError: if state or sums that the log names are missing or do not lead to
                the model that it names.
        """
        starts = self.studies.start(self._terms.hash)
        told = self._evidence.told(self._terms)
        after, state = self._newest(told.models)
        grid = Grid.of(self._terms)
        while after < told.round:
            number = after + 1
            data = self._evidence.sums.read(self._terms, number, *told.sums[number])
            if data is None:
                break
            total = decode(np.frombuffer(data, dtype=grid.dtype), grid)
            mean = mean_of(self._terms, total, told.contributors[number])
            state, after = self._recipe.fold(state, mean, self._terms), number
        if after != told.round or (
            after and model_hash(state.parameters).hex() != told.models[after]
        ):
            raise ConfigurationError(
                f"study {self._terms.study}: what is kept leads to round {after}, the log has "
                f"released round {told.round}; restore the newest backup of database and log"
            )
        return Resumed(state, after, told.attempts + starts.crashes, starts)

    def _newest(self, models: dict[int, str]) -> tuple[int, State]:
        """The newest state in the database that the log confirms; before any, the first one."""
        for number in self.studies.rounds_kept(self._terms.hash):
            arrays = self.studies.state(self._terms.hash, number, models.get(number, ""))
            if arrays is not None:
                return number, self._recipe.state_from_arrays(arrays, self._terms)
        return 0, self._recipe.initial_state(self._terms)

    def keep(self, state: State, round_number: int) -> None:
        """Keeps a state that the log has, every few seconds and beside the rounds."""
        busy = self._writing is not None and not self._writing.done()
        if busy or time.monotonic() - self._kept_s < STATE_EVERY_S:
            return
        self._kept_s = time.monotonic()
        self._writing = self._thread.submit(self._keep, state, round_number)

    def close(self) -> None:
        """Finishes what is being written."""
        self._thread.shutdown()

    def _keep(self, state: State, round_number: int) -> None:
        try:
            self.studies.keep_state(
                self._terms.hash, round_number, model_hash(state.parameters), state.arrays()
            )
            self._evidence.sums.forget(self._terms, round_number)
        except AllianceError as error:  # the sums are there still; the next time it may work
            log("StateUnkept", error=error, round=round_number)
