from __future__ import annotations

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from privacy.certificates import (
    CLOCK_SKEW,
    Authority,
    certificate_facts,
    common_name,
    key_hash,
    make_signing_request,
    make_tls_key,
    read_signing_request,
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


def altered(pem: bytes, old: bytes, new: bytes) -> bytes:
    """A PEM file whose DER has ``new`` in the place of ``old``."""
    label = pem.split(b"-----")[1].removeprefix(b"BEGIN ").decode()
    der = base64.b64decode(b"".join(pem.strip().splitlines()[1:-1]))
    assert old in der
    body = base64.encodebytes(der.replace(old, new, 1)).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def test_certificates_and_requests_of_an_unknown_version_are_refused() -> None:
    """As fuzzing found: the library's own error for them left the parsers."""
    certificate = AUTHORITY.issue_member("a", now=NOW, lifetime=HOUR).certificate
    newer = altered(certificate, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09")
    assert common_name(newer) == ""
    with pytest.raises(MalformedBody):
        certificate_facts(newer)
    request = make_signing_request(make_tls_key(), "a")
    with pytest.raises(MalformedBody):
        read_signing_request(altered(request, b"\x02\x01\x00", b"\x02\x01\x22"))


def test_an_authority_of_a_point_off_the_curve_is_refused() -> None:
    start = x509.load_pem_x509_certificate(AUTHORITY.certificate).public_key()
    assert isinstance(start, ec.EllipticCurvePublicKey)
    point = start.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    off = point[:-1] + bytes([point[-1] ^ 1])
    with pytest.raises(ConfigurationError, match="not a PEM one"):
        Authority.from_pem(AUTHORITY.key, altered(AUTHORITY.certificate, point, off))
    with pytest.raises(MalformedBody):
        certificate_facts(altered(AUTHORITY.certificate, point, off))


def test_a_certificate_with_one_extension_twice_is_for_nobody() -> None:
    """Found by fuzzing: the library has an error of its own for it."""
    issued = AUTHORITY.issue_coordinator(["localhost"], now=NOW, lifetime=HOUR).certificate
    usage, extended = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d25")
    assert certificate_facts(issued).is_for("localhost")
    assert not certificate_facts(altered(issued, extended, usage)).is_for("localhost")


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
