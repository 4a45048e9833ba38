"""The terms of a study: what every member signs before any data is touched.

Terms are immutable; a change is a new document with a new hash. Everything that can change a
guarantee is in here, everything that only changes speed is not.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, NewType, Self

import rfc8785
from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from privacy.documents import StrictModel, check_shape, first_problem
from privacy.errors import TermsError

__all__ = [
    "LONGEST_PHASE_S",
    "PHASES",
    "PHASES_AHEAD",
    "SMALLEST_NUMBER",
    "Column",
    "DataContract",
    "IdentityText",
    "MemberName",
    "Name",
    "PhaseDeadlines",
    "PrivacyTerms",
    "RosterEntry",
    "Terms",
    "TermsHash",
    "one_digit",
]

MemberName = NewType("MemberName", str)
TermsHash = NewType("TermsHash", str)
"""SHA-256 of the canonical terms under the context ``alliance/v1/terms``, lower-case hex."""

BILLIONTHS = 1_000_000_000
"""Canonical terms hold integers only; a real number stands in units of 1e-9."""

LARGEST_INTEGER = 2**53 - 1
"""Beyond it JSON numbers are not the same everywhere; then they stand as text."""
LARGEST_NUMBER = 1e15
SMALLEST_NUMBER: Final = 1 / BILLIONTHS
"""Of what divides: the canonical form holds nothing smaller."""

LONGEST_PHASE_S: Final = 86_400.0
PHASES_AHEAD: Final = ("advertise", "share", "deliver", "reserve", "witness", "grant")
"""Phases that prepare coming attempts, while the present one is worked on."""
PHASES: Final = ("propose", *PHASES_AHEAD, "contribute", "confirm", "unmask", "publish")
"""Everything that a coordinator asks of a member."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
IdentityText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
_Many = Field(max_length=10_000)
Setting = (
    bool | int | float | str | Annotated[tuple[int, ...], _Many] | Annotated[tuple[str, ...], _Many]
)
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=500)]


def one_digit(count: int) -> int:
    """A count rounded to one digit, as rosters declare it (rule R11).

    >>> [one_digit(count) for count in (7, 55, 149, 1010)]
    [7, 60, 100, 1000]
    """
    unit: int = 10 ** (len(str(count)) - 1)
    return (2 * count + unit) // (2 * unit) * unit


def _plain(settings: Any) -> Any:
    """Settings whose lists hold neither lists nor objects: six kinds would be tried on each."""
    if not isinstance(settings, Mapping):
        return settings
    for name, value in settings.items():
        if isinstance(value, list | tuple) and not all(isinstance(one, int | str) for one in value):
            raise ValueError(f"{name} is a list of neither integers nor texts")
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }


class Column(StrictModel):
    """One input column, with the range that was declared for it (never taken from data).

    A ``number`` lies in [low, high] and is scaled to [0, 1] by that range, after ``log1p`` of the
    distance from ``low`` where ``scale`` is ``log``. A ``category`` is one of ``values``, or, where
    no vocabulary is agreed, any text, told apart by one of ``buckets`` that a public hash gives.

    A number with ``edges`` is *binned*: models read it as a category. Its code is how many edges
    are at most the value, so bin i is [edges[i - 1], edges[i]). Edges are public: cut points that
    everybody knows, or the release of a study of statistics, which was charged for (rule R5).
    """

    name: ColumnName
    kind: Literal["number", "category"]
    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    edges: tuple[float, ...] = Field(default=(), max_length=1000)
    """Left out of the document where there are none, so that older terms keep their hashes."""
    values: tuple[str, ...] = Field(default=(), max_length=100_000)
    buckets: int = Field(default=0, ge=0, le=1_000_000)
    """Left out of the document where there are none, so that older terms keep their hashes."""
    meaning: str = Field(default="", max_length=500)

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if not self.edges:
            document.pop("edges", None)
        if not self.buckets:
            document.pop("buckets", None)
        return document

    @property
    def binned(self) -> bool:
        """Whether it is a number that models read as a category."""
        return bool(self.edges)

    @property
    def codes(self) -> int:
        """How many categories models see in it; 0 for a plain number."""
        return len(self.edges) + 1 if self.edges else self.buckets or len(self.values)

    def bucket(self, value: str) -> int:
        """The bucket of a text: the same at every member.

        SHA-256 of ``alliance/v1/bucket``, a zero byte and the text in UTF-8, as a big-endian
        integer, modulo ``buckets``.
        """
        digest = hashlib.sha256(b"alliance/v1/bucket\x00" + value.encode()).digest()
        return int.from_bytes(digest, "big") % self.buckets

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "number":
            if self.low is None or self.high is None or not self.low < self.high or self.values:
                raise ValueError(f"number column {self.name} needs low < high and no values")
            if self.buckets:
                raise ValueError(f"number column {self.name} takes no buckets")
        elif self.buckets:
            if self.buckets < 2 or self.values:
                raise ValueError(
                    f"category column {self.name} needs two or more buckets and then no values"
                )
        elif len(set(self.values)) != len(self.values) or len(self.values) < 2:
            raise ValueError(f"category column {self.name} needs two or more distinct values")
        range_ = (self.low, self.high, self.scale, self.edges)
        if self.kind == "category" and range_ != (None, None, "linear", ()):
            raise ValueError(f"category column {self.name} takes no range, no scale and no edges")
        if self.low is not None and self.high is not None and self.edges:
            # An edge at low itself would leave an empty bin below it.
            rising = all(below < above for below, above in pairwise((self.low, *self.edges)))
            if not rising or self.edges[-1] > self.high:
                raise ValueError(
                    f"number column {self.name} needs edges that increase, above low, up to high"
                )
        return self


