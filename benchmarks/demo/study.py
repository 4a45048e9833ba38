"""The demo's study: `study.toml` beside this file, its members, and what each of them allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.demo.journey import STUDY
from coordinator.study_file import read_study
from privacy.identity import Identity
from privacy.terms import RosterEntry, Terms

__all__ = ["ALLIANCE", "DECLARED", "POLICY", "demo_identities", "demo_terms"]

POLICY: Final[Mapping[str, float | int]] = {
    "most_epsilon": 1.0,
    "most_delta": 1e-5,
    "least_cohort": 5,
}
"""What every retailer of the demo allows; the guard holds it."""

DECLARED: Final[Mapping[str, int]] = {
    "harbour": 1000,
    "meadow": 400,
    "lantern": 200,
    "orchard": 100,
    "newcomer": 50,
}
"""Consumers as each retailer declares them, about; the split moves the true counts a little."""

ALLIANCE: Final = "five-retailers"


def demo_identities() -> dict[str, Identity]:
    """New identities for the five retailers."""
    return {name: Identity.generate() for name in DECLARED}


def demo_terms(identities: Mapping[str, Identity]) -> Terms:
    """The terms that the demo's study becomes with these members."""
    everybody = [
        RosterEntry(name=name, identity=identities[name].public, declared_consumers=count)
        for name, count in DECLARED.items()
    ]
    return read_study(STUDY, alliance=ALLIANCE, everybody=everybody)
