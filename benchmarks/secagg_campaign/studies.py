"""Small studies for the campaign: terms, identities, real noise."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.fixedpoint import SHARE_SCALE, RingVector
from privacy.identity import Identity
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian
from privacy.secagg import Setup
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Terms

__all__ = ["Case", "Vector", "admissible", "contract", "identity", "noised", "study"]


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """N, c and D of one study."""

    members: int
    colluders: int
    dropouts: int

    def __str__(self) -> str:
        return f"N={self.members} c={self.colluders} D={self.dropouts}"


def admissible(members: int) -> list[Case]:
    """Every c and D that rule R1 allows for so many members."""
    return [
        Case(members, colluders, dropouts)
        for dropouts in range(members)
        for colluders in range(1, members)
        if colluders + 2 * dropouts < members and members - colluders - dropouts >= 2
    ]


@functools.cache
def identity(name: str) -> Identity:
    """The same identity for the same name."""
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def contract() -> DataContract:
    """A table with one column; no data is read in this campaign."""
    return DataContract(
        name="visits",
        version=1,
        consumer_id="household",
        label="responded",
        columns=(Column(name="spend", kind="number", low=0.0, high=1000.0),),
        rows_per_consumer=1,
    )


@functools.lru_cache(maxsize=4096)
def study(case: Case, *, dimension: int = 8, outsiders: int = 0) -> Setup:
    """The setup of a study.

    Args:
        case: its N, c and D.
        dimension: length of vectors.
        outsiders: members of the roster beyond N.
    """
    terms = Terms(
        alliance="campaign",
        study="coupons",
        purpose="Which household will respond to which campaign",
        recipe="propensity",
        settings={"model": "logistic"},
        dimension=dimension,
        contract=contract(),
        privacy=PrivacyTerms(
            clipping_norm=1.0,
            noise_multiplier=2.0,
            sampling_probability=0.1,
            rounds=10,
            max_attempts=12,
            delta=1e-5,
            cohort_size=case.members,
            colluders=case.colluders,
            dropouts=case.dropouts,
        ),
        roster=tuple(
            RosterEntry(
                name=f"member-{number}",
                identity=identity(f"member-{number}").public,
                declared_consumers=100,
            )
            for number in range(1, case.members + outsiders + 1)
        ),
    )
    return Setup.of(terms)


Int64s = npt.NDArray[np.int64]


@functools.cache
def _sampler() -> DiscreteGaussian:
    return DiscreteGaussian(SHARE_SCALE)


@dataclass(frozen=True, slots=True)
class Vector:
    """What one member puts in: its update in grid steps and the noise it drew.

    Args:
        plain: int64, shape (dimension,).
        noise: int64, shape (dimension,): real noise, known to the judge alone.
    """

    plain: Int64s
    noise: Int64s

    @property
    def ring(self) -> RingVector:
        """A fresh copy of what gets masked, uint32."""
        ring: RingVector = (self.plain + self.noise).astype("<u4")
        return ring


def noised(plain: Int64s) -> Vector:
    """An update with the noise that a real contribution carries."""
    noise = np.zeros(len(plain), dtype=np.int64)
    _sampler().add_to(noise, KeyStream.fresh())
    return Vector(plain, noise)
