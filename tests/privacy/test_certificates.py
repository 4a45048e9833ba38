from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from privacy.certificates import CLOCK_SKEW, Authority, common_name

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
AUTHORITY = Authority("test", now=NOW, lifetime=HOUR)


def test_each_side_s_certificate_serves_that_side_only() -> None:
    for issued, usage in (
        (AUTHORITY.issue_member("a", now=NOW, lifetime=HOUR), ExtendedKeyUsageOID.CLIENT_AUTH),
        (
            AUTHORITY.issue_coordinator(["localhost"], now=NOW, lifetime=HOUR),
            ExtendedKeyUsageOID.SERVER_AUTH,
        ),
    ):
        certificate = x509.load_pem_x509_certificate(issued.certificate)
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(found) == [usage]
        assert certificate.not_valid_before_utc == NOW - CLOCK_SKEW
        assert certificate.not_valid_after_utc == NOW + HOUR
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))


@pytest.mark.parametrize("name", ["member-0", "会员"])
def test_the_common_name_is_read_whole(name: str) -> None:
    issued = AUTHORITY.issue_member(name, now=NOW, lifetime=HOUR)
    assert common_name(issued.certificate) == name


@pytest.mark.parametrize("pem", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nxx"])
def test_what_is_no_certificate_has_no_name(pem: bytes) -> None:
    assert common_name(pem) == ""


def test_a_name_with_a_nul_is_no_name() -> None:
    issued = AUTHORITY.issue_member("member-0\x00.evil", now=NOW, lifetime=HOUR)
    assert common_name(issued.certificate) == ""
