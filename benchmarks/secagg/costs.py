"""Secure aggregation in memory: one member's work, the masks alone, the coordinator's unmasking."""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.secagg_campaign.protocol import NEVER, exchange, make_members
from benchmarks.secagg_campaign.studies import contract, identity
from privacy.fixedpoint import RingVector
from privacy.keystream import counter_mode
from privacy.secagg import Attempt, Cohort, KeySets, MaskingMember, Setup, Unmasking
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import Lists, Revealed, Signatures
from privacy.terms import PhaseDeadlines, PrivacyTerms, RosterEntry, Terms

__all__ = [
    "STAGES",
    "MemberScene",
    "ServerScene",
    "WrongResult",
    "library_keystream",
    "masking",
    "medians",
    "openssl_keystream",
    "study",
    "vector",
]

STAGES: Final = ("advertise", "share", "deliver", "mask", "confirm", "unmask")
MODEL: Final = hashlib.sha256(b"a public state").digest()
RAW_BLOCK: Final = 1 << 18
PATIENT: Final = PhaseDeadlines(
    keys_s=3600.0, contribute_s=3600.0, unmask_s=3600.0, grace_s=60.0, keys_grace_s=3600.0
)
"""A thousand members on one processor answer one after the other."""

_T = TypeVar("_T")


class WrongResult(Exception):
    """What was measured gave a wrong result: the figure would not count."""


def study(members: int, colluders: int, dropouts: int, dimension: int, *, rounds: int = 1) -> Setup:
    """The setup of a study in which nothing is learned; its ring is Z_2^32."""
    names = [f"member-{number}" for number in range(1, members + 1)]
    terms = Terms(
        alliance="benchmark",
        study="secagg",
        purpose="Measuring what secure aggregation costs",
        recipe="propensity",
        settings={"model": "logistic"},
        dimension=dimension,
        contract=contract(),
        privacy=PrivacyTerms(
            clipping_norm=1.0,
            noise_multiplier=1e5,  # so large that no sum of a thousand members wraps around
            sampling_probability=0.1,
            rounds=rounds,
            max_attempts=rounds,
            delta=1e-5,
            cohort_size=members,
            colluders=colluders,
            dropouts=dropouts,
        ),
        roster=tuple(
            RosterEntry(name=name, identity=identity(name).public, declared_consumers=10)
            for name in names
        ),
        deadlines=PATIENT,
    )
    return Setup.of(terms)


def vector(seed: int, place: int, dimension: int) -> npt.NDArray[np.int64]:
    """The vector of the member at a place from 0; the peer's measurement draws the same."""
    return np.random.default_rng([seed, place]).integers(-1000, 1001, dimension)


def _ring(values: npt.NDArray[np.int64]) -> RingVector:
    ring: RingVector = values.astype("<u4")
    return ring


def _timed(into: dict[str, float], stage: str, work: Callable[[], _T]) -> _T:
    """Runs ``work`` and notes its milliseconds."""
    begun = time.perf_counter()
    result = work()
    into[stage] = 1000 * (time.perf_counter() - begun)
    return result


