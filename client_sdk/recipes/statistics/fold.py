"""From the one released mean to the public state. Needs numpy only.

All of it is post-processing of a release: it costs no budget, and anybody who has the terms and the
release can repeat it. What the numbers say is worked out in `answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client_sdk.recipes.statistics.settings import (
    StatisticsSettings,
    check,
    dimension,
    parse,
    plan,
)
from privacy.errors import RecipeError
from privacy.terms import Terms

__all__ = [
    "Settings", "State", "check", "dimension", "fold", "initial_state", "plan", "published",
    "state_from_arrays",
]  # fmt: skip

Settings = StatisticsSettings


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The public state: zeros, and after the release its mean.

    Args:
        folded: releases folded so far: 0 or 1.
        parameters: the released sum divided by the survivors' declared consumers (rule R11),
            float32, shape (dimension,).
    """

    folded: int
    parameters: npt.NDArray[np.float32]

    def arrays(self) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
        """The state as named arrays: ``folded`` int64, shape (1,); ``parameters`` float32."""
        return {
            "folded": np.array([self.folded], dtype=np.int64),
            "parameters": self.parameters,
        }


def state_from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], terms: Terms) -> State:
    """The state that `State.arrays` gave.

    Raises:
        RecipeError: if an array is missing, superfluous, of another type or shape, or not finite.
    """
    _size(terms)
    if set(arrays) != {"folded", "parameters"}:
        raise RecipeError("state: needs the arrays folded and parameters and no others")
    folded, parameters = arrays["folded"], arrays["parameters"]
    if folded.dtype != np.int64 or folded.shape != (1,) or folded[0] not in (0, 1):
        raise RecipeError("state: folded must be one int64, 0 or 1")
    if parameters.dtype != np.float32 or parameters.shape != (terms.dimension,):
        raise RecipeError(
            f"state: parameters must be float32 of shape ({terms.dimension},), got "
            f"{parameters.dtype} {parameters.shape}"
        )
    vector = parameters.astype(np.float32)
    if not np.isfinite(vector).all():
        raise RecipeError("state: parameters hold a value that is not finite; run the study again")
    return State(int(folded[0]), vector)


def initial_state(terms: Terms) -> State:
    """The state before the round: the same for everybody who has the terms.

    Raises:
        RecipeError: if settings or dimension do not fit.
    """
    return State(0, np.zeros(_size(terms), dtype=np.float32))


def fold(state: State, mean: npt.NDArray[np.floating], terms: Terms) -> State:
    """The state after the release.

    **Guarantees:** post-processing: a function of the release and of public state only.

    Args:
        state: before it.
        mean: floats, shape (dimension,): the released sum divided by the declared consumers of the
            survivors (rule R11).
        terms: the study's terms.

    Raises:
        RecipeError: if the mean has another shape, is not finite or too large for float32, or the
            release was folded already.
    """
    size = _size(terms)
    values = np.asarray(mean)
    if state.folded:
        raise RecipeError("round 2: statistics are one release; propose another study for more")
    if values.shape != (size,) or values.dtype.kind != "f":
        raise RecipeError(
            f"round 1: the mean must be floats of shape ({size},), got {values.dtype} "
            f"{values.shape}"
        )
    with np.errstate(over="ignore", under="ignore"):
        parameters = values.astype(np.float32)
    if not np.isfinite(parameters).all():
        raise RecipeError("round 1: the mean is not finite; discard the release")
    return State(1, parameters)


def published(state: State) -> npt.NDArray[np.float32]:
    """What is published: the noised mean itself, which every answer follows from."""
    return state.parameters


def _size(terms: Terms) -> int:
    """The dimension, checked against the settings."""
    needed = dimension(terms.contract, parse(terms))
    if terms.dimension != needed:
        raise RecipeError(
            f"study {terms.study}: the statistics have {needed} coordinates and the terms say "
            f"{terms.dimension}; set dimension to {needed}"
        )
    return needed
