"""The adversary: everything the coordinator and its colluders see, and all it can make of it.

It rebuilds every secret for which it holds shares enough, derives every mask that follows from a
rebuilt secret or from a colluder's own, and takes these masks off every vector it saw. A trial is
broken if it holds both secrets of an honest member in one key set, or if what is left of some
vectors is the sum of fewer honest vectors than N - c - D.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from benchmarks.secagg_campaign.studies import Vector
from privacy.errors import MalformedBody
from privacy.fixedpoint import RingVector
from privacy.secagg import Attempt, Cohort, MaskingMember, Setup
from privacy.secagg.binding import digest, pair_seed, self_seed, share_hash
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import Opened, Revealed
from privacy.secagg.shamir import Basis

__all__ = ["Adversary", "Seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A masked vector of an honest member.

    Args:
        index: whose.
        attempt: as that member was told.
        masked: as it came.
        truth: before masks, with noise; for the judge alone.
    """

    index: int
    attempt: Attempt
    masked: RingVector
    truth: RingVector


@dataclass(slots=True)
class Adversary:
    """A coordinator with c colluders, looking at one study.

    Args:
        setup: of the study.
        colluders: their indices.
        cohorts: by honest member and first key set of a run, the cohort as that member knows it:
            a coordinator that lies has several.
        seen: masked vectors.
    """

    setup: Setup
    colluders: frozenset[int]
    cohorts: dict[tuple[int, int], Cohort] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    _seeds: dict[tuple[int, int], dict[int, bytes]] = field(default_factory=dict)
    """Shares of seeds: by dealer and key set, then by holder."""
    _masks: dict[tuple[int, int], dict[int, bytes]] = field(default_factory=dict)
    _pairs: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    """X25519 secrets of colluders: by honest member, colluder and key set."""

    def saw_vector(self, index: int, attempt: Attempt, masked: RingVector, truth: Vector) -> None:
        """Keeps a masked vector, in time or late."""
        if index not in self.colluders:
            self.seen.append(Seen(index, attempt, masked.copy(), truth.ring))

    def saw_revealed(self, index: int, attempt: Attempt, body: bytes) -> None:
        """Keeps every share in it that is what its dealer signed."""
        try:
            entries = Revealed.decode(body).entries
        except MalformedBody:
            return
        for dealer, share, salt in entries:
            self._share(index, dealer, attempt.key_set, share, salt)

    def knows(self, cohort: Cohort, members: Iterable[int]) -> None:
        """Notes that these members take part in this cohort."""
        for index in members:
            self.cohorts[index, cohort.key_sets.first] = cohort

    def corrupts(self, index: int, member: MaskingMember, cohort: Cohort) -> None:
        """Reads a colluder's memory, after it took delivery: shares it holds, pair secrets."""
        run = member._run(cohort.key_sets)
        for place in range(cohort.key_sets.count):
            key_set = cohort.key_sets.first + place
            for dealer, opened in run.held.items():
                self._opened(index, dealer, key_set, opened[place])
            for other, secret in run.pair_secrets[place].items():
                self._pairs.setdefault((other, index, key_set), secret)

    def _opened(self, holder: int, dealer: int, key_set: int, opened: Opened) -> None:
        self._seeds.setdefault((dealer, key_set), {})[holder] = opened.seed_share
        self._masks.setdefault((dealer, key_set), {})[holder] = opened.mask_share

    def _share(self, holder: int, dealer: int, key_set: int, share: bytes, salt: bytes) -> None:
        """Finds out by its hash what a revealed share is of."""
        cohort = self._cohort(dealer, key_set)
        hashes = cohort.hashes.get(dealer, {}).get(holder) if cohort else None
        if cohort is None or hashes is None:
            return
        place = key_set - cohort.key_sets.first
        for kind, expected, shares in (
            ("seed", hashes[place][:32], self._seeds),
            ("mask", hashes[place][32:], self._masks),
        ):
            given = share_hash(
                cohort.keys, dealer=dealer, holder=holder, key_set=key_set,
                kind=kind, salt=salt, share=share,  # type: ignore[arg-type]
            )  # fmt: skip
            if given == expected:
                shares.setdefault((dealer, key_set), {})[holder] = share

    def _cohort(self, index: int, key_set: int) -> Cohort | None:
        for (member, _), cohort in self.cohorts.items():
            if member == index and key_set in cohort.key_sets:
                return cohort
        return None

    # What follows from it.

    def seed(self, index: int, key_set: int) -> bytes | None:
        """A member's seed, if its shares are enough; its commitment tells."""
        cohort = self._cohort(index, key_set)
        secret = _rebuilt(self._seeds.get((index, key_set), {}))
        if cohort is None or secret is None or index not in cohort.commitments:
            return None
        place = key_set - cohort.key_sets.first
        good = digest("seed", cohort.keys, secret) == cohort.commitments[index][place]
        return secret if good else None

    def mask_key(self, index: int, key_set: int) -> X25519PrivateKey | None:
        """A member's mask key, if its shares are enough; its public key tells."""
        cohort = self._cohort(index, key_set)
        secret = _rebuilt(self._masks.get((index, key_set), {}))
        if cohort is None or secret is None:
            return None
        key = X25519PrivateKey.from_private_bytes(secret)
        public = cohort.masks[index][key_set - cohort.key_sets.first]
        return key if key.public_key().public_bytes_raw() == public else None

    def revealed(self) -> str | None:
        """What it learned that it must not; None if nothing."""
        for index, key_set in {(one.index, one.attempt.key_set) for one in self.seen} | {
            (index, key_set)
            for index, key_set in self._seeds.keys() & self._masks.keys()
            if index not in self.colluders
        }:
            if self.seed(index, key_set) and self.mask_key(index, key_set):
                return f"both secrets of member {index} in key set {key_set}"
        for key_set in {one.attempt.key_set for one in self.seen}:
            found = self._uncovered(key_set)
            if found:
                return f"the sum of members {found} in key set {key_set}"
        return None

    def _uncovered(self, key_set: int) -> tuple[int, ...] | None:
        """Fewer honest members than N - c - D whose vectors' sum is left without a mask."""
        seen = [one for one in self.seen if one.attempt.key_set == key_set]
        seeds = {one.index: self.seed(one.index, key_set) for one in seen}
        keys = {index: self.mask_key(index, key_set) for index in self.setup.indices.values()}
        left = [self._left(one, seeds[one.index], keys) for one in seen]
        for size in range(1, self.setup.terms.privacy.honest_survivors):
            for chosen in itertools.combinations(range(len(seen)), size):
                rest = _sum(left[at] for at in chosen)
                if np.array_equal(rest, _sum(seen[at].truth for at in chosen)):
                    return tuple(seen[at].index for at in chosen)
        return None

    def _left(
        self, one: Seen, seed: bytes | None, keys: Mapping[int, X25519PrivateKey | None]
    ) -> RingVector:
        """A vector without the masks that can be derived."""
        cohort = self._cohort(one.index, one.attempt.key_set)
        left = one.masked.copy()
        if cohort is None:
            return left
        place = one.attempt.key_set - cohort.key_sets.first
        add: list[bytes] = []
        subtract: list[bytes] = []
        if seed is not None:
            own = self_seed(self.setup, seed, cohort.hash, one.attempt, one=one.index)
            subtract.append(own)
        for other in set(cohort.members) - {one.index}:
            secret = self._pair_secret(one.index, other, one.attempt.key_set, keys, cohort, place)
            if secret is None:
                continue
            pair = pair_seed(
                self.setup, secret, cohort.hash, one.attempt, one=one.index, other=other
            )
            (subtract if one.index < other else add).append(pair)
        apply_masks(left, add=add, subtract=subtract, most_threads=1)
        return left

    def _pair_secret(
        self,
        index: int,
        other: int,
        key_set: int,
        keys: Mapping[int, X25519PrivateKey | None],
        cohort: Cohort,
        place: int,
    ) -> bytes | None:
        known = self._pairs.get((index, other, key_set))
        if known is not None:
            return known
        for mine, theirs in ((index, other), (other, index)):
            key = keys.get(mine)
            if key is not None:
                return key.exchange(X25519PublicKey.from_public_bytes(cohort.masks[theirs][place]))
        return None


def _rebuilt(shares: Mapping[int, bytes]) -> bytes | None:
    """The value at 0 of the polynomial through all shares; wrong if they are too few."""
    if not shares:
        return None
    points = sorted(shares)
    return Basis(points).rebuild([shares[point] for point in points])


def _sum(vectors: Iterable[RingVector]) -> RingVector:
    total: RingVector = np.add.reduce(list(vectors), dtype="<u4")
    return total
