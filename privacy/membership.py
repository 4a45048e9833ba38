"""What a future member and an alliance's authority say to each other, as bytes.

A *request* is canonical JSON, signed by the identity key it names, with a signing request (PKCS
10) for the TLS key; the private halves of all three keys stay at the member. An *invitation* is one
line that an operator gives to one future member: a secret for one use, and the fingerprint of the
authority, so that the member knows whom it gives the secret to.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

import rfc8785
from pydantic import Field, StringConstraints, ValidationError, model_validator

from privacy.certificates import read_signing_request
from privacy.documents import StrictModel, first_problem
from privacy.errors import BadSignature, ConfigurationError, MalformedBody
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.terms import IdentityText, Name, one_digit

__all__ = [
    "LARGEST_REQUEST",
    "Invitation",
    "MembershipRequest",
    "new_secret",
    "open_request",
    "secret_hash",
    "sign_renewal",
    "sign_request",
    "verify_renewal",
]

REQUEST_CONTEXT: Final = "alliance/v1/membership-request"
RENEWAL_CONTEXT: Final = "alliance/v1/renewal"
SECRET_CONTEXT: Final = b"alliance/v1/invitation\x00"
LARGEST_REQUEST: Final = 16 << 10
SECRET_BYTES: Final = 20
"""160 bits: a hash of it needs neither salt nor stretching."""
PREFIX: Final = "alliance-invitation-1"


class MembershipRequest(StrictModel):
    """Who asks to become a member, with the public halves of its three keys."""

    version: Literal[1] = 1
    alliance: Name
    member: Name
    identity: IdentityText
    """Signs what the member says in a study; every roster names it."""
    ledger: IdentityText
    """Signs the heads of the member's log."""
    declared_consumers: int = Field(ge=1)
    """Rounded to one digit, as rosters declare it."""
    signing_request: Annotated[str, StringConstraints(max_length=4000)]
    """For the TLS key: PKCS 10, PEM."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.declared_consumers != one_digit(self.declared_consumers):
            raise ValueError("declared_consumers must be rounded to one digit")
        if self.identity == self.ledger:
            raise ValueError("identity and ledger must be different keys")
        return self


def sign_request(identity: Identity, request: MembershipRequest) -> bytes:
    """The request as canonical JSON with its signature: a file, or a field on the wire."""
    document = request.model_dump(mode="json")
    signature = identity.sign(REQUEST_CONTEXT, rfc8785.dumps(document)).hex()
    signed: bytes = rfc8785.dumps({"request": document, "signature": signature})
    return signed


def open_request(data: bytes) -> MembershipRequest:
    """The request in these bytes.

    Checks, numbered as in the code:
     (1) it is canonical JSON of the right form, and not large;
     (2) the identity key it names signed it;
     (3) its signing request is signed by the TLS key, and for the same member.

    Raises:
        MalformedBody: if it is no request.
        BadSignature: if a signature does not hold.
    """
    if len(data) > LARGEST_REQUEST:
        raise MalformedBody("not a membership request: it is too long")
    try:  # (1)
        parts = json.loads(data)
        if not isinstance(parts, dict) or rfc8785.dumps(parts) != data:
            raise MalformedBody("not a membership request: it is not canonical JSON")
        signature = bytes.fromhex(_text(parts, "signature"))
        request = MembershipRequest.model_validate_json(json.dumps(parts.get("request")))
    except ValidationError as error:
        raise MalformedBody(f"not a membership request: {first_problem(error)}") from error
    except (ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise MalformedBody("not a membership request: it is not canonical JSON") from error
    if set(parts) != {"request", "signature"}:
        raise MalformedBody("not a membership request: it has other fields than it should")
    statement = rfc8785.dumps(request.model_dump(mode="json"))
    verify(public_key(IdentityKey(request.identity)), signature, REQUEST_CONTEXT, statement)  # (2)
    name, _ = read_signing_request(request.signing_request.encode())  # (3)
    if name != request.member:
        raise BadSignature(f"the signing request is for {name[:80]!r}, not for {request.member}")
    return request


def sign_renewal(
    identity: Identity, *, alliance: str, member: str, signing_request: bytes, nonce: bytes
) -> bytes:
    """A member's wish for a new certificate, signed over the authority's nonce; 64 bytes."""
    return identity.sign(RENEWAL_CONTEXT, _renewal(alliance, member, signing_request, nonce))


def verify_renewal(
    identity: str,
    signature: bytes,
    *,
    alliance: str,
    member: str,
    signing_request: bytes,
    nonce: bytes,
) -> None:
    """Checks what `sign_renewal` made.

    Raises:
        BadSignature: if that identity did not sign it.
    """
    statement = _renewal(alliance, member, signing_request, nonce)
    verify(public_key(IdentityKey(identity)), signature, RENEWAL_CONTEXT, statement)


def new_secret() -> bytes:
    """A secret for one invitation, from the operating system."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_hash(secret: bytes) -> str:
    """What is kept of an invitation's secret."""
    return hashlib.sha256(SECRET_CONTEXT + secret).hexdigest()


@dataclass(frozen=True, slots=True)
class Invitation:
    """One line: ``alliance-invitation-1/MEMBER/HOST:PORT/EXPIRY/SECRET/FINGERPRINT``.

    Args:
        member: the name it is for.
        address: host and port of the enrolment service.
        expires: when it stops to count, to the second.
        secret: for one use.
        authority: SHA-256 of the authority's certificate, in hexadecimal.
    """

    member: str
    address: str
    expires: dt.datetime
    secret: bytes
    authority: str

    def __str__(self) -> str:
        secret = base64.b32encode(self.secret).decode().lower()
        return (
            f"{PREFIX}/{self.member}/{self.address}/{int(self.expires.timestamp())}/"
            f"{secret}/{self.authority}"
        )

    def __repr__(self) -> str:
        return f"<Invitation of {self.member}>"

    @classmethod
    def parse(cls, line: str) -> Self:
        """The invitation in a line.

        Raises:
            ConfigurationError: if it is none, or not whole.
        """
        match = re.fullmatch(
            PREFIX + r"/([a-z0-9][a-z0-9-]{0,62})/([^/\s]+:[0-9]{1,5})/([0-9]{1,11})"
            r"/([a-z2-7]{32})/([0-9a-f]{64})",
            line.strip(),
        )
        if match is None:
            raise ConfigurationError(
                "that is not a whole invitation; copy the one line that alliance-coordinator "
                "invite printed"
            )
        member, address, expires, secret, authority = match.groups()
        return cls(
            member,
            address,
            dt.datetime.fromtimestamp(int(expires), dt.UTC),
            base64.b32decode(secret.upper()),
            authority,
        )


def _renewal(alliance: str, member: str, signing_request: bytes, nonce: bytes) -> bytes:
    statement: bytes = rfc8785.dumps(
        {
            "alliance": alliance,
            "member": member,
            "nonce": nonce.hex(),
            "signing_request": hashlib.sha256(signing_request).hexdigest(),
        }
    )
    return statement


def _text(parts: dict[str, Any], name: str) -> str:
    value = parts.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value
