"""What a statistics study found, as an operator reads it: figures, errors, and what they cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client_sdk.recipes.model_file import load_model
from client_sdk.recipes.statistics.answers import Answers
from client_sdk.recipes.statistics.preprocessing import advice, cut_points
from client_sdk.recipes.statistics.table import Line, lines, suppressed
from privacy.accounting import Accountant
from privacy.errors import ConfigurationError
from privacy.ledger.entry import Failure, Release, decode_entry
from privacy.ledger.export import open_state
from privacy.terms import Column, Terms

__all__ = ["Result", "as_csv", "as_text", "as_toml", "look_up", "report"]


@dataclass(frozen=True, slots=True)
class Result:
    """One published statistics study.

    Args:
        answers: what its release says.
        attempts: that were opened for it: what it cost.
    """

    answers: Answers
    attempts: int

    @classmethod
    def of(cls, terms: Terms, state: Path) -> Result:
        """The result of a study, from the published file and the coordinator's log.

        Args:
            terms: of the study.
            state: the coordinator's folder; a coordinator may run on it.

        Raises:
            ConfigurationError: if the study is none of statistics, or published nothing yet.
        """
        if terms.recipe != "statistics":
            raise ConfigurationError(
                f"{terms.label} learns by recipe {terms.recipe}; name a study of statistics"
            )
        path = state / "models" / f"{terms.study}.safetensors"
        contributors, attempts = _logged(terms, state) if path.exists() else ((), 0)
        if not contributors:
            raise ConfigurationError(
                f"{terms.label} has published nothing yet; alliance-coordinator study list says "
                "where it stands"
            )
        kept, mean, _ = load_model(path)
        if kept.hash != terms.hash:
            raise ConfigurationError(f"{path}: is of another version, {kept.label}; name that one")
        return cls(Answers(terms, mean, contributors), attempts)

    @property
    def missing(self) -> tuple[str, ...]:
        """Members of the roster that are not in the sum."""
        there = set(self.answers.contributors)
        names = (entry.name for entry in self.answers.terms.roster)
        return tuple(name for name in names if name not in there)


def _logged(terms: Terms, state: Path) -> tuple[tuple[str, ...], int]:
    """Of the coordinator's log: who is in the study's release, and its attempts."""
    contributors: tuple[str, ...] = ()
    attempts = 0
    with closing(open_state(state)) as store:
        for index, data in enumerate(store.entries()):
            entry = decode_entry(data, where=f"{store.path}: entry {index}")
            if isinstance(entry, (Release, Failure)) and entry.terms == terms.hash:
                attempts += 1
                if isinstance(entry, Release):
                    contributors = tuple(one.member for one in entry.contributions)
    return contributors, attempts


def report(result: Result) -> dict[str, Any]:
    """All there is to say, as JSON takes it."""
    answers = result.answers
    terms = answers.terms
    accountant = Accountant(terms)
    profiles = {
        "epsilon": accountant.profile(result.attempts),
        "epsilon_at_most": accountant.profile(terms.privacy.max_attempts),
    }
    return {
        "study": terms.study,
        "label": terms.label,
        "terms_hash": terms.hash,
        "purpose": terms.purpose,
        "members": list(answers.contributors),
        "missing": list(result.missing),
        "attempts": result.attempts,
        "delta": terms.privacy.delta,
        **{
            name: {str(members): epsilon for members, epsilon in profile.items()}
            for name, profile in profiles.items()
        },
        "suppressed": {
            column: {"cells": count, "of": of, "below": least}
            for column, (count, of, least) in suppressed(answers).items()
        },
        "figures": [asdict(line) for line in lines(answers)],
    }


def as_csv(result: Result) -> str:
    """One figure a line, with its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["figure", "column", "cell", "value", "low", "high"])
    for line in lines(result.answers):
        numbers = (f"{one:.6g}" for one in (line.value, line.low, line.high))
        writer.writerow([line.figure, line.column, line.cell, *numbers])
    return text.getvalue().rstrip("\n")


