"""Every limit of the wire, named once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LIMITS", "METHOD", "PROTOCOL", "RETRY_KEY", "SERVICE", "Limits"]

PROTOCOL: Final = 2
SERVICE: Final = "alliance.v1.Exchange"
METHOD: Final = "Connect"
"""As in exchange.proto; both ends give gRPC their own (de)serialisers (`protos.frames`)."""
RETRY_KEY: Final = "alliance-retry-ms"
"""Beside the status of a refused stream: when to try again, in milliseconds from then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one link; both sides enforce them on what they receive."""

    frame_bytes: int = 1 << 20
    """A whole frame, header included."""
    chunk_bytes: int = (1 << 20) - 4096
    """Array bytes in one chunk; leaves room for the frame's header."""
    arrays: int = 64
    """Arrays in one message; more would be a way to exhaust memory in headers."""
    dimensions: int = 8
    values: int = 256
    """Configuration values in one message."""
    blob_bytes: int = 1 << 19
    """One text or blob among the configuration values."""
    records: int = 16
    """Named records in one message."""
    text: int = 128
    """Letters of a task's study and phase."""
    sentence: int = 500
    """Letters of a refusal or rejection."""
    open_tasks: int = 4
    """Tasks a node works on or waits with; more is a flood."""
    faults: int = 16
    """Breaches of the protocol after which a stream is ended."""
    hello_timeout_s: float = 10.0
    stall_timeout_s: float = 5.0
    """A cleared upload of which nothing arrived for so long gives up its place."""
    keepalive_time_s: float = 10.0
    keepalive_timeout_s: float = 5.0
    ping_timeout_s: float = 20.0
    """Keepalive does not begin while gRPC measures the line with a ping of its own: a stream may be
    half open until this is over (by default a minute). Not less, because on a slow line that is
    busy with a contribution the answer to a ping waits behind a few megabytes."""
    reconnect_first_s: float = 0.1
    reconnect_most_s: float = 3.0
    retry_most_s: float = 600.0
    """A node stays away no longer, whatever it is told."""


LIMITS: Final = Limits()
