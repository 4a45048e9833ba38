"""Who may have a stream now: the registry, looked at again and again.

A stream is refused, or ended, numbered as in the code, if its member
 (1) was never admitted, or
 (2) was revoked, or left, or
 (3) shows a certificate of a TLS key that it has replaced since, or
 (4) shows one that is past its time (TLS looks at that only when the stream begins).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coordinator.authority import Clock, utc_now
from coordinator.registry import MemberRecord, Registry
from privacy.certificates import CertificateFacts, certificate_facts
from privacy.errors import ConfigurationError, MalformedBody
from protos.logs import log

__all__ = ["Admittance", "Refusal"]

POLL_S: Final = 2.0
"""How often the registry is looked at; a revocation takes effect within a minute at most."""
OLDEST_S: Final = 50.0
"""A registry that could not be read for so long lets nobody in any more."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a member may have no stream.

    Args:
        sentence: for the member.
        lasting: whether trying again is of no use.
    """

    sentence: str
    lasting: bool


class Admittance:
    """The registry's present members, as of the last look.

    Args:
        registry: who is a member.
        clock: tells the present.

    Raises:
        ConfigurationError: if the registry cannot be read.
    """

    def __init__(self, registry: Registry, *, clock: Clock = utc_now) -> None:
        self._registry = registry
        self._clock = clock
        self._members: dict[str, MemberRecord] = {}
        self._seen_s = 0.0
        self.look()

    def look(self) -> None:
        """Reads the registry now.

        Raises:
            ConfigurationError: if it cannot be read.
        """
        self._members = self._registry.members()
        self._seen_s = time.monotonic()

    def refusal(self, name: str, certificate: bytes, *, again: bool = True) -> Refusal | None:
        """Why a member with this PEM certificate may have no stream; None if it may.

        Args:
            name: of the member.
            certificate: as it showed it.
            again: whether to look at the registry once more before saying no.
        """
        try:
            facts = certificate_facts(certificate)
        except MalformedBody:
            return Refusal("the certificate cannot be read", lasting=True)
        refusal = self._judge(name, facts)
        if refusal is None or not again:
            return refusal
        try:  # it may have been admitted, or have changed its key, since the last look
            self.look()
        except ConfigurationError as error:
            log("RegistryUnread", error=error)
        return self._judge(name, facts)

    @property
    def departed(self) -> frozenset[str]:
        """Members that left the alliance by their own word, as of the last look."""
        return frozenset(
            name for name, member in self._members.items() if member.departure is not None
        )

    async def watch(self, changed: Callable[[], None]) -> None:
        """Looks again and again until cancelled, and calls back after each look."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await asyncio.to_thread(self.look)
            except ConfigurationError as error:
                log("RegistryUnread", error=error)
            changed()

    def _judge(self, name: str, facts: CertificateFacts) -> Refusal | None:
        if time.monotonic() - self._seen_s > OLDEST_S:
            return Refusal("the coordinator cannot read its registry; try later", lasting=False)
        member = self._members.get(name)
        if member is None:  # (1)
            return Refusal(
                f"{name} is not admitted to this alliance; ask the operator for an invitation",
                lasting=True,
            )
        if member.departure is not None:  # (2)
            return Refusal(
                f"{name} left the alliance; to come back it joins from a new node folder, under "
                "another name",
                lasting=True,
            )
        if member.reason is not None:
            return Refusal(f"{name} was revoked: {member.reason}; ask the operator", lasting=True)
        if facts.key_hash != member.tls_key:  # (3)
            return Refusal(
                f"{name} has a newer TLS key than this certificate's; use the newer one, and tell "
                "the operator if you made none",
                lasting=False,  # its files may be about to be written
            )
        if facts.not_after <= self._clock():  # (4)
            return Refusal(f"the certificate of {name} has expired; renew it", lasting=False)
        return None
