"""Who has no right to speak: half-open connections, slow ones, floods of resets, endless bodies.

Everything stays on loopback and is bounded in number, bytes and time.
"""

from __future__ import annotations

import asyncio
import os
import resource
import selectors
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from protos.tls import TlsMaterial

__all__ = ["BODIES", "HEADERS_WITHOUT_END", "Strangers"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
GREET: Final = "/alliance.v1.Enrolment/Greet"
JOIN: Final = "/alliance.v1.Enrolment/Join"
CONNECT: Final = "/alliance.v1.Exchange/Connect"
CHUNK: Final = 16 << 10
GIBIBYTE: Final = 1 << 30


class Strangers:
    """A process of strangers at both ports; of low priority, since it shares the machine.

    Args:
        members_port: where members connect.
        enrolment_port: where anybody may.
        stranger: a certificate of the alliance's authority for a name on no roster.
    """

    def __init__(self, members_port: int, enrolment_port: int, stranger: TlsMaterial) -> None:
        os.nice(15)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
        self._ports = {"members": members_port, "enrolment": enrolment_port}
        self._stranger = stranger
        self._stop = threading.Event()
        self._running: list[asyncio.Future[None]] = []
        self._done = 0

    async def begin(self, attack: str, *arguments: Any) -> None:
        """Begins an attack, which goes on until `end`; returns once it is under way."""
        self._stop.clear()
        self._done = 0
        work: Callable[..., None] = getattr(self, attack)
        self._running.append(asyncio.ensure_future(asyncio.to_thread(work, *arguments)))
        until_s = time.monotonic() + MOST_S
        while not self._done and time.monotonic() < until_s:
            await asyncio.sleep(0.01)

    async def end(self) -> int:
        """Ends what was begun; what the attack counted."""
        self._stop.set()
        for one in self._running:
            await one
        self._running.clear()
        return self._done

    async def body(self, kind: str) -> int:
        """Offers a gibibyte in one of the ways of `BODIES`; bytes that were taken."""
        return await asyncio.to_thread(BODIES[kind], self)

    # Attacks. Each counts what it did.

    def half_open(self, port: str, count: int) -> None:
        """Keeps so many connections open that never say a word."""
        self._hold(port, count, b"")

    def slow(self, port: str, count: int) -> None:
        """The same, with a byte of a TLS greeting a second each."""
        self._hold(port, count, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))

    def resets(self, most_per_s: int) -> None:
        """Opens requests at the enrolment port and takes each back at once."""
        while not self._stop.is_set():
            try:
                with self._http2("enrolment") as stream:
                    self._reset(stream, most_per_s)
            except OSError:
                time.sleep(0.05)

    def trickle(self, count: int) -> None:
        """Keeps so many requests at the enrolment port whose bodies never end."""
        streams: list[ssl.SSLSocket] = []
        while not self._stop.is_set():
            while len(streams) * 4 < count and not self._stop.is_set():
                try:
                    stream = self._http2("enrolment")
                    for number in (1, 3, 5, 7):
                        stream.sendall(_headers(number, JOIN) + _frame(DATA, 0, number, bytes(4)))
                        self._done += 1
                    streams.append(stream)
                except OSError:
                    break
            streams = [stream for stream in streams if _alive(stream)]
            self._stop.wait(0.2)
        for stream in streams:
            stream.close()

    def _hold(self, port: str, count: int, words: bytes) -> None:
        """Connections that are opened again whenever the other side ends one."""
        looks = selectors.DefaultSelector()
        said: dict[socket.socket, int] = {}
        next_word_s = 0.0
        while not self._stop.is_set():
            for _ in range(min(500, count - len(said))):
                try:
                    one = socket.create_connection(("127.0.0.1", self._ports[port]), timeout=1)
                except OSError:
                    break
                one.setblocking(False)
                looks.register(one, selectors.EVENT_READ)
                said[one] = 0
                self._done += 1
            for key, _ in looks.select(timeout=0.2):
                ended = key.fileobj
                if isinstance(ended, socket.socket):
                    looks.unregister(ended)
                    del said[ended]
                    ended.close()
            if words and time.monotonic() > next_word_s:
                next_word_s = time.monotonic() + 1
                _say(said, words)
        for one in said:
            one.close()

    def _reset(self, stream: ssl.SSLSocket, most_per_s: int) -> None:
        number = 1
        while not self._stop.is_set() and number < 1 << 30:
            begun_s, burst = time.monotonic(), bytearray()
            for _ in range(max(1, most_per_s // 100)):
                burst += _headers(number, GREET, END_STREAM)
                burst += _frame(RST_STREAM, 0, number, struct.pack(">I", 8))
                number += 2
            stream.sendall(bytes(burst))
            self._done += max(1, most_per_s // 100)
            time.sleep(max(0.0, 0.01 - (time.monotonic() - begun_s)))

    # Connections.

    def _tls(self, port: str, material: TlsMaterial | None = None) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        if material is not None:
            with tempfile.NamedTemporaryFile() as file:
                file.write(material.key + material.certificate)
                file.flush()
                context.load_cert_chain(file.name)
        plain = socket.create_connection(("127.0.0.1", self._ports[port]), timeout=5)
        return context.wrap_socket(plain)

    def _http2(self, port: str, material: TlsMaterial | None = None) -> ssl.SSLSocket:
        stream = self._tls(port, material)
        stream.sendall(PREFACE + _frame(SETTINGS, 0, 0, b""))
        return stream

    # A gibibyte in several ways.

    def _garbage(self) -> int:
        """To the members' port, without TLS."""
        with socket.create_connection(("127.0.0.1", self._ports["members"]), timeout=5) as plain:
            return _pour(plain.send, bytes(CHUNK))

    def _no_certificate(self) -> int:
        """To the members' port, over TLS without a certificate, before it says no."""
        with self._tls("members") as stream:
            return _pour(stream.send, bytes(CHUNK))

    def _not_on_the_roster(self) -> int:
        """To the members' port, as a message of a gibibyte from somebody on no roster."""
        with self._http2("members", self._stranger) as stream:
            return _message(stream, CONNECT)

    def _one_message(self) -> int:
        """To the enrolment port, as one message."""
        with self._http2("enrolment") as stream:
            return _message(stream, JOIN)

    def _unknown_method(self) -> int:
        """To the enrolment port, for a method that is not there."""
        with self._http2("enrolment") as stream:
            return _message(stream, "/alliance.v1.Enrolment/Nothing")

    def _windows_ignored(self) -> int:
        """To the enrolment port, without waiting to be let."""
        with self._http2("enrolment") as stream:
            stream.sendall(_headers(1, JOIN) + _frame(DATA, 0, 1, _length(GIBIBYTE)))
            return _pour(stream.send, _frame(DATA, 0, 1, bytes(CHUNK)))

    def _endless_headers(self) -> int:
        """To the enrolment port, as headers that go on and on."""
        with self._http2("enrolment") as stream:
            stream.sendall(_headers(1, JOIN, flags=0, ended=0))
            header = b"\x00" + _text("x" * 100) + _text("y" * 100)
            return _pour(stream.send, _frame(CONTINUATION, 0, 1, header * 60))

    def _many_messages(self) -> int:
        """To the enrolment port, as small messages where one is due."""
        with self._http2("enrolment") as stream:
            stream.sendall(_headers(1, JOIN))
            small = _frame(DATA, 0, 1, (_length(1000) + bytes(1000)) * 16)
            return _pour_in_turn(stream, small)


HEADERS_WITHOUT_END: Final = "headers without an end"
BODIES: Final[dict[str, Callable[[Strangers], int]]] = {
    "garbage instead of TLS": Strangers._garbage,
    "TLS without a certificate": Strangers._no_certificate,
    "a message of somebody on no roster": Strangers._not_on_the_roster,
    "one message to enrolment": Strangers._one_message,
    "small messages to enrolment": Strangers._many_messages,
    "a message for an unknown method": Strangers._unknown_method,
    "a message that does not wait for its window": Strangers._windows_ignored,
    HEADERS_WITHOUT_END: Strangers._endless_headers,
}
"""Ways to offer a gibibyte before authentication; each gives the bytes that were taken."""
MOST_S: Final = 12.0


def _message(stream: ssl.SSLSocket, method: str) -> int:
    """One gRPC message of a gibibyte, as fast as the other side lets it."""
    stream.sendall(_headers(1, method) + _frame(DATA, 0, 1, _length(GIBIBYTE)))
    return _pour_in_turn(stream, _frame(DATA, 0, 1, bytes(CHUNK)))


def _pour(send: Callable[[bytes], int], part: bytes) -> int:
    """Sends as much as is taken, up to a gibibyte."""
    taken, until_s = 0, time.monotonic() + MOST_S
    try:
        while taken < GIBIBYTE and time.monotonic() < until_s:
            taken += send(part)
    except OSError:
        pass
    return taken


def _pour_in_turn(stream: ssl.SSLSocket, part: bytes) -> int:
    """Sends within the windows that the other side opens."""
    stream.settimeout(0.05)
    windows, taken, until_s, buffer = [60_000, 60_000], 0, time.monotonic() + MOST_S, b""
    try:
        while taken < GIBIBYTE and time.monotonic() < until_s:
            if min(windows) > len(part):
                stream.sendall(part)
                taken += len(part)
                windows = [window - len(part) for window in windows]
                continue
            try:
                got = stream.recv(1 << 16)
            except TimeoutError:
                continue
            if not got:
                break
            buffer = _windows(buffer + got, windows, stream)
    except OSError:
        pass
    return taken


def _windows(buffer: bytes, windows: list[int], stream: ssl.SSLSocket) -> bytes:
    """Takes frames off what came, and adds to windows; what is left over."""
    while len(buffer) >= 9:
        size = int.from_bytes(buffer[:3], "big")
        if len(buffer) < 9 + size:
            break
        kind, flags = buffer[3], buffer[4]
        number = int.from_bytes(buffer[5:9], "big")
        body, buffer = buffer[9 : 9 + size], buffer[9 + size :]
        if kind == WINDOW_UPDATE:
            windows[number > 0] += int.from_bytes(body, "big")
        elif kind == SETTINGS and not flags & ACK:
            stream.sendall(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            stream.sendall(_frame(PING, ACK, 0, body))
        elif kind == RST_STREAM:
            raise OSError("the other side ended the stream")
    return buffer


def _say(said: dict[socket.socket, int], words: bytes) -> None:
    """One more byte on each connection, as far as the other side takes it."""
    for one, at in said.items():
        try:
            one.send(words[at : at + 1])
        except OSError:
            continue
        said[one] = min(at + 1, len(words) - 1)


def _alive(stream: ssl.SSLSocket) -> bool:
    """One byte more of each body, if the connection still stands."""
    try:
        for number in (1, 3, 5, 7):
            stream.sendall(_frame(DATA, 0, number, b""))
        stream.setblocking(False)
        try:
            while stream.recv(1 << 14):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            stream.setblocking(True)
            return True
    except OSError:
        pass
    stream.close()
    return False


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _headers(stream: int, method: str, flags: int = 0, ended: int = END_HEADERS) -> bytes:
    """A gRPC request's headers, none of them compressed."""
    fields = (
        (":method", "POST"), (":scheme", "https"), (":path", method), (":authority", "localhost"),
        ("te", "trailers"), ("content-type", "application/grpc"),
    )  # fmt: skip
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    return _frame(HEADERS, flags | ended, stream, block)


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _length(size: int) -> bytes:
    """The head of a gRPC message: not compressed, so long."""
    return b"\x00" + size.to_bytes(4, "big")
