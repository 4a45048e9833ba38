"""What an operator's commands do with studies: they write down what is wanted, and wait for nobody.

A coordinator that runs sees it within a second; one that does not, when it starts.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from coordinator.config import CoordinatorConfig
from coordinator.evaluation import check_known_model, propose_evaluation, report
from coordinator.evaluation_plan import (
    UNKNOWN,
    EvaluationTable,
    evaluation_terms,
    keep_plan,
    planned,
    prospect,
)
from coordinator.registry import Registry
from coordinator.store import Status, StudyRecord, StudyStore, Wanted
from coordinator.study_file import read_evaluation, read_study
from privacy.documents import first_problem
from privacy.errors import ConfigurationError
from privacy.terms import RosterEntry, one_digit

__all__ = ["StudyDesk", "everybody", "imagined"]


def everybody(config: CoordinatorConfig, roster: Path | None) -> list[RosterEntry]:
    """The members there are: of the registry, or of a roster's file.

    Args:
        config: of the coordinator.
        roster: JSON as `alliance-coordinator members --json` prints it.

    Raises:
        ConfigurationError: if there is neither, or one cannot be read.
    """
    if roster is not None:
        return _listed(roster)
    if config.enrolment is None:
        raise ConfigurationError(
            "this coordinator keeps no registry of members ([enrolment]); give --roster FILE, a "
            "list like that of alliance-coordinator members --json"
        )
    return [
        RosterEntry(name=one.name, identity=one.identity, declared_consumers=one.declared_consumers)
        for one in Registry(config.enrolment.registry).members().values()
        if one.reason is None
    ]


def imagined(declared: str) -> list[RosterEntry]:
    """Members that are only thought of, to project a study with.

    Args:
        declared: how many consumers each of them has, as ``9000,400,60``.

    Raises:
        ConfigurationError: if it is no list of numbers.
    """
    try:
        sizes = [int(part) for part in declared.split(",")]
        return [
            RosterEntry(
                name=f"member-{number}",
                identity=hashlib.sha256(b"%d" % number).hexdigest(),
                declared_consumers=one_digit(size),
            )
            for number, size in enumerate(sizes, start=1)
        ]
    except ValueError as error:
        raise ConfigurationError(
            f"{declared:.80}: no list of numbers of consumers; write one like 9000,400,60"
        ) from error


class StudyDesk:
    """The studies of one coordinator.

    Args:
        config: of the coordinator.

    Raises:
        ConfigurationError: if its database cannot be opened.
    """

    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self.store = StudyStore(config.database_url, running=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def propose(self, path: Path, *, roster: Path | None = None) -> StudyRecord:
        """Offers a study to its members. A version that was only offered makes room for the next.

        Raises:
            ConfigurationError: if the file does not become terms.
        """
        members = [] if path.suffix == ".json" else everybody(self._config, roster)
        terms = read_study(path, alliance=self._config.alliance_name, everybody=members)
        check_known_model(self._config.state, terms)
        keep_plan(self._config.state, terms, read_evaluation(path))
        record = self.store.propose(terms, now_ms=_now_ms())
        for other in self.store.studies():
            older = other.terms.study == terms.study and other.version < record.version
            if older and not other.over and other.wanted is Wanted.PROPOSED:
                self.store.want(other.terms.hash, Wanted.STOPPED, now_ms=_now_ms())
        return record

    def start(self, name: str) -> StudyRecord:
        """Has a study run once enough members approved, or go on.

        Raises:
            ConfigurationError: if it is over, or another version of it is under way.
        """
        record = self._open(name)
        for other in self.store.studies():
            same = other.terms.study == record.terms.study and other.version != record.version
            if same and not other.over and other.wanted in (Wanted.RUNNING, Wanted.PAUSED):
                raise ConfigurationError(
                    f"version {other.version} of {other.terms.study} is {other.standing}; stop it "
                    f"first: alliance-coordinator study stop {other.terms.label}"
                )
        return self._want(record, Wanted.RUNNING)

    def pause(self, name: str) -> StudyRecord:
        """Has a study hold after the round that is open.

        Raises:
            ConfigurationError: if it was not started.
        """
        record = self._open(name)
        if record.wanted is Wanted.PROPOSED:
            raise ConfigurationError(
                f"{record.terms.study} was not started, so there is nothing to pause; stop "
                "withdraws it"
            )
        return self._want(record, Wanted.PAUSED)

    def stop(self, name: str) -> StudyRecord:
        """Ends a study for good after the round that is open.

        Raises:
            ConfigurationError: if it is over.
        """
        return self._want(self._open(name), Wanted.STOPPED)

    def evaluate(self, name: str, table: EvaluationTable) -> StudyRecord:
        """Offers to measure a study's published model, and has that run once members approve.

        Args:
            name: of the study that learned it.
            table: how to measure it; its hold-out is the one the study was learned with.

        Raises:
            ConfigurationError: if there is no such model, or it was proposed so before.
        """
        learned = self.find(name).terms
        held = learned.settings.get("holdout", 0.0)
        table = table.model_copy(update={"holdout": held})
        record = propose_evaluation(self._config.state, self.store, learned, table)
        if record is None:
            raise ConfigurationError(
                f"{learned.label}: was proposed to be evaluated like this before; "
                "alliance-coordinator study list says what became of it"
            )
        return record

    def prospect(self, record: StudyRecord) -> dict[str, Any] | None:
        """What the evaluation planned for a study will cost and tell; None if there is none."""
        table = planned(self._config.state, record.terms)
        if table is None:
            return None
        return prospect(evaluation_terms(record.terms, UNKNOWN, table))

    def measured(self, name: str) -> dict[str, Any] | None:
        """What a finished evaluation found; None if the study is none.

        Raises:
            ConfigurationError: if it published nothing yet.
        """
        terms = self.find(name).terms
        return report(self._config.state, terms) if terms.recipe == "evaluation" else None

    def find(self, name: str) -> StudyRecord:
        """A study by name (its newest version), by label, or by the beginning of its hash.

        Raises:
            ConfigurationError: if there is none, naming the nearest.
        """
        records = self.store.studies()
        found = [one for one in records if name in (one.terms.study, one.terms.label)]
        if not found and len(name) >= 8:
            found = [one for one in records if one.terms.hash.startswith(name)]
        if not found:
            names = list(dict.fromkeys(one.terms.study for one in records))
            near = difflib.get_close_matches(name, names, n=1)
            remedy = f"did you mean {near[0]}?" if near else "alliance-coordinator study list"
            raise ConfigurationError(f"{name:.80}: there is no such study; {remedy}")
        return max(found, key=lambda record: record.version)

    def _open(self, name: str) -> StudyRecord:
        record = self.find(name)
        if record.over or record.wanted is Wanted.STOPPED:
            how = "finished" if record.status is Status.FINISHED else "stopped"
            raise ConfigurationError(
                f"{record.terms.label} is {how}, which is final; propose another version"
            )
        return record

    def _want(self, record: StudyRecord, wanted: Wanted) -> StudyRecord:
        self.store.want(record.terms.hash, wanted, now_ms=_now_ms())
        return self.store.study(record.terms.hash) or record


def _listed(path: Path) -> list[RosterEntry]:
    """The entries of a roster's file, without members that were revoked or left."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_bytes())
        entries = [
            {
                "name": row.get("member", row.get("name")),
                "identity": row.get("identity"),
                "declared_consumers": row.get("declared_consumers"),
            }
            for row in rows
            if row.get("revoked") is None and not row.get("left")
        ]
        return TypeAdapter(list[RosterEntry]).validate_python(entries)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: entry {first_problem(error)}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: is no roster; write a list like that of alliance-coordinator members --json"
        ) from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