def as_text(result: Result) -> str:
    """A table for a person: counts, shares, numbers, correlations; no histograms."""
    said = report(result)
    spent = ", ".join(f"{members}: {one:.3f}" for members, one in said["epsilon"].items())
    missing = f"; missing: {', '.join(said['missing'])}" if said["missing"] else ""
    cost = f"{spent}; at delta {said['delta']:g}, attempts: {said['attempts']}"
    head = f"""\
{said["label"]}: {said["purpose"]}
terms    {said["terms_hash"]}
members  {", ".join(said["members"])}{missing}
cost     epsilon by how many members know a consumer: {cost}
errors   95 of 100 intervals hold the exact figure; who is known to two members counts twice
"""
    return "\n".join([head, *_table(result)])


def _table(result: Result) -> Iterator[str]:
    """The figures, a section for each column or kind."""
    hidden = suppressed(result.answers)
    section = ""
    for line in lines(result.answers):
        if line.figure == "histogram":
            continue
        if line.figure == "correlation":
            title, name = "correlation", f"{line.column}, {line.cell}"
        elif line.figure == "count":
            count, of, least = hidden[line.column]
            below = f"; {count} of {of} are below {least:.0f} and not shown" if count else ""
            title, name = f"{line.column}{below}", line.cell
        elif line.figure in ("consumers", "share"):
            title, name = "all", line.figure + (f" of {line.column}" if line.column else "")
        elif line.figure.startswith("share"):
            title, name = f"{line.figure} by {line.column}", line.cell
        else:
            title, name = line.column, f"{line.figure} {line.cell}".strip()
        if title != section:
            section = title
            yield title
        yield f"  {name:<32.32} {_shown(line)}"


def _shown(line: Line) -> str:
    if line.figure in ("consumers", "count"):
        return f"{line.value:>14,.0f}  ({line.low:,.0f} to {line.high:,.0f})"
    return f"{line.value:>14.4g}  ({line.low:.4g} to {line.high:.4g})"


def look_up(result: Result, name: str, file: Path) -> list[dict[str, Any]]:
    """Candidates for a vocabulary's buckets: a bucket's count bounds that of each word in it.

    Args:
        result: of the study.
        name: of a category column.
        file: UTF-8 text, one candidate a line.

    Raises:
        ConfigurationError: if there is no such vocabulary, or the file cannot be read.
    """
    columns = [one for one in result.answers.terms.contract.categories if one.name == name]
    cells = result.answers.cells(columns[0]) if columns else None
    if cells is None:
        raise ConfigurationError(f"{name:.63}: is no category that this study counted")
    try:
        candidates = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is no readable UTF-8 text ({error})") from error
    found = []
    for word in dict.fromkeys(line.strip() for line in candidates if line.strip()):
        count = cells.count_of(word)
        told = asdict(count) if count is not None else dict.fromkeys(("value", "low", "high"))
        found.append({"word": word} | told)
    return found


def as_toml(result: Result, bins: int) -> str:
    """The contract's number columns with bins of about as many consumers each, to paste.

    Raises:
        RecipeError: if the release cannot tell so many.
    """
    answers = result.answers
    label = answers.terms.label
    text = [f"# bins from the study {label}, whose terms are {answers.terms.hash}"]
    text.append("[contract.columns]")
    for column in answers.terms.contract.numbers:
        text += [f"# {column.name}: {sentence}" for sentence in advice(answers, column)]
        text.append(_toml(column, cut_points(answers, column, bins), label))
    return "\n".join(text)


def _toml(column: Column, edges: tuple[float, ...], label: str) -> str:
    scale = f', scale = "{column.scale}"' if column.scale != "linear" else ""
    bins = f", edges = [{', '.join(map(repr, edges))}]" if edges else ""
    meaning = f"{column.meaning}; bins by {label}".removeprefix("; ")[:500]
    quoted = meaning.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"{column.name} = {{ low = {column.low!r}, high = {column.high!r}{scale}{bins}, "
        f'meaning = "{quoted}" }}'
    )
