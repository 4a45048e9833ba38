"""Who masks with whom: everybody up to 64 members, above that a random graph of computed degree.

Above 64 members each member draws ``degree`` others for itself, masks with them and with those that
drew it, and deals its shares to the ones it drew. Consistency stays global (see the README), so an
honest member's two secrets can only come out together through corrupted holders.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from privacy.errors import TermsError
from privacy.terms import PrivacyTerms

__all__ = ["COMPLETE_UP_TO", "MOST_COHORT", "Graph", "draw", "failure_bits"]

COMPLETE_UP_TO: Final = 64
MOST_COHORT: Final = 3000
"""Members' keys for one run travel in one message of half a MiB."""
MOST_HOLDERS: Final = 2600
"""So do one member's shares for all that hold them."""
SECURITY_BITS: Final = 40
CORRECTNESS_BITS: Final = 20


@dataclass(frozen=True, slots=True)
class Graph:
    """The shape that terms prescribe; nobody chooses it.

    Guarantees:
        Whoever corrupts c members and the coordinator, and chooses which D members drop after it
        has seen who drew whom, fails except with probability 2^-40 to (a) hold ``share_threshold``
        shares of any honest member, or (b) find some of the honest survivors, not all, who drew
        none of the others: their sum could be unmasked without the rest. If t members picked
        without regard to the graph answer the last phase, the sum comes out except with probability
        2^-20. On a complete graph both hold always.

    Args:
        degree: members each member draws for itself; None means all.
        share_threshold: shares that rebuild a secret.

    Source:
        Bell, Bonawitz, Gascón, Lepoint, Raykova (2020), "Secure Single-Server Aggregation with
        (Poly)Logarithmic Overhead", section 4 (malicious version): its three conditions, with
        exact hypergeometric tails. A union bound over all sets lets the adversary pick the dropouts
        where the paper has each member check its neighbours, and counts a mask only for the member
        that drew it, because the coordinator can keep the deal from the other one.
    """

    degree: int | None
    share_threshold: int

    @classmethod
    def of(cls, privacy: PrivacyTerms) -> Graph:
        """The graph of cohorts under these terms.

        Raises:
            TermsError: if the cohort, or the holders of a secret, are more than one message serves.
        """
        if privacy.cohort_size > MOST_COHORT:
            raise TermsError(
                f"secure aggregation serves cohorts of at most {MOST_COHORT} members, the terms "
                f"say {privacy.cohort_size}; form several cohorts"
            )
        if privacy.cohort_size <= COMPLETE_UP_TO:
            return cls(None, privacy.threshold)
        return _sparse(privacy.cohort_size, privacy.colluders, privacy.dropouts, privacy.threshold)

    def holders(self, cohort_size: int) -> int:
        """How many members hold shares of one secret, its dealer included."""
        return cohort_size if self.degree is None else min(cohort_size, self.degree + 1)


def draw(others: Sequence[int], degree: int | None, entropy: Callable[[int], bytes]) -> list[int]:
    """``degree`` of ``others``, uniformly and in increasing order; all of them if it is None.

    The distance from uniform is below degree * len(others) * 2^-128.
    """
    if degree is None or degree >= len(others):
        return sorted(others)
    pool = list(others)
    for place in range(degree):
        other = place + int.from_bytes(entropy(16)) % (len(pool) - place)
        pool[place], pool[other] = pool[other], pool[place]
    return sorted(pool[:degree])


@functools.lru_cache(maxsize=64)
def _sparse(cohort: int, colluders: int, dropouts: int, threshold: int) -> Graph:
    """The smallest degree that meets all bounds; the complete graph if none does."""
    degrees = range(2, cohort - dropouts - 1)
    # Condition (b) alone falls as the degree grows: what is too small for it is passed over.
    least = bisect_left(
        degrees,
        float(SECURITY_BITS),
        key=lambda degree: -_exposed(cohort, colluders, dropouts, degree),
    )
    for degree in degrees[least:]:
        share_threshold = _share_threshold(cohort, colluders, dropouts, degree)
        bits = failure_bits(
            cohort, colluders, dropouts, threshold, degree=degree, share_threshold=share_threshold
        )
        if bits[0] >= SECURITY_BITS and bits[1] >= CORRECTNESS_BITS:
            return Graph(degree, share_threshold)
    return Graph(None, threshold)


def _share_threshold(cohort: int, colluders: int, dropouts: int, degree: int) -> int:
    """The least threshold that corrupted holders miss, for half of what may go wrong."""
    population = cohort - dropouts - 1  # corruption is densest in the smallest cohort
    allowed = -(SECURITY_BITS + 1) - math.log2(cohort)
    for threshold in range(2, degree + 2):
        if _log2_tail(population, colluders, degree, range(threshold, degree + 1)) <= allowed:
            return threshold
    return degree + 1


def failure_bits(
    cohort: int, colluders: int, dropouts: int, threshold: int, *, degree: int, share_threshold: int
) -> tuple[float, float]:
    """-log2 of the probability that security fails, and that correctness does (upper bounds).

    Args:
        cohort: N.
        colluders: c.
        dropouts: D.
        threshold: t, members that answer the last phase.
        degree: members each one draws.
        share_threshold: shares that rebuild a secret.
    """
    population = cohort - dropouts - 1
    corrupted = math.log2(cohort) + _log2_tail(
        population, colluders, degree, range(share_threshold, degree + 1)
    )
    exposed = _exposed(cohort, colluders, dropouts, degree)
    unrecovered = math.log2(cohort) + _log2_tail(
        cohort - 1, threshold - 1, degree, range(share_threshold)
    )
    return -_log2_sum([corrupted, exposed]), -unrecovered


def _exposed(cohort: int, colluders: int, dropouts: int, degree: int) -> float:
    """log2 of the chance of (b); members that are missing from the beginning are dropouts spent."""
    return max(
        _log2_open(cohort - missing, colluders, dropouts - missing, degree)
        for missing in {0, dropouts}
    )


def _log2_open(cohort: int, colluders: int, dropouts: int, degree: int) -> float:
    """log2 of the chance that some honest survivors, not all, drew none of the other ones.

    For every size s: any s of the honest, any D dropouts; those s drew only among themselves, the
    corrupted and the dropped. Who drew them is not counted on: the coordinator may withhold deals,
    and then they do not know it.
    """
    honest = cohort - colluders
    survivors = honest - dropouts
    all_draws = _log2_choose(cohort - 1, degree)
    return _log2_sum(
        _log2_choose(honest, size)
        + _log2_choose(honest - size, dropouts)
        + size * (_log2_choose(size - 1 + colluders + dropouts, degree) - all_draws)
        for size in range(1, survivors)
    )


def _log2_tail(population: int, marked: int, drawn: int, counts: range) -> float:
    """log2 of the hypergeometric probability that the marked ones drawn number in ``counts``."""
    whole = _log2_choose(population, drawn)
    return _log2_sum(
        _log2_choose(marked, count) + _log2_choose(population - marked, drawn - count) - whole
        for count in counts
    )


def _log2_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _log2_sum(logarithms: Iterable[float]) -> float:
    values = list(logarithms)
    largest = max(values, default=-math.inf)
    if largest == -math.inf:
        return largest
    return largest + math.log2(sum(2.0 ** (value - largest) for value in values))
