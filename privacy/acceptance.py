"""A member's signed yes to terms, which also names the key that signs its ledger's heads."""

from __future__ import annotations

from typing import Final

import rfc8785

from privacy.errors import BadSignature
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.terms import Terms

__all__ = ["sign_acceptance", "verify_acceptance"]

CONTEXT: Final = "alliance/v1/acceptance"


def sign_acceptance(
    identity: Identity, terms: Terms, *, member: str, ledger_key: IdentityKey
) -> bytes:
    """The acceptance of ``terms`` by ``member``, 64 bytes, by its identity key."""
    return identity.sign(CONTEXT, _statement(terms, member, ledger_key))


def verify_acceptance(terms: Terms, *, member: str, ledger_key: str, signature: bytes) -> None:
    """Checks that ``member`` accepted ``terms`` and named ``ledger_key``.

    Raises:
        BadSignature: if it did not, or is not in the roster.
    """
    identity = next((entry.identity for entry in terms.roster if entry.name == member), None)
    if identity is None:
        raise BadSignature(f"{member} is not in the roster of study {terms.study}")
    statement = _statement(terms, member, IdentityKey(ledger_key))
    verify(public_key(IdentityKey(identity)), signature, CONTEXT, statement)


def _statement(terms: Terms, member: str, ledger_key: IdentityKey) -> bytes:
    statement: bytes = rfc8785.dumps(
        {
            "alliance": terms.alliance,
            "ledger_key": ledger_key,
            "member": member,
            "terms": terms.hash,
        }
    )
    return statement