class DataContract(StrictModel):
    """The table every member brings: typed columns, a consumer id and a 0/1 label."""

    name: Name
    version: int = Field(ge=1)
    consumer_id: ColumnName
    label: ColumnName
    columns: tuple[Column, ...] = Field(min_length=1, max_length=10_000)
    rows_per_consumer: int = Field(ge=1, le=1000)
    """At most this many rows of one consumer are used; public, so that time does not tell."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [self.consumer_id, self.label, *(column.name for column in self.columns)]
        if len(set(names)) != len(names):
            raise ValueError("column names must be distinct")
        return self

    @property
    def numbers(self) -> tuple[Column, ...]:
        """What models read as numbers: the numeric columns without bins, in contract order."""
        return tuple(column for column in self.columns if not column.codes)

    @property
    def categories(self) -> tuple[Column, ...]:
        """What models read as categories, binned numbers too, in contract order."""
        return tuple(column for column in self.columns if column.codes)


class RosterEntry(StrictModel):
    """A member as the terms name it."""

    name: Name
    identity: IdentityText
    """The Ed25519 public key that this member's messages are signed with, in hexadecimal."""
    declared_consumers: int = Field(ge=1)
    """Rounded to one digit, signed here once, never recomputed from data (rule R11)."""

    @field_validator("declared_consumers")
    @classmethod
    def _one_digit(cls, value: int) -> int:
        if value != one_digit(value):
            raise ValueError(f"must be rounded to one digit: {one_digit(value)}")
        return value


class PrivacyTerms(StrictModel):
    """Parameters of the private sum. All privacy units are consumers, add/remove adjacency."""

    clipping_norm: float = Field(ge=SMALLEST_NUMBER, le=1e6)
    """C: L2 bound on one consumer's vector."""
    noise_multiplier: float = Field(ge=SMALLEST_NUMBER, le=1e6)
    """sigma: standard deviation of the honest survivors' noise, divided by C."""
    sampling_probability: float = Field(ge=SMALLEST_NUMBER, le=1)
    """q: Poisson sampling of consumers, drawn secretly by each member."""
    rounds: int = Field(ge=1, le=1_000_000)
    max_attempts: int = Field(ge=1, le=2_000_000)
    """Private sums this study may open in all; the projection assumes that every one is used."""
    delta: float = Field(gt=0, lt=0.01)
    cohort_size: int = Field(ge=3, le=100_000)
    """N: members in every round."""
    colluders: int = Field(ge=1)
    """c: members of the roster that may collude with the coordinator; absolute, at least 1."""
    dropouts: int = Field(ge=0)
    """D: members of a cohort that may be missing from its sum."""
    ring_bits: Literal[32, 64] = 32

    @model_validator(mode="after")
    def _rule_r1(self) -> Self:
        if self.max_attempts < self.rounds:
            raise ValueError("max_attempts must be at least rounds")
        if not self.colluders + 2 * self.dropouts < self.cohort_size:
            raise ValueError("rule R1: colluders + 2 dropouts must be less than the cohort size")
        if self.honest_survivors < 2:
            raise ValueError("rule R1: cohort size - colluders - dropouts must be at least 2")
        return self

    @property
    def honest_survivors(self) -> int:
        """H = N - c - D: the members whose noise is sure to be in every release."""
        return self.cohort_size - self.colluders - self.dropouts

    @property
    def least_survivors(self) -> int:
        """N - D: below this many contributions nothing is released (rule R2)."""
        return self.cohort_size - self.dropouts

    @property
    def threshold(self) -> int:
        """t: the least integer above (N + c) / 2 (rule R1).

        So many signatures make a survivor list the only one, and so many members unmask.
        """
        return (self.cohort_size + self.colluders) // 2 + 1

    @property
    def member_noise_multiplier(self) -> float:
        """sigma / sqrt(H): the noise in one member's message, in units of C (rule R13)."""
        return self.noise_multiplier / math.sqrt(self.honest_survivors)