class MemberScene:
    """A cohort on the complete graph, one member of which is measured.

    Args:
        neighbours: members it shares a mask with.
        dimension: of vectors.
        colluders: c of the terms.
        dropouts: D of the terms; above 64 members large ones keep the graph complete.

    Raises:
        WrongResult: if the terms prescribe a sparse graph.
    """

    def __init__(self, neighbours: int, dimension: int, *, colluders: int, dropouts: int) -> None:
        self.setup = study(neighbours + 1, colluders, dropouts, dimension)
        if self.setup.graph.degree is not None:
            raise WrongResult(f"{neighbours} neighbours: the graph is sparse, raise c and D")
        self.members = make_members(self.setup, range(1, neighbours + 2))
        self._place = neighbours // 2  # half of its masks are added, half are subtracted
        self._next = 1

    def trial(self) -> dict[str, float]:
        """One key set and one attempt: milliseconds of the measured member by stage.

        Raises:
            WrongResult: if a signature or a revealed share is missing.
        """
        setup, own = self.setup, self._place + 1
        cost: dict[str, float] = {}
        cohort = self._exchange(own, cost)
        attempt = Attempt(cohort.key_sets.first, 1, 1, MODEL)
        member, ring = self.members[own], _ring(vector(0, self._place, setup.terms.dimension))
        signature = _timed(cost, "mask", lambda: member.mask(attempt, ring))
        taken = Unmasking(cohort, attempt)
        taken.take_contribution(setup.name(own), hashlib.sha256(ring.data).digest(), signature)
        lists = Lists(cohort.members, ()).encode()
        confirmed = _timed(cost, "confirm", lambda: member.confirm(attempt, lists))
        signatures = self._signatures(cohort, attempt, lists, own, confirmed)
        revealed = _timed(cost, "unmask", lambda: member.unmask(attempt, signatures))
        if len(Revealed.decode(revealed.body).entries) != len(self.members):
            raise WrongResult("the member did not reveal one share of everybody")
        return cost

    def check(self) -> None:
        """One attempt in which everybody contributes and the sum is unmasked.

        Raises:
            WrongResult: if it is not the members' sum, bit by bit.
        """
        ServerScene(self.setup, self.members, first=self._next).unmask()
        self._next += 1

    def _exchange(self, own: int, cost: dict[str, float]) -> Cohort:
        """A run of one key set; the measured member's calls are timed."""
        key_sets, self._next = KeySets(self._next, 1), self._next + 1
        measured = _Timed(self.members[own], cost)
        everybody = self.members | {own: measured}
        # Only the three phases ahead of time are asked of the stand-in.
        return exchange(self.setup, everybody, key_sets, dict.fromkeys(everybody, NEVER))  # type: ignore[arg-type]

    def _signatures(
        self, cohort: Cohort, attempt: Attempt, lists: bytes, own: int, confirmed: bytes
    ) -> bytes:
        """t signatures over the lists; the others sign without having sent a vector."""
        setup = self.setup
        signers = [own, *(index for index in cohort.members if index != own)]
        entries = {own: confirmed}
        for index in signers[1 : setup.terms.privacy.threshold]:
            statement = setup.statement(
                "confirm", index, lists, attempt=attempt, cohort=cohort.hash
            )
            entries[index] = setup.sign(identity(setup.name(index)), "confirm", statement)
        return Signatures(tuple(sorted(entries.items()))).encode()


class _Timed:
    """A member whose phases ahead of time are timed."""

    def __init__(self, member: MaskingMember, cost: dict[str, float]) -> None:
        self._member = member
        self._cost = cost

    def __getattr__(self, stage: str) -> Callable[..., object]:
        work = getattr(self._member, stage)
        return lambda *given: _timed(self._cost, stage, lambda: work(*given))


@dataclass(frozen=True, slots=True)
class UnmaskCost:
    """Milliseconds of the coordinator once every reply is there."""

    checks_ms: float
    removal_ms: float


