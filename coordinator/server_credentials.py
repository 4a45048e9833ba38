"""TLS of a port whose certificate renews itself while the port stays open."""

from __future__ import annotations

import time
from typing import Any, Final

import grpc

from coordinator.authority import ServerCertificate
from privacy.certificates import Issued

__all__ = ["renewing_credentials"]

QUIET_S: Final = 0.05
"""Handshakes that began before a certificate is replaced have taken hold of theirs after this."""


def renewing_credentials(
    certificate: ServerCertificate, *, members_only: bool
) -> grpc.ServerCredentials:
    """Server credentials that show each new connection the present certificate.

    gRPC asks at every handshake, one at a time, and frees what it used before when it is given
    another: a handshake on another thread that was about to take hold of it ends the process (grpc
    issue 36693, seen here when a thousand members came back at once). So it is given another only
    where there is one, once in a certificate's life, and not before that moment has passed.

    Args:
        certificate: asked at every handshake.
        members_only: whether the other side must show a certificate of the same authority.
    """
    shown = certificate.current()

    def configuration(issued: Issued) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(issued.key, issued.certificate)], certificate.authority if members_only else None
        )

    def renewed() -> Any:  # or None: the stubs do not know that it may be
        nonlocal shown
        issued = certificate.current()
        if issued is shown:
            return None
        time.sleep(QUIET_S)
        shown = issued
        return configuration(issued)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), renewed, require_client_authentication=members_only
    )
