"""TLS of a port whose certificate renews itself while the port stays open."""

from __future__ import annotations

from typing import Any

import grpc

from coordinator.authority import ServerCertificate

__all__ = ["renewing_credentials"]


def renewing_credentials(
    certificate: ServerCertificate, *, members_only: bool
) -> grpc.ServerCredentials:
    """Server credentials that show each new connection the present certificate.

    Args:
        certificate: asked at every handshake.
        members_only: whether the other side must show a certificate of the same authority.
    """

    def configuration() -> Any:
        issued = certificate.current()
        return grpc.ssl_server_certificate_configuration(
            [(issued.key, issued.certificate)], certificate.authority if members_only else None
        )

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, require_client_authentication=members_only
    )
