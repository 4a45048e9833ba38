"""Who may open a stream: a roster name in a verified certificate, still admitted, and a hello."""

from __future__ import annotations

import asyncio
from collections.abc import Container

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from coordinator.admittance import Admittance
from coordinator.rpc_errors import Denied
from privacy.certificates import common_name
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import printable
from protos.frames import ReceivedChunk
from protos.limits import LIMITS, PROTOCOL

__all__ = ["Context", "authenticate", "greet"]

Context = grpc.aio.ServicerContext[wire.MemberFrame | ReceivedChunk, wire.CoordinatorFrame | bytes]
"""One stream, as the server's side of gRPC gives it."""


def authenticate(
    context: Context, roster: Container[str], admittance: Admittance | None = None
) -> tuple[str, bytes]:
    """The member's name, and its verified certificate (PEM), before a message is read.

    The certificate is parsed here: gRPC's own field for the common name stops at a NUL and hides a
    second name.

    Raises:
        Denied: without TLS 1.3 and a client certificate, if the roster lacks the name, or if the
            registry says no.
    """
    authenticated = context.auth_context()
    version = next(iter(authenticated.get("ssl_tls_version", ())), b"")
    certificates = list(authenticated.get("x509_pem_cert", ()))
    if version != b"TLSv1.3" or len(certificates) != 1:
        raise Denied("not_mutual_tls")
    name = common_name(certificates[0])
    if name not in roster:
        raise Denied("not_in_roster")
    refusal = admittance.refusal(name, certificates[0]) if admittance else None
    if refusal is not None:
        raise Denied("not_admitted" if refusal.lasting else "not_now", refusal.sentence)
    return name, certificates[0]


async def greet(member: str, context: Context) -> str:
    """Reads the member's hello and answers with a welcome; name and version of its software.

    Raises:
        Denied: if the first frame is no hello, is late, or speaks another protocol.
    """
    try:
        async with asyncio.timeout(LIMITS.hello_timeout_s):
            first = await context.read()
    except (TimeoutError, DecodeError) as error:
        raise Denied("no_hello") from error
    if not isinstance(first, wire.MemberFrame) or first.WhichOneof("frame") != "hello":
        raise Denied("no_hello")
    if first.hello.protocol != PROTOCOL:
        older = first.hello.protocol < PROTOCOL
        because = f"it says {first.hello.protocol} ({printable(first.hello.software)})"
        raise Denied("older_protocol" if older else "newer_protocol", because)
    welcome = wire.Welcome(protocol=PROTOCOL, member=member)
    await context.write(wire.CoordinatorFrame(welcome=welcome))
    return printable(first.hello.software)
