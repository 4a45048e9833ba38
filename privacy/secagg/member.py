"""A member's side of secure aggregation, as a state machine without I/O.

Rules it enforces, numbered as in the code; whoever breaks one gets a refusal, and nothing:
 (1) key sets are numbered upwards, and no number is made twice;
 (2) an offer holds N - D to N members of the signed roster, each advertisement signed by its
     identity key, this member's own unchanged, and no key twice;
 (3) the shares of a run of key sets are dealt once, for one offer;
 (4) the cohort is part of the offer, holds at least N - D members and this one, and is fixed once;
 (5) a deal opens under its dealer's key and matches its hashes; one that does not is reported and
     never used;
 (6) a key set serves one attempt: one model, one cohort, one vector;
 (7) the survivors and the dropped are disjoint and together the cohort, this member survives, at
     least N - D do (rule R2), and one pair of lists is signed per attempt;
 (8) shares are revealed once and of each dealer one kind only: against t valid signatures of
     survivors over those very lists or, where nobody may drop (D = 0) and the survivors can only
     be the whole cohort, along with the contribution;
 (9) then the key set is forgotten.

Everything is in memory and dies with the process: an attempt that was not finished is over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.errors import BadSignature, MalformedBody, RequestRefusal
from privacy.fixedpoint import RingVector
from privacy.identity import Identity
from privacy.secagg import shamir
from privacy.secagg.binding import (
    Attempt,
    KeySets,
    Setup,
    Signed,
    digest,
    pair_seed,
    sealing_key,
    self_seed,
    share_hash,
)
from privacy.secagg.graph import draw
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import (
    HASH_BYTES,
    NONCE_BYTES,
    SALT_BYTES,
    Advertisement,
    Deal,
    Delivery,
    Lists,
    Offer,
    Opened,
    Revealed,
    Shares,
    Signatures,
    write_indices,
)
from privacy.terms import Terms

__all__ = ["MOST_KEY_SETS", "MaskingMember"]

MOST_KEY_SETS: Final = 64
"""Key sets in one run; more would be a way to exhaust a member's memory."""
KEPT_RUNS: Final = 3
"""Runs of key sets kept: one in use, one being prepared, one spare."""

Entropy = Callable[[int], bytes]


@dataclass(slots=True)
class _Use:
    """What a key set was used for."""

    attempt: Attempt
    sha256: bytes = b""
    """Of the masked vector."""
    lists: Lists | None = None


@dataclass(slots=True, repr=False)
class _Run:
    """Key sets that were made together; per key set the lists below are indexed by its place."""

    key_sets: KeySets
    sealing: X25519PrivateKey | None
    """Until shares are dealt."""
    masks: list[X25519PrivateKey]
    body: bytes
    """The advertisement as signed."""
    keys: bytes = b""
    """The keys' hash, once shares are dealt."""
    advertisements: dict[int, Advertisement] = field(default_factory=dict)
    drawn: frozenset[int] = frozenset()
    seeds: list[bytes] = field(default_factory=list)
    sealing_secrets: dict[int, bytes] = field(default_factory=dict)
    held: dict[int, tuple[Opened, ...]] = field(default_factory=dict)
    """By dealer, this member included."""
    pair_secrets: list[dict[int, bytes]] = field(default_factory=list)
    cohort: tuple[int, ...] = ()
    cohort_hash: bytes = b""
    uses: dict[int, _Use] = field(default_factory=dict)

    def place(self, key_set: int) -> int:
        return key_set - self.key_sets.first


