"""A small certificate authority for an alliance's mutual TLS (P-256, X.509).

Pure: keys and certificates are PEM bytes; the caller decides where they are kept.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Issued", "common_name"]

CLOCK_SKEW: Final = dt.timedelta(minutes=5)
"""Certificates are valid from this long before they were made: members' clocks differ."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A private key (PKCS 8) and its certificate, both PEM."""

    key: bytes
    certificate: bytes


class Authority:
    """Issues certificates to one coordinator and its members.

    A member's certificate serves client authentication only and a coordinator's server
    authentication only, so neither can stand in for the other.

    Args:
        alliance: the common name of the authority.
        now: the present, with a time zone.
        lifetime: how long the authority's own certificate is valid.
    """

    def __init__(self, alliance: str, *, now: dt.datetime, lifetime: dt.timedelta) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(alliance)
        key_usage = x509.KeyUsage(
            key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, PEM: what both sides trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue_coordinator(
        self, hosts: list[str], *, now: dt.datetime, lifetime: dt.timedelta
    ) -> Issued:
        """A server certificate for the given host names or addresses."""
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        return self._issue("coordinator", ExtendedKeyUsageOID.SERVER_AUTH, names, now, lifetime)

    def issue_member(self, name: str, *, now: dt.datetime, lifetime: dt.timedelta) -> Issued:
        """A client certificate whose common name is the member's name."""
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, None, now, lifetime)

    def _issue(
        self,
        common_name: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        now: dt.datetime,
        lifetime: dt.timedelta,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(common_name), self._name, key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            certificate.public_bytes(serialization.Encoding.PEM),
        )


def common_name(certificate: bytes) -> str:
    """The one common name of a PEM certificate; empty where it has none, several, or is odd."""
    try:
        subject = x509.load_pem_x509_certificate(certificate).subject
    except ValueError:
        return ""
    names = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names[0] if len(names) == 1 and names[0].isprintable() else ""


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )
