"""Differential privacy of institutions, as Flower's own wrapper offers it.

``DifferentialPrivacyServerSideFixedClipping`` around federated averaging: each member trains on its
own consumers from the shared model, the server clips every member's change of the model, averages
with equal weights, as the wrapper's accountant demands, and adds noise. The clipping and the noise
are Flower's functions. Its epsilon hides that an institution took part, not a consumer; the server
sees each member's model in the clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from dp_accounting.pld.common import DifferentialPrivacyParameters
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from flwr.supercore.differential_privacy import (
    add_gaussian_noise_inplace,
    compute_clip_model_update,
    compute_stdv,
)
from scipy.special import expit

__all__ = ["ROUNDS", "noise_multiplier", "train_institutions"]

ROUNDS: Final = 5
CLIPPING_NORM: Final = 1.0
LOCAL_STEPS: Final = 30
LOCAL_RATE: Final = 1.0


def noise_multiplier(epsilon: float, delta: float) -> float:
    """The wrapper's noise multiplier for which all rounds are (epsilon, delta)-DP together.

    Source:
        Balle and Wang (2018), the analytic Gaussian mechanism; R releases of equal noise are one
        with sqrt(R) less.
    """
    single = GaussianPrivacyLoss.from_privacy_guarantee(
        DifferentialPrivacyParameters(epsilon, delta)
    )
    return float(single.standard_deviation * ROUNDS**0.5)


def train_institutions(
    designs: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]],
    epsilon: float,
    delta: float,
    seed: int,
) -> npt.NDArray[np.float32]:
    """The model after all rounds.

    Args:
        designs: each member's rows as logistic regression sees them, and their labels.
        epsilon: of an institution, over all rounds.
        delta: of an institution.
        seed: of the noise, which Flower takes from numpy's global generator.

    Returns:
        float32, shape (columns,).
    """
    np.random.seed(seed)
    members = len(designs)
    deviation = compute_stdv(noise_multiplier(epsilon, delta), CLIPPING_NORM, members)
    model = np.zeros(designs[0][0].shape[1], dtype=np.float32)
    for _ in range(ROUNDS):
        total = np.zeros_like(model)
        for rows, labels in designs:
            trained = [_locally(model, rows, labels)]
            compute_clip_model_update(trained, [model], CLIPPING_NORM)
            total += trained[0]
        mean = [total / members]
        add_gaussian_noise_inplace(mean, deviation)
        model = mean[0].astype(np.float32)
    return model


def _locally(
    model: npt.NDArray[np.float32],
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Full-batch gradient descent on one member's rows."""
    local, velocity = model.copy(), np.zeros_like(model)
    for _ in range(LOCAL_STEPS):
        slope = rows.T @ (expit(rows @ local) - labels) / len(labels)
        velocity = np.float32(0.9) * velocity + slope
        local = local - np.float32(LOCAL_RATE) * velocity
    return local.astype(np.float32)
