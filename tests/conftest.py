from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings

from privacy.certificates import Authority
from privacy.identity import Identity
from privacy.terms import (
    Column,
    DataContract,
    PhaseDeadlines,
    PrivacyTerms,
    RosterEntry,
    Terms,
)
from protos.tls import TlsMaterial

# A shared machine may pause for longer than any deadline; equal runs find equal examples.
settings.register_profile("alliance", deadline=None, derandomize=True)
settings.load_profile("alliance")

HOUR = dt.timedelta(hours=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole alliances first: they are long and wait much, and short tests fill what is left."""
    items.sort(key=lambda item: item.path.parent.name != "tests")


def identity(name: str) -> Identity:
    """The same identity for the same name, so that terms and members need not be told."""
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def make_contract(**changes: Any) -> DataContract:
    values: dict[str, Any] = {
        "name": "visits",
        "version": 1,
        "consumer_id": "household",
        "label": "responded",
        "columns": (
            Column(name="spend", kind="number", low=0.0, high=1000.0, scale="log"),
            Column(name="trips", kind="number", low=0.0, high=50.0),
            Column(name="kind", kind="category", values=("A", "B", "C")),
        ),
        "rows_per_consumer": 3,
    }
    return DataContract(**(values | changes))


def make_terms(
    *,
    members: int = 5,
    declared: int = 100,
    dimension: int = 6,
    contract: DataContract | None = None,
    settings: dict[str, Any] | None = None,
    deadlines: dict[str, float] | None = None,
    **privacy: Any,
) -> Terms:
    """Small terms that keep every rule; keyword arguments change the privacy parameters."""
    values: dict[str, Any] = {
        "clipping_norm": 1.0,
        "noise_multiplier": 2.0,
        "sampling_probability": 0.1,
        "rounds": 10,
        "max_attempts": 12,
        "delta": 1e-5,
        "cohort_size": members,
        "colluders": 1,
        "dropouts": 1 if members >= 4 else 0,
    }
    return Terms(
        alliance="test",
        study="coupons",
        purpose="Which household will respond to which campaign",
        recipe="propensity",
        settings=settings if settings is not None else {"model": "logistic"},
        dimension=dimension,
        contract=contract or make_contract(),
        privacy=PrivacyTerms(**(values | privacy)),
        roster=tuple(
            RosterEntry(
                name=f"member-{index}",
                identity=identity(f"member-{index}").public,
                declared_consumers=declared,
            )
            for index in range(members)
        ),
        deadlines=PhaseDeadlines(**(deadlines or {})),
    )


class Certificates:
    """A throw-away authority with TLS material for both sides."""

    def __init__(self, now: dt.datetime | None = None) -> None:
        self.now = now or dt.datetime.now(dt.UTC)
        self.authority = Authority("test", now=self.now, lifetime=HOUR)
        coordinator = self.authority.issue_coordinator(
            ["127.0.0.1", "localhost"], now=self.now, lifetime=HOUR
        )
        self.coordinator = TlsMaterial(
            coordinator.key, coordinator.certificate, self.authority.certificate
        )

    def member(self, name: str, *, age: dt.timedelta = dt.timedelta()) -> TlsMaterial:
        issued = self.authority.issue_member(name, now=self.now - age, lifetime=HOUR)
        return TlsMaterial(issued.key, issued.certificate, self.authority.certificate)


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()
