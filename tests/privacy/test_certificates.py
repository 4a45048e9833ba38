from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from privacy.certificates import (
    CLOCK_SKEW,
    Authority,
    certificate_facts,
    common_name,
    key_hash,
    make_signing_request,
    make_tls_key,
)
from privacy.errors import ConfigurationError, MalformedBody
from privacy.identity import Identity

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


def test_a_kept_authority_issues_what_the_first_one_s_certificate_verifies() -> None:
    kept = Authority.from_pem(AUTHORITY.key, AUTHORITY.certificate)
    issued = kept.issue_member("a", now=NOW, lifetime=HOUR)
    facts = certificate_facts(issued.certificate)
    assert facts.issued_by(AUTHORITY.certificate)
    assert facts.name == "a"
    assert facts.key_hash == key_hash(issued.key)
    assert not facts.issued_by(Authority("test", now=NOW, lifetime=HOUR).certificate)


def test_an_authority_s_key_and_certificate_must_belong_together() -> None:
    other = Authority("test", now=NOW, lifetime=HOUR)
    with pytest.raises(ConfigurationError, match="not the one of its certificate"):
        Authority.from_pem(other.key, AUTHORITY.certificate)
    with pytest.raises(ConfigurationError):
        Authority.from_pem(b"junk", AUTHORITY.certificate)
    with pytest.raises(ConfigurationError):
        Authority.from_pem(Identity.generate().pem(), AUTHORITY.certificate)


def test_a_member_s_certificate_takes_the_key_alone_from_its_request() -> None:
    key = make_tls_key()
    request = make_signing_request(key, "somebody-else")
    certificate = AUTHORITY.certify_member("a", request, now=NOW, lifetime=HOUR)
    facts = certificate_facts(certificate)
    assert (facts.name, facts.key_hash) == ("a", key_hash(key))
    assert facts.left(NOW + HOUR) == 0
    assert 0 < facts.left(NOW) < 1
    with pytest.raises(MalformedBody):
        AUTHORITY.certify_member("a", b"junk", now=NOW, lifetime=HOUR)


def test_a_certificate_is_for_the_hosts_it_names() -> None:
    issued = AUTHORITY.issue_coordinator(["localhost", "10.0.0.1"], now=NOW, lifetime=HOUR)
    facts = certificate_facts(issued.certificate)
    assert facts.is_for("localhost")
    assert facts.is_for("10.0.0.1")
    assert not facts.is_for("example.org")
    assert not certificate_facts(AUTHORITY.certificate).is_for("localhost")
    with pytest.raises(MalformedBody):
        certificate_facts(b"junk")
