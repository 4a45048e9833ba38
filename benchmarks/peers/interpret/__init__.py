"""DP-EBM, the differentially private boosting machine of ``interpret``, in its own environment.

Nori, Caruana, Bu, Shen and Kulkarni (2021). It needs a trusted curator who has all rows. It gets
the declared ranges as its bounds and the declared kinds of columns, so that nothing but its own
private binning looks at the data; all other settings are its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.peers.environment import PeerError, environment

__all__ = ["PEER_NAME", "rankings"]

PEER_NAME = "interpret 0.7.8 DP-EBM"
_REQUIREMENTS = (
    "interpret-core==0.7.8", "numpy>=2", "pandas", "scikit-learn>=1.7", "joblib",
)  # fmt: skip
_APP = Path(__file__).resolve().parent / "app" / "ebm_app.py"
_TAIL_CHARS = 3000


def rankings(
    training: tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]],
    test: npt.NDArray[np.float64],
    *,
    categorical: Sequence[bool],
    fits: Sequence[tuple[float, int]],
    delta: float,
) -> npt.NDArray[np.float64]:
    """Decision values of the test rows, float64, shape (fits, test rows).

    Args:
        training: rows, shape (rows, columns), and their labels; numbers lie in [0, 1].
        test: rows, shape (test rows, columns).
        categorical: which columns hold codes.
        fits: epsilon and seed of each.
        delta: of every fit.

    Raises:
        PeerError: if it cannot be installed or fails; the message has the end of its output.
    """
    python = environment("interpret", _REQUIREMENTS) / "bin" / "python"
    rows, labels = training
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, array in (("rows", rows), ("labels", labels), ("test", test)):
            (folder / file).write_bytes(np.ascontiguousarray(array, dtype="<f8").tobytes())
        task = {
            "columns": rows.shape[1],
            "categorical": [bool(flag) for flag in categorical],
            "fits": [list(fit) for fit in fits],
            "delta": delta,
        }
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(python), str(_APP), name],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PeerError(
                f"{PEER_NAME} ended with {done.returncode}:\n{done.stdout[-_TAIL_CHARS:]}"
            )
        found = np.frombuffer((folder / "rankings").read_bytes(), dtype="<f8")
        return found.reshape(len(fits), len(test))
