"""Why a stream is refused: one complete table of reason -> (gRPC status, sentence)."""

from __future__ import annotations

from typing import Final, Literal, get_args

import grpc

from privacy.errors import LinkError
from protos.limits import PROTOCOL

__all__ = ["REASONS", "Denied", "Reason", "denial"]

Reason = Literal[
    "not_mutual_tls",
    "not_in_roster",
    "not_admitted",
    "not_now",
    "flaps",
    "no_hello",
    "older_protocol",
    "newer_protocol",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

_TABLE: Final[dict[Reason, tuple[grpc.StatusCode, str]]] = {
    "not_mutual_tls": (
        grpc.StatusCode.UNAUTHENTICATED,
        "TLS 1.3 with a client certificate is required",
    ),
    "not_in_roster": (
        grpc.StatusCode.PERMISSION_DENIED,
        "the name in this certificate is not in the roster; ask the operator to admit it",
    ),
    "not_admitted": (
        grpc.StatusCode.PERMISSION_DENIED,
        "this member may not connect",
    ),
    "not_now": (grpc.StatusCode.UNAVAILABLE, "this member may not connect now"),
    "flaps": (
        grpc.StatusCode.UNAVAILABLE,
        "this member connects too often; see to its network, or to why it ends",
    ),
    "no_hello": (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the first frame must be a hello, within ten seconds",
    ),
    "older_protocol": (
        grpc.StatusCode.FAILED_PRECONDITION,
        f"protocol {PROTOCOL} is spoken here, newer than the node's: update the node",
    ),
    "newer_protocol": (
        grpc.StatusCode.FAILED_PRECONDITION,
        f"protocol {PROTOCOL} is spoken here, older than the node's: ask the operator to update it",
    ),
}


class Denied(LinkError):
    """A stream is refused before anything of it is used."""

    def __init__(self, reason: Reason, because: str = "", *, retry_s: float = 0.0) -> None:
        super().__init__(_TABLE[reason][1] + (f": {because}" if because else ""))
        self.reason: Reason = reason
        self.retry_s = retry_s
        """When to try again, from now; 0 leaves it to the member."""


def denial(error: Denied) -> tuple[grpc.StatusCode, str]:
    """What the refused side is told."""
    return _TABLE[error.reason][0], str(error)
