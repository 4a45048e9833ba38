"""The next noise vector, drawn while the node has nothing else to do; each is used once."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from client_sdk.priority import give_way
from privacy.fixedpoint import SHARE_SCALE
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian

__all__ = ["NoiseAhead"]

LONGEST: Final = 1 << 22
"""Coordinates; a longer vector is drawn when it is needed, not kept in memory."""

Noise = npt.NDArray[np.int64]


class NoiseAhead:
    """Draws noise vectors, at most one ahead.

    Guarantees:
        Every vector is discrete Gaussian noise of scale ``SHARE_SCALE`` from a fresh stream, handed
        out once, in the process that drew it: after a fork the child draws its own.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "noise", initializer=give_way)
        self._ahead: tuple[int, int, Future[Noise]] | None = None

    def take(self, dimension: int) -> Noise:
        """A noise vector nobody has seen: int64, shape (dimension,)."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] == (os.getpid(), dimension):
            return ahead[2].result()
        return _draw(dimension)

    def prepare(self, dimension: int) -> None:
        """Begins to draw the next vector, unless there is one."""
        if dimension <= LONGEST and (self._ahead is None or self._ahead[1] != dimension):
            self._ahead = (os.getpid(), dimension, self._thread.submit(_draw, dimension))


def _draw(dimension: int) -> Noise:
    return DiscreteGaussian(SHARE_SCALE).sample(dimension, KeyStream.fresh())
