"""Prometheus metrics on a port of their own; never update values, never a consumer."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from coordinator.monitor import (
    AttemptFailed,
    Event,
    KeysFailed,
    MemberFaulted,
    MemberJoined,
    MemberLeft,
    MemberRefused,
    MemberRests,
    RoundClosed,
    StudyOpened,
)
from privacy.errors import ConfigurationError

__all__ = ["Metrics"]

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """A sink of events that counts them for Prometheus."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"alliance_{name}", what, labels, registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"alliance_{name}", what, labels, registry=registry)

        self._connected = gauge("members_connected", "Members whose stream is up")
        self._round = gauge("round", "Newest round that was released", "study")
        self._epsilon = gauge("epsilon", "epsilon(1) spent so far", "study")
        self._attempts = gauge("attempts", "Attempts spent so far", "study")
        self._projected = gauge("epsilon_projected", "epsilon(m) of the whole study", "study", "m")
        self._seconds = Histogram(
            "alliance_round_seconds", "Of rounds that were released", buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._failed = counter("attempts_failed", "Attempts that released nothing")
        self._keys = counter("key_exchanges_failed", "Exchanges of keys that came to nothing")
        self._missed = counter("rounds_missed", "Rounds that closed without a member", "member")
        self._faults = counter("member_faults", "Breaches of the protocol", "member")
        self._refusals = counter("member_refusals", "Tasks that a member declined", "member")
        self._rests = counter("member_rests", "Times a member was left in peace", "member")
        self._study = ""
        self._here: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Counts one event."""
        match event:
            case MemberJoined():
                self._here.add(event.member)
                self._connected.set(len(self._here))
            case MemberLeft():
                self._here.discard(event.member)
                self._connected.set(len(self._here))
            case StudyOpened():
                self._study = event.study
                for m, epsilon in event.epsilon_profile.items():
                    self._projected.labels(event.study, m).set(epsilon)
            case RoundClosed():
                self._round.labels(self._study).set(event.round)
                self._epsilon.labels(self._study).set(event.epsilon)
                self._attempts.labels(self._study).set(event.attempts_spent)
                self._seconds.observe(event.seconds)
                for member in event.missing:
                    self._missed.labels(member).inc()
            case AttemptFailed():
                self._failed.inc()
            case KeysFailed():
                self._keys.inc()
            case MemberFaulted():
                self._faults.labels(event.member).inc()
            case MemberRests():
                self._rests.labels(event.member).inc()
            case MemberRefused():
                self._refusals.labels(event.member).inc()
            case _:
                pass

    def serve(self, address: str) -> int:
        """Opens the port; which one it is.

        Raises:
            ConfigurationError: if it cannot be opened.
        """
        host, _, port = address.rpartition(":")
        try:
            server, _ = start_http_server(int(port), addr=host, registry=self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"metrics cannot listen on {address} ({error.strerror}); choose another"
            ) from error
        return int(server.server_port)
