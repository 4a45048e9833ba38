from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ledger_campaign.small_alliance import SmallAlliance
from tests.privacy.ledger.bundles import export


@pytest.fixture(scope="session")
def alliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallAlliance]:
    """An honest alliance after its study."""
    made = SmallAlliance(tmp_path_factory.mktemp("alliance")).run()
    yield made
    made.close()


@pytest.fixture(scope="session")
def bundle(alliance: SmallAlliance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; not to be changed."""
    return export(alliance, tmp_path_factory.mktemp("bundles") / "bundle")