class PhaseDeadlines(StrictModel):
    """How long the phases of a study may take, in seconds: for both sides, and known before.

    None of it changes a guarantee: however long anybody waits, N - D contributions and t signatures
    are needed. It decides who is in a round, so it depends on nothing but these numbers and clocks.
    """

    propose_s: float = Field(default=120.0, gt=0, le=LONGEST_PHASE_S)
    keys_s: float = Field(default=30.0, gt=0, le=LONGEST_PHASE_S)
    """For each phase ahead of time: advertise, share, deliver; reserve, witness, grant."""
    contribute_s: float = Field(default=30.0, gt=0, le=LONGEST_PHASE_S)
    unmask_s: float = Field(default=30.0, gt=0, le=LONGEST_PHASE_S)
    """For confirm, and for unmask."""
    publish_s: float = Field(default=30.0, gt=0, le=LONGEST_PHASE_S)
    grace_s: float = Field(default=1.0, ge=0, le=LONGEST_PHASE_S)
    """For the others once N - D have contributed, or t have confirmed or unmasked; they have as
    long again as those took if that is more. And for a member whose stream broke."""
    keys_grace_s: float = Field(default=10.0, ge=0, le=LONGEST_PHASE_S)
    """For the others once N - D have answered a phase ahead of time."""

    def of(self, phase: str) -> float:
        """The deadline of a phase, from the moment it begins, in seconds.

        Raises:
            TermsError: if there is no such phase.
        """
        for deadline_s, phases in (
            (self.propose_s, ("propose",)),
            (self.keys_s, PHASES_AHEAD),
            (self.contribute_s, ("contribute",)),
            (self.unmask_s, ("confirm", "unmask")),
            (self.publish_s, ("publish",)),
        ):
            if phase in phases:
                return deadline_s
        raise TermsError(f"no study has a phase {phase!r:.80}")


