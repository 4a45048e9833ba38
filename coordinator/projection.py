"""What a study would cost and give, said before anybody approves it or spends anything.

Epsilon is exact (`privacy.accounting`), bytes follow from the formats of messages, seconds are
measured on this machine, and the AUC is rehearsed on generated consumers (`coordinator.rehearsal`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from client_sdk.recipes.statistics.settings import expected_errors
from coordinator.rehearsal import RUNS, Believed, Rehearsal, rehearse
from privacy.accounting import Accountant
from privacy.fixedpoint import SHARE_SCALE, Grid, encode, to_ring
from privacy.identity import SIGNATURE_BYTES
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian
from privacy.secagg.graph import Graph
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import (
    HASH_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    SALT_BYTES,
    SEALED_BYTES,
    TAG_BYTES,
)
from privacy.secagg.shamir import SHARE_BYTES
from privacy.terms import Terms

__all__ = ["Projected", "Traffic", "project", "traffic"]

INDEX_BYTES: Final = 4
BLOCKS: Final = 8
"""Block sums that a timed update is made of; a member with many consumers has more."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one member in one attempt, without the frames around them."""

    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class Projected:
    """One study, projected.

    Args:
        epsilon: by m, how many members know a consumer; all attempts used.
        epsilon_local: of what one member sends, against whoever breaks its masks.
        rounds: that the study has, and the attempts it may use.
        attempts: see ``rounds``.
        traffic: of one member in one attempt.
        noise_s: seconds of one member and attempt, on this machine: noise and rounding.
        masks_s: the same for masks.
        rehearsal: of the AUC; None for recipes that rank nothing.
        errors: of statistics' counts (`expected_errors`); empty for other recipes.
    """

    epsilon: Mapping[int, float]
    epsilon_local: float
    rounds: int
    attempts: int
    traffic: Traffic
    noise_s: float
    masks_s: float
    rehearsal: Rehearsal | None
    errors: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """As JSON has it, bytes and seconds of the whole study added."""
        document = asdict(self)
        document["epsilon"] = {str(members): value for members, value in self.epsilon.items()}
        document["study"] = {
            "sent": self.rounds * self.traffic.sent,
            "received": self.rounds * self.traffic.received,
            "seconds": self.rounds * (self.noise_s + self.masks_s),
        }
        return document


def project(
    terms: Terms,
    believed: Believed | None = None,
    *,
    runs: int = RUNS,
    done: Callable[[int], None] = lambda run: None,
) -> Projected:
    """Projects a study.

    Args:
        terms: of the study.
        believed: of the members' data.
        runs: of the rehearsal.
        done: is told how many of them are over.

    Raises:
        ConfigurationError, RecipeError: if there is nothing to project.
    """
    projection = Accountant(terms).projection()
    noise_s, masks_s = _seconds(terms)
    return Projected(
        epsilon=projection.profile,
        epsilon_local=projection.epsilon_local,
        rounds=terms.privacy.rounds,
        attempts=terms.privacy.max_attempts,
        traffic=traffic(terms),
        noise_s=noise_s,
        masks_s=masks_s,
        rehearsal=(
            rehearse(terms, believed, runs=runs, done=done)
            if terms.recipe == "propensity"
            else None
        ),
        errors=expected_errors(terms) if terms.recipe == "statistics" else {},
    )


def traffic(terms: Terms) -> Traffic:
    """What one member and attempt put on the wire: the model, masked sums, keys and shares.

    Sizes are those of `privacy.secagg` README, for one key set; ledgers' heads and receipts, about
    a thousand bytes, are left out.
    """
    members = terms.privacy.cohort_size
    holders = Graph.of(terms.privacy).holders(members)
    deal = INDEX_BYTES + 2 * HASH_BYTES + NONCE_BYTES + SEALED_BYTES + TAG_BYTES
    shares = 3 * HASH_BYTES + (holders - 1) * deal
    answer = holders * (INDEX_BYTES + SHARE_BYTES + SALT_BYTES)
    signed = 5 * SIGNATURE_BYTES  # keys, shares, contribution, confirmation, answer
    vector = terms.dimension * terms.privacy.ring_bits // 8
    advertised = INDEX_BYTES + 2 * KEY_BYTES + SIGNATURE_BYTES
    listed = terms.privacy.threshold * (INDEX_BYTES + SIGNATURE_BYTES) + members * INDEX_BYTES
    return Traffic(
        sent=vector + 2 * KEY_BYTES + shares + answer + signed,
        received=4 * terms.dimension
        + len(terms.roster) * advertised
        + members * INDEX_BYTES
        + (holders - 1) * deal
        + listed,
    )


def _seconds(terms: Terms) -> tuple[float, float]:
    """Noise with rounding, and masks, of one member's vector, timed once here."""
    stream, grid = KeyStream.fresh(), Grid.of(terms)
    source = DiscreteGaussian(SHARE_SCALE)
    masks = Graph.of(terms.privacy).holders(terms.privacy.cohort_size)
    seeds = [os.urandom(KEY_BYTES) for _ in range(masks)]
    block = np.zeros(terms.dimension, dtype=np.float32)
    began_s = time.perf_counter()
    update = encode((block for _ in range(BLOCKS)), grid, grid.limit(terms.roster[0].name), stream)
    update += source.sample(terms.dimension, stream)
    vector = to_ring(update, grid)
    noised_s = time.perf_counter()
    apply_masks(vector, add=seeds)
    return noised_s - began_s, time.perf_counter() - noised_s
