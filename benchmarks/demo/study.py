"""The demo's study: who learns what, under which terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.demo.journey import contract
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.identity import Identity
from privacy.terms import PrivacyTerms, RosterEntry, Terms

__all__ = ["POLICY", "demo_identities", "demo_terms"]

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

# Chosen on other splits of the same data, which the guarantee does not cover (rule R5): a real
# alliance charges such a search or takes settings from elsewhere. The output says so.
ROUNDS: Final = 80
SPARE_ATTEMPTS: Final = 2
NOISE_MULTIPLIER: Final = 8.84
"""For epsilon(1) just under 1; the projection says how much."""


def demo_identities() -> dict[str, Identity]:
    """New identities for the five retailers."""
    return {name: Identity.generate() for name in DECLARED}


def demo_terms(identities: Mapping[str, Identity]) -> Terms:
    """The terms: logistic regression, 80 rounds, c = 1, D = 1."""
    table = contract()
    settings: dict[str, bool | int | float | str | tuple[int, ...]] = {
        "model": "logistic",
        "optimizer": "adam",
        "learning_rate": 0.3,
        "momentum": 0.9,
        "average_from": 41,
    }
    return Terms(
        alliance="five-retailers",
        study="coupon-campaigns",
        purpose="Which household will redeem a coupon of which campaign",
        recipe="propensity",
        settings=settings,
        dimension=dimension(table, PropensitySettings.model_validate(settings)),
        contract=table,
        privacy=PrivacyTerms(
            clipping_norm=0.5,
            noise_multiplier=NOISE_MULTIPLIER,
            sampling_probability=0.25,
            rounds=ROUNDS,
            max_attempts=ROUNDS + SPARE_ATTEMPTS,
            delta=1e-5,
            cohort_size=5,
            colluders=1,
            dropouts=1,
        ),
        roster=tuple(
            RosterEntry(name=name, identity=identities[name].public, declared_consumers=count)
            for name, count in DECLARED.items()
        ),
    )