class MaskingMember:
    """One member's secrets for one study.

    The phases ahead of time (advertise, share, deliver) and those of an attempt (mask, confirm,
    unmask, or mask and unmask at once) may be driven by two threads, each of the two by one.

    Guarantees:
        If at most c members of the roster collude with the coordinator, whatever it sends, it
        learns of this member's vectors nothing but sums over at least N - D members' vectors of one
        attempt under one model, each including at least N - D - c honest ones; up to 2^-40 per run
        of key sets on a sparse graph (see `Graph`), and as long as X25519, AES-256, HKDF-SHA256 and
        Ed25519 hold.

    Args:
        terms: accepted terms.
        name: this member's name in their roster.
        identity: the key its roster entry names.
        entropy: gives secret random bytes; the operating system's.

    Raises:
        TermsError: if the roster lacks the name, or cohorts are too large.
        RequestRefusal: if the roster's key for this member is another one.

    Source:
        Bonawitz et al. (2017), "Practical Secure Aggregation for Privacy-Preserving Machine
        Learning", figure 4 with the active adversary's additions; Bell et al. (2020).
    """

    def __init__(
        self, terms: Terms, name: str, identity: Identity, *, entropy: Entropy = os.urandom
    ) -> None:
        if terms.entry(name).identity != identity.public:
            raise RequestRefusal(f"the terms name another identity key for {name}")
        self._setup = Setup.of(terms)
        self._index = self._setup.indices[name]
        self._identity = identity
        self._entropy = entropy
        self._least = terms.privacy.least_survivors
        self._most = terms.privacy.cohort_size
        self._threshold = terms.privacy.threshold
        self._runs: tuple[_Run, ...] = ()
        self._highest = 0

    def __reduce__(self) -> Any:
        raise TypeError("round secrets are never pickled or copied")

    # Ahead of time.

    def advertise(self, key_sets: KeySets) -> Signed:
        """Makes the keys of a run of key sets; the public halves, signed.

        Raises:
            RequestRefusal: rule (1).
        """
        if not 1 <= key_sets.count <= MOST_KEY_SETS or not (
            self._highest < key_sets.first <= 2**31
        ):  # (1)
            raise RequestRefusal(f"{key_sets}: made before, or too many at once")
        self._highest = key_sets.first + key_sets.count - 1
        sealing, *masks = (
            X25519PrivateKey.from_private_bytes(self._entropy(32))
            for _ in range(key_sets.count + 1)
        )
        body = Advertisement(
            sealing.public_key().public_bytes_raw(),
            tuple(mask.public_key().public_bytes_raw() for mask in masks),
        ).encode()
        # Runs that were never delivered make way first: none was given up while it was in use.
        kept = tuple(run for run in self._runs if run.cohort)[1 - KEPT_RUNS :]
        self._runs = (*kept, _Run(key_sets, sealing, masks, body))
        statement = self._setup.statement("advertise", self._index, body, key_sets=key_sets)
        return Signed(body, self._setup.sign(self._identity, "advertise", statement))

    def share(self, key_sets: KeySets, offer: bytes) -> Signed:
        """Deals shares of this member's secrets to those it masks with.

        Args:
            key_sets: as advertised.
            offer: an encoded `Offer`.

        Raises:
            RequestRefusal: rules (2) and (3).
        """
        run = self._run(key_sets)
        if run.keys:  # (3)
            raise RequestRefusal(f"{key_sets}: shares were dealt before")
        entries, advertisements = self._checked(run, offer)
        sealing_secrets = self._sealing_secrets(run, advertisements)
        drawn = draw(list(sealing_secrets), self._setup.graph.degree, self._entropy)
        run.advertisements, run.sealing_secrets = advertisements, sealing_secrets
        run.drawn = frozenset(drawn)
        run.keys = entries.hash(self._setup.terms_hash, key_sets)
        run.sealing = None
        body = self._deal(run, drawn).encode()
        statement = self._setup.statement(
            "share", self._index, body, key_sets=key_sets, cohort=run.keys
        )
        return Signed(body, self._setup.sign(self._identity, "share", statement))

    def deliver(self, key_sets: KeySets, delivery: bytes) -> Signed:
        """Takes the cohort and what others dealt; the dealers whose deals are missing or bad.

        Args:
            key_sets: as advertised.
            delivery: an encoded `Delivery`.

        Returns:
            The indices of those dealers, encoded and signed over the cohort's hash.

        Raises:
            RequestRefusal: rule (4).
        """
        run = self._run(key_sets)
        if not run.keys or run.cohort:
            raise RequestRefusal(f"{key_sets}: not dealt yet, or delivered before")
        try:
            delivered = Delivery.decode(delivery, key_sets)
        except MalformedBody as error:
            raise RequestRefusal(f"{key_sets}: {error}") from error
        cohort = set(delivered.cohort)
        if (
            not cohort <= run.advertisements.keys()
            or self._index not in cohort
            or len(cohort) < self._least
        ):  # (4)
            raise RequestRefusal(
                f"{key_sets}: the cohort has strangers, lacks this member, or has fewer than "
                f"{self._least} members"
            )
        held, bad = self._open_deals(run, delivered)
        neighbours = (run.drawn | {deal.member for deal in delivered.deals}) & cohort
        neighbours -= {self._index}
        try:
            pair_secrets = [
                {
                    other: mask.exchange(_public(run.advertisements[other].masks[place]))
                    for other in neighbours
                }
                for place, mask in enumerate(run.masks)
            ]
        except ValueError as error:
            raise RequestRefusal(f"{key_sets}: a member advertised a degenerate key") from error
        run.held.update(held)
        run.pair_secrets = pair_secrets
        run.masks.clear()  # what is left of them are the shares that others hold
        run.sealing_secrets.clear()
        run.cohort_hash = Delivery.cohort_hash(run.keys, delivered.cohort)
        run.cohort = delivered.cohort
        body = write_indices(bad)
        statement = self._setup.statement(
            "deliver", self._index, body, key_sets=key_sets, cohort=run.cohort_hash
        )
        return Signed(body, self._setup.sign(self._identity, "deliver", statement))

    # One attempt.

    def check(self, attempt: Attempt) -> None:
        """Whether an attempt could be masked now; asked before anything is reserved.

        Raises:
            RequestRefusal: rule (6).
        """
        run = self._ready(attempt)
        if attempt.key_set in run.uses:  # (6)
            raise RequestRefusal(f"{attempt}: key set {attempt.key_set} was used before")
        if not all(0 < number < 1 << 32 for number in (attempt.round, attempt.attempt)):
            raise RequestRefusal(f"{attempt}: rounds and attempts count from 1")
        if len(attempt.model) != HASH_BYTES:
            raise RequestRefusal(f"{attempt}: the model's hash has {len(attempt.model)} bytes")

    def mask(self, attempt: Attempt, vector: RingVector) -> bytes:
        """Masks a noised vector in place; this member's signature over the result.

        Args:
            attempt: what the key set is used for.
            vector: uint32 or uint64 as the terms' ring has it, shape (dimension,), writable.

        Raises:
            RequestRefusal: rule (6).
            ValueError: if the vector is not as above; the key set stays unused.
        """
        self.check(attempt)
        terms = self._setup.terms
        if vector.shape != (terms.dimension,) or 8 * vector.itemsize != terms.privacy.ring_bits:
            raise ValueError(f"a vector of {vector.dtype} {vector.shape} is not of these terms")
        run = self._ready(attempt)
        use = run.uses[attempt.key_set] = _Use(attempt)
        place = run.place(attempt.key_set)
        add = [self_seed(self._setup, run.seeds[place], run.cohort_hash, attempt, one=self._index)]
        subtract: list[bytes] = []
        for other, secret in run.pair_secrets[place].items():
            seed = pair_seed(
                self._setup, secret, run.cohort_hash, attempt, one=self._index, other=other
            )
            (add if self._index < other else subtract).append(seed)
        apply_masks(vector, add=add, subtract=subtract)
        run.pair_secrets[place] = {}
        run.seeds[place] = b""
        use.sha256 = hashlib.sha256(vector.data).digest()
        return self._sign_attempt(run, attempt, "contribute", use.sha256, hashed=True)

    def masked_hash(self, attempt: Attempt) -> bytes:
        """SHA-256 of the vector that `mask` left.

        Raises:
            RequestRefusal: if this member did not contribute to the attempt, or unmasked it.
        """
        _, use = self._used(attempt)
        if not use.sha256:
            raise RequestRefusal(f"{attempt}: masking it failed")
        return use.sha256

    def contributed(self, attempt: Attempt) -> Attempt:
        """The same attempt with the model that this member contributed under.

        Raises:
            RequestRefusal: if this member did not contribute to it.
        """
        use = self._ready(attempt).uses.get(attempt.key_set)
        if use is None or (use.attempt.round, use.attempt.attempt) != (
            attempt.round,
            attempt.attempt,
        ):
            raise RequestRefusal(f"{attempt}: this member did not contribute to it")
        return use.attempt

    def confirm(self, attempt: Attempt, lists: bytes) -> bytes:
        """Signs who is in the sum and who is not.

        Args:
            attempt: one this member contributed to.
            lists: encoded `Lists`.

        Raises:
            RequestRefusal: rule (7).
        """
        run, use = self._used(attempt)
        if use.lists is not None:  # (7)
            raise RequestRefusal(f"{attempt}: a survivor list was signed before")
        try:
            decoded = Lists.decode(lists)
        except MalformedBody as error:
            raise RequestRefusal(f"{attempt}: {error}") from error
        together = sorted(decoded.survivors + decoded.dropped)
        if (
            together != list(run.cohort)
            or self._index not in decoded.survivors
            or len(decoded.survivors) < self._least
        ):  # (7)
            raise RequestRefusal(
                f"{attempt}: survivors and dropped must be disjoint and together the cohort, and "
                f"at least {self._least} must survive, this member among them"
            )
        use.lists = decoded
        return self._sign_attempt(run, attempt, "confirm", lists)

    def unmask(self, attempt: Attempt, signatures: bytes) -> Signed:
        """Reveals the survivors' seed shares and the dropped members' mask-key shares; forgets all.

        Args:
            attempt: one whose lists this member signed.
            signatures: encoded `Signatures` of survivors over those lists.

        Raises:
            RequestRefusal: rule (8).
        """
        run, use = self._used(attempt)
        if use.lists is None:
            raise RequestRefusal(f"{attempt}: no survivor list was signed here")
        self._check_signatures(run, attempt, use.lists, signatures)  # (8)
        return self._reveal(run, attempt, use.lists)

    def unmask_at_once(self, attempt: Attempt) -> Signed:
        """Reveals everybody's seed shares along with the contribution; forgets all.

        Guarantees:
            As in `MaskingMember`. The masks between honest members are never revealed, so nothing
            but a sum over all of them comes out, whoever contributes in the end.

        Args:
            attempt: one this member contributed to.

        Raises:
            RequestRefusal: rules (7) and (8): if the terms let members drop, or lists were signed.
        """
        run, use = self._used(attempt)
        if self._least < self._most:  # (8)
            raise RequestRefusal(
                f"{attempt}: members may drop, so shares are revealed for lists that "
                f"{self._threshold} of them signed"
            )
        if use.lists is not None:  # (7)
            raise RequestRefusal(f"{attempt}: a survivor list was signed before")
        use.lists = Lists(run.cohort, ())
        return self._reveal(run, attempt, use.lists)

    # Parts of the phases.

    def _reveal(self, run: _Run, attempt: Attempt, lists: Lists) -> Signed:
        place = run.place(attempt.key_set)
        survivors = set(lists.survivors)
        entries = []
        for dealer in sorted(run.held.keys() & set(run.cohort)):
            opened = run.held[dealer][place]
            if dealer in survivors:
                entries.append((dealer, opened.seed_share, opened.seed_salt))
            else:
                entries.append((dealer, opened.mask_share, opened.mask_salt))
        self._forget(run, attempt.key_set)  # (9)
        body = Revealed(tuple(entries)).encode()
        return Signed(body, self._sign_attempt(run, attempt, "unmask", body))

    def _checked(self, run: _Run, offer: bytes) -> tuple[Offer, dict[int, Advertisement]]:
        """Rule (2)."""
        try:
            entries = Offer.decode(offer, run.key_sets)
            advertisements = {
                index: Advertisement.decode(body, run.key_sets)
                for index, body, _ in entries.entries
            }
        except MalformedBody as error:
            raise RequestRefusal(f"{run.key_sets}: {error}") from error
        bodies = {index: body for index, body, _ in entries.entries}
        keys = [key for advertisement in advertisements.values() for key in advertisement.keys]
        if not self._least <= len(bodies) <= self._most:
            raise RequestRefusal(
                f"{run.key_sets}: {len(bodies)} members, the terms say {self._least} to "
                f"{self._most}"
            )
        if bodies.get(self._index) != run.body or len(set(keys)) != len(keys):
            raise RequestRefusal(
                f"{run.key_sets}: this member's keys are missing or not its own, or one is repeated"
            )
        if max(bodies) > len(self._setup.names):
            raise RequestRefusal(f"{run.key_sets}: a member is not in the roster")
        for index, body, signature in entries.entries:
            statement = self._setup.statement("advertise", index, body, key_sets=run.key_sets)
            try:
                self._setup.verify(index, "advertise", statement, signature)
            except BadSignature as error:
                raise RequestRefusal(
                    f"{run.key_sets}: the keys of {self._setup.name(index)} are not signed by it"
                ) from error
        return entries, advertisements

    def _sealing_secrets(
        self, run: _Run, advertisements: Mapping[int, Advertisement]
    ) -> dict[int, bytes]:
        """What this member shares with every other one's sealing key."""
        secrets: dict[int, bytes] = {}
        for other, advertisement in advertisements.items():
            if other == self._index or run.sealing is None:
                continue
            try:
                secrets[other] = run.sealing.exchange(_public(advertisement.sealing))
            except ValueError as error:
                raise RequestRefusal(
                    f"{run.key_sets}: {self._setup.name(other)} advertised a degenerate key"
                ) from error
        return secrets

    def _deal(self, run: _Run, drawn: list[int]) -> Shares:
        """Shares of every seed and mask key, hashed for everybody and sealed for each holder."""
        holders = sorted([*drawn, self._index])
        threshold = min(self._setup.graph.share_threshold, len(holders))
        run.seeds = [self._entropy(32) for _ in run.masks]
        opened: dict[int, list[Opened]] = {holder: [] for holder in holders}
        for seed, mask in zip(run.seeds, run.masks, strict=True):
            salts = self._entropy(2 * SALT_BYTES * len(holders))
            for place, (holder, seed_share, mask_share) in enumerate(
                zip(
                    holders,
                    shamir.split(seed, holders, threshold, self._entropy),
                    shamir.split(mask.private_bytes_raw(), holders, threshold, self._entropy),
                    strict=True,
                )
            ):
                at = 2 * SALT_BYTES * place
                opened[holder].append(
                    Opened(
                        seed_share,
                        salts[at : at + SALT_BYTES],
                        mask_share,
                        salts[at + SALT_BYTES : at + 2 * SALT_BYTES],
                    )
                )
        run.held[self._index] = tuple(opened[self._index])
        commitments = tuple(digest("seed", run.keys, seed) for seed in run.seeds)
        deals = tuple(self._sealed(run, holder, opened[holder]) for holder in drawn)
        return Shares(
            commitments, self._hashes(run, self._index, self._index, opened[self._index]), deals
        )

    def _sealed(self, run: _Run, holder: int, opened: list[Opened]) -> Deal:
        key = sealing_key(run.sealing_secrets[holder], run.keys, dealer=self._index, holder=holder)
        nonce = self._entropy(NONCE_BYTES)
        plain = b"".join(one.encode() for one in opened)
        sealed = AESGCM(key).encrypt(nonce, plain, run.keys)
        return Deal(holder, self._hashes(run, self._index, holder, opened), nonce, sealed)

    def _hashes(
        self, run: _Run, dealer: int, holder: int, opened: list[Opened] | tuple[Opened, ...]
    ) -> tuple[bytes, ...]:
        """Per key set: the hashes of both shares, one after the other."""
        return tuple(
            share_hash(
                run.keys, dealer=dealer, holder=holder, key_set=run.key_sets.first + place,
                kind="seed", salt=one.seed_salt, share=one.seed_share,
            )
            + share_hash(
                run.keys, dealer=dealer, holder=holder, key_set=run.key_sets.first + place,
                kind="mask", salt=one.mask_salt, share=one.mask_share,
            )
            for place, one in enumerate(opened)
        )  # fmt: skip

    def _open_deals(
        self, run: _Run, delivery: Delivery
    ) -> tuple[dict[int, tuple[Opened, ...]], list[int]]:
        """Rule (5): by dealer what is good; the dealers whose deals are missing or bad."""
        cohort = set(delivery.cohort)
        deals = {deal.member: deal for deal in delivery.deals}
        expected = cohort if self._setup.graph.degree is None else cohort & deals.keys()
        held, bad = {}, []
        for dealer in sorted(expected - {self._index}):
            opened = self._opened(run, deals.get(dealer))
            if opened is None:
                bad.append(dealer)
            else:
                held[dealer] = opened
        return held, bad

    def _opened(self, run: _Run, deal: Deal | None) -> tuple[Opened, ...] | None:
        if deal is None:
            return None
        key = sealing_key(
            run.sealing_secrets[deal.member], run.keys, dealer=deal.member, holder=self._index
        )
        try:
            plain = AESGCM(key).decrypt(deal.nonce, deal.sealed, run.keys)
            opened = Opened.decode_all(plain, run.key_sets)
        except (InvalidTag, MalformedBody):
            return None
        same = self._hashes(run, deal.member, self._index, opened) == deal.hashes
        return opened if same else None

    def _check_signatures(
        self, run: _Run, attempt: Attempt, lists: Lists, signatures: bytes
    ) -> None:
        try:
            entries = Signatures.decode(signatures).entries
        except MalformedBody as error:
            raise RequestRefusal(f"{attempt}: {error}") from error
        signers = {index for index, _ in entries}
        if len(signers) < self._threshold or not signers <= set(lists.survivors):
            raise RequestRefusal(
                f"{attempt}: {len(signers)} signatures over the survivor list, "
                f"{self._threshold} of survivors are needed"
            )
        body = lists.encode()
        for index, signature in entries:
            if index == self._index:
                continue  # these lists are the ones that were signed here
            statement = self._setup.statement(
                "confirm", index, body, attempt=attempt, cohort=run.cohort_hash
            )
            try:
                self._setup.verify(index, "confirm", statement, signature)
            except BadSignature as error:
                raise RequestRefusal(
                    f"{attempt}: {self._setup.name(index)} did not sign this survivor list"
                ) from error

    def _sign_attempt(
        self,
        run: _Run,
        attempt: Attempt,
        phase: Any,
        body: bytes | memoryview,
        *,
        hashed: bool = False,
    ) -> bytes:
        statement = self._setup.statement(
            phase, self._index, body, hashed=hashed, attempt=attempt, cohort=run.cohort_hash
        )
        return self._setup.sign(self._identity, phase, statement)

    # Finding and forgetting.

    def _run(self, key_sets: KeySets) -> _Run:
        for run in self._runs:
            if run.key_sets == key_sets:
                return run
        raise RequestRefusal(f"{key_sets}: not made here, or forgotten")

    def _ready(self, attempt: Attempt) -> _Run:
        for run in self._runs:
            if attempt.key_set in run.key_sets and run.cohort:
                return run
        raise RequestRefusal(f"{attempt}: key set {attempt.key_set} is not ready here")

    def _used(self, attempt: Attempt) -> tuple[_Run, _Use]:
        run = self._ready(attempt)
        use = run.uses.get(attempt.key_set)
        if use is None or use.attempt != attempt:
            raise RequestRefusal(f"{attempt}: this member did not contribute to it")
        if not run.held[self._index][run.place(attempt.key_set)].seed_share:
            raise RequestRefusal(f"{attempt}: unmasked before")
        return run, use

    def _forget(self, run: _Run, key_set: int) -> None:
        """Rule (9): drops what one key set held."""
        place, nothing = run.place(key_set), Opened(b"", b"", b"", b"")
        for dealer, opened in run.held.items():
            run.held[dealer] = (*opened[:place], nothing, *opened[place + 1 :])
        run.seeds[place] = b""
        run.pair_secrets[place] = {}


def _public(raw: bytes) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(raw)
