"""The coordinator's side of one attempt: from its cohort's contributions to their sum.

`Unmasking` is a state machine without I/O; errors are as in `privacy.secagg.key_exchange`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.errors import MemberFault, RoundFailed
from privacy.fixedpoint import RingVector
from privacy.secagg.binding import (
    Attempt,
    Phase,
    digest,
    pair_seed,
    self_seed,
    share_hasher,
)
from privacy.secagg.key_exchange import Cohort, faults
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import (
    HASH_BYTES,
    Lists,
    Revealed,
    Signatures,
)
from privacy.secagg.shamir import Basis

__all__ = ["Unmasking"]


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
        with faults(member, self.attempt, "contribute"):
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
        with faults(member, self.attempt, "unmask"):
            entries = Revealed.decode(body).entries
        said = {dealer for dealer, _, _ in entries}
        missing = self.cohort.held[index].keys() - self.cohort.complaints[index] - said
        bad = [
            self._setup.name(dealer) if dealer in self.cohort.members else f"index {dealer}"
            for dealer in self._keep(index, entries)
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

    def _neighbours(self, index: int) -> set[int]:
        """Members that share a mask with ``index``: it drew them, or they drew it."""
        drawn, drew = self.cohort.hashes[index], self.cohort.held[index]
        return (drawn.keys() | drew.keys()) - {index}

    def _public(self, index: int) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.cohort.masks[index][self._place])

    # Checks.

    def _keep(self, holder: int, entries: Iterable[tuple[int, bytes, bytes]]) -> list[int]:
        """Keeps revealed shares that are those their dealers signed; the dealers of the others."""
        bind = partial(share_hasher, self.cohort.keys, holder=holder, key_set=self.attempt.key_set)
        seed, mask = bind(kind="seed"), bind(kind="mask")
        held, place, bad = self.cohort.held[holder], self._place, []
        for dealer, share, salt in entries:
            if dealer not in held:
                bad.append(dealer)
                continue
            signed = held[dealer][place]
            if self._at_once or dealer in self._contributed:
                good = seed(dealer, salt, share) == signed[:HASH_BYTES]
            else:
                good = mask(dealer, salt, share) == signed[HASH_BYTES:]
            if good:
                self._shares.setdefault(dealer, {})[holder] = share
            else:
                bad.append(dealer)
        return bad

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
        with faults(self._setup.name(index), self.attempt, phase):
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
