from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest

from coordinator.authority import (
    EnrolmentConfig,
    ServerCertificate,
    alliance_of,
    init_authority,
    open_authority,
)
from coordinator.config import CoordinatorConfig
from privacy.certificates import certificate_facts
from privacy.errors import ConfigurationError
from protos.config import read_config
from tests.enrolled import Clock

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
YEAR = dt.timedelta(days=365)
DAY = dt.timedelta(days=1)


def test_an_authority_is_kept_for_years_and_never_replaced(tmp_path: Path) -> None:
    made = init_authority(tmp_path / "a", "test", years=10, now=NOW)
    kept = open_authority(tmp_path / "a", now=NOW + 9 * YEAR)
    assert kept.certificate == made.certificate
    assert alliance_of(kept) == "test"
    assert stat.S_IMODE((tmp_path / "a" / "authority.key.pem").stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="an authority is kept"):
        init_authority(tmp_path / "a", "test", years=10, now=NOW)
    with pytest.raises(ConfigurationError, match="expired or this clock is wrong"):
        open_authority(tmp_path / "a", now=NOW + 11 * YEAR)


def test_an_authority_whose_key_others_may_read_is_not_used(tmp_path: Path) -> None:
    init_authority(tmp_path, "test", years=1, now=NOW)
    (tmp_path / "authority.key.pem").chmod(0o640)
    with pytest.raises(ConfigurationError, match="run chmod 600"):
        open_authority(tmp_path, now=NOW)
    with pytest.raises(ConfigurationError, match="authority init makes an authority"):
        open_authority(tmp_path / "none", now=NOW)
    with pytest.raises(ConfigurationError, match="is no name"):
        init_authority(tmp_path / "b", "Our Alliance", years=1, now=NOW)


def test_a_coordinator_without_tls_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    path.write_text('state = "state"\n')
    with pytest.raises(ConfigurationError, match="without TLS does not start"):
        read_config(path, CoordinatorConfig).credentials()


def test_certificates_live_a_day_at_most(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    table = '[enrolment]\naddress = "a:1"\nhosts = ["a"]\ncertificate_hours = '
    path.write_text(f'state = "state"\n{table}25\n')
    with pytest.raises(ConfigurationError, match="certificate_hours"):
        read_config(path, CoordinatorConfig)
    path.write_text(f'state = "state"\n{table}24\n')
    config = read_config(path, CoordinatorConfig).relative_to(tmp_path).enrolment
    assert config is not None
    assert config.lifetime == DAY
    assert config.authority == tmp_path / "authority"


@pytest.mark.parametrize(
    ("ahead", "renews"),
    [
        (15 * DAY / 24, False),
        (17 * DAY / 24, True),
        (2 * DAY, True),
        (-DAY, True),
        (YEAR / 2, True),
    ],
)
def test_the_coordinator_s_certificate_is_valid_whatever_its_clock_does(
    tmp_path: Path, ahead: dt.timedelta, renews: bool
) -> None:
    clock = Clock()
    init_authority(tmp_path, "test", years=1, now=clock() - 2 * DAY)
    config = EnrolmentConfig(address="a:1", hosts=("a", "10.0.0.1"), authority=tmp_path)
    certificate = ServerCertificate.of(config, clock=clock)
    first = certificate.current()
    clock.ahead = ahead
    now = certificate.current()
    assert (now != first) == renews
    facts = certificate_facts(now.certificate)
    assert facts.not_before <= clock() < facts.not_after
    assert facts.is_for("a")
    assert facts.is_for("10.0.0.1")
