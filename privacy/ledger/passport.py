"""A published model's papers: where it comes from, what it cost whom, and the proof of both.

A passport is one canonical JSON object. It is signed under ``alliance/v1/passport`` by the
coordinator's ledger key, over the object without its signature, and it verifies alone: terms,
acceptances, the entry of its publication and the cosigned head that contains it are all in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from privacy.acceptance import verify_acceptance
from privacy.documents import StrictModel, first_problem
from privacy.errors import BadSignature, ConfigurationError, EvidenceError
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.ledger.audit_study import check_profile, figures_of, read_terms
from privacy.ledger.checkpoint import Checkpoint, cosigners, open_checkpoint
from privacy.ledger.entry import (
    Acceptance,
    Count,
    Failure,
    Key,
    Ordinal,
    Origin,
    Proposal,
    Publication,
    Release,
    Sha256,
    Signature,
    Text,
    canonical,
    decode_entry,
    parse_canonical,
)
from privacy.ledger.merkle import leaf_hash, verify_inclusion
from privacy.ledger.software import code_hash, software
from privacy.ledger.store import LedgerStore
from privacy.terms import Name, Terms

__all__ = [
    "Agreed",
    "Epsilon",
    "Passport",
    "Proof",
    "Quality",
    "make_passport",
    "open_passport",
    "passport_words",
]

CONTEXT: Final = "alliance/v1/passport"
LONGEST: Final = 32 << 20
BILLIONTHS: Final = 1_000_000_000
MICRO: Final = 1_000_000

Profile = Annotated[tuple[Count, ...], Field(min_length=5, max_length=5)]


class Agreed(StrictModel):
    """A member that accepted the terms, in its own signature."""

    member: Name
    ledger_key: Key
    signature: Signature


class Epsilon(StrictModel):
    """epsilon(1) to epsilon(5), in millionths, rounded up.

    Args:
        attempts: that were made until the publication.
        spent_micro: what they cost.
        most_attempts: all that the terms allow.
        most_micro: what those would cost.
    """

    delta_billionths: Ordinal
    attempts: Count
    spent_micro: Profile
    most_attempts: Ordinal
    most_micro: Profile


class Proof(StrictModel):
    """The publication's entry in the coordinator's log, and the head that contains it."""

    index: Ordinal
    entry: Annotated[str, Field(max_length=1 << 20)]
    proof: tuple[Sha256, ...]
    note: Annotated[str, Field(max_length=4 << 20)]


class Quality(StrictModel):
    """A figure that was measured as a private sum, with an interval and its own cost."""

    name: Text
    value_millionths: int
    low_millionths: int
    high_millionths: int
    epsilon_micro: Count


class Passport(StrictModel):
    """The papers of one model file."""

    version: Literal[1] = 1
    kind: Literal["passport"] = "passport"
    alliance: Name
    study: Name
    recipe: Name
    terms: dict[str, JsonValue]
    terms_hash: Sha256
    software: Text
    code: Sha256
    origin: Origin
    key: Key
    members: tuple[Agreed, ...]
    rounds: Count
    epsilon: Epsilon
    model: Sha256
    parameters: Sha256
    publication: Proof
    quality: tuple[Quality, ...] = ()
    signature: Signature

    def unsigned(self) -> bytes:
        """What the signature covers."""
        return canonical(self.model_dump(mode="json", exclude={"signature"}))

    def agreed(self) -> Terms:
        """The terms.

        Raises:
            EvidenceError: if they do not have the hash.
        """
        return read_terms(self.terms, self.terms_hash)

    def head(self) -> Checkpoint:
        """The head in it.

        Raises:
            EvidenceError: if the coordinator's key did not sign it.
        """
        note = self.publication.note.encode()
        return open_checkpoint(note, origin=self.origin, key=IdentityKey(self.key))


def make_passport(
    store: LedgerStore, key: Identity, *, publication: int, quality: tuple[Quality, ...] = ()
) -> bytes:
    """The passport of what entry ``publication`` of the coordinator's log published.

    It reads the log from its beginning and works out the study's figures (seconds): call it when a
    study's last model is published, after its head was cosigned.

    Args:
        store: the coordinator's log.
        key: its ledger key.
        publication: index of the entry.
        quality: figures that were measured as private sums.

    Raises:
        ConfigurationError: if there is no such publication.
        LedgerError: if the log cannot be read.
    """
    note = store.newest_note()
    if note is None or store.check_head(note).size <= publication:
        note = store.note()  # nobody cosigned it yet, and the passport will not hold until then
    size = store.check_head(note).size
    entry = next(store.entries(publication, publication + 1), b"")
    said = decode_entry(entry, where=f"{store.path}: entry {publication}") if entry else None
    if not isinstance(said, Publication):
        raise ConfigurationError(f"{store.path}: entry {publication} publishes nothing")
    terms, members, attempts = _history(store, said.terms, publication)
    figures = figures_of(terms)
    passport = Passport(
        alliance=terms.alliance,
        study=terms.study,
        recipe=terms.recipe,
        terms=json.loads(terms.canonical()),
        terms_hash=terms.hash,
        software=software(),
        code=code_hash(),
        origin=store.origin,
        key=store.key,
        members=members,
        rounds=said.round,
        epsilon=Epsilon(
            delta_billionths=round(terms.privacy.delta * BILLIONTHS),
            attempts=attempts,
            spent_micro=figures.profile(attempts),
            most_attempts=terms.privacy.max_attempts,
            most_micro=figures.whole,
        ),
        model=said.file,
        parameters=said.model,
        publication=Proof(
            index=publication,
            entry=entry.decode(),
            proof=tuple(one.hex() for one in store.inclusion_proof(publication, size)),
            note=note.decode(),
        ),
        quality=quality,
        signature="0" * 128,
    )
    signature = key.sign(CONTEXT, passport.unsigned()).hex()
    return canonical(passport.model_copy(update={"signature": signature}).model_dump(mode="json"))


def _history(
    store: LedgerStore, terms_hash: str, stop: int
) -> tuple[Terms, tuple[Agreed, ...], int]:
    """What the log says of a study before an entry: terms, acceptances, attempts."""
    terms: Terms | None = None
    members: dict[str, Agreed] = {}
    attempts = 0
    for index, data in enumerate(store.entries(0, stop)):
        entry = decode_entry(data, where=f"{store.path}: entry {index}")
        match entry:
            case Proposal() if entry.hash == terms_hash:
                terms = read_terms(entry.terms, entry.hash)
            case Acceptance() if entry.terms == terms_hash:
                members[entry.member] = Agreed(
                    member=entry.member, ledger_key=entry.ledger_key, signature=entry.signature
                )
            case Release() | Failure() if entry.terms == terms_hash:
                attempts += 1
            case _:
                pass
    if terms is None:
        raise ConfigurationError(f"{store.path}: terms {terms_hash[:16]} were never proposed")
    return terms, tuple(members[name] for name in sorted(members)), attempts


def open_passport(data: bytes, *, model: str | None = None, key: str | None = None) -> Passport:
    """The passport in a file, verified alone.

    Args:
        data: the file.
        model: SHA-256 of the model file that it is to be of, if there is one.
        key: the coordinator's ledger key, if it is known from elsewhere.

    Raises:
        EvidenceError: by the numbers below.
    """
    # 1. It is canonical JSON with exactly these fields.
    # 2. The coordinator's key signed it; that key is the one known from elsewhere.
    # 3. Terms have the hash they are named by, and what it says of the study is what they say.
    # 4. Members are of the roster, each once, and their identities signed the acceptances.
    # 5. The publication's entry names this file, these parameters and these terms, and lies under
    #    a head that the coordinator signed.
    # 6. A quorum of the roster cosigned that head.
    # 7. The figures are those that the noise gives.
    # 8. The model file is the one it names.
    passport = _parse(data)  # 1
    if key is not None and passport.key != key:  # 2
        raise EvidenceError(f"it is signed by key {passport.key[:16]}, not by {key[:16]}")
    try:
        verifier = public_key(IdentityKey(passport.key))
        verify(verifier, bytes.fromhex(passport.signature), CONTEXT, passport.unsigned())
    except (BadSignature, ValueError) as error:
        raise EvidenceError("its signature is not that of the key it names") from error
    terms = passport.agreed()  # 3
    said = (passport.alliance, passport.study, passport.recipe, passport.origin)
    if said != (terms.alliance, terms.study, terms.recipe, f"{terms.alliance}/coordinator"):
        raise EvidenceError("what it says of the study is not what its terms say")
    keys = dict(_accepted(passport, terms))  # 4
    _check_publication(passport)  # 5
    signers = cosigners(passport.publication.note.encode(), keys)  # 6
    if len(signers) < terms.quorum:
        raise EvidenceError(
            f"{len(signers)} members cosigned the head that contains its publication, "
            f"{terms.quorum} are due"
        )
    _check_epsilon(passport.epsilon, terms)  # 7
    if model is not None and model != passport.model:  # 8
        raise EvidenceError("the model file is not the one that it names")
    return passport


def _parse(data: bytes) -> Passport:
    if len(data) > LONGEST:
        raise EvidenceError(f"{len(data)} bytes, at most {LONGEST} are accepted")
    document = parse_canonical(data, where="passport")
    if not isinstance(document, dict) or type(document.get("version")) is not int:
        raise EvidenceError("passport: version: must be an integer")
    try:
        passport = Passport.model_validate_json(data)
    except ValidationError as error:
        raise EvidenceError(f"passport: {first_problem(error)}") from error
    if canonical(passport.model_dump(mode="json")) != data:
        raise EvidenceError("passport: a field is missing")
    return passport


def _accepted(passport: Passport, terms: Terms) -> Iterator[tuple[str, IdentityKey]]:
    names = [one.member for one in passport.members]
    if names != sorted(set(names)):
        raise EvidenceError("its members are not in order, or one is named twice")
    for one in passport.members:
        try:
            verify_acceptance(
                terms,
                member=one.member,
                ledger_key=one.ledger_key,
                signature=bytes.fromhex(one.signature),
            )
        except BadSignature as error:
            raise EvidenceError(f"the acceptance of {one.member}: {error}") from error
        yield f"{terms.alliance}/member/{one.member}", IdentityKey(one.ledger_key)


def _check_publication(passport: Passport) -> None:
    proof = passport.publication
    head = passport.head()
    verify_inclusion(
        leaf=leaf_hash(proof.entry.encode()),
        index=proof.index,
        size=head.size,
        proof=[bytes.fromhex(one) for one in proof.proof],
        root=head.root,
    )
    entry = decode_entry(proof.entry.encode(), where="the publication")
    if not isinstance(entry, Publication):
        raise EvidenceError("the entry it shows publishes nothing")
    said = (passport.terms_hash, passport.rounds, passport.parameters, passport.model)
    if (entry.terms, entry.round, entry.model, entry.file) != said:
        raise EvidenceError("the entry it shows publishes another model")


def _check_epsilon(epsilon: Epsilon, terms: Terms) -> None:
    privacy = terms.privacy
    if (epsilon.delta_billionths, epsilon.most_attempts) != (
        round(privacy.delta * BILLIONTHS),
        privacy.max_attempts,
    ) or epsilon.attempts > privacy.max_attempts:
        raise EvidenceError("its delta or attempts are not those of its terms")
    figures = figures_of(terms)
    for recorded, attempts in (
        (epsilon.spent_micro, epsilon.attempts),
        (epsilon.most_micro, epsilon.most_attempts),
    ):
        if wrong := check_profile(recorded, figures.profile(attempts)):
            raise EvidenceError(f"after {attempts} attempts {wrong}")


def passport_words(passport: Passport, *, model: bool) -> list[str]:
    """A verified passport in plain words, a sentence a line.

    Args:
        passport: as `open_passport` gave it.
        model: whether the model file was compared as well.
    """
    terms = passport.agreed()
    epsilon = passport.epsilon
    spent = ", ".join(f"{one / MICRO:.4g}" for one in epsilon.spent_micro)
    most = ", ".join(f"{one / MICRO:.4g}" for one in epsilon.most_micro)
    head = passport.head()
    names = ", ".join(one.member for one in passport.members)
    recipe = (
        f"Recipe {passport.recipe}, {terms.dimension} parameters, after round {passport.rounds} "
        f"of {terms.privacy.rounds}; {passport.software}, code {passport.code[:16]}"
    )
    guarantee = (
        f"Guarantee for one consumer known to 1, 2, 3, 4, 5 members: epsilon {spent} at delta "
        f"{terms.privacy.delta:g}, for the {epsilon.attempts} attempts that the coordinator's log "
        f"holds before the publication; {most} if all {epsilon.most_attempts} are used"
    )
    published = (
        f"Published as entry {passport.publication.index} of {passport.origin}, under a head of "
        f"{head.size} entries that a quorum of {terms.quorum} members cosigned"
    )
    compared = "it is this one" if model else "give --model to compare a file with it"
    words = [
        f"Study {passport.study} of alliance {passport.alliance}: {terms.purpose}",
        recipe,
        f"Terms {passport.terms_hash}, accepted by {len(passport.members)} members: {names}",
        guarantee,
        published,
        f"Model file {passport.model}: {compared}",
    ]
    if not passport.quality:
        words.append("No quality was measured privately.")
    for one in passport.quality:
        value, low, high, cost = (
            f"{part / MICRO:.4g}"
            for part in (
                one.value_millionths, one.low_millionths, one.high_millionths, one.epsilon_micro
            )
        )  # fmt: skip
        words.append(
            f"{one.name}: {value}, between {low} and {high}; its evaluation cost epsilon {cost}"
        )
    words.append(
        f"Signed by the coordinator's ledger key {passport.key}; compare it with the one you know."
    )
    return words


def file_sha256(data: bytes) -> str:
    """The hash by which a passport names a model file."""
    return hashlib.sha256(data).hexdigest()
