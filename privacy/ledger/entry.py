"""What ledgers record: canonical JSON objects, integers only, one model per kind.

A coordinator's log records what happened in public, a member's log what it allowed and spent. The
bytes of an entry are RFC 8785 JSON; nothing else is accepted, so that equal entries have equal
hashes and nobody can hide a second reading. Real numbers stand in the unit their name ends with,
rounded against whoever spends: costs up, limits down.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, StringConstraints, TypeAdapter, ValidationError

from privacy.documents import SMALL_BYTES, WIDEST, StrictModel, check_shape, first_problem
from privacy.errors import EvidenceError
from privacy.terms import LARGEST_INTEGER, Name

__all__ = [
    "Acceptance",
    "AnyEntry",
    "Conflict",
    "Consent",
    "Contributed",
    "Contribution",
    "Cost",
    "Entry",
    "Failure",
    "Finished",
    "Head",
    "Heads",
    "Left",
    "Opened",
    "Proposal",
    "Publication",
    "Refusal",
    "Release",
    "Renewal",
    "Reservation",
    "Rule",
    "Started",
    "canonical",
    "decode_entry",
    "encode_entry",
    "parse_canonical",
]

LONGEST_ENTRY: Final = 8 << 20
"""Bytes; terms with a large roster are the longest."""

Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Ordinal = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Key = Sha256
"""An Ed25519 public key in hexadecimal."""
Text = Annotated[str, StringConstraints(max_length=500)]
Origin = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9/-]{0,190}$")]


class Entry(StrictModel):
    """What all entries have.

    Args:
        at_ms: when, by the writer's clock: milliseconds since 1970. Claims nothing.
    """

    version: Literal[1] = 1
    at_ms: Count


class Opened(Entry):
    """The first entry of every log: whose it is and which key signs its checkpoints."""

    kind: Literal["opened"] = "opened"
    origin: Origin
    key: Key
    software: Text


# The coordinator's log.


class Proposal(Entry):
    """Terms were proposed; they name everybody and fix every guarantee.

    Args:
        terms: canonical terms as an object (`Terms.canonical`).
        hash: their hash.
    """

    kind: Literal["proposal"] = "proposal"
    terms: dict[str, JsonValue]
    hash: Sha256


class Acceptance(Entry):
    """A member accepted terms, in its own signature (`privacy.acceptance`)."""

    kind: Literal["acceptance"] = "acceptance"
    terms: Sha256
    member: Name
    ledger_key: Key
    signature: Signature


class Contributed(StrictModel):
    """One member's masked contribution, as it arrived."""

    member: Name
    sha256: Sha256
    signature: Signature


class Release(Entry):
    """An attempt was unmasked. Written before anybody is sent what follows from it.

    Args:
        cohort: hash of the key set's cohort (`privacy.secagg`).
        model: `model_hash` of the public state that contributions were computed on.
        contributions: in roster order; they alone are in the sum.
        sum: SHA-256 of the unmasked ring sum, little-endian.
        next_model: `model_hash` of the public state after the fold.
    """

    kind: Literal["release"] = "release"
    terms: Sha256
    round: Ordinal
    attempt: Ordinal
    key_set: Ordinal
    cohort: Sha256
    members: tuple[Name, ...]
    model: Sha256
    contributions: tuple[Contributed, ...]
    sum: Sha256
    next_model: Sha256


class Failure(Entry):
    """An attempt released nothing; it is spent all the same."""

    kind: Literal["failure"] = "failure"
    terms: Sha256
    round: Ordinal
    attempt: Ordinal
    key_set: Ordinal
    cohort: Sha256
    members: tuple[Name, ...]
    model: Sha256
    contributions: tuple[Contributed, ...]
    sentence: Text


class Publication(Entry):
    """A model left the coordinator; written, and the newest head cosigned, before it did.

    Args:
        round: of the last release in it.
        model: `model_hash` of the published parameters.
        file: SHA-256 of the model file's bytes.
        last: whether the study ended with it.
    """

    kind: Literal["publication"] = "publication"
    terms: Sha256
    round: Ordinal
    model: Sha256
    file: Sha256
    last: bool


class Head(StrictModel):
    """The head of a member's ledger that a quorum cosigned."""

    member: Name
    size: Count
    root: Sha256


class Heads(Entry):
    """Members' heads that cover their reservations; a quorum cosigned each of them."""

    kind: Literal["heads"] = "heads"
    terms: Sha256
    heads: tuple[Head, ...]


# A member's log.


class Started(Entry):
    """A process took over this log, after it was compared with the newest head others hold.

    Args:
        nonce: 16 random bytes; no head that covers this entry existed before.
    """

    kind: Literal["started"] = "started"
    software: Text
    nonce: Nonce


class Rule(Entry):
    """The member's own budget rule, per consumer and over all studies; the newest one holds.

    Args:
        epsilon_micro: limit on epsilon at ``delta_billionths``.
        orders_thousandths: Rényi orders, all of which must hold.
        renewal_days: 0 for a budget that never renews; else a period's length.
        renewal_column: the date column by which a period takes only rows newer than its start.
    """

    kind: Literal["rule"] = "rule"
    epsilon_micro: Ordinal
    delta_billionths: Ordinal
    orders_thousandths: Annotated[tuple[Ordinal, ...], Field(min_length=1, max_length=16)]
    renewal_days: Count
    renewal_column: Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62})?$")]


