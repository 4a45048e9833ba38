"""The coordinator's side of secure aggregation ahead of time: from key sets to a cohort.

`KeyExchange` is a state machine without I/O. Messages that are malformed, missing, repeated, late
or badly signed name the member and the phase; the rest goes on while enough members are left.

The coordinator needs no secret, and nothing here is trusted by members: they check for themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.errors import BadSignature, MalformedBody, MemberFault, RoundFailed
from privacy.secagg.binding import (
    Attempt,
    KeySets,
    Phase,
    Setup,
)
from privacy.secagg.messages import (
    Advertisement,
    Deal,
    Delivery,
    Offer,
    Shares,
    read_indices,
)

__all__ = ["Cohort", "KeyExchange", "faults"]

_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes(range(32)))
"""Not a secret: a degenerate public key gives every private key the same answer, an error."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """The members whose keys and shares a run of key sets is made of.

    Args:
        setup: of the study.
        key_sets: the run.
        members: indices, increasing.
        ready: indices of members that took delivery; the others count as dropped.
        complaints: by ready member, the dealers whose deals it does not hold.
        keys: the keys' hash.
        hash: the cohort's hash.
        masks: by member and place, its public mask keys.
        commitments: by dealer and place, the hashes of its seeds.
        hashes: by dealer and holder, per place the hashes of both shares.
        advertised: by member, the body and signature it advertised with; empty unless kept.
        shared: by dealer, the body and signature it dealt with; empty unless kept.
    """

    setup: Setup
    key_sets: KeySets
    members: tuple[int, ...]
    ready: frozenset[int]
    complaints: Mapping[int, frozenset[int]]
    keys: bytes
    hash: bytes
    masks: Mapping[int, tuple[bytes, ...]]
    commitments: Mapping[int, tuple[bytes, ...]]
    hashes: Mapping[int, Mapping[int, tuple[bytes, ...]]]
    held: Mapping[int, Mapping[int, tuple[bytes, ...]]] = field(
        init=False, repr=False, compare=False
    )
    """``hashes`` by holder and dealer."""
    advertised: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    shared: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held: dict[int, dict[int, tuple[bytes, ...]]] = {holder: {} for holder in self.members}
        for dealer, by_holder in self.hashes.items():
            for holder, hashes in by_holder.items():
                held.setdefault(holder, {})[dealer] = hashes
        object.__setattr__(self, "held", held)

    @property
    def names(self) -> tuple[str, ...]:
        """The members in roster order."""
        return tuple(self.setup.name(index) for index in self.members)

    @property
    def ready_names(self) -> tuple[str, ...]:
        """Those that took delivery."""
        return tuple(self.setup.name(index) for index in self.members if index in self.ready)


class KeyExchange:
    """Advertise, share, deliver: one run of key sets for one cohort.

    Args:
        setup: of the study.
        key_sets: the run; its numbers were never used before.
        keep: whether what members signed is kept for an auditor, who re-adds rounds with it.
    """

    def __init__(self, setup: Setup, key_sets: KeySets, *, keep: bool = False) -> None:
        self.key_sets = key_sets
        self._setup = setup
        self._keep = keep
        self._least = setup.terms.privacy.least_survivors
        self._most = setup.terms.privacy.cohort_size
        self._advertised: dict[int, tuple[bytes, bytes]] = {}
        self._advertisements: dict[int, Advertisement] = {}
        self._offer: bytes | None = None
        self._keys = b""
        self._shares: dict[int, Shares] = {}
        self._shared: dict[int, tuple[bytes, bytes]] = {}
        self._cohort: tuple[int, ...] = ()
        self._cohort_hash = b""
        self._incoming: dict[int, list[Deal]] = {}
        self._ready: dict[int, frozenset[int]] = {}
        """By member that took delivery: the dealers it complains of."""
        self._finished = False

    def take_advertisement(self, member: str, body: bytes, signature: bytes) -> None:
        """Takes a member's public keys.

        Raises:
            MemberFault: if they are late, repeated, malformed, degenerate or badly signed.
        """
        index = self._expect(member, "advertise", self._offer is None, self._advertised)
        if len(self._advertised) >= self._most:
            raise MemberFault(member, f"advertised for {self.key_sets} over the cohort's size")
        self._verify(index, "advertise", body, signature)
        with faults(member, self.key_sets, "advertise"):
            advertisement = Advertisement.decode(body, self.key_sets)
            for key in advertisement.keys:
                _PROBE.exchange(X25519PublicKey.from_public_bytes(key))
        known = {key for other in self._advertisements.values() for key in other.keys}
        if known & set(advertisement.keys):
            raise MemberFault(member, f"advertised a key of another member for {self.key_sets}")
        self._advertised[index] = (body, signature)
        self._advertisements[index] = advertisement

    def offer(self) -> bytes:
        """Closes the phase: all advertisements, for everybody in them.

        Raises:
            RoundFailed: if fewer than N - D members advertised.
        """
        if self._offer is None:
            self._enough(len(self._advertised), "advertised keys")
            entries = Offer(tuple((i, *self._advertised[i]) for i in sorted(self._advertised)))
            self._keys = entries.hash(self._setup.terms_hash, self.key_sets)
            self._offer = entries.encode()
        return self._offer

    @property
    def advertisers(self) -> tuple[str, ...]:
        """Who is in the offer."""
        return tuple(self._setup.name(index) for index in sorted(self._advertised))

    def take_shares(self, member: str, body: bytes, signature: bytes) -> None:
        """Takes what a member deals to others.

        Raises:
            MemberFault: if it is late, repeated, malformed, badly signed, or dealt to the wrong
                number of members.
        """
        index = self._expect(
            member, "share", bool(self._keys) and not self._cohort, self._shares, self._advertised
        )
        self._verify(index, "share", body, signature, self._keys)
        with faults(member, self.key_sets, "share"):
            shares = Shares.decode(body, self.key_sets)
        others = self._advertised.keys() - {index}
        holders = {deal.member for deal in shares.deals}
        degree = self._setup.graph.degree
        if not holders <= others or len(holders) != min(len(others), degree or len(others)):
            raise MemberFault(member, f"dealt shares of {self.key_sets} to the wrong members")
        self._shares[index] = shares
        if self._keep:
            self._shared[index] = (body, signature)

    def close(self) -> tuple[str, ...]:
        """Closes the phase: the cohort is whoever dealt.

        Raises:
            RoundFailed: if fewer than N - D members did.
        """
        if not self._cohort:
            self._enough(len(self._shares), "dealt shares")
            self._cohort = tuple(sorted(self._shares))
            self._cohort_hash = Delivery.cohort_hash(self._keys, self._cohort)
            self._incoming = {index: [] for index in self._cohort}
            for dealer in self._cohort:
                for deal in self._shares[dealer].deals:
                    if deal.member in self._incoming:
                        self._incoming[deal.member].append(
                            Deal(dealer, deal.hashes, deal.nonce, deal.sealed)
                        )
        return tuple(self._setup.name(index) for index in self._cohort)

    def delivery(self, member: str) -> bytes:
        """The cohort and what was dealt to ``member``.

        Raises:
            MemberFault: if it is not in the cohort, or there is none yet.
        """
        index = self._expect(member, "deliver", not self._finished, (), self._cohort)
        return Delivery(self._cohort, tuple(self._incoming[index])).encode()

    def take_ready(self, member: str, body: bytes, signature: bytes) -> tuple[str, ...]:
        """Takes a member's word that it holds its shares; the dealers it complains of.

        A complaint puts dealer and holder under suspicion alike: one of them is at fault, and
        nobody else can tell which. The holder's share of that dealer is not counted on.

        Raises:
            MemberFault: if it is late, repeated, malformed or badly signed.
        """
        is_open = bool(self._cohort) and not self._finished
        index = self._expect(member, "deliver", is_open, self._ready, set(self._cohort))
        self._verify(index, "deliver", body, signature, self._cohort_hash)
        with faults(member, self.key_sets, "deliver"):
            complaints = read_indices(body)
        if not set(complaints) <= set(self._cohort) - {index}:
            raise MemberFault(member, f"complains of strangers in {self.key_sets}")
        self._ready[index] = frozenset(complaints)
        return tuple(self._setup.name(dealer) for dealer in complaints)

    def finish(self) -> Cohort:
        """What attempts are made with; sealed shares are let go.

        Raises:
            RoundFailed: if fewer than N - D members are ready, or somebody's secrets could not be
                rebuilt; ``members`` are dealers that more than c members complain of, of whom at
                least one is honest.
        """
        self._enough(len(self._ready), "took delivery of shares")
        self._check_complaints()
        self._finished = True
        self._incoming.clear()
        hashes = {
            dealer: {
                dealer: shares.own_hashes,
                **{deal.member: deal.hashes for deal in shares.deals},
            }
            for dealer, shares in self._shares.items()
        }
        return Cohort(
            setup=self._setup,
            key_sets=self.key_sets,
            members=self._cohort,
            ready=frozenset(self._ready),
            complaints=dict(self._ready),
            keys=self._keys,
            hash=self._cohort_hash,
            masks={index: self._advertisements[index].masks for index in self._cohort},
            commitments={index: self._shares[index].commitments for index in self._cohort},
            hashes=hashes,
            advertised=dict(self._advertised) if self._keep else {},
            shared=self._shared,
        )

    def _check_complaints(self) -> None:
        """Every dealer's secrets must be there to be rebuilt, before an attempt is spent on it."""
        colluders = self._setup.terms.privacy.colluders
        cheats, short = [], []
        for dealer, shares in self._shares.items():
            complaining = {index for index, dealers in self._ready.items() if dealer in dealers}
            holders = {dealer, *(deal.member for deal in shares.deals)}
            good = holders & self._ready.keys() - complaining
            if len(complaining) > colluders:
                cheats.append(self._setup.name(dealer))
            elif len(good) < min(self._setup.graph.share_threshold, len(holders)):
                short.append(self._setup.name(dealer))
        if cheats or short:
            raise RoundFailed(
                f"{self.key_sets}: too few members hold good shares of what "
                f"{', '.join([*cheats, *short][:10])} dealt",
                members=tuple(cheats),
            )

    def _expect(
        self,
        member: str,
        phase: Phase,
        is_open: bool,
        answered: Collection[int],
        asked: Collection[int] | None = None,
    ) -> int:
        """The member's index, if its message is due now."""
        index = self._setup.indices.get(member)
        if index is None or not is_open or (asked is not None and index not in asked):
            raise MemberFault(member, f"phase {phase} of {self.key_sets} is not open for it")
        if index in answered:
            raise MemberFault(member, f"answered phase {phase} of {self.key_sets} twice")
        return index

    def _verify(
        self, index: int, phase: Phase, body: bytes, signature: bytes, cohort: bytes = b""
    ) -> None:
        statement = self._setup.statement(phase, index, body, key_sets=self.key_sets, cohort=cohort)
        with faults(self._setup.name(index), self.key_sets, phase):
            self._setup.verify(index, phase, statement, signature)

    def _enough(self, count: int, what: str) -> None:
        if count < self._least:
            raise RoundFailed(
                f"{self.key_sets}: {count} members {what} and the terms demand {self._least}; "
                "the events above say who is missing"
            )


@contextmanager
def faults(member: str, where: KeySets | Attempt, phase: Phase) -> Iterator[None]:
    """Turns what is wrong with a member's bytes into a fault that names it and the phase."""
    try:
        yield
    except (BadSignature, MalformedBody, ValueError) as error:
        raise MemberFault(member, f"{where}, phase {phase}: {error}") from error
