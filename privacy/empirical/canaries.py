"""Canaries: pseudo-consumers that an auditor enrols at a member to see what a study tells of them.

For every canary the auditor tosses a fair coin, independently of all data, and gives the member
the seeds of those that came up heads. A canary's vector is one direction of +1 and -1 signs from
its seed, of norm ``scale`` C. Coins and all seeds follow from one secret key, to which the
enrolment commits; the auditor keeps it until the last release and may open it afterwards.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, ValidationError, model_validator

from privacy.documents import StrictModel, first_problem
from privacy.errors import BadSignature, ConfigurationError, EvidenceError, TermsError
from privacy.identity import Identity, IdentityKey, public_key, verify
from privacy.keystream import KEY_BYTES, KeyStream
from privacy.ledger.entry import canonical, parse_canonical
from privacy.sampling import enrolment_cap
from privacy.terms import IdentityText, Name, Terms

__all__ = [
    "CONTEXT",
    "DIMENSIONS_PER_CANARY",
    "CanaryEnrolment",
    "CanarySecret",
    "check_dimension",
    "enrol_canaries",
    "open_enrolment",
    "open_secret",
    "signs",
]

CONTEXT: Final = "alliance/v1/canaries"
SEED_CONTEXT: Final = b"alliance/v1/cny"
COIN_CONTEXT: Final = b"alliance/v1/coin"
"""BLAKE2b personalisations, at most 16 bytes."""

DIMENSIONS_PER_CANARY: Final = 10
"""Fewer, and the canaries of a round drown one another: the variance that n of them add to
another's score is n C^2 / d."""

MOST_CANARIES: Final = 1_000_000

Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Signs = npt.NDArray[np.float32]


class _Agreed(StrictModel):
    """What auditor and member both know."""

    version: Literal[1] = 1
    terms: Hex32
    """Hash of the terms; the canaries take part in this study only."""
    member: Name
    count: int = Field(ge=1, le=MOST_CANARIES)
    """Canaries whose coin was tossed, taking part or not."""
    scale_thousandths: int = Field(ge=1, le=1_000_000)
    """Norm of a canary's vector in thousandths of C, before the member clips it to C."""

    @property
    def scale(self) -> float:
        """Norm of a canary's vector in units of C, before clipping."""
        return self.scale_thousandths / 1000


class CanarySecret(_Agreed):
    """The auditor's file. Whoever has it before the last release makes the audit worthless.

    Args:
        key: decides coins and seeds.
    """

    key: Hex32 = Field(repr=False)

    @property
    def commitment(self) -> str:
        """What the enrolment shows of the key: a hash that binds, and hides a random key."""
        document = CONTEXT.encode() + b"\x00" + canonical(self.model_dump(mode="json"))
        return hashlib.sha256(document).hexdigest()

    @property
    def included(self) -> npt.NDArray[np.bool_]:
        """The coins: which canaries the member got; shape (count,)."""
        key = self._derived(COIN_CONTEXT, b"")
        included: npt.NDArray[np.bool_] = (KeyStream(key).uint32(self.count) & 1).astype(bool)
        return included

    def seeds(self, start: int, stop: int) -> list[bytes]:
        """Seeds of canaries ``start`` up to ``stop``."""
        return [self._derived(SEED_CONTEXT, at.to_bytes(8, "big")) for at in range(start, stop)]

    def _derived(self, context: bytes, data: bytes) -> bytes:
        return hashlib.blake2b(
            data,
            key=bytes.fromhex(self.key),
            digest_size=KEY_BYTES,
            person=context.ljust(16, b"\x00"),
        ).digest()


class CanaryEnrolment(_Agreed):
    """The member's file: the canaries that take part, in the auditor's signature.

    Args:
        auditor: the Ed25519 key that signed; the member's policy must name it.
        commitment: to the auditor's secret.
        seeds: of the canaries that take part.
        signature: over all other fields, in canonical JSON.
    """

    auditor: IdentityText
    commitment: Hex32
    seeds: tuple[Hex32, ...] = Field(repr=False, max_length=MOST_CANARIES)
    signature: Hex64

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.seeds) > self.count:
            raise ValueError("more seeds than canaries")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed comes twice")
        return self

    def document(self) -> bytes:
        """The file's bytes: canonical JSON."""
        return canonical(self.model_dump(mode="json"))

    def statement(self) -> bytes:
        """What the auditor signs under ``CONTEXT``."""
        return canonical(self.model_dump(mode="json", exclude={"signature"}))


