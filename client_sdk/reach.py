"""How this node reaches an address: directly, or through an HTTP CONNECT proxy.

gRPC does the same by itself once it is given `channel_options`; here it is done step by step, so
that each step's failure has a name, and so that a server's certificate can be looked at before
anything trusts it.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Final, Literal

from privacy.errors import ConfigurationError, LinkError

__all__ = [
    "PROXY_PATTERN",
    "ServerFacts",
    "Unreachable",
    "channel_options",
    "host_and_port",
    "proxy_for",
    "server_facts",
]

PROXY_PATTERN: Final = r"^http://[^/\s]+:\d{1,5}/?$"
PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC looks at them."""
LONGEST_REPLY: Final = 16 << 10

Step = Literal["dns", "proxy", "port", "tls"]


class Unreachable(LinkError):
    """An address could not be reached; ``step`` says how far it went.

    Args:
        step: what failed.
        message: one sentence and the remedy.
    """

    def __init__(self, step: Step, message: str) -> None:
        super().__init__(message)
        self.step: Step = step


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server showed: its certificate (PEM, not verified) and the TLS version."""

    certificate: bytes
    tls_version: str


def host_and_port(address: str) -> tuple[str, int]:
    """The two halves of ``HOST:PORT``; an IPv6 address stands in brackets.

    >>> host_and_port("[::1]:9443")
    ('::1', 9443)

    Raises:
        ConfigurationError: if it has not that form.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s/]+):([0-9]{1,5})", address)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise ConfigurationError(f"{address!r:.200} is no address; write HOST:PORT")
    return match[1].strip("[]"), int(match[2])


def proxy_for(address: str, configured: str | None) -> str | None:
    """The proxy for an address: the configured one, else the environment's, as gRPC takes it."""
    if configured is not None:
        return configured
    named = next((os.environ[name] for name in PROXY_VARIABLES if os.environ.get(name)), None)
    if named is None or urllib.request.proxy_bypass(host_and_port(address)[0]):
        return None
    return named


def channel_options(configured: str | None) -> list[tuple[str, str | int]]:
    """gRPC channel options that go through the configured proxy; without one, gRPC looks itself."""
    return [] if configured is None else [("grpc.http_proxy", configured)]


def server_facts(address: str, *, proxy: str | None, timeout_s: float) -> ServerFacts:
    """Shakes hands with a TLS server and reports what it showed; verifies and sends nothing.

    Raises:
        Unreachable: naming the step that failed.
        ConfigurationError: if the address or the proxy is not one.
    """
    host, _ = host_and_port(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the caller judges the certificate
    context.set_alpn_protocols(["h2"])
    with _open(address, proxy, timeout_s) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as secured:
                shown = secured.getpeercert(binary_form=True)
                version = secured.version()
        except OSError as error:
            raise Unreachable(
                "tls",
                f"{address} does not complete a TLS handshake ({_cause(error)}); check that this "
                "is the coordinator's port and that nothing in between cuts TLS",
            ) from error
    if not shown or not version:
        raise Unreachable("tls", f"{address} showed no certificate; check that it is the port")
    return ServerFacts(ssl.DER_cert_to_PEM_cert(shown).encode(), version)


def _open(address: str, proxy: str | None, timeout_s: float) -> socket.socket:
    if proxy is None:
        return _connect(address, timeout_s, "port")
    url = urllib.parse.urlsplit(proxy)
    try:
        near = f"{url.hostname}:{url.port}" if ":" not in (url.hostname or ":") else url.netloc
    except ValueError as error:
        raise ConfigurationError(f"{proxy!r:.200} is no proxy; write http://HOST:PORT") from error
    if url.scheme != "http" or url.port is None:
        raise ConfigurationError(f"{proxy!r:.200} is no proxy; write http://HOST:PORT")
    tunnel = _connect(near, timeout_s, "proxy")
    try:
        _tunnel(tunnel, address, near, url)
    except BaseException:
        tunnel.close()
        raise
    return tunnel


def _connect(address: str, timeout_s: float, step: Step) -> socket.socket:
    host, port = host_and_port(address)
    try:
        return socket.create_connection((host, port), timeout=timeout_s)
    except socket.gaierror as error:
        raise Unreachable(
            "proxy" if step == "proxy" else "dns",
            f"the name {host} cannot be resolved ({_cause(error)}); check its spelling and this "
            "machine's DNS, or name a proxy in node.toml",
        ) from error
    except OSError as error:
        what = "the proxy" if step == "proxy" else "the coordinator"
        raise Unreachable(
            step,
            f"{address} does not take connections ({_cause(error)}); check that {what} is up, and "
            "that a firewall lets this machine out to that port",
        ) from error


def _tunnel(tunnel: socket.socket, address: str, near: str, url: urllib.parse.SplitResult) -> None:
    """Asks a proxy for a tunnel."""
    head = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n"
    if url.username is not None:
        login = urllib.parse.unquote(f"{url.username}:{url.password or ''}")
        head += f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"
    reply = b""
    try:
        tunnel.sendall(head.encode() + b"\r\n")
        while b"\r\n\r\n" not in reply and len(reply) < LONGEST_REPLY:
            if not (part := tunnel.recv(1)):  # not one byte more: what follows belongs to TLS
                break
            reply += part
    except OSError as error:
        raise Unreachable(
            "proxy", f"the proxy {near} does not answer ({_cause(error)}); check its address"
        ) from error
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3})([^\r\n]*)", reply)
    if match is None or b"\r\n\r\n" not in reply:
        raise Unreachable("proxy", f"{near} is no HTTP proxy; check the proxy in node.toml")
    if match[1] != b"200":
        words = "".join(c for c in match[2].decode("latin-1") if c.isprintable()).strip()[:100]
        raise Unreachable(
            "proxy",
            f"the proxy {near} refuses a tunnel to {address} ({match[1].decode()} {words}); have "
            "its operator allow CONNECT to that address",
        )


def _cause(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__)[:200]
