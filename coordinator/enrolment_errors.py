"""Why enrolment is declined: one complete table of reason -> (gRPC status, sentence)."""

from __future__ import annotations

from typing import Final, Literal, get_args

import grpc

from privacy.errors import LinkError

__all__ = ["DECLINES", "Decline", "Declined", "declination"]

Decline = Literal[
    "malformed",
    "unsigned",
    "other_alliance",
    "wrong_invitation",
    "used_invitation",
    "expired_invitation",
    "other_name",
    "taken_name",
    "taken_key",
    "not_a_member",
    "revoked",
    "stale_nonce",
    "bad_renewal",
    "not_a_voucher",
    "left",
    "not_its_ledger",
    "too_many",
    "not_tls_1_3",
    "unusable",
]
DECLINES: Final[tuple[Decline, ...]] = get_args(Decline)

_S = grpc.StatusCode
_TABLE: Final[dict[Decline, tuple[grpc.StatusCode, str]]] = {
    "malformed": (
        _S.INVALID_ARGUMENT,
        (
            "the request is not one of this version; update the node, and make it with "
            "alliance-node init"
        ),
    ),
    "unsigned": (
        _S.INVALID_ARGUMENT,
        "a signature in the request does not hold; make it again with alliance-node init",
    ),
    "other_alliance": (
        _S.FAILED_PRECONDITION,
        (
            "the request names another alliance than this coordinator's; make it again with the "
            "alliance's name"
        ),
    ),
    "wrong_invitation": (
        _S.PERMISSION_DENIED,
        (
            "this invitation is not one of this coordinator's; copy it again, or ask the operator "
            "for a new one"
        ),
    ),
    "used_invitation": (
        _S.PERMISSION_DENIED,
        (
            "this invitation has been used; if it was not by you tell the operator, and ask for a "
            "new one"
        ),
    ),
    "expired_invitation": (
        _S.PERMISSION_DENIED,
        "this invitation has expired; ask the operator for a new one",
    ),
    "other_name": (
        _S.PERMISSION_DENIED,
        "this invitation is for another member's name; use the name it gives",
    ),
    "taken_name": (
        _S.ALREADY_EXISTS,
        (
            "a member of this name is admitted with another identity; the operator invites with "
            "--replace to put this one in its place"
        ),
    ),
    "taken_key": (
        _S.ALREADY_EXISTS,
        "another member has one of these keys; each member makes its own with alliance-node init",
    ),
    "not_a_member": (
        _S.PERMISSION_DENIED,
        "no member of this name is admitted; ask the operator for an invitation",
    ),
    "revoked": (_S.PERMISSION_DENIED, "this member was revoked; ask the operator why"),
    "stale_nonce": (
        _S.FAILED_PRECONDITION,
        "the nonce is not fresh; ask for another greeting and sign its nonce",
    ),
    "bad_renewal": (
        _S.PERMISSION_DENIED,
        (
            "the renewal is not signed by the identity this member was admitted with; use that "
            "identity.pem, or ask the operator for a new invitation"
        ),
    ),
    "not_a_voucher": (
        _S.PERMISSION_DENIED,
        "only a member's vouch for another admitted member's present identity is kept",
    ),
    "left": (
        _S.PERMISSION_DENIED,
        (
            "this member left the alliance; to come back it makes a new node folder with "
            "alliance-node init, under another name, and asks the operator for an invitation"
        ),
    ),
    "not_its_ledger": (
        _S.PERMISSION_DENIED,
        (
            "the departure names other keys than this member was admitted with; send the one that "
            "alliance-node leave wrote in that member's own folder"
        ),
    ),
    "too_many": (
        _S.RESOURCE_EXHAUSTED,
        "too many refused requests came from this address; wait a minute and try again",
    ),
    "not_tls_1_3": (_S.UNAUTHENTICATED, "TLS 1.3 is required"),
    "unusable": (
        _S.UNAVAILABLE,
        "the coordinator cannot use its registry now; its own log says why, try again later",
    ),
}


class Declined(LinkError):
    """A request to join, renew or vouch is declined, and nothing was changed by it."""

    def __init__(self, reason: Decline, because: str = "") -> None:
        super().__init__(_TABLE[reason][1] + (f" ({because})" if because else ""))
        self.reason: Decline = reason


def declination(error: Declined) -> tuple[grpc.StatusCode, str]:
    """What the declined side is told."""
    return _TABLE[error.reason][0], str(error)
