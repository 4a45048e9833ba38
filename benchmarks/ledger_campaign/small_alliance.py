"""A small alliance with real keys, logs and masks, made in a second: what bundles are tested on.

Five members and a coordinator run two rounds and lose one attempt; one member drops out of the
second round. Everything is as a real study leaves it, but for the vectors, which are noise.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client_sdk.recipes.model_file import encode_model
from client_sdk.recipes.propensity import fold as recipe
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from coordinator.kept_rounds import _opening
from privacy.acceptance import sign_acceptance
from privacy.budget import attempt_costs, failure_atto
from privacy.empirical.releases import release_name
from privacy.fixedpoint import Grid, decode
from privacy.identity import Identity
from privacy.ledger.audit_study import figures_of
from privacy.ledger.checkpoint import add_cosignatures
from privacy.ledger.entry import (
    Acceptance,
    Consent,
    Contributed,
    Contribution,
    Entry,
    Failure,
    Head,
    Heads,
    Proposal,
    Publication,
    Release,
    Reservation,
    Rule,
    Started,
    canonical,
    decode_entry,
)
from privacy.ledger.kept import HEAD, SUFFIX, kept_tail
from privacy.ledger.passport import make_passport
from privacy.ledger.store import LedgerStore
from privacy.ledger.witness import Witness
from privacy.secagg import (
    Attempt,
    Cohort,
    KeyExchange,
    KeySets,
    MaskingMember,
    Setup,
    Unmasking,
    model_hash,
)
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Terms

__all__ = ["Member", "SmallAlliance", "key_of", "small_terms"]

START_MS = 1_790_000_000_000
ORDERS = (3500,)
KEY_SETS = 3


def key_of(name: str) -> Identity:
    """The same key for the same name."""
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def small_terms(*, members: int = 5, **changes: Any) -> Terms:
    """Terms of two rounds that the propensity recipe accepts."""
    contract = DataContract(
        name="visits",
        version=1,
        consumer_id="household",
        label="responded",
        columns=(
            Column(name="spend", kind="number", low=0.0, high=1000.0, scale="log"),
            Column(name="trips", kind="number", low=0.0, high=50.0),
            Column(name="kind", kind="category", values=("A", "B", "C")),
        ),
        rows_per_consumer=3,
    )
    settings: dict[str, Any] = {"model": "logistic", "learning_rate": 0.5, "average_from": 1}
    values: dict[str, Any] = {
        "clipping_norm": 1.0,
        "noise_multiplier": 4.0,
        "sampling_probability": 0.1,
        "rounds": 2,
        "max_attempts": 4,
        "delta": 1e-5,
        "cohort_size": members,
        "colluders": 1,
        "dropouts": 1,
    }
    return Terms(
        alliance="small",
        study="coupons",
        purpose="Which household will respond to which campaign",
        recipe="propensity",
        settings=settings,
        dimension=dimension(contract, PropensitySettings.model_validate(settings)),
        contract=contract,
        privacy=PrivacyTerms(**(values | changes)),
        roster=tuple(
            RosterEntry(
                name=f"member-{index}",
                identity=key_of(f"identity {index}").public,
                declared_consumers=100,
            )
            for index in range(members)
        ),
    )


@dataclass(slots=True)
class _Clock:
    now: int = START_MS

    def __call__(self) -> int:
        self.now += 1000
        return self.now


@dataclass(slots=True)
class Member:
    """A member and what it holds."""

    name: str
    identity: Identity
    key: Identity
    store: LedgerStore
    masking: MaskingMember
    used: int = 0


@dataclass(slots=True)
class _Attempted:
    unmasking: Unmasking
    attempt: Attempt
    contributed: list[Contributed] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)
    total: Any = None


class SmallAlliance:
    """The alliance, with state folders under ``folder``: ``coordinator`` and members' names.

    Args:
        folder: an empty folder.
        members: how many.
        kept: whether rounds and sums are kept for an auditor.
    """

    def __init__(self, folder: Path, *, members: int = 5, kept: bool = True) -> None:
        self.folder = folder
        self.terms = small_terms(members=members)
        self.setup = Setup.of(self.terms)
        self.clock = _Clock()
        self.kept = kept
        self.key = key_of("coordinator")
        self.store = self._store("coordinator", "small/coordinator", self.key)
        self.members = {
            name: Member(
                name,
                key_of(f"identity {index}"),
                key_of(f"ledger {name}"),
                self._store(name, f"small/member/{name}", key_of(f"ledger {name}")),
                MaskingMember(self.terms, name, key_of(f"identity {index}")),
            )
            for index, name in enumerate(self.setup.names)
        }
        self.state = recipe.initial_state(self.terms)
        self.witnessed = 0
        self._key_set = 0
        self._cohort: Cohort | None = None
        self._rng = np.random.default_rng(7)

    @property
    def states(self) -> dict[str, Path]:
        """Members' state folders."""
        return {name: self.folder / name for name in self.members}

    def run(self) -> SmallAlliance:
        """The whole study."""
        self.agree()
        self.reserve(self.terms.privacy.max_attempts)
        return self.go_on()

    def go_on(self) -> SmallAlliance:
        """The study once attempts are reserved."""
        self.exchange()
        self.attempt(1, 1)
        self.attempt(2, 1, fails=True)
        self.attempt(2, 2, absent=(self.setup.names[-1],))
        index = self.publish(last=True)
        self.witness()
        self.receipts()
        self.passport(index)
        return self

    def close(self) -> None:
        """Lets go of the files."""
        self.store.close()
        for member in self.members.values():
            member.store.close()

    # What a test that lies overrides.

    def log(self, entry: Entry) -> int:
        """Appends to the coordinator's log."""
        return self.store.append(entry)

    def append(self, member: Member, *entries: Entry) -> None:
        """Appends to a member's log."""
        member.store.append(*entries)

    def cosigns(self, member: Member, origin: str) -> bool:
        """Whether a member cosigns a head."""
        return member.store.origin != origin

    # Steps.

    def agree(self) -> None:
        """Terms are proposed and accepted."""
        terms, document = self.terms, json.loads(self.terms.canonical())
        self.log(Proposal(at_ms=self.clock(), terms=document, hash=terms.hash))
        for member in self.members.values():
            signature = sign_acceptance(
                member.identity, terms, member=member.name, ledger_key=member.key.public
            ).hex()
            self.append(member,
                Rule(
                    at_ms=self.clock(), epsilon_micro=10_000_000, delta_billionths=10_000,
                    orders_thousandths=ORDERS, renewal_days=0, renewal_column="",
                ),
                Consent(
                    at_ms=self.clock(), terms=document, hash=terms.hash,
                    attempts=terms.privacy.max_attempts, profile_micro=figures_of(terms).whole,
                    costs=attempt_costs(terms, ORDERS), failure_atto=failure_atto(terms),
                    signature=signature,
                ),
                Started(at_ms=self.clock(), software="small", nonce="0" * 32),
            )  # fmt: skip
            self.log(
                Acceptance(
                    at_ms=self.clock(), terms=terms.hash, member=member.name,
                    ledger_key=member.key.public, signature=signature,
                )
            )  # fmt: skip

    def reserve(self, count: int, *, first: int = 1) -> None:
        """Every member reserves attempts, and a quorum cosigns."""
        for member in self.members.values():
            reservation = Reservation(
                at_ms=self.clock(), terms=self.terms.hash, first=first, count=count, nonce="1" * 32
            )
            self.append(member, reservation)
        self.witness()
        heads = [
            Head(member=one.name, size=one.store.size, root=one.store.root.hex())
            for one in self.members.values()
        ]
        self.log(Heads(at_ms=self.clock(), terms=self.terms.hash, heads=tuple(heads)))

    def witness(self) -> None:
        """Everybody cosigns everybody's newest head."""
        owners = {one.store.origin: one.store for one in self.members.values()}
        for store in (self.store, *owners.values()):
            lines = []
            note = store.note()
            for member in self.members.values():
                if not self.cosigns(member, store.origin):
                    continue
                held = member.store.known(store.origin, store.key)
                old = held.size if held else 0
                witness = Witness(
                    member.store.origin, member.key, member.store, lambda: self.clock() // 1000
                )
                lines.append(
                    witness.consider(
                        origin=store.origin, key=store.key, note=note, old_size=old,
                        proof=store.consistency_proof(old, store.size) if old else [],
                    )
                )  # fmt: skip
            store.keep_note(add_cosignatures(note, lines))
        self.witnessed = self.store.check_head(self.store.newest_note() or b"").size

    def exchange(self) -> None:
        """One run of key sets."""
        self._exchange = KeyExchange(self.setup, KeySets(1, KEY_SETS), keep=True)
        for one in self.members.values():
            said = one.masking.advertise(self._exchange.key_sets)
            self._exchange.take_advertisement(one.name, said.body, said.signature)
        offer = self._exchange.offer()
        for one in self.members.values():
            said = one.masking.share(self._exchange.key_sets, offer)
            self._exchange.take_shares(one.name, said.body, said.signature)
        for name in self._exchange.close():
            masking = self.members[name].masking
            said = masking.deliver(self._exchange.key_sets, self._exchange.delivery(name))
            self._exchange.take_ready(name, said.body, said.signature)
        self._cohort = self._exchange.finish()

    def attempt(
        self, round_number: int, number: int, *, fails: bool = False, absent: tuple[str, ...] = ()
    ) -> None:
        """One attempt, released or not."""
        if self._cohort is None:
            raise AssertionError("exchange keys first")
        self._key_set += 1
        model = model_hash(self.state.parameters)
        made = Attempt(self._key_set, round_number, number, model)
        tried = _Attempted(Unmasking(self._cohort, made), made)
        tried.total = np.zeros(self.terms.dimension, dtype=Grid.of(self.terms).dtype)
        for member in self.members.values():
            if member.name not in absent:
                self._contribute(member, tried)
        fields: dict[str, Any] = {
            "at_ms": self.clock(), "terms": self.terms.hash, "round": round_number,
            "attempt": number, "key_set": self._key_set, "cohort": self._cohort.hash.hex(),
            "members": self._cohort.names, "model": model.hex(),
            "contributions": tuple(tried.contributed),
        }  # fmt: skip
        if fails:
            self.log(Failure(**fields, sentence="too few members confirmed"))
            return
        self._unmask(tried)
        total = decode(tried.total, Grid.of(self.terms))
        declared = 100 * len(tried.contributed)
        mean = total / (self.terms.privacy.sampling_probability * declared)
        self.state = recipe.fold(self.state, mean, self.terms)
        ring = tried.total.tobytes()
        next_model = model_hash(self.state.parameters).hex()
        self.log(Release(**fields, sum=hashlib.sha256(ring).hexdigest(), next_model=next_model))
        if self.kept:
            self._keep(tried, ring)

    def publish(self, *, last: bool) -> int:
        """A model file, and its entry before it."""
        parameters = recipe.published(self.state)
        data = encode_model(self.terms, parameters, round_number=self.state.folded)
        index = self.log(
            Publication(
                at_ms=self.clock(), terms=self.terms.hash, round=self.state.folded,
                model=model_hash(parameters).hex(), file=hashlib.sha256(data).hexdigest(),
                last=last,
            )
        )  # fmt: skip
        self._write(f"models/{self.terms.study}.safetensors", data)
        return index

    def passport(self, index: int) -> None:
        """The papers of what was published last."""
        data = make_passport(self.store, self.key, publication=index)
        self._write(f"models/{self.terms.study}.passport.json", data)

    def receipts(self) -> None:
        """Everybody gets receipts for all its contributions."""
        note = self.store.newest_note() or b""
        size = self.store.check_head(note).size
        for index, data in enumerate(self.store.entries(0, size)):
            entry = decode_entry(data, where="")
            if not isinstance(entry, Release | Failure):
                continue
            proof = [one.hex() for one in self.store.inclusion_proof(index, size)]
            receipt = canonical(
                {"coordinator": note.decode(), "entry": data.decode(), "index": index,
                 "proof": proof}
            )  # fmt: skip
            for one in entry.contributions:
                self.members[one.member].store.keep_receipts([receipt])

    # Inside.

    def _contribute(self, member: Member, tried: _Attempted) -> None:
        vector = self._rng.integers(-3000, 3000, self.terms.dimension).astype(tried.total.dtype)
        signature = member.masking.mask(tried.attempt, vector)
        data = vector.tobytes()
        sha256 = hashlib.sha256(data)
        member.used += 1
        self.append(member,
            Contribution(
                at_ms=self.clock(), terms=self.terms.hash, round=tried.attempt.round,
                attempt=tried.attempt.attempt, number=member.used, key_set=tried.attempt.key_set,
                sha256=sha256.hexdigest(), signature=signature.hex(),
            )
        )  # fmt: skip
        tried.unmasking.take_contribution(member.name, sha256.digest(), signature)
        tried.total += vector
        tried.vectors[member.name] = data
        tried.contributed.append(
            Contributed(member=member.name, sha256=sha256.hexdigest(), signature=signature.hex())
        )

    def _unmask(self, tried: _Attempted) -> None:
        unmasking, attempt = tried.unmasking, tried.attempt
        lists = unmasking.close()
        for name in unmasking.survivors:
            signature = self.members[name].masking.confirm(attempt, lists)
            unmasking.take_confirmation(name, signature)
        signatures = unmasking.signatures()
        for name in unmasking.confirmed:
            said = self.members[name].masking.unmask(attempt, signatures)
            unmasking.take_unmask(name, said.body, said.signature)
        unmasking.unmask(tried.total)

    def _keep(self, tried: _Attempted, ring: bytes) -> None:
        label, made = self.terms.label, tried.attempt
        sizes = [(name, len(data)) for name, data in tried.vectors.items()]
        tail = kept_tail(canonical(_opening(tried.unmasking)), sizes)
        kept = f"rounds/{label}/round-{made.round}-{made.attempt}{SUFFIX}"
        self._write(kept, b"".join([HEAD, *tried.vectors.values(), tail]))
        self._write(f"releases/{label}/{release_name(made.round, made.attempt)}", ring)

    def _write(self, path: str, data: bytes) -> None:
        target = self.folder / "coordinator" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _store(self, name: str, origin: str, key: Identity) -> LedgerStore:
        folder = self.folder / name
        folder.mkdir(parents=True)
        (folder / "ledger.pem").write_bytes(key.pem())
        return LedgerStore(
            folder / "ledger.sqlite", origin=origin, key=key, software="small", now_ms=self.clock
        )
