"""From two released sums to an evaluation. Needs numpy only.

Everything here is post-processing of releases: anybody who has the terms and the releases can
repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client_sdk.recipes.evaluation.measures import describe, threshold
from client_sdk.recipes.evaluation.settings import (
    ROUNDS,
    EvaluationSettings,
    Layout,
    check,
    check_model,
    dimension,
    model_needed,
    parse,
    plan,
    takes,
)
from privacy.errors import RecipeError
from privacy.terms import Terms

__all__ = [
    "Settings", "State", "check", "check_model", "describe", "dimension", "fold", "initial_state",
    "model_needed", "plan", "published", "state_from_arrays", "takes",
]  # fmt: skip

Settings = EvaluationSettings


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The public state between two rounds.

    Args:
        folded: releases folded so far.
        parameters: float32, shape (dimension,), as `Layout` says; all zeros before the first round.
            Counts stand in shares of the declared consumers (rule R11).
    """

    folded: int
    parameters: npt.NDArray[np.float32]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays: ``folded`` int64, shape (1,), and ``parameters``."""
        return {
            "folded": np.array([self.folded], dtype=np.int64),
            "parameters": self.parameters,
        }


def initial_state(terms: Terms) -> State:
    """The state before the first round: nothing is known.

    Raises:
        RecipeError: if settings or dimension do not fit.
    """
    _layout(terms)
    return State(0, np.zeros(terms.dimension, dtype=np.float32))


def state_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], terms: Terms) -> State:
    """The state that `State.arrays` gave.

    Raises:
        RecipeError: if an array is missing, superfluous, of another type or shape, or not finite.
    """
    if set(arrays) != {"folded", "parameters"}:
        raise RecipeError("state: needs the arrays folded, parameters and no others")
    folded, parameters = arrays["folded"], arrays["parameters"]
    if folded.dtype != np.int64 or folded.shape != (1,) or not 0 <= folded[0] <= ROUNDS:
        raise RecipeError(f"state: folded must be one int64 from 0 to {ROUNDS}")
    if parameters.dtype != np.float32 or parameters.shape != (terms.dimension,):
        raise RecipeError(f"state: parameters must be float32 of shape ({terms.dimension},)")
    if not np.isfinite(parameters).all():
        raise RecipeError("state: parameters holds a value that is not finite; resume an older")
    return State(int(folded[0]), parameters.astype(np.float32))


def fold(state: State, mean: npt.NDArray[np.floating], terms: Terms) -> State:
    """The state after one more release.

    The first gives the histogram and the threshold above which the top share lies; the second
    the histogram once more and the tables at that threshold. Either tells its own noise, by the
    mean square of the coordinates in which nothing is counted.

    **Guarantees:** post-processing: a function of the release and of public state only.

    Args:
        state: the state at which the release was computed.
        mean: floats, shape (dimension,): the released sum divided by the declared consumers of the
            survivors.
        terms: the study's terms.

    Raises:
        RecipeError: if the release has another shape or is not finite, or none was due.
    """
    settings, layout = _layout(terms)
    number = state.folded + 1
    released = np.asarray(mean)
    if number > ROUNDS:
        raise RecipeError(f"round {number}: an evaluation has {ROUNDS}; discard the release")
    if released.shape != (terms.dimension,) or released.dtype.kind != "f":
        raise RecipeError(
            f"round {number}: the release must be floats of shape ({terms.dimension},), "
            f"got {released.dtype} {released.shape}"
        )
    counts = released.astype(np.float64) / terms.privacy.clipping_norm
    if not (np.abs(counts) < 1e30).all():  # NaN is not below either
        raise RecipeError(f"round {number}: the release is not finite; discard it")
    parameters = state.parameters.copy()
    place = layout.spare.start
    if number == 1:
        parameters[layout.histogram] = counts[layout.histogram]
        parameters[place] = threshold(parameters[layout.histogram], settings)
        parameters[place + 1] = _size(counts[layout.histogram.stop :])
    else:
        counts /= layout.weight
        counted = slice(layout.again.start, layout.spare.start)
        parameters[counted] = counts[counted]
        parameters[place + 2] = _size(np.delete(counts, counted))
    return State(number, parameters)


def published(state: State) -> npt.NDArray[np.float32]:
    """What is published: `describe` says what it means."""
    return state.parameters


def _size(noise: npt.NDArray[np.float64]) -> float:
    """Root of the mean square, from an exactly rounded sum: the same on every machine."""
    return math.sqrt(math.fsum(float(one) ** 2 for one in noise) / len(noise))


def _layout(terms: Terms) -> tuple[EvaluationSettings, Layout]:
    """Settings and layout of these terms, checked against their dimension."""
    settings = parse(terms)
    layout = Layout.of(terms.contract, settings)
    if terms.dimension != layout.dimension:
        raise RecipeError(
            f"study {terms.study}: the evaluation has {layout.dimension} coordinates and the terms "
            f"say {terms.dimension}; set dimension to {layout.dimension}"
        )
    return settings, layout
