"""The members' and the coordinator's own code beside a curator with the very same noise.

`paired` trains the alliance with everything that shapes a sum: each member's enrolment, Poisson
sample in the public shape, clipped block sums, randomised rounding, clamp, discrete Gaussian share,
ring, the coordinator's round and its decoding. Masks are left out: they cancel to the bit. The
streams come from a seed, so that the noise is known; a trusted curator, training beside it, adds
exact sums over the same samples and that same noise. What differs between the two is what the
alliance's arithmetic costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.utility.training import Clipper, declared
from client_sdk.batch import Batch
from client_sdk.dataset import Dataset
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.fold import fold, initial_state, published
from coordinator.round import Round
from privacy.fixedpoint import SHARE_SCALE, Grid, encode, to_ring
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian
from privacy.sampling import BatchShape, Enrolment, batch_shape, enrol, sample_slots
from privacy.terms import Terms

__all__ = ["Alliance", "paired"]

Floats = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]


@dataclass(slots=True)
class Alliance:
    """All members in one process, their secrets from one seed.

    Args:
        terms: of the study.
        members: each member's consumers, by its name in the roster.
        seed: of all samples, offsets and noise.
    """

    terms: Terms
    members: Mapping[str, Dataset]
    seed: int
    _shapes: dict[str, BatchShape] = field(init=False)
    _enrolments: dict[str, Enrolment] = field(init=False)
    _streams: dict[str, KeyStream] = field(init=False)

    def __post_init__(self) -> None:
        keys = np.random.default_rng([self.seed, 5])
        self._shapes = {name: batch_shape(self.terms, name) for name in self.members}
        self._enrolments = {
            name: enrol(self.terms, name, data.consumer_ids, keys.bytes(32))
            for name, data in self.members.items()
        }
        self._streams = {name: KeyStream(keys.bytes(32)) for name in self.members}

    def release(
        self, parameters: Vector, number: int
    ) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """One round at these parameters.

        Returns:
            The released sum, float64, shape (dimension,); the noise in it; and which consumers
            are in it, members one after another in the roster's order, shape (consumers, 1).
        """
        terms, grid = self.terms, Grid.of(self.terms)
        noise_steps = np.zeros(terms.dimension, dtype=np.int64)
        attempt = Round(terms, round_number=number, attempt=1, cohort=tuple(self.members))
        slots = {
            name: sample_slots(
                self._enrolments[name],
                self._shapes[name],
                terms.privacy.sampling_probability,
                self._streams[name],
            )
            for name in self.members
        }
        sums = self._block_sums(parameters, slots)
        sampler = DiscreteGaussian(SHARE_SCALE)
        for name, blocks in sums.items():
            stream = self._streams[name]
            update = encode(blocks, grid, grid.limit(name), stream)
            share = sampler.sample(terms.dimension, stream)
            noise_steps += share
            vector = to_ring(update + share, grid)
            attempt.announce(name, vector.dtype.name, vector.shape)
            attempt.cleared()
            attempt.add(name, 0, vector.tobytes())
        attempt.close()
        noise: Floats = noise_steps * np.float64(grid.step)
        return attempt.release().total(), noise, self._taken(slots)

    def _taken(self, slots: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        taken = []
        for name, places in slots.items():
            there = np.zeros(len(self.members[name].consumer_ids), dtype=np.bool_)
            there[places[places >= 0]] = True
            taken.append(there)
        return np.concatenate(taken)[:, None]

    def _block_sums(
        self, parameters: Vector, slots: Mapping[str, npt.NDArray[np.int64]]
    ) -> dict[str, Vector]:
        """Each member's block sums; members with blocks of one size are clipped in one call."""
        alike: dict[int, list[str]] = {}
        for name, shape in self._shapes.items():
            alike.setdefault(shape.consumers, []).append(name)
        found: dict[str, Vector] = {}
        for names in alike.values():
            parts = [self.members[name].gather(slots[name]) for name in names]
            batch = Batch(
                *(
                    np.concatenate([getattr(part, kind) for part in parts])
                    for kind in ("numbers", "categories", "labels", "present")
                )
            )
            sums = contribute(parameters, batch, terms=self.terms)
            ends = np.cumsum([len(part.present) for part in parts])
            found.update(zip(names, np.split(sums, ends[:-1]), strict=True))
        return {name: found[name] for name in self.members}


def paired(alliance: Alliance, everybody: Dataset) -> tuple[Vector, Vector]:
    """Published parameters of the alliance, and of a curator with its samples and its noise.

    Args:
        alliance: the members.
        everybody: the consumers of all members, one member after another in the roster's order.
    """
    terms = alliance.terms
    clipper = Clipper(terms, everybody)
    expected = terms.privacy.sampling_probability * declared(terms)
    state = curator = initial_state(terms)
    for number in range(1, terms.privacy.rounds + 1):
        total, noise, taken = alliance.release(state.parameters, number)
        exact = clipper.sums(curator.parameters[None, :], taken)[0] + noise
        state = fold(state, total / expected, terms)
        curator = fold(curator, exact / expected, terms)
    return published(state), published(curator)
