"""What an audit knows of one study: its terms, its figures recomputed, what happened in it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from privacy.budget import mixture_rdp
from privacy.errors import EvidenceError, TermsError
from privacy.identity import IdentityKey
from privacy.ledger.findings import Findings
from privacy.mechanism import PROFILE_MEMBERS, accounted_noise_multiplier
from privacy.secagg import Setup
from privacy.terms import Terms

__all__ = [
    "ATTEMPTS_PER_START",
    "Figures",
    "Study",
    "attempt_key",
    "check_profile",
    "figures_of",
    "read_terms",
]

MICRO: Final = 1_000_000
ATTEMPTS_PER_START: Final = 10_000
"""A coordinator that starts again numbers attempts from above the next multiple (README, 4)."""

TOLERANCE_MICRO: Final = 2
"""Another processor may round the last place of a figure otherwise."""
EXCESS: Final = 1e-3
"""Relative; what is recorded may be that much larger than what is recomputed."""

MOST_INTERVALS: Final = 20_000_000
"""Of a composed privacy loss distribution: some hundred megabytes."""

ORDERS: Final = (
    *(1 + step / 10 for step in range(1, 30)),
    *range(4, 33),
    *(36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 512),
)


class Figures:
    """Epsilon of one study by two accountants that share no code.

    Terms in a bundle may be anybody's: what would take more memory or digits than there are raises
    `EvidenceError`, from either accountant.

    Args:
        terms: of the study.
    """

    def __init__(self, terms: Terms) -> None:
        from privacy.accounting import Accountant  # loading it takes long

        self.terms = terms
        self._accountant = Accountant(terms)

    def profile(self, attempts: int) -> tuple[int, ...]:
        """epsilon(1..5) in millionths by privacy loss distributions; 0 attempts cost nothing."""
        most = self.terms.privacy.max_attempts
        if self.second[-1] / MICRO * max(most / 10, 1000) > MOST_INTERVALS:
            raise EvidenceError(
                f"the terms of {self.terms.label} protect nobody: epsilon(5) is "
                f"{self.second[-1] / MICRO:g} at {most} attempts; it is not worked out exactly"
            )
        return tuple(_micro(one) for one in self._accountant.profile(attempts).values())

    @property
    def whole(self) -> tuple[int, ...]:
        """The profile of all attempts that the terms allow."""
        return self.profile(self.terms.privacy.max_attempts)

    @functools.cached_property
    def second(self) -> tuple[int, ...]:
        """The same by Rényi divergences at many orders: valid, and looser.

        For one member these are ``dp_accounting``'s; for several, quadratures of the mixture.
        """
        try:
            return self._second_profile()
        except (ArithmeticError, ValueError) as error:
            raise EvidenceError(
                f"the terms of {self.terms.label} give no figure: {error}"
            ) from error

    def _second_profile(self) -> tuple[int, ...]:
        from dp_accounting import dp_event
        from dp_accounting.rdp import RdpAccountant, compute_epsilon

        privacy = self.terms.privacy
        noise = accounted_noise_multiplier(self.terms)
        event = dp_event.PoissonSampledDpEvent(
            privacy.sampling_probability, dp_event.GaussianDpEvent(noise)
        )
        accountant = RdpAccountant(ORDERS)
        accountant.compose(dp_event.SelfComposedDpEvent(event, privacy.max_attempts))
        profile = [_micro(accountant.get_epsilon(privacy.delta))]
        for members in range(2, PROFILE_MEMBERS + 1):
            known = min(members, privacy.cohort_size)
            divergences = [
                privacy.max_attempts
                * mixture_rdp(float(order), noise, privacy.sampling_probability, known)
                for order in ORDERS
            ]
            epsilon, _ = compute_epsilon(list(map(float, ORDERS)), divergences, privacy.delta)
            profile.append(_micro(float(epsilon)))
        return tuple(profile)


def _micro(epsilon: float) -> int:
    """Millionths, rounded up; a bound that is none is the largest that a ledger records."""
    return math.ceil(round(epsilon * MICRO, 3)) if math.isfinite(epsilon) else 2**53 - 1


_FIGURES: Final[dict[str, Figures]] = {}
MOST_FIGURES: Final = 64


def figures_of(terms: Terms) -> Figures:
    """The figures of a study; worked out once in a process, which takes seconds."""
    if terms.hash not in _FIGURES:
        while len(_FIGURES) >= MOST_FIGURES:
            del _FIGURES[next(iter(_FIGURES))]
        _FIGURES[terms.hash] = Figures(terms)
    return _FIGURES[terms.hash]


def check_profile(recorded: tuple[int, ...], recomputed: tuple[int, ...]) -> str:
    """What is wrong with a recorded profile; empty if nothing is."""
    if len(recorded) != len(recomputed):
        return f"{len(recorded)} figures, {len(recomputed)} are due"
    for members, (said, real) in enumerate(zip(recorded, recomputed, strict=True), start=1):
        if said < real - TOLERANCE_MICRO:
            return f"epsilon({members}) is {real / MICRO:g}, not {said / MICRO:g} as recorded"
        if said > real * (1 + EXCESS) + TOLERANCE_MICRO:
            return f"epsilon({members}) is recorded as {said / MICRO:g} and is {real / MICRO:g}"
    return ""


def read_terms(document: Mapping[str, Any], terms_hash: str) -> Terms:
    """Terms of an entry.

    Raises:
        EvidenceError: if they are not canonical, or have another hash.
    """
    try:
        terms = Terms.from_canonical(document)
    except TermsError as error:
        raise EvidenceError(str(error)) from error
    if terms.hash != terms_hash:
        raise EvidenceError(f"the terms have hash {terms.hash[:16]}, not {terms_hash[:16]}")
    return terms


def attempt_key(round_number: int, attempt: int) -> int:
    """One integer that orders attempts."""
    return round_number << 53 | attempt


@dataclass(slots=True)
class Study:
    """A study as the coordinator's log tells it.

    Args:
        terms: of the study.
        setup: what secure aggregation makes of them.
        keys: members' ledger keys, the newest acceptance's.
        attempts: by `attempt_key`: the entry and the cohort.
        released: rounds in order, with entry, key and `next_model`.
        newest: by start of the coordinator, the largest `attempt_key` recorded.
        unrecorded: by start, an attempt that only members know of.
        next_model: of the newest release; empty before any.
        key_set: the largest that was used.
        publications: index, round, model hash and file hash of each.
        points: for a plot: when an attempt ended and how many had.
    """

    terms: Terms
    setup: Setup
    keys: dict[str, IdentityKey] = field(default_factory=dict)
    attempts: dict[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    released: list[Released] = field(default_factory=list)
    newest: dict[int, int] = field(default_factory=dict)
    unrecorded: dict[int, int] = field(default_factory=dict)
    next_model: str = ""
    key_set: int = 0
    publications: list[Published] = field(default_factory=list)
    points: list[int] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Its name and the beginning of its hash."""
        return self.terms.label

    def miss(self, round_number: int, attempt: int, member: str, findings: Findings) -> str:
        """What it means that a member's contribution is not in the coordinator's log.

        Returns:
            A finding, or nothing where the attempt is known and the member dropped out of it, or
            where it may have been under way.
        """
        key = attempt_key(round_number, attempt)
        where = f"round {round_number} attempt {attempt} of {self.label}"
        if key in self.attempts:
            if member in self.attempts[key][1]:
                return ""  # it dropped, or was late: spent all the same
            return f"contributed to {where}, whose cohort does not name it"
        start = (attempt - 1) // ATTEMPTS_PER_START
        if key < self.newest.get(start, 0):
            return f"spent {where}, of which the coordinator's log says nothing"
        if self.unrecorded.setdefault(start, key) != key:
            return f"spent {where}, after another that the coordinator's log does not have either"
        findings.cannot(
            f"how {where} ended: members spent it, the coordinator's log does not say; it was "
            "under way, or the coordinator was stopped"
        )
        return ""


@dataclass(frozen=True, slots=True)
class Released:
    """A release as the coordinator's log has it.

    Args:
        contributors: members in the sum.
        contributions: their hashes by name; of a round that was kept, else empty.
    """

    index: int
    round: int
    attempt: int
    key_set: int
    cohort: str
    model: str
    contributors: tuple[str, ...]
    contributions: Mapping[str, str]
    sum: str
    next_model: str


@dataclass(frozen=True, slots=True)
class Published:
    """A publication as the coordinator's log has it."""

    index: int
    round: int
    model: str
    file: str
    last: bool
