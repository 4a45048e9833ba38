"""Members vouch for each other, so that a coordinator cannot fill a cohort with its own inventions.

A *vouch* is a member's signature, by its identity key, over (alliance, member, identity): "I have
compared this key with that member over another channel". A node whose policy says ``countersigned``
takes part in a study only if, numbered as in the code,
 (1) the vouches that came with the terms are well-formed;
 (2) no roster entry gives a name that this node knows another key, nor the reverse;
 (3) each roster identity is known to this node, its own, or vouched for by more than c identities
     that this node knows itself; whom it knows through others only does not count.

**Guarantees:** at most c of those who vouch may collude with the coordinator, so more than c
vouches hold one of an honest member, which compared keys. Nothing here rests on the coordinator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import rfc8785
from pydantic import Field, StringConstraints, ValidationError

from privacy.documents import StrictModel, check_density, first_problem
from privacy.errors import BadSignature, MalformedBody, PolicyRefusal
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.terms import IdentityText, Name, RosterEntry, Terms

__all__ = [
    "Admissions",
    "SignatureText",
    "Vouch",
    "check_admissions",
    "fingerprint",
    "vouch",
]

CONTEXT: Final = "alliance/v1/admission"
GROUPS: Final = 8
"""Groups of five digits in a fingerprint: 132 bits, beyond any search for a second key."""

LEAST_VOUCH_BYTES: Final = 64
"""Fewer bytes than any field of an honest document takes. What breaks a rule is described, and a
document of nothing but such fields would take two hundred times its length to describe."""

SignatureText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class Vouch(StrictModel):
    """One member's word that an identity key is another member's, as a file."""

    version: Literal[1] = 1
    alliance: Name
    member: Name
    identity: IdentityText
    by: IdentityText
    signature: SignatureText

    @classmethod
    def from_json(cls, document: bytes) -> Vouch:
        """A vouch from a file, its signature checked.

        Raises:
            MalformedBody: if it is not one.
            BadSignature: if it is not signed by whom it names.
        """
        try:
            vouch = cls.model_validate_json(document)
        except ValidationError as error:
            raise MalformedBody(f"not a vouch: {first_problem(error)}") from error
        _verify(vouch.by, vouch.signature, vouch.alliance, vouch.member, vouch.identity)
        return vouch

    def canonical(self) -> bytes:
        """RFC 8785 JSON."""
        document: bytes = rfc8785.dumps(self.model_dump(mode="json"))
        return document


class Admissions(StrictModel):
    """The vouches that travel with proposed terms: by member, who vouched and the signature.

    What was signed is not repeated: the terms' roster says it.
    """

    version: Literal[1] = 1
    vouches: dict[Name, dict[IdentityText, SignatureText]] = Field(max_length=100_000)

    @classmethod
    def of(cls, terms: Terms, vouches: Iterable[Vouch]) -> Admissions:
        """Those vouches that are about the roster of these terms."""
        roster = {(terms.alliance, entry.name, entry.identity) for entry in terms.roster}
        found: dict[str, dict[str, str]] = {}
        for one in vouches:
            if (one.alliance, one.member, one.identity) in roster:
                found.setdefault(one.member, {})[one.by] = one.signature
        return cls(vouches=found)

    @classmethod
    def from_json(cls, document: bytes) -> Admissions:
        """Vouches as they came with a proposal; their signatures are not checked yet.

        Raises:
            MalformedBody: if they are not well-formed.
        """
        if b"[" in document:
            raise MalformedBody("not admissions: there are no lists in them")
        try:
            check_density(document, LEAST_VOUCH_BYTES)
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise MalformedBody(f"not admissions: {first_problem(error)}") from error
        except ValueError as error:
            raise MalformedBody(f"not admissions: {error}") from error

    def canonical(self) -> bytes:
        """RFC 8785 JSON."""
        document: bytes = rfc8785.dumps(self.model_dump(mode="json"))
        return document


def fingerprint(*, alliance: str, member: str, identity: str) -> str:
    """What two people compare over the telephone before one vouches for the other's key.

    >>> fingerprint(alliance="test", member="harbour", identity="0" * 64)
    '90030 84872 09412 98160 47347 73449 06745 44637'
    """
    digest = hashlib.sha256(
        CONTEXT.encode() + b"/fingerprint\x00" + _statement(alliance, member, identity)
    ).digest()
    number = int.from_bytes(digest, "big")
    groups = []
    for _ in range(GROUPS):
        number, group = divmod(number, 100_000)
        groups.append(f"{group:05d}")
    return " ".join(groups)


def vouch(by: Identity, *, alliance: str, member: str, identity: str) -> Vouch:
    """This identity's word that ``identity`` is the key of ``member``.

    Callers compare `fingerprint` with that member over another channel first.
    """
    signature = by.sign(CONTEXT, _statement(alliance, member, identity))
    return Vouch(
        alliance=alliance,
        member=member,
        identity=identity,
        by=by.public,
        signature=signature.hex(),
    )


def check_admissions(
    terms: Terms, admissions: bytes, *, own: IdentityKey, known: Mapping[str, str]
) -> None:
    """Refuses terms whose roster names a member that this node has no reason to believe in.

    Args:
        terms: as proposed.
        admissions: the vouches that came with them; empty if none did.
        own: this node's identity; its own vouch counts as one.
        known: identities by name that this member compared itself.

    Raises:
        PolicyRefusal: naming the first such member and what to do.
    """
    try:  # (1)
        vouches = Admissions.from_json(admissions).vouches if admissions else {}
    except MalformedBody as error:
        raise PolicyRefusal(f"study {terms.study}: {error}") from error
    names = {identity: name for name, identity in known.items()}
    believed = {own, *known.values()}
    for entry in terms.roster:
        if known.get(entry.name, entry.identity) != entry.identity or (  # (2)
            names.get(entry.identity, entry.name) != entry.name
        ):
            raise PolicyRefusal(
                f"study {terms.study}: {entry.name} with identity {entry.identity[:16]} is not "
                "what this member's known_members say; compare keys with it again"
            )
        if entry.identity in believed:
            continue
        valid = 0  # (3)
        for by, signature in vouches.get(entry.name, {}).items():
            valid += by in believed and _holds(terms.alliance, entry, by, signature)
        if valid <= terms.privacy.colluders:
            raise PolicyRefusal(
                f"study {terms.study}: {entry.name} with identity {entry.identity[:16]} has "
                f"{valid} countersignatures of members this one knows, it needs more than "
                f"{terms.privacy.colluders}; compare keys with it and vouch for it, or add it to "
                "known_members"
            )


def _holds(alliance: str, entry: RosterEntry, by: str, signature: str) -> bool:
    try:
        _verify(by, signature, alliance, entry.name, entry.identity)
    except BadSignature:
        return False
    return True


def _verify(by: str, signature: str, alliance: str, member: str, identity: str) -> None:
    statement = _statement(alliance, member, identity)
    try:
        verify(public_key(IdentityKey(by)), bytes.fromhex(signature), CONTEXT, statement)
    except ValueError as error:
        raise BadSignature(f"{by[:16]} is not an identity key") from error


def _statement(alliance: str, member: str, identity: str) -> bytes:
    statement: bytes = rfc8785.dumps({"alliance": alliance, "identity": identity, "member": member})
    return statement
