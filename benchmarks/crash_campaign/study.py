"""The campaign's study: members' data make each contribution a one-hot far above the noise.

All rows of a member hold its own value of the one category column, so all its gradients lie in that
value's weight (and in the bias). At the start of a logistic regression, which a tiny learning rate
never leaves, every consumer's gradient is clipped to C; with q = 1 a member's part is thus
known exactly, and at least fifteen standard deviations of the noise lie between 0, 1 and 2 of it.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.local_alliance import LocalMember
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.fixedpoint import Grid, decode
from privacy.identity import Identity
from privacy.terms import (
    Column,
    DataContract,
    PhaseDeadlines,
    PrivacyTerms,
    RosterEntry,
    Setting,
    Terms,
)

__all__ = ["MEMBERS", "local_members", "make_terms", "multiplicities", "one_contribution"]

MEMBERS: Final = tuple(f"member-{index}" for index in range(4))
CONSUMERS: Final = 6000
CLIPPING_NORM: Final = 0.5
SETTINGS: Final[dict[str, Setting]] = {
    "model": "logistic",
    "learning_rate": 1e-6,
    "momentum": 0.0,
}
PRIVACY: Final = {
    "clipping_norm": CLIPPING_NORM, "noise_multiplier": 100.0, "sampling_probability": 1.0,
    "delta": 1e-5, "cohort_size": len(MEMBERS), "colluders": 1, "dropouts": 1,
}  # fmt: skip
POLICY: Final = {
    "most_epsilon": 1e3, "most_epsilon_local": 1e3, "budget.epsilon": 30.0, "least_cohort": 4,
}  # fmt: skip
"""Members that do not mind: their data is made up."""


@functools.cache
def _identity(name: str) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def make_terms(*, rounds: int, spare: int) -> Terms:
    """The study, with ``spare`` attempts beside one for each round."""
    contract = DataContract(
        name="crash", version=1, consumer_id="household", label="responded", rows_per_consumer=1,
        columns=(
            Column(name="member", kind="category", values=MEMBERS),
            Column(name="nothing", kind="number", low=0.0, high=1.0),
        ),
    )  # fmt: skip
    roster = tuple(
        RosterEntry(name=name, identity=_identity(name).public, declared_consumers=CONSUMERS)
        for name in MEMBERS
    )
    return Terms(
        alliance="crash",
        study="one-hot",
        purpose="To show who is in a sum, and how often",
        recipe="propensity",
        settings=SETTINGS,
        dimension=dimension(contract, PropensitySettings.model_validate(SETTINGS)),
        contract=contract,
        privacy=PrivacyTerms.model_validate(
            {**PRIVACY, "rounds": rounds, "max_attempts": rounds + spare}
        ),
        roster=roster,
        deadlines=PhaseDeadlines(
            keys_s=10.0, contribute_s=10.0, unmask_s=10.0, grace_s=0.5, keys_grace_s=5.0
        ),
    )


def local_members(folder: Path) -> list[LocalMember]:
    """Members with their tables, which are written into ``folder``."""
    members = []
    for name in MEMBERS:
        path = folder / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["household", "responded", "member", "nothing"])
            writer.writerows([f"h{number}", 0, name, 0] for number in range(CONSUMERS))
        members.append(LocalMember(name, _identity(name), CONSUMERS, {"path": str(path)}, POLICY))
    return members


def one_contribution(member: str) -> npt.NDArray[np.float64]:
    """What a member adds to a sum, without noise; shape (members + 2,)."""
    vector = np.zeros(len(MEMBERS) + 2)
    vector[[MEMBERS.index(member), -1]] = CONSUMERS * CLIPPING_NORM / math.sqrt(2)
    return vector


def multiplicities(grid: Grid, ring_sum: bytes) -> npt.NDArray[np.float64]:
    """How often each member is in a released sum, noise included; shape (members + 2,).

    The last two are the column of nothing, and the bias, which counts all members together.
    """
    total = decode(np.frombuffer(ring_sum, dtype=grid.dtype), grid)
    counts: npt.NDArray[np.float64] = total / (CONSUMERS * CLIPPING_NORM / math.sqrt(2))
    return counts