class ServerScene:
    """One attempt of a cohort up to its members' last words, which can be taken many times.

    Args:
        setup: of the study.
        members: by index; made here if left out.
        first: number of the key set.
        dropped: members, the last ones, that deal shares and then send no vector.
        seed: of the vectors.
    """

    def __init__(
        self,
        setup: Setup,
        members: dict[int, MaskingMember] | None = None,
        *,
        first: int = 1,
        dropped: int = 0,
        seed: int = 0,
    ) -> None:
        count = len(setup.names)
        dimension = setup.terms.dimension
        members = members or make_members(setup, range(1, count + 1))
        self.setup = setup
        self._cohort = exchange(setup, members, KeySets(first, 1), dict.fromkeys(members, NEVER))
        self._attempt = Attempt(first, 1, 1, MODEL)
        self._survivors = range(1, count + 1 - dropped)
        self._masked: RingVector = np.zeros(dimension, dtype="<u4")
        self.expected = np.zeros(dimension, dtype=np.int64)
        """int64, shape (dimension,): the true sum of the survivors' vectors."""
        self._contributions: dict[int, tuple[bytes, bytes]] = {}
        for index in self._survivors:
            plain = vector(seed, index - 1, dimension)
            self.expected += plain
            ring = _ring(plain)
            signature = members[index].mask(self._attempt, ring)
            self._contributions[index] = (hashlib.sha256(ring.data).digest(), signature)
            self._masked += ring
        lists = self._contributed().close()
        self._confirmations = {
            index: members[index].confirm(self._attempt, lists) for index in self._survivors
        }
        signatures = self._confirmed().signatures()
        self._revealed = {
            index: members[index].unmask(self._attempt, signatures) for index in self._survivors
        }

    def unmask(self) -> UnmaskCost:
        """Takes and checks what the survivors reveal, then removes the masks.

        Raises:
            WrongResult: if the sum is not the survivors', bit by bit.
        """
        unmasking, total = self._confirmed(), self._masked.copy()
        unmasking.signatures()
        cost: dict[str, float] = {}
        _timed(cost, "checks", lambda: self._take(unmasking))
        _timed(cost, "removal", lambda: unmasking.unmask(total))
        if not np.array_equal(total.view("<i4"), self.expected):
            raise WrongResult("the unmasked sum is not the sum of the survivors' vectors")
        return UnmaskCost(cost["checks"], cost["removal"])

    def _contributed(self) -> Unmasking:
        unmasking = Unmasking(self._cohort, self._attempt)
        for index, (sha256, signature) in self._contributions.items():
            unmasking.take_contribution(self.setup.name(index), sha256, signature)
        return unmasking

    def _confirmed(self) -> Unmasking:
        unmasking = self._contributed()
        unmasking.close()
        for index, signature in self._confirmations.items():
            unmasking.take_confirmation(self.setup.name(index), signature)
        return unmasking

    def _take(self, unmasking: Unmasking) -> None:
        for index, said in self._revealed.items():
            unmasking.take_unmask(self.setup.name(index), said.body, said.signature)


# Masks alone, bytes per second on one thread.


def masking(dimension: int, seeds: int) -> float:
    """`apply_masks` with so many seeds over a uint32 vector."""
    ring: RingVector = np.zeros(dimension, dtype="<u4")
    masks = [hashlib.sha256(bytes([number])).digest() for number in range(seeds)]
    half = seeds // 2
    begun = time.perf_counter()
    apply_masks(ring, add=masks[:half], subtract=masks[half:], most_threads=1)
    seconds = time.perf_counter() - begun
    apply_masks(ring, add=masks[half:], subtract=masks[:half], most_threads=1)
    if ring.any():
        raise WrongResult("masks that were added and subtracted again left something")
    return ring.nbytes * seeds / seconds


def library_keystream(size_bytes: int) -> float:
    """AES-256-CTR of the cryptography library in blocks of 256 KiB."""
    context = counter_mode(bytes(32), bytes(16))
    zeros, block = bytes(RAW_BLOCK), bytearray(RAW_BLOCK)
    rounds = -(-size_bytes // RAW_BLOCK)
    begun = time.perf_counter()
    for _ in range(rounds):
        context.update_into(zeros, block)
    return RAW_BLOCK * rounds / (time.perf_counter() - begun)


def openssl_keystream() -> float:
    """AES-256-CTR of ``openssl speed`` in blocks of 64 KiB, by the clock; 0 if it is not there."""
    command = "openssl speed -elapsed -seconds 1 -evp aes-256-ctr -bytes 65536"
    try:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0.0
    found = re.search(r"^AES-256-CTR\s+([\d.]+)k", done.stdout, re.MULTILINE | re.IGNORECASE)
    return 1000 * float(found[1]) if found else 0.0


def medians(trials: list[dict[str, float]]) -> dict[str, float]:
    """The median of every stage."""
    return {stage: median(trial[stage] for trial in trials) for stage in trials[0]}