class Renewal(Entry):
    """A new period of the budget; rows up to ``from_ms`` are not used again.

    Args:
        period: from 1, in order; the first one needs no entry.
        from_ms: the period's start by the member's clock.
    """

    kind: Literal["renewal"] = "renewal"
    period: Annotated[int, Field(ge=2, le=LARGEST_INTEGER)]
    from_ms: Count


class Cost(StrictModel):
    """What one attempt costs at one Rényi order, for a consumer of ``members`` members."""

    order_thousandths: Ordinal
    members: Ordinal
    rdp_nano: Count


class Consent(Entry):
    """This member accepted terms: the whole study is earmarked.

    Args:
        terms: canonical terms as an object.
        attempts: all that the terms allow.
        profile_micro: epsilon(1) to epsilon(5) of the whole study, by PLD.
        costs: of one attempt, for every order of the rule and for m = 1 and m = min(5, N).
        failure_atto: probability of a shared failure of one attempt (added to delta), in 1e-18.
        signature: as in `Acceptance`.
    """

    kind: Literal["consent"] = "consent"
    terms: dict[str, JsonValue]
    hash: Sha256
    attempts: Ordinal
    profile_micro: tuple[Count, ...]
    costs: tuple[Cost, ...]
    failure_atto: Count
    signature: Signature


class Reservation(Entry):
    """Attempts are spent, before a byte of theirs leaves; never given back.

    Args:
        first: attempts of a study are counted from 1, in the order they are reserved.
        nonce: 16 random bytes; no head that covers this entry existed before.
    """

    kind: Literal["reservation"] = "reservation"
    terms: Sha256
    first: Ordinal
    count: Ordinal
    nonce: Nonce


class Contribution(Entry):
    """A contribution is about to leave: exactly these bytes, under one reserved attempt.

    Args:
        number: the reserved attempt that it uses.
        sha256: of the masked vector.
        signature: the member's own over it, as the coordinator gets it.
    """

    kind: Literal["contribution"] = "contribution"
    terms: Sha256
    round: Ordinal
    attempt: Ordinal
    number: Ordinal
    key_set: Ordinal
    sha256: Sha256
    signature: Signature


class Refusal(Entry):
    """The member declined, in the words it sent."""

    kind: Literal["refusal"] = "refusal"
    terms: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
    task: Text
    sentence: Text


class Finished(Entry):
    """A study is over here: what was earmarked and never reserved is free again."""

    kind: Literal["finished"] = "finished"
    terms: Sha256
    sentence: Text


class Left(Entry):
    """This member left the alliance: all that was earmarked is free, and nothing is spent again.

    Args:
        sentence: why, in the member's own words.
    """

    kind: Literal["left"] = "left"
    sentence: Text


class Conflict(Entry):
    """Evidence against another log: two of its signed heads that cannot both be true.

    Args:
        held: the checkpoint this witness cosigned.
        shown: the one it was shown later.
    """

    kind: Literal["conflict"] = "conflict"
    origin: Origin
    held: Annotated[str, StringConstraints(max_length=4096)]
    shown: Annotated[str, StringConstraints(max_length=4096)]


AnyEntry = Annotated[
    Opened | Proposal | Acceptance | Release | Failure | Publication | Heads
    | Started | Rule | Renewal | Consent | Reservation | Contribution | Refusal | Finished
    | Left | Conflict,
    Field(discriminator="kind"),
]  # fmt: skip

_ENTRY: Final[TypeAdapter[AnyEntry]] = TypeAdapter(AnyEntry)


def canonical(document: Any) -> bytes:
    """RFC 8785 bytes of a document of objects, arrays, strings, booleans and integers.

    For these, and ASCII keys, Python's own encoder and RFC 8785 agree; a test compares them.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def parse_canonical(
    data: bytes, *, where: str, longest: int = LONGEST_ENTRY, widest: int | None = WIDEST
) -> Any:
    """The document behind canonical bytes.

    Args:
        data: the document.
        where: which one, for the error.
        longest: bytes it may have.
        widest: fields of one of its objects; None if it holds lists of lists.

    Raises:
        EvidenceError: if they are not JSON, or not the canonical form of what they say: duplicate
            or unsorted keys, spaces, floats, integers beyond 2^53 - 1, other escapes.
    """
    if len(data) > longest:
        raise EvidenceError(f"{where}: {len(data)} bytes, at most {longest} are accepted")
    try:
        if widest is not None and len(data) > SMALL_BYTES:
            check_shape(data, widest=widest)
        document = json.loads(data, parse_float=_no_float, parse_constant=_no_float)
        same = canonical(document) == data
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{where}: is not canonical JSON ({error})"[:300]) from error
    if not same:
        raise EvidenceError(f"{where}: is not in canonical form (RFC 8785)")
    return document


def encode_entry(entry: Entry) -> bytes:
    """The bytes that are hashed into the log."""
    return canonical(entry.model_dump(mode="json"))


def decode_entry(data: bytes, *, where: str) -> AnyEntry:
    """The entry behind its bytes.

    Args:
        data: one entry.
        where: which one, for the error.

    Raises:
        EvidenceError: naming ``where``: not canonical, unknown kind or version, a wrong field.
    """
    document = parse_canonical(data, where=where)
    fields = document if isinstance(document, dict) else {}
    if fields and type(fields.get("version")) is not int:
        # The model alone would take `true` for 1, and the default where there is none.
        raise EvidenceError(f"{where}: version: must be an integer")
    try:
        return _ENTRY.validate_json(data)
    except ValidationError as error:
        kind = fields.get("kind")
        raise EvidenceError(f"{where}: kind {kind!r:.40}: {first_problem(error)}") from error


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:30]} is not an integer")