class Terms(StrictModel):
    """One study, complete: purpose, recipe, data contract, privacy, roster and deadlines."""

    version: Literal[1] = 1
    alliance: Name
    study: Name
    purpose: Sentence
    recipe: Name
    settings: Annotated[dict[ColumnName, Setting], BeforeValidator(_plain)] = Field(max_length=64)
    """The recipe's own settings; the recipe validates them."""
    dimension: int = Field(ge=1, le=100_000_000)
    """Length of the summed vector; caps on the wire and the accounting both depend on it."""
    contract: DataContract
    privacy: PrivacyTerms
    roster: tuple[RosterEntry, ...] = Field(min_length=3, max_length=100_000)
    deadlines: PhaseDeadlines = PhaseDeadlines()
    """Left out of the document where they are the defaults, as in terms from before there were any:
    so neither those terms' hashes nor, within version 1, the defaults ever change."""

    @model_serializer(mode="wrap")
    def _without_default_deadlines(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if self.deadlines == PhaseDeadlines():
            document.pop("deadlines", None)
        return document

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(key.endswith("_billionths") for key in self.settings):
            raise ValueError("settings may not end in _billionths: the canonical form does")
        if len({entry.name for entry in self.roster}) != len(self.roster):
            raise ValueError("roster names must be distinct")
        if len({entry.identity for entry in self.roster}) != len(self.roster):
            raise ValueError("roster identities must be distinct")
        if len(self.roster) < self.privacy.cohort_size:
            raise ValueError("the roster is smaller than the cohort")
        return self

    @classmethod
    def from_json(cls, document: str | bytes) -> Terms:
        """Parses and validates terms.

        Raises:
            TermsError: naming the first field that is wrong.
        """
        try:
            check_shape(document)
            terms = cls.model_validate_json(document)
        except ValidationError as error:
            raise TermsError(f"terms: {first_problem(error)}{_if_newer(error)}") from error
        except ValueError as error:
            raise TermsError(f"terms: {error}") from error
        terms.hash  # noqa: B018  (raises here, not later, if there is no canonical form)
        return terms

    @classmethod
    def from_canonical(cls, document: Mapping[str, Any]) -> Terms:
        """Terms from the object behind `canonical`.

        Raises:
            TermsError: if it is not the canonical form of valid terms.
        """
        try:
            check_shape(document)
            terms = cls.model_validate(_with_reals(document), strict=False)
            is_canonical = terms.canonical() == rfc8785.dumps(dict(document))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            problem = str(error)
            if isinstance(error, ValidationError):
                problem = first_problem(error) + _if_newer(error)
            raise TermsError(f"terms: {problem}") from error
        if not is_canonical:
            raise TermsError("terms: are not in canonical form")
        return terms

    def canonical(self) -> bytes:
        """RFC 8785 JSON with integers only: a float ``x`` becomes ``x_billionths``."""
        try:
            canonical: bytes = rfc8785.dumps(_integers_only(self.model_dump(mode="json")))
        except rfc8785.CanonicalizationError as error:
            raise TermsError(f"terms: {error}; use smaller numbers") from error
        return canonical

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, validated again, which also forgets the cached hash."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(values | dict(update or {})))

    @functools.cached_property
    def hash(self) -> TermsHash:
        """What every later message and signature is bound to."""
        return TermsHash(hashlib.sha256(b"alliance/v1/terms\x00" + self.canonical()).hexdigest())

    @property
    def label(self) -> str:
        """What tasks call the study: its name and the beginning of the terms' hash."""
        return f"{self.study}@{self.hash[:16]}"

    @property
    def quorum(self) -> int:
        """Members that must cosign a ledger's head: any two quorums share more than c members.

        Over the roster, since cohorts of one study differ. A log's owner counts as one of them: who
        lets its own log go back is one of the c.
        """
        return (len(self.roster) + self.privacy.colluders) // 2 + 1

    def entry(self, member: str) -> RosterEntry:
        """The roster entry of ``member``.

        Raises:
            TermsError: if the member is not in the roster.
        """
        for entry in self.roster:
            if entry.name == member:
                return entry
        raise TermsError(
            f"member {member}: not in the roster of study {self.study}; "
            f"the roster names {', '.join(entry.name for entry in self.roster[:10])}"
        )


def _if_newer(error: ValidationError) -> str:
    """What else may be wrong where a document has what this version does not know."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    unknown = problem["type"] == "extra_forbidden" or problem["loc"] == ("version",)
    return "; update this software if the terms were made by a newer one" if unknown else ""


def _with_reals(value: Any) -> Any:
    """The inverse of `_integers_only`."""
    if isinstance(value, Mapping):
        return {
            key.removesuffix("_billionths"): _reals(item)
            if key.endswith("_billionths")
            else _with_reals(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_with_reals(item) for item in value]
    return value


def _reals(billionths: Any) -> Any:
    """One real number, or a list of them."""
    if isinstance(billionths, list):
        return [int(item) / BILLIONTHS for item in billionths]
    return int(billionths) / BILLIONTHS


def _are_reals(value: Any) -> bool:
    """Whether this is a real number, or a list of nothing else."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _integers_only(value: Any) -> Any:
    """The same document with every float in billionths, its key marked."""
    if isinstance(value, dict):
        return {
            f"{key}_billionths" if _are_reals(item) else key: _integers_only(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_integers_only(item) for item in value]
    if isinstance(value, float):
        if abs(value) > LARGEST_NUMBER:
            raise TermsError(f"terms: {value!r} is too large; use another unit")
        scaled = round(value * BILLIONTHS)
        if scaled / BILLIONTHS != value:
            raise TermsError(f"terms: {value!r} has more than nine decimals; round it")
        return scaled if abs(scaled) <= LARGEST_INTEGER else str(scaled)
    return value
