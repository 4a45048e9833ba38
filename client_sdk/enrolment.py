"""The member's end of the enrolment service: whom it talks to, it knows before it says anything.

A future member has an authority's fingerprint only. It looks at the server's certificate, opens a
connection that accepts this very certificate, asks for the authority's, and goes on only if, as
numbered in the code, (1) the authority has the fingerprint of the invitation, (2) it issued the
server's certificate, (3) a second connection verifies against it in the ordinary way. The secret
leaves on that second connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc

from client_sdk.reach import channel_options, proxy_for, server_facts
from privacy.certificates import certificate_facts
from privacy.errors import LinkError, MalformedBody
from privacy.membership import Invitation
from protos.alliance.v1 import membership_pb2 as wire
from protos.alliance.v1 import membership_pb2_grpc
from protos.codec import printable

__all__ = ["Enrolment", "Greeting", "pinned_authority"]

TIMEOUT_S: Final = 15.0
MESSAGE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the enrolment service says of itself."""

    protocol: int
    software: str
    alliance: str
    authority: bytes
    now_ms: int
    nonce: bytes


class Enrolment:
    """A connection to the enrolment service; use it in a with statement.

    Args:
        address: host and port.
        authority: the certificate, PEM, that the server's must be issued by.
        proxy: an HTTP CONNECT proxy; None leaves it to the environment.
    """

    def __init__(self, address: str, authority: bytes, *, proxy: str | None) -> None:
        self._address = address
        self._channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(authority),
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.use_local_subchannel_pool", 1),
                *channel_options(proxy),
            ],
        )
        self._stub: Any = membership_pb2_grpc.EnrolmentStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    def greet(self) -> Greeting:
        """Who is there, and a nonce to sign.

        Raises:
            LinkError: here and below, with what the service said, or why it said nothing.
        """
        said = self._call(self._stub.Greet, wire.GreetRequest())
        return Greeting(
            said.protocol, printable(said.software), printable(said.alliance), said.authority,
            said.now_ms, said.nonce,
        )  # fmt: skip

    def join(self, secret: bytes, request: bytes) -> bytes:
        """Uses an invitation; the new member's certificate, PEM."""
        asked = wire.JoinRequest(secret=secret, request=request)
        return bytes(self._call(self._stub.Join, asked).certificate)

    def renew(
        self, member: str, *, signing_request: bytes, nonce: bytes, signature: bytes
    ) -> bytes:
        """Another certificate, PEM."""
        asked = wire.RenewRequest(
            member=member, signing_request=signing_request, nonce=nonce, signature=signature
        )
        return bytes(self._call(self._stub.Renew, asked).certificate)

    def vouch(self, vouch: bytes) -> int:
        """Leaves a vouch; how many the coordinator keeps of that member now."""
        return int(self._call(self._stub.Vouch, wire.VouchRequest(vouch=vouch)).vouches)

    def leave(self, departure: bytes) -> None:
        """Tells that this member left; again is the same."""
        self._call(self._stub.Leave, wire.LeaveRequest(departure=departure))

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            sentence = printable(str(error.details()))
            raise LinkError(f"{self._address}: {sentence}") from error


def pinned_authority(invitation: Invitation, *, proxy: str | None) -> bytes:
    """The certificate of the authority that an invitation names, PEM.

    Raises:
        LinkError: if the server cannot be reached, or is not of that authority.
    """
    address = invitation.address
    shown = server_facts(address, proxy=proxy_for(address, proxy), timeout_s=TIMEOUT_S)
    server = certificate_facts(shown.certificate)
    try:
        with Enrolment(address, shown.certificate, proxy=proxy) as unverified:
            authority = unverified.greet().authority
        claimed = certificate_facts(authority).fingerprint
    except (LinkError, MalformedBody) as error:
        raise LinkError(
            f"{address} showed a certificate issued by {server.issuer} and does not answer as an "
            f"enrolment service ({error}); check the address, and whether something in between "
            "cuts TLS"
        ) from error
    if claimed != invitation.authority or not server.issued_by(authority):  # (1), (2)
        raise LinkError(
            f"{address} showed a certificate issued by {server.issuer}, not by the authority this "
            "invitation names; something between here and there may read along: tell the operator, "
            "and nothing was sent"
        )
    with Enrolment(address, authority, proxy=proxy) as verified:  # (3)
        verified.greet()
    return authority
