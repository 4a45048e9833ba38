"""Who is asked for an attempt."""

from __future__ import annotations

from collections.abc import Container

from privacy.errors import RoundFailed
from privacy.terms import Terms

__all__ = ["choose"]


def choose(terms: Terms, *, willing: Container[str], present: Container[str]) -> tuple[str, ...]:
    """The N members of an attempt, in roster order: those present first, then absent ones.

    An absent member keeps its place (it may come back) and counts towards the dropouts.

    Args:
        terms: the study's terms.
        willing: members that accepted exactly these terms.
        present: members whose stream is up.

    Raises:
        RoundFailed: if fewer than N - D willing members are present.
    """
    names = [entry.name for entry in terms.roster]
    ready = [name for name in names if name in willing and name in present]
    least = terms.privacy.least_survivors
    if len(ready) < least:
        raise RoundFailed(
            f"{len(ready)} members are present and accept the terms; the terms demand {least}. "
            "Wait for members to connect, or propose terms they accept"
        )
    others = [name for name in names if name not in ready]
    chosen = set((ready + others)[: terms.privacy.cohort_size])
    return tuple(name for name in names if name in chosen)
