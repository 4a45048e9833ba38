"""The coordinator's side of secure aggregation, as two state machines without I/O.

`KeyExchange` runs ahead of time and ends with a `Cohort`; `Unmasking` takes one attempt of that
cohort from its contributions to its sum. Messages that are malformed, missing, repeated, late or
badly signed name the member and the phase; the rest goes on while enough members are left.

The coordinator needs no secret, and nothing here is trusted by members: they check for themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.errors import BadSignature, MalformedBody, MemberFault, RoundFailed
from privacy.fixedpoint import RingVector
from privacy.secagg.binding import (
    Attempt,
    KeySets,
    Phase,
    Setup,
    digest,
    pair_seed,
    self_seed,
    share_hash,
)
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import (
    Advertisement,
    Deal,
    Delivery,
    Lists,
    Offer,
    Revealed,
    Shares,
    Signatures,
    read_indices,
)
from privacy.secagg.shamir import Basis

__all__ = ["Cohort", "KeyExchange", "Unmasking"]

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
    advertised: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    shared: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)

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
        with _faults(member, self.key_sets, "advertise"):
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
        with _faults(member, self.key_sets, "share"):
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
        with _faults(member, self.key_sets, "deliver"):
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
        with _faults(self._setup.name(index), self.key_sets, phase):
            self._setup.verify(index, phase, statement, signature)

    def _enough(self, count: int, what: str) -> None:
        if count < self._least:
            raise RoundFailed(
                f"{self.key_sets}: {count} members {what} and the terms demand {self._least}; "
                "the events above say who is missing"
            )


class Unmasking:
    """One attempt: contributions, confirm, unmask.

    Where nobody may drop (D = 0), members may unmask along with their contribution: then t answers
    are there when the last contribution is, and nobody confirms (`is_revealed`).

    Args:
        cohort: as the key exchange left it.
        attempt: with a key set of the cohort's run that was never used.
    """

    def __init__(self, cohort: Cohort, attempt: Attempt) -> None:
        if attempt.key_set not in cohort.key_sets:
            raise ValueError(f"key set {attempt.key_set} is not of {cohort.key_sets}")
        self.cohort = cohort
        self.attempt = attempt
        self._setup = cohort.setup
        self._place = attempt.key_set - cohort.key_sets.first
        self._privacy = cohort.setup.terms.privacy
        self._at_once = self._privacy.dropouts == 0
        self._contributed: set[int] = set()
        self._lists: Lists | None = None
        self._lists_body = b""
        self._confirmed: dict[int, bytes] = {}
        self._signatures: bytes | None = None
        self._answered: set[int] = set()
        self._revealed: set[int] = set()
        """Members whose answer was good: they count towards t."""
        self._shares: dict[int, dict[int, bytes]] = {}
        """Good shares of the secret the lists call for: by dealer, then holder."""
        self._done = False
        self.rebuilt: dict[int, bytes] = {}
        """What `unmask` rebuilt: survivors' seeds and dropped members' mask keys, by index."""

    def take_contribution(self, member: str, sha256: bytes, signature: bytes) -> None:
        """Checks that a masked vector is the member's own.

        Args:
            member: who sent it.
            sha256: of the masked vector's bytes.
            signature: over them.

        Raises:
            MemberFault: if it is late, repeated or badly signed.
        """
        index = self._expect(
            member, "contribute", self._lists is None, self._contributed, self.cohort.ready
        )
        statement = self._setup.statement(
            "contribute", index, sha256, hashed=True, attempt=self.attempt, cohort=self.cohort.hash
        )
        with _faults(member, self.attempt, "contribute"):
            self._setup.verify(index, "contribute", statement, signature)
        self._contributed.add(index)

    def close(self) -> bytes:
        """Fixes who is in the sum: the lists that members sign.

        Raises:
            RoundFailed: if fewer than N - D members contributed.
        """
        if self._lists is None:
            self._enough(self._contributed, self._privacy.least_survivors, "contributed")
            dropped = set(self.cohort.members) - self._contributed
            self._lists = Lists(tuple(sorted(self._contributed)), tuple(sorted(dropped)))
            self._lists_body = self._lists.encode()
        return self._lists_body

    def take_confirmation(self, member: str, signature: bytes) -> None:
        """Takes a survivor's signature over the lists.

        Raises:
            MemberFault: if it is late, repeated, badly signed or not a survivor's.
        """
        is_open = self._lists is not None and self._signatures is None
        index = self._expect(member, "confirm", is_open, self._confirmed, self._contributed)
        self._verify(index, "confirm", self.close(), signature)
        self._confirmed[index] = signature

    def signatures(self) -> bytes:
        """Closes the phase: t signatures, for everybody who confirmed.

        Raises:
            RoundFailed: if fewer than t members confirmed.
        """
        if self._signatures is None:
            self._enough(self._confirmed, self._privacy.threshold, "confirmed the survivors")
            chosen = sorted(self._confirmed)[: self._privacy.threshold]
            self._signatures = Signatures(
                tuple((index, self._confirmed[index]) for index in chosen)
            ).encode()
        return self._signatures

    @property
    def confirmed(self) -> tuple[str, ...]:
        """Who may be asked to unmask."""
        return tuple(self._setup.name(index) for index in sorted(self._confirmed))

    def take_unmask(self, member: str, body: bytes, signature: bytes) -> None:
        """Takes the shares a survivor reveals; a share that its dealer did not sign is left out.

        Raises:
            MemberFault: if it is late, repeated, malformed, badly signed, or not what its dealers
                signed; what is good of it has been taken.
        """
        is_open = (self._at_once or self._signatures is not None) and not self._done
        asked = self._contributed if self._at_once else self._confirmed
        index = self._expect(member, "unmask", is_open, self._answered, asked)
        self._verify(index, "unmask", body, signature)
        self._answered.add(index)
        with _faults(member, self.attempt, "unmask"):
            entries = Revealed.decode(body).entries
        said = {dealer for dealer, _, _ in entries}
        missing = self._dealers[index] - self.cohort.complaints[index] - said
        bad = [
            self._setup.name(dealer) if dealer in self.cohort.members else f"index {dealer}"
            for dealer, share, salt in entries
            if not self._keep(index, dealer, share, salt)
        ]
        if missing:
            names = [self._setup.name(dealer) for dealer in sorted(missing)]
            raise MemberFault(member, f"left out shares in {self.attempt}: {', '.join(names[:10])}")
        self._revealed.add(index)
        if bad:
            raise MemberFault(
                member,
                f"revealed shares in {self.attempt} that their dealers did not sign: "
                f"{', '.join(bad[:10])}",
            )

    def unmask(self, total: RingVector, *, most_threads: int | None = None) -> None:
        """Removes all masks from the sum of the survivors' vectors, in place; once.

        Args:
            total: uint32 or uint64, the ring sum of exactly the survivors' masked vectors.
            most_threads: a speed knob, as `apply_masks` takes it.

        Raises:
            RoundFailed: if fewer than t members revealed shares, or a dealer's shares do not give
                the secret it committed to; the message names it.
        """
        lists = self._lists
        self._enough(self._revealed, self._privacy.threshold, "unmasked")
        if lists is None or self._done:
            raise RoundFailed(f"{self.attempt}: unmasked before")
        self._done = True
        bases: dict[tuple[int, ...], Basis] = {}
        secrets: dict[int, bytes] = {}
        cheats = []
        for index in (*lists.survivors, *lists.dropped):
            if index in self._contributed or self._neighbours(index) & self._contributed:
                secret = self._rebuilt(index, bases)
                if secret is None:
                    cheats.append(self._setup.name(index))
                else:
                    secrets[index] = secret
        if cheats:
            raise RoundFailed(
                f"{self.attempt}: the shares that {', '.join(cheats[:10])} dealt do not give the "
                "secrets that were committed to",
                members=tuple(cheats),
            )
        self.rebuilt = secrets
        add, subtract = self._seeds(secrets)
        apply_masks(total, add=add, subtract=subtract, most_threads=most_threads)

    @property
    def is_revealed(self) -> bool:
        """Whether t members have revealed their shares."""
        return len(self._revealed) >= self._privacy.threshold

    @property
    def lists(self) -> Lists:
        """Who is in the sum and who dropped, by index; call after `close`."""
        return self._lists or Lists((), ())

    @property
    def survivors(self) -> tuple[str, ...]:
        """Who is in the sum; call after `close`."""
        survivors = self._lists.survivors if self._lists else ()
        return tuple(self._setup.name(index) for index in survivors)

    # Secrets of members that the lists allow to be rebuilt.

    def _rebuilt(self, index: int, bases: dict[tuple[int, ...], Basis]) -> bytes | None:
        """A survivor's seed or a dropped member's mask key; None if its dealer cheated.

        The first shares in order are taken, so that one basis serves most members.

        Raises:
            RoundFailed: if too few good shares of it came back.
        """
        held = self._shares.get(index, {})
        holders = len(self.cohort.hashes[index])
        threshold = min(self._setup.graph.share_threshold, holders)
        if len(held) < threshold:
            raise RoundFailed(
                f"{self.attempt}: {len(held)} good shares of {self._setup.name(index)}'s secret "
                f"came back and {threshold} are needed"
            )
        points = tuple(sorted(held)[:threshold])
        if points not in bases:
            bases[points] = Basis(points)
        secret = bases[points].rebuild([held[point] for point in points])
        if secret is None:
            return None
        if index in self._contributed:
            committed = self.cohort.commitments[index][self._place]
            return secret if digest("seed", self.cohort.keys, secret) == committed else None
        public = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        return secret if public == self.cohort.masks[index][self._place] else None

    def _seeds(self, secrets: Mapping[int, bytes]) -> tuple[list[bytes], list[bytes]]:
        """The seeds of masks to add and to subtract, so that nothing of them is left in the sum."""
        add: list[bytes] = []
        subtract: list[bytes] = []
        for index, secret in secrets.items():
            if index in self._contributed:
                subtract.append(
                    self_seed(self._setup, secret, self.cohort.hash, self.attempt, one=index)
                )
                continue
            key = X25519PrivateKey.from_private_bytes(secret)
            for other in self._neighbours(index) & self._contributed:
                seed = pair_seed(
                    self._setup, key.exchange(self._public(other)), self.cohort.hash, self.attempt,
                    one=index, other=other,
                )  # fmt: skip
                # The survivor added this mask if its index is the lower one; undo that.
                (subtract if other < index else add).append(seed)
        return add, subtract

    @cached_property
    def _dealers(self) -> Mapping[int, set[int]]:
        """By holder, the members that dealt it shares."""
        dealers: dict[int, set[int]] = {index: set() for index in self.cohort.members}
        for dealer in self.cohort.members:
            for holder in self.cohort.hashes.get(dealer, {}):
                dealers.setdefault(holder, set()).add(dealer)
        return dealers

    def _neighbours(self, index: int) -> set[int]:
        """Members that share a mask with ``index``: it drew them, or they drew it."""
        drawn = set(self.cohort.hashes[index])
        drew = {dealer for dealer, hashes in self.cohort.hashes.items() if index in hashes}
        return (drawn | drew) - {index}

    def _public(self, index: int) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.cohort.masks[index][self._place])

    # Checks.

    def _keep(self, holder: int, dealer: int, share: bytes, salt: bytes) -> bool:
        """Keeps a revealed share if it is the one its dealer signed."""
        hashes = self.cohort.hashes.get(dealer, {}).get(holder)
        if hashes is None:
            return False
        survives = self._at_once or dealer in self._contributed
        expected = hashes[self._place][:32] if survives else hashes[self._place][32:]
        given = share_hash(
            self.cohort.keys, dealer=dealer, holder=holder, key_set=self.attempt.key_set,
            kind="seed" if survives else "mask", salt=salt, share=share,
        )  # fmt: skip
        if given != expected:
            return False
        self._shares.setdefault(dealer, {})[holder] = share
        return True

    def _expect(
        self,
        member: str,
        phase: Phase,
        is_open: bool,
        answered: Collection[int],
        asked: Collection[int],
    ) -> int:
        index = self._setup.indices.get(member)
        if index is None or not is_open or index not in asked:
            raise MemberFault(member, f"phase {phase} of {self.attempt} is not open for it")
        if index in answered:
            raise MemberFault(member, f"answered phase {phase} of {self.attempt} twice")
        return index

    def _verify(self, index: int, phase: Phase, body: bytes, signature: bytes) -> None:
        statement = self._setup.statement(
            phase, index, body, attempt=self.attempt, cohort=self.cohort.hash
        )
        with _faults(self._setup.name(index), self.attempt, phase):
            self._setup.verify(index, phase, statement, signature)

    def _enough(self, members: Collection[int], least: int, what: str) -> None:
        if len(members) < least:
            missing = [
                self._setup.name(index) for index in self.cohort.members if index not in members
            ]
            raise RoundFailed(
                f"{self.attempt}: {len(members)} members {what} and the terms demand {least}; "
                f"missing: {', '.join(missing[:10])}"
            )


@contextmanager
def _faults(member: str, where: KeySets | Attempt, phase: Phase) -> Iterator[None]:
    """Turns what is wrong with a member's bytes into a fault that names it and the phase."""
    try:
        yield
    except (BadSignature, MalformedBody, ValueError) as error:
        raise MemberFault(member, f"{where}, phase {phase}: {error}") from error
