"""The coordinator's port: mutual TLS, capped frames, keepalive."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from coordinator.authority import ServerCertificate
from coordinator.server_credentials import renewing_credentials
from coordinator.service import ExchangeService
from privacy.errors import ConfigurationError
from protos.frames import member_frame, serialized
from protos.limits import LIMITS, METHOD, SERVICE
from protos.tls import TlsMaterial

__all__ = ["serve_health", "start_server"]


MOST_FILES: Final = 65_536


async def start_server(
    service: ExchangeService, listen: str, tls: TlsMaterial | ServerCertificate
) -> tuple[grpc.aio.Server, str]:
    """Opens the port: mutual TLS, capped frames, keepalive; the server and its address.

    Raises:
        ConfigurationError: if the port cannot be opened.
    """
    _allow_many_streams()
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", LIMITS.frame_bytes),
            ("grpc.max_send_message_length", LIMITS.frame_bytes),
            ("grpc.keepalive_time_ms", round(LIMITS.keepalive_time_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(LIMITS.keepalive_timeout_s * 1000)),
            ("grpc.http2.max_pings_without_data", 0),  # or half-open streams stay for minutes
            ("grpc.http2.ping_timeout_ms", round(LIMITS.ping_timeout_s * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.max_concurrent_streams", 4),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", round(LIMITS.hello_timeout_s * 1000)),
        ]
    )
    handler = grpc.stream_stream_rpc_method_handler(
        service.connect, request_deserializer=member_frame, response_serializer=serialized
    )
    handlers = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
    server.add_generic_rpc_handlers((handlers,))
    if isinstance(tls, ServerCertificate):
        credentials = renewing_credentials(tls, members_only=True)
    else:
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)], tls.authority, require_client_auth=True
        )
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ConfigurationError(
            f"cannot listen on {listen}: the port is in use or not allowed; choose another"
        ) from error
    await server.start()
    return server, f"{listen.rpartition(':')[0]}:{port}"


async def serve_health(address: str | None) -> grpc.aio.Server | None:
    """Answers gRPC health checks on a loopback port of their own; None where none is wanted.

    Raises:
        ConfigurationError: if the port cannot be opened.
    """
    if address is None:
        return None
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(
            f"health checks cannot listen on {address}; choose another port"
        ) from error
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    return server


def _allow_many_streams() -> None:
    """Takes as many files as this process may: each stream is one, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
