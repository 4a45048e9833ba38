"""An HTTP CONNECT proxy and a TLS-inspecting firewall, for tests."""

from __future__ import annotations

import datetime as dt
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from privacy.certificates import Authority

Handle = Callable[[socket.socket], None]


@contextmanager
def listening(handle: Handle) -> Iterator[str]:
    """A server that hands each connection to a thread; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=guarded, args=(client,), daemon=True).start()

        def guarded(client: socket.socket) -> None:
            with suppress(OSError), client:
                handle(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@contextmanager
def connect_proxy(seen: list[str], *, status: str = "200 ok") -> Iterator[str]:
    """A proxy that notes what was asked for and, if it says 200, pipes; its URL."""

    def handle(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        target = head.split()[1].decode()
        seen.append(target)
        client.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if status.startswith("200"):
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                pipe(client, server)

    with listening(handle) as address:
        yield f"http://{address}"


def pipe(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                if not (data := source.recv(1 << 16)):
                    return
                key.data.sendall(data)


@contextmanager
def tls_server(
    folder: Path, name: str, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[str]:
    """A TLS server with a certificate of an authority of its own, as an inspecting firewall has."""
    now = dt.datetime.now(dt.UTC)
    authority = Authority(name, now=now, lifetime=dt.timedelta(hours=1))
    issued = authority.issue_coordinator(["127.0.0.1"], now=now, lifetime=dt.timedelta(hours=1))
    (folder / f"{name}.authority.pem").write_bytes(authority.certificate)
    path = folder / f"{name}.pem"
    path.write_bytes(issued.key + issued.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(path)

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as secured:
            while secured.recv(1 << 16):
                pass

    with listening(handle) as address:
        yield address


class Tunnel:
    """A TCP forwarder that can fall silent without closing anything, as a lost firewall state does.

    Args:
        target: host and port that connections are forwarded to.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._halted = threading.Event()
        self._over = threading.Event()
        self.connections = 0

    @contextmanager
    def open(self) -> Iterator[str]:
        """Listens; its address."""
        with listening(self._forward) as address:
            yield address
            self._over.set()

    def halt(self) -> None:
        """From now on nothing passes on the connections there are; new ones work."""
        self._halted.set()
        self._halted = threading.Event()

    def _forward(self, client: socket.socket) -> None:
        halted = self._halted
        self.connections += 1
        with socket.create_connection(self._target) as server, selectors.DefaultSelector() as ends:
            ends.register(client, selectors.EVENT_READ, server)
            ends.register(server, selectors.EVENT_READ, client)
            while not self._over.is_set():
                for key, _ in ends.select(0.02):
                    if halted.is_set():
                        self._over.wait()
                        return
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    if not (data := source.recv(1 << 16)):
                        return
                    key.data.sendall(data)
