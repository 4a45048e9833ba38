"""A member's signed word that it left the alliance, as bytes: a file, or a field on the wire.

It names the ledger that spends nothing any more, so showing it again does no harm: a member that
is admitted anew has another ledger.
"""

from __future__ import annotations

from typing import Final, Literal

import rfc8785
from pydantic import ValidationError

from privacy.admission import SignatureText
from privacy.documents import StrictModel, first_problem
from privacy.errors import BadSignature, MalformedBody
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.terms import IdentityText, Name

__all__ = ["Departure", "depart"]

CONTEXT: Final = "alliance/v1/departure"
LARGEST: Final = 4096


class Departure(StrictModel):
    """Who left; `depart` signs one, `from_json` checks that.

    Args:
        identity: the member's key, which signed it.
        ledger: the key of its log, from which nothing is spent any more.
    """

    version: Literal[1] = 1
    alliance: Name
    member: Name
    identity: IdentityText
    ledger: IdentityText
    signature: SignatureText

    @classmethod
    def from_json(cls, document: bytes) -> Departure:
        """A departure whose signature holds.

        Raises:
            MalformedBody: if it is not well-formed.
            BadSignature: if the identity it names did not sign it.
        """
        if len(document) > LARGEST:
            raise MalformedBody("not a departure: it is too long")
        try:
            read = cls.model_validate_json(document)
        except ValidationError as error:
            raise MalformedBody(f"not a departure: {first_problem(error)}") from error
        try:
            key = public_key(IdentityKey(read.identity))
        except ValueError as error:
            raise BadSignature(f"{read.identity[:16]} is not an identity key") from error
        verify(key, bytes.fromhex(read.signature), CONTEXT, read._statement())
        return read

    def canonical(self) -> bytes:
        """RFC 8785 JSON."""
        document: bytes = rfc8785.dumps(self.model_dump(mode="json"))
        return document

    def _statement(self) -> bytes:
        return _statement(self.alliance, self.member, self.identity, self.ledger)


def depart(by: Identity, *, alliance: str, member: str, ledger: IdentityKey) -> Departure:
    """This identity's word that it left.

    Guarantees:
        Callers must have written `left` into the log of ``ledger``, durably, before.
    """
    signature = by.sign(CONTEXT, _statement(alliance, member, by.public, ledger))
    return Departure(
        alliance=alliance,
        member=member,
        identity=by.public,
        ledger=ledger,
        signature=signature.hex(),
    )


def _statement(alliance: str, member: str, identity: str, ledger: str) -> bytes:
    statement: bytes = rfc8785.dumps(
        {"alliance": alliance, "identity": identity, "ledger": ledger, "member": member}
    )
    return statement
