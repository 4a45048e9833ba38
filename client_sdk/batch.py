"""One batch of consumers, in the public shape that the terms fix (rules R4, R6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Consumers in blocks, each with a fixed number of row slots; empty slots hold zeros.

    Args:
        numbers: float32, shape (blocks, consumers, rows, number columns), scaled to [0, 1].
        categories: int64, shape (blocks, consumers, rows, category columns), codes from 0.
        labels: float32, shape (blocks, consumers, rows), 0 or 1.
        present: float32, shape (blocks, consumers, rows), 1 where a row exists, otherwise 0.
    """

    numbers: npt.NDArray[np.float32]
    categories: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    present: npt.NDArray[np.float32]
