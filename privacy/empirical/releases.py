"""The folder of releases that an auditor measures; its format is section 2 of the README."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, StringConstraints, ValidationError

from privacy.documents import StrictModel, first_problem
from privacy.errors import EvidenceError
from privacy.fixedpoint import Grid, decode
from privacy.ledger.entry import canonical, parse_canonical
from privacy.terms import Name, Terms

__all__ = ["INDEX", "ReleaseLine", "Released", "open_releases", "release_line", "release_name"]

INDEX: Final = "releases.jsonl"

Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Vector = npt.NDArray[np.float64]


class ReleaseLine(StrictModel):
    """One line of the index.

    Args:
        terms: their hash.
        sampling: how consumers are said to have been sampled.
        contributors: members in the sum, in roster order.
        sum: hash of the file, as the coordinator's ledger records it.
    """

    version: Literal[2] = 2
    terms: Hex32
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)
    sampling: Literal["poisson"] = "poisson"
    contributors: tuple[Name, ...] = Field(min_length=1)
    sum: Hex32


@dataclass(frozen=True, slots=True)
class Released:
    """One release, read when it is asked for.

    Args:
        contributors: members in the sum.
        total: gives the decoded sum, float64, shape (dimension,).
    """

    round: int
    attempt: int
    contributors: tuple[str, ...]
    total: Callable[[], Vector]


def release_name(round_number: int, attempt: int) -> str:
    """The name of a release's file.

    >>> release_name(3, 1)
    'round-3-1.sum'
    """
    return f"round-{round_number}-{attempt}.sum"


def release_line(
    terms_hash: str,
    *,
    round_number: int,
    attempt: int,
    contributors: tuple[str, ...],
    sum_sha256: str,
) -> bytes:
    """The index's line of one release, ended by a line feed.

    Args:
        terms_hash: of the study's terms.
        round_number: from 1.
        attempt: from 1.
        contributors: members in the sum, in roster order.
        sum_sha256: hash of the release's file, the unmasked ring sum, in hex.
    """
    line = ReleaseLine(
        terms=terms_hash,
        round=round_number,
        attempt=attempt,
        contributors=contributors,
        sum=sum_sha256,
    )
    return canonical(line.model_dump(mode="json")) + b"\n"


def open_releases(folder: Path, terms: Terms) -> list[Released]:
    """The releases of a folder, in order.

    Every file is checked here once, and read again when it is measured:
     (1) every line is canonical JSON, for these terms, ended by LF;
     (2) attempts are in order and none comes twice;
     (3) contributors are distinct members of the roster, at least N - D;
     (4) the file holds dimension ring elements and has the recorded hash.

    Raises:
        EvidenceError: naming file or line.
    """
    index = folder / INDEX
    lines = _read(index).split(b"\n")
    if len(lines) < 2 or lines.pop() != b"":  # (1)
        raise EvidenceError(f"{index}: has no lines, or its last line is cut off")
    roster = {entry.name for entry in terms.roster}
    grid = Grid.of(terms)
    releases: list[Released] = []
    for number, data in enumerate(lines, start=1):
        where = f"{index} line {number}"
        line = _line(data, terms, where)
        here = (line.round, line.attempt)
        if releases and here <= (releases[-1].round, releases[-1].attempt):  # (2)
            raise EvidenceError(f"{where}: round {here[0]} attempt {here[1]} is out of order")
        names = set(line.contributors)
        if (  # (3)
            len(names) != len(line.contributors)
            or not names <= roster
            or len(names) < terms.privacy.least_survivors
        ):
            raise EvidenceError(f"{where}: contributors are not a cohort of these terms")
        path = folder / release_name(*here)
        data = _read(path)
        size = terms.dimension * grid.dtype.itemsize
        if len(data) != size:  # (4)
            raise EvidenceError(f"{path}: {len(data)} bytes, {size} expected")
        if hashlib.sha256(data).hexdigest() != line.sum:
            raise EvidenceError(f"{path}: is not the sum whose hash the ledger holds")
        releases.append(Released(*here, line.contributors, partial(_total, path, grid)))
    return releases


def _line(data: bytes, terms: Terms, where: str) -> ReleaseLine:
    parse_canonical(data, where=where)
    try:
        line = ReleaseLine.model_validate_json(data)
    except ValidationError as error:
        raise EvidenceError(f"{where}: {first_problem(error)}") from error
    if line.terms != terms.hash:
        raise EvidenceError(f"{where}: is of terms {line.terms[:16]}, not {terms.hash[:16]}")
    return line


def _total(path: Path, grid: Grid) -> Vector:
    return decode(np.frombuffer(_read(path), dtype=grid.dtype), grid)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from error
