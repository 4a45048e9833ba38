"""Canaries at the member: an auditor's pseudo-consumers in blocks of their own.

A member that lets an auditor in (``auditor_keys`` of its policy, nobody by default) adds the
auditor's canaries to its sums: sampled by the same Poisson sampling, clipped by the same code,
summed in the same way, then noised, encoded and masked with everything else.

**Why no real consumer's epsilon changes.** Canaries come from the auditor's file, never from data,
and fill blocks of their own. Removing a consumer therefore still changes one block sum, of
consumers alone, by at most C (1 + eta) (rule R6); what canaries add to the update is a random shift
that both neighbouring data sets share, rounded with offsets of its own (R7), before noise that is
what it was. Shifting both alike and clamping once afterwards (a contraction) lengthens no
difference of the two. Consumers and canaries together stay within the enrolment cap, so that the
public range of an update (R10) holds them all. The time canaries take depends on the coins and on
their own sampling, not on any consumer (R4).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client_sdk.policy import Policy
from privacy.empirical.canaries import CanaryEnrolment, open_enrolment, signs
from privacy.errors import ConfigurationError, EvidenceError, PolicyRefusal
from privacy.keystream import KeyStream
from privacy.sampling import EMPTY_SLOT, enrolment_cap, padded_shape, place, sample_slots
from privacy.terms import RosterEntry, Terms

__all__ = ["Canaries", "admit_canaries", "read_canaries"]

_FLOATS_AT_ONCE = 1 << 23
"""Floats of canary vectors held at a time: memory only."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Canaries that a member admitted (`admit_canaries`)."""

    enrolment: CanaryEnrolment
    _key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)

    def take_part(self, terms: Terms) -> bool:
        """Whether they are enrolled in this study."""
        return self.enrolment.terms == terms.hash

    def block_sums(self, terms: Terms, stream: KeyStream) -> Iterator[npt.NDArray[np.float32]]:
        """One attempt's canaries: for each block, the sum of those sampled, clipped to C.

        Args:
            terms: of the study that they take part in.
            stream: secret and fresh; its draws are used nowhere else.

        Yields:
            float32, shape (dimension,), once per block; the number of blocks follows from the
            enrolment's count.
        """
        q = terms.privacy.sampling_probability
        shape = padded_shape(self.enrolment.count, q)
        placed = place(self.enrolment.seeds, shape, self.enrolment.count, self._key)
        for block in sample_slots(placed, shape, q, stream):
            chosen = [bytes.fromhex(self.enrolment.seeds[at]) for at in block if at != EMPTY_SLOT]
            yield _clipped_sum(chosen, self.enrolment.scale, terms)


def _clipped_sum(seeds: list[bytes], scale: float, terms: Terms) -> npt.NDArray[np.float32]:
    """Sum of the vectors behind ``seeds``, each clipped to C."""
    import torch  # loaded only where a member let an auditor in

    from client_sdk.recipes.per_consumer.rows import clip_factors

    norm, dimension = terms.privacy.clipping_norm, terms.dimension
    total = torch.zeros(dimension)
    step = max(1, _FLOATS_AT_ONCE // dimension)
    for start in range(0, len(seeds), step):
        vectors = torch.from_numpy(signs(seeds[start : start + step], dimension))
        vectors *= scale * norm / math.sqrt(dimension)
        norms = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
        sound = torch.ones(len(norms), dtype=torch.bool)
        total += clip_factors(norms, sound, norm).float() @ vectors
    summed: npt.NDArray[np.float32] = total.numpy()
    return summed


def admit_canaries(
    data: bytes, *, where: str, policy: Policy, entry: RosterEntry, consumers: int
) -> Canaries:
    """Canaries from an auditor's file, if the member's policy lets that auditor in.

    Args:
        data: the file's bytes.
        where: what errors call it.
        policy: the member's.
        entry: the member as it declares itself.
        consumers: how many it has.

    Raises:
        ConfigurationError: if the file is not a signed enrolment, is for another member, or there
            is no room for so many.
        PolicyRefusal: if the policy does not name its auditor.
    """
    try:
        enrolment = open_enrolment(data, where=where)
    except EvidenceError as error:
        raise ConfigurationError(str(error)) from error
    if enrolment.auditor not in policy.auditor_keys:
        raise PolicyRefusal(
            f"{where}: its auditor {enrolment.auditor[:16]} is not one that this member's policy "
            "lets in; compare keys with the auditor, then add it to auditor_keys"
        )
    if enrolment.member != entry.name:
        raise ConfigurationError(f"{where}: is for member {enrolment.member}, not {entry.name}")
    room = enrolment_cap(entry.declared_consumers) - consumers
    if enrolment.count > room:
        raise ConfigurationError(
            f"{where}: {enrolment.count} canaries, but beside {consumers} consumers the declared "
            f"count leaves room for {max(0, room)}; ask the auditor to enrol fewer"
        )
    return Canaries(enrolment)


def read_canaries(path: Path, *, policy: Policy, entry: RosterEntry, consumers: int) -> Canaries:
    """`admit_canaries` from a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    return admit_canaries(data, where=str(path), policy=policy, entry=entry, consumers=consumers)