def check_dimension(terms: Terms, count: int) -> None:
    """Refuses more canaries than the dimension can tell apart.

    Args:
        terms: of the study.
        count: canaries at all members together; a round samples at most about q of them.

    Raises:
        ConfigurationError: saying how many would do.
    """
    q = terms.privacy.sampling_probability
    if terms.dimension < DIMENSIONS_PER_CANARY * q * count:
        most = int(terms.dimension / (DIMENSIONS_PER_CANARY * q))
        raise ConfigurationError(
            f"study {terms.study}: {count} canaries at sampling probability {q:g} need a dimension "
            f"of {DIMENSIONS_PER_CANARY * q * count:g}, it has {terms.dimension}; enrol at most "
            f"{most} canaries in all, or audit a study with more parameters"
        )


def enrol_canaries(
    terms: Terms, *, member: str, count: int, scale: float, auditor: Identity, key: bytes
) -> tuple[CanarySecret, CanaryEnrolment]:
    """The auditor's secret and the member's file.

    Guarantees:
        The coins are fair and independent of each other and of all data if ``key`` is 32 fresh
        random bytes; the bounds' confidence rests on that alone. The member learns which
        canaries take part, nobody else learns it from the study but through its releases.

    Args:
        terms: of the study.
        member: a name in its roster.
        count: canaries to toss coins for.
        scale: norm of their vectors in units of C; above 1 it shows whether the member clips.
        auditor: signs the enrolment.
        key: the secret.

    Raises:
        ConfigurationError: if the member cannot hold so many, or the dimension is too small.
        TermsError: if the roster does not name the member.
    """
    check_dimension(terms, count)
    most = enrolment_cap(terms.entry(member).declared_consumers)
    if count > most:
        raise ConfigurationError(
            f"member {member}: {count} canaries, but its declared count leaves room for {most} "
            "consumers and canaries together; enrol fewer, or some at other members"
        )
    try:
        secret = CanarySecret(
            terms=terms.hash,
            member=member,
            count=count,
            scale_thousandths=round(scale * 1000),
            key=key.hex(),
        )
        seeds = secret.seeds(0, count)
        unsigned = CanaryEnrolment(
            **secret.model_dump(exclude={"key"}),
            auditor=auditor.public,
            commitment=secret.commitment,
            seeds=tuple(seeds[at].hex() for at in np.flatnonzero(secret.included)),
            signature="0" * 128,
        )
    except ValidationError as error:
        raise ConfigurationError(f"canaries: {first_problem(error)}") from error
    signature = auditor.sign(CONTEXT, unsigned.statement()).hex()
    return secret, unsigned.model_copy(update={"signature": signature})


def open_enrolment(data: bytes, *, where: str) -> CanaryEnrolment:
    """The enrolment behind its bytes, its signature checked.

    Whether its auditor is one to trust is for the member's policy to say.

    Raises:
        EvidenceError: naming ``where``: not canonical, a wrong field, a wrong signature.
    """
    parse_canonical(data, where=where)
    try:
        enrolment = CanaryEnrolment.model_validate_json(data)
        key = public_key(IdentityKey(enrolment.auditor))
        verify(key, bytes.fromhex(enrolment.signature), CONTEXT, enrolment.statement())
    except ValidationError as error:
        raise EvidenceError(f"{where}: {first_problem(error)}") from error
    except (BadSignature, ValueError) as error:
        raise EvidenceError(f"{where}: its auditor did not sign it; ask for it again") from error
    return enrolment


def open_secret(data: bytes, terms: Terms, *, where: str) -> CanarySecret:
    """The auditor's secret behind its bytes, for the study of ``terms``.

    Raises:
        EvidenceError: if it is not one, or is for another study or a stranger to its roster.
    """
    parse_canonical(data, where=where)
    try:
        secret = CanarySecret.model_validate_json(data)
        terms.entry(secret.member)
    except ValidationError as error:
        raise EvidenceError(f"{where}: {first_problem(error)}") from error
    except TermsError as error:
        raise EvidenceError(f"{where}: {error}") from error
    if not hmac.compare_digest(secret.terms, terms.hash):
        raise EvidenceError(f"{where}: is for terms {secret.terms[:16]}, not {terms.hash[:16]}")
    return secret


def signs(seeds: Sequence[bytes], dimension: int) -> Signs:
    """Directions of canaries: +1 or -1, float32, shape (len(seeds), dimension).

    A canary's vector is its row times scale C / sqrt(dimension), so that every norm is exactly
    scale C. Rows of different seeds are independent; the cosine of two has variance 1 / dimension.

    Args:
        seeds: 32 bytes each, keys of one AES-256-CTR stream each.
        dimension: of the study.
    """
    packed = np.empty((len(seeds), -(-dimension // 8)), dtype=np.uint8)
    for row, seed in zip(packed, seeds, strict=True):
        KeyStream(seed).fill(row)
    result = np.unpackbits(packed, axis=1, count=dimension).astype(np.float32)
    result *= 2
    result -= 1
    return result
