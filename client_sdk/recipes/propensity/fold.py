"""From a released mean gradient to the next public parameters. Needs numpy only.

Everything here is post-processing of releases: it costs no budget, and anybody who has the terms
and the releases can repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client_sdk.recipes.propensity.settings import (
    PropensitySettings,
    check,
    check_dimension,
    dimension,
    network,
    parse,
    plan,
    takes,
)
from privacy.errors import RecipeError
from privacy.keystream import KeyStream
from privacy.terms import Terms

__all__ = [
    "Settings", "State", "check", "dimension", "fold", "initial_state", "plan", "published",
    "state_from_arrays", "takes",
]  # fmt: skip

Settings = PropensitySettings

Vector = npt.NDArray[np.float32]

_CONTEXT = b"alliance/v1/initial-parameters"

_SECOND_DECAY = 0.999
_EPSILON = 1e-8

BLOCK = 1 << 14
"""Coordinates stepped at a time; 128 KiB per array stay in the second-level cache."""
"""Adam's constants beta_2 and epsilon: Kingma and Ba (2015), algorithm 1."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The public state between two rounds. Vectors are float32, shape (dimension,) or (0,).

    Args:
        folded: releases folded so far.
        parameters: what members compute the next gradient at.
        velocity: ``sgd``: the running step; ``adam``: the running mean of gradients.
        squares: ``adam``: the running mean of squared gradients; otherwise empty.
        mean: mean of the iterates since ``average_from``; empty until then.
        averaged: how many iterates it is the mean of.
    """

    folded: int
    parameters: Vector
    velocity: Vector
    squares: Vector
    mean: Vector
    averaged: int

    def arrays(self) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
        """The state as named arrays: ``counts`` int64, shape (2,), all others float32."""
        return {
            "counts": np.array([self.folded, self.averaged], dtype=np.int64),
            "parameters": self.parameters,
            "velocity": self.velocity,
            "squares": self.squares,
            "mean": self.mean,
        }


def state_from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]], terms: Terms) -> State:
    """The state that `State.arrays` gave.

    Raises:
        RecipeError: if an array is missing, superfluous, of another type or shape, or not finite.
    """
    settings = _settings(terms)
    names = {"counts", "parameters", "velocity", "squares", "mean"}
    if set(arrays) != names:
        raise RecipeError(f"state: needs the arrays {', '.join(sorted(names))} and no others")
    counts = arrays["counts"]
    if counts.dtype != np.int64 or counts.shape != (2,) or not 0 <= counts[1] <= counts[0]:
        raise RecipeError("state: counts must be two int64, folded and averaged")
    folded, averaged = (int(count) for count in counts)
    size = terms.dimension
    sizes = {
        "parameters": size,
        "velocity": size,
        "squares": size if settings.optimizer == "adam" else 0,
        "mean": size if averaged else 0,
    }
    vectors = {name: _vector(arrays[name], name, sizes[name]) for name in sizes}
    return State(folded=folded, averaged=averaged, **vectors)


def _vector(array: npt.NDArray[np.generic], name: str, size: int) -> Vector:
    """The array as a finite float32 vector of this size, or a RecipeError."""
    if array.dtype != np.float32 or array.shape != (size,):
        raise RecipeError(
            f"state: {name} must be float32 of shape ({size},), got {array.dtype} {array.shape}"
        )
    vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise RecipeError(f"state: {name} holds a value that is not finite; resume from an older")
    return vector


def _settings(terms: Terms) -> PropensitySettings:
    """Settings of these terms, checked against their dimension."""
    settings = parse(terms)
    check_dimension(terms, settings)
    return settings


def initial_state(terms: Terms) -> State:
    """The state before the first round: the same for everybody who has the terms.

    Logistic regression starts at zero: its loss is convex, and a random start would only have to
    be unlearned under noise. Hidden layers draw weights uniformly within sqrt(6 / inputs) of zero,
    the logit within sqrt(6 / (inputs + 1)), embeddings within 1 / sqrt(width); biases are zero.
    An installed model draws everything within ``initial_scale``.

    **Source:** He et al. (2015), section 2.2; Glorot and Bengio (2010), equation 16; both uniform.
    The stream is AES-256-CTR under HKDF-SHA256(terms hash; alliance/v1/initial-parameters).

    Raises:
        RecipeError: if settings or dimension do not fit.
    """
    settings = _settings(terms)
    size = terms.dimension
    limits = _initial_limits(terms, settings)
    key = HKDF(SHA256(), length=32, salt=None, info=_CONTEXT).derive(bytes.fromhex(terms.hash))
    # 24 bits of each word: every value in [-1, 1) is exact in float32, on every machine alike.
    unit = (KeyStream(key).uint32(size) >> np.uint32(8)).astype(np.float32) * np.float32(2**-23)
    empty = np.zeros(0, dtype=np.float32)
    return State(
        folded=0,
        parameters=(unit - np.float32(1)) * limits,
        velocity=np.zeros(size, dtype=np.float32),
        squares=np.zeros(size, dtype=np.float32) if settings.optimizer == "adam" else empty,
        mean=empty,
        averaged=0,
    )


def _initial_limits(terms: Terms, settings: PropensitySettings) -> Vector:
    """How far from zero each parameter may start, float32, shape (dimension,)."""
    if settings.installed:
        return np.full(terms.dimension, settings.initial_scale, dtype=np.float32)
    shape = network(terms.contract, settings)
    limits = np.zeros(terms.dimension, dtype=np.float32)
    if not shape.hidden:
        return limits
    for part in shape.parts:
        if part.name == "tables":
            limits[part.offset : part.end] = 1 / math.sqrt(shape.width)
        elif part.name.startswith("weight"):
            outputs, inputs = part.shape
            fan = inputs if part.name != f"weight {len(shape.hidden)}" else inputs + outputs
            limits[part.offset : part.end] = math.sqrt(6 / max(fan, 1))
    return limits


def fold(state: State, mean_gradient: npt.NDArray[np.floating], terms: Terms) -> State:
    """The state after one more release: one step of the optimiser.

    **Guarantees:** post-processing: a function of the release and of public state only.

    **Source:** ``sgd``: Polyak (1964), heavy ball; ``adam``: Kingma and Ba (2015), algorithm 1;
    the mean of iterates: Polyak and Juditsky (1992).

    Args:
        state: the state at which the release was computed.
        mean_gradient: floats, shape (dimension,): the released sum divided by q times the
            declared consumers of the survivors (rule R11).
        terms: the study's terms.

    Raises:
        RecipeError: if the gradient has another shape, is not finite, or leads to parameters
            that are not.
    """
    settings = _settings(terms)
    gradient = np.asarray(mean_gradient)
    number = state.folded + 1
    if gradient.shape != (terms.dimension,) or gradient.dtype.kind != "f":
        raise RecipeError(
            f"round {number}: the mean gradient must be floats of shape ({terms.dimension},), "
            f"got {gradient.dtype} {gradient.shape}"
        )
    if not np.isfinite(gradient).all():
        raise RecipeError(f"round {number}: the mean gradient is not finite; discard the release")
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        moved = _step(state, gradient, settings)
    for vector in (moved.parameters, moved.velocity, moved.squares):
        if not np.isfinite(vector).all():
            raise RecipeError(
                f"round {number}: the step left the range of float32; lower the learning rate"
            )
    return _averaged(moved, settings)


def _step(state: State, gradient: npt.NDArray[np.floating], settings: PropensitySettings) -> State:
    """One step of the optimiser; the mean is left as it was."""
    moved = replace(
        state,
        folded=state.folded + 1,
        parameters=np.empty_like(state.parameters),
        velocity=np.empty_like(state.velocity),
        squares=np.empty_like(state.squares),
    )
    for start in range(0, len(gradient), BLOCK):
        _step_block(state, moved, gradient, settings, slice(start, start + BLOCK))
    return moved


def _step_block(
    state: State,
    moved: State,
    gradient: npt.NDArray[np.floating],
    settings: PropensitySettings,
    block: slice,
) -> None:
    """One block of `_step`: computed in float64, stored in float32."""
    decay, rate, number = settings.momentum, settings.learning_rate, moved.folded
    slope = gradient[block].astype(np.float64)
    if settings.optimizer == "sgd":
        velocity = decay * state.velocity[block] + slope
        step = rate * velocity
    else:
        velocity = decay * state.velocity[block] + (1 - decay) * slope
        spread = _SECOND_DECAY * state.squares[block] + (1 - _SECOND_DECAY) * slope**2
        first = velocity / (1 - decay**number)
        second = spread / (1 - _SECOND_DECAY**number)
        moved.squares[block] = spread
        step = rate * first / (np.sqrt(second) + _EPSILON)
    moved.velocity[block] = velocity
    moved.parameters[block] = state.parameters[block] - step


def _averaged(state: State, settings: PropensitySettings) -> State:
    """The same state with its newest iterate in the mean, once the mean has begun."""
    if not settings.average_from or state.folded < settings.average_from:
        return state
    count = state.averaged + 1
    before = state.mean if state.averaged else state.parameters
    mean = before + (state.parameters.astype(np.float64) - before) / count
    return replace(state, mean=mean.astype(np.float32), averaged=count)


def published(state: State) -> Vector:
    """The parameters to publish and to score with: the mean of iterates where there is one."""
    return state.mean if state.averaged else state.parameters
