"""A small certificate authority for an alliance's mutual TLS (P-256, X.509), and what it issued.

Pure: keys and certificates are PEM bytes; the caller decides where they are kept.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privacy.errors import ConfigurationError, MalformedBody
from privacy.identity import UNREADABLE

__all__ = [
    "Authority",
    "CertificateFacts",
    "Issued",
    "certificate_facts",
    "common_name",
    "key_hash",
    "make_signing_request",
    "make_tls_key",
    "read_signing_request",
]

_UNREADABLE: Final = (
    *UNREADABLE, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What the library says of certificates and requests that are not what they should be."""

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
        self._name = name = _name(alliance)
        key_usage = x509.KeyUsage(
            key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._certificate = (
            _builder(name, name, self._key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @classmethod
    def from_pem(cls, key: bytes, certificate: bytes) -> Self:
        """The authority that was kept as these PEM bytes.

        Raises:
            ConfigurationError: if they are not the key and certificate of one authority.
        """
        authority = cls.__new__(cls)
        authority._key = _private_key(key)
        try:
            authority._certificate = x509.load_pem_x509_certificate(certificate)
            certified = authority._certificate.public_key()
            authority._name = authority._certificate.subject
        except _UNREADABLE as error:
            raise ConfigurationError("the authority's certificate is not a PEM one") from error
        if certified != authority._key.public_key():
            raise ConfigurationError("the authority's key is not the one of its certificate")
        return authority

    @property
    def key(self) -> bytes:
        """The authority's private key, PKCS 8 PEM, for a file that only its owner may read."""
        return _key_pem(self._key)

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

    def certify_member(
        self, name: str, request: bytes, *, now: dt.datetime, lifetime: dt.timedelta
    ) -> bytes:
        """A client certificate, PEM, for the key of a signing request; the key stays where it is.

        Nothing but the public key is taken from the request.

        Raises:
            MalformedBody: if it is no signing request of a P-256 key, signed by that key.
        """
        _, key = _signing_request(request)
        return self._certify(name, key, ExtendedKeyUsageOID.CLIENT_AUTH, None, now, lifetime)

    def _issue(
        self,
        common_name: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        now: dt.datetime,
        lifetime: dt.timedelta,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certify(common_name, key.public_key(), usage, names, now, lifetime)
        return Issued(_key_pem(key), certificate)

    def _certify(
        self,
        common_name: str,
        key: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        now: dt.datetime,
        lifetime: dt.timedelta,
    ) -> bytes:
        builder = (
            _builder(_name(common_name), self._name, key, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says of itself; nothing of it is verified but `issued_by`.

    Args:
        name: its common name; empty where it has none, several, or is odd.
        issuer: in the issuer's own words, for people.
        fingerprint: SHA-256 of the certificate, 64 lower-case hexadecimal digits.
        key_hash: SHA-256 of its public key, likewise.
    """

    name: str
    issuer: str
    not_before: dt.datetime
    not_after: dt.datetime
    fingerprint: str
    key_hash: str
    _certificate: x509.Certificate

    def issued_by(self, authority: bytes) -> bool:
        """Whether the authority with this PEM certificate signed it (times are not looked at)."""
        try:
            self._certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        except (*_UNREADABLE, InvalidSignature):
            return False
        return True

    def is_for(self, host: str) -> bool:
        """Whether it names this host name or address as its own."""
        try:
            names = self._certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
            return _host(host) in list(names)
        except (x509.ExtensionNotFound, *_UNREADABLE):
            return False

    def left(self, now: dt.datetime) -> float:
        """The share of its life that is left, from 1 down to 0 and below."""
        return (self.not_after - now) / (self.not_after - self.not_before)


def certificate_facts(certificate: bytes) -> CertificateFacts:
    """What a PEM certificate says.

    Raises:
        MalformedBody: if it is not one.
    """
    try:
        read = x509.load_pem_x509_certificate(certificate)
        return CertificateFacts(
            name=common_name(certificate),
            issuer="".join(c if c.isprintable() else "?" for c in read.issuer.rfc4514_string())[
                :200
            ],
            not_before=read.not_valid_before_utc,
            not_after=read.not_valid_after_utc,
            fingerprint=read.fingerprint(hashes.SHA256()).hex(),
            key_hash=_public_hash(read.public_key()),
            _certificate=read,
        )
    except _UNREADABLE as error:
        raise MalformedBody("not a PEM certificate") from error


def make_tls_key() -> bytes:
    """A new P-256 key, PKCS 8 PEM, for a file that only its owner may read."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def key_hash(key: bytes) -> str:
    """SHA-256 of the public half of a private key in PEM, as `CertificateFacts.key_hash` has it.

    Raises:
        ConfigurationError: if it is not a P-256 key.
    """
    return _public_hash(_private_key(key).public_key())


def make_signing_request(key: bytes, name: str) -> bytes:
    """A PEM signing request (PKCS 10) for the key's public half.

    Raises:
        ConfigurationError: if it is not a P-256 key.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    request = builder.sign(_private_key(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def read_signing_request(request: bytes) -> tuple[str, str]:
    """The common name and the hash of the public key that a signing request proves to hold.

    Raises:
        MalformedBody: if it is not one, not of a P-256 key, or not signed by that key.
    """
    read, key = _signing_request(request)
    names = [str(part.value) for part in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return (names[0] if len(names) == 1 else ""), _public_hash(key)


def _signing_request(
    request: bytes,
) -> tuple[x509.CertificateSigningRequest, ec.EllipticCurvePublicKey]:
    try:
        read = x509.load_pem_x509_csr(request)
        key, is_signed = read.public_key(), read.is_signature_valid
    except (*_UNREADABLE, InvalidSignature) as error:
        raise MalformedBody("not a PEM signing request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedBody("the signing request is not of a P-256 key")
    if not is_signed:
        raise MalformedBody("the signing request is not signed by its own key")
    return read, key


def _private_key(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        read = serialization.load_pem_private_key(key, password=None)
    except _UNREADABLE as error:
        raise ConfigurationError("a TLS key is an unencrypted PEM private key") from error
    if not isinstance(read, ec.EllipticCurvePrivateKey) or not isinstance(read.curve, ec.SECP256R1):
        raise ConfigurationError("a TLS key is a P-256 key, not one of another kind")
    return read


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_hash(key: object) -> str:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return ""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return digest.finalize().hex()


def common_name(certificate: bytes) -> str:
    """The one common name of a PEM certificate; empty where it has none, several, or is odd."""
    try:
        subject = x509.load_pem_x509_certificate(certificate).subject
    except _UNREADABLE:
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
