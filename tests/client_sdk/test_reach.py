from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from client_sdk.reach import Unreachable, host_and_port, proxy_for, server_facts
from privacy.certificates import certificate_facts
from privacy.errors import ConfigurationError
from tests.tunnels import connect_proxy, listening, tls_server


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def facts(address: str, proxy: str | None = None) -> object:
    return server_facts(address, proxy=proxy, timeout_s=5)


def test_a_server_s_certificate_is_seen_directly_and_through_a_proxy(tmp_path: Path) -> None:
    seen: list[str] = []
    with tls_server(tmp_path, "somebody") as address, connect_proxy(seen) as proxy:
        shown = server_facts(address, proxy=None, timeout_s=5)
        assert shown.tls_version == "TLSv1.3"
        assert certificate_facts(shown.certificate).issuer == "CN=somebody"
        assert seen == []
        assert facts(address, proxy) == shown
        assert seen == [address]


@pytest.mark.parametrize(
    ("step", "sentence", "address", "proxy"),
    [
        ("dns", "cannot be resolved", lambda: "no-such-host.invalid:443", None),
        ("port", "does not take connections", closed_port, None),
        ("proxy", "check that the proxy is up", closed_port, lambda: f"http://{closed_port()}"),
        ("proxy", "cannot be resolved", closed_port, lambda: "http://no-such-proxy.invalid:1"),
    ],
)
def test_each_step_s_failure_has_its_name_and_a_remedy(
    step: str, sentence: str, address: Callable[[], str], proxy: Callable[[], str] | None
) -> None:
    with pytest.raises(Unreachable, match=sentence) as caught:
        facts(address(), proxy() if proxy else None)
    assert caught.value.step == step
    assert ";" in str(caught.value)


def test_a_proxy_that_refuses_or_is_none_is_named() -> None:
    with connect_proxy([], status="407 Proxy Authentication Required") as proxy:
        with pytest.raises(Unreachable, match=r"refuses a tunnel .*407 Proxy Auth") as caught:
            facts("127.0.0.1:1", proxy)
        assert caught.value.step == "proxy"
    for said in (b"SSH-2.0-x\r\n\r\n", b"x" * (1 << 20)):
        with (
            listening(lambda client, said=said: client.sendall(said)) as address,
            pytest.raises(Unreachable, match="is no HTTP proxy"),
        ):
            facts("127.0.0.1:1", f"http://{address}")


def test_a_port_that_speaks_no_tls_is_named() -> None:
    with listening(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        with pytest.raises(Unreachable, match="does not complete a TLS handshake") as caught:
            facts(address)
        assert caught.value.step == "tls"


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:99999", "a b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="write HOST:PORT"):
        host_and_port(address)


@pytest.mark.parametrize("proxy", ["https://p:1", "p:1", "http://p", "http://p:x"])
def test_what_is_no_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match="write http://HOST:PORT"):
        facts("127.0.0.1:1", proxy)


def test_the_environment_s_proxy_is_taken_as_grpc_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("far.example:1", None) is None
    monkeypatch.setenv("http_proxy", "http://one:1")
    monkeypatch.setenv("https_proxy", "http://two:2")
    assert proxy_for("far.example:1", None) == "http://two:2"
    assert proxy_for("far.example:1", "http://three:3") == "http://three:3"
    monkeypatch.setenv("no_proxy", "far.example")
    assert proxy_for("far.example:1", None) is None
