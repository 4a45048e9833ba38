"""Studies and how far they got, so that a coordinator that starts again goes on where it was."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from coordinator.store.database import Lock, open_engine
from coordinator.store.records import Answer, Starts, Status, StudyRecord, Wanted
from coordinator.store.tables import ANSWER, STATE, STUDY
from privacy.errors import ConfigurationError
from privacy.terms import Terms, TermsHash

__all__ = ["StudyStore"]

KEPT_STATES = 2
"""Newest public states of a study."""

Arrays = Mapping[str, npt.NDArray[Any]]


class StudyStore:
    """Studies in a database that one coordinator runs, and an operator's commands look at.

    Guarantees:
        Every method that writes is durable when it returns, or raises and changed nothing.

    Args:
        address: an SQLAlchemy URL.
        running: whether this process runs the studies: there is one such process at a time.

    Raises:
        ConfigurationError: if the database cannot be opened, or another coordinator holds it.
    """

    def __init__(self, address: str, *, running: bool = True) -> None:
        self._engine = open_engine(address)
        self._lock: Lock | None = None
        if not running:
            return
        try:
            self._lock = Lock(self._engine)
        except BaseException:
            self._engine.dispose()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another coordinator in."""
        if self._lock is not None:
            self._lock.release()
        self._engine.dispose()

    # Studies.

    def propose(self, terms: Terms, *, now_ms: int) -> StudyRecord:
        """Keeps a study; the same terms again are the same study."""
        if (known := self.study(terms.hash)) is not None:
            return known
        with self._writing() as connection:
            latest = connection.execute(
                select(func.max(STUDY.c.version)).where(STUDY.c.name == terms.study)
            ).scalar()
            record = StudyRecord(
                terms, (latest or 0) + 1, Status.PROPOSED, "", now_ms, Wanted.PROPOSED, now_ms
            )
            connection.execute(
                insert(STUDY).values(
                    terms_hash=terms.hash,
                    name=terms.study,
                    version=record.version,
                    document=terms.model_dump_json(),
                    status=record.status.value,
                    sentence="",
                    proposed_ms=now_ms,
                    starts=0,
                    crashes=0,
                    wanted=record.wanted.value,
                    wanted_ms=now_ms,
                )
            )
        return record

    def want(self, terms_hash: TermsHash, wanted: Wanted, *, now_ms: int) -> None:
        """Keeps what the operator asks for; a running coordinator sees it within a second."""
        with self._writing() as connection:
            connection.execute(
                update(STUDY)
                .where(STUDY.c.terms_hash == terms_hash)
                .values(wanted=wanted.value, wanted_ms=now_ms)
            )

    def answered(self, terms_hash: TermsHash, member: str, answer: Answer, sentence: str) -> None:
        """Keeps what a member said to proposed terms."""
        key = (ANSWER.c.terms_hash == terms_hash, ANSWER.c.member == member)
        with self._writing() as connection:
            connection.execute(delete(ANSWER).where(*key))
            connection.execute(
                insert(ANSWER).values(
                    terms_hash=terms_hash,
                    member=member,
                    answer=answer.value,
                    sentence=sentence[:500],
                )
            )

    def answers(self, terms_hash: TermsHash) -> dict[str, tuple[Answer, str]]:
        """By member, what it said to proposed terms, and in which words."""
        rows = self._rows(select(ANSWER).where(ANSWER.c.terms_hash == terms_hash))
        return {row.member: (Answer(row.answer), row.sentence) for row in rows}

    def study(self, terms_hash: TermsHash) -> StudyRecord | None:
        """A study by its terms' hash."""
        rows = self._rows(select(STUDY).where(STUDY.c.terms_hash == terms_hash))
        return _record(rows[0]) if rows else None

    def studies(self) -> list[StudyRecord]:
        """All studies, in the order they were proposed."""
        order = (STUDY.c.proposed_ms, STUDY.c.name, STUDY.c.version)
        return [_record(row) for row in self._rows(select(STUDY).order_by(*order))]

    def set_status(self, terms_hash: TermsHash, status: Status, sentence: str = "") -> None:
        """Notes where a study stands now."""
        with self._writing() as connection:
            connection.execute(
                update(STUDY)
                .where(STUDY.c.terms_hash == terms_hash)
                .values(status=status.value, sentence=sentence[:500])
            )

    # How far they got.

    def start(self, terms_hash: TermsHash) -> Starts:
        """Notes that a coordinator begins to run a study.

        Attempts of different starts have different numbers, so nothing needs to be written when one
        is opened.
        """
        here = STUDY.c.terms_hash == terms_hash
        with self._writing() as connection:
            crashed = case((STUDY.c.status == Status.RUNNING.value, 1), else_=0)
            connection.execute(
                update(STUDY)
                .where(here)
                .values(
                    starts=STUDY.c.starts + 1,
                    crashes=STUDY.c.crashes + crashed,
                    status=Status.RUNNING.value,
                    sentence="",
                )
            )
            row = connection.execute(select(STUDY.c.starts, STUDY.c.crashes).where(here)).one()
        return Starts(row.starts, row.crashes)

    def keep_state(
        self, terms_hash: TermsHash, round_number: int, model: bytes, arrays: Arrays
    ) -> None:
        """Keeps the public state after a round, and lets older ones go."""
        data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        here = STATE.c.terms_hash == terms_hash
        key = (here, STATE.c.round == round_number, STATE.c.model == model.hex())
        with self._writing() as connection:
            connection.execute(delete(STATE).where(*key))
            connection.execute(
                insert(STATE).values(
                    terms_hash=terms_hash, round=round_number, model=model.hex(), data=data
                )
            )
            kept = select(STATE.c.round).where(here).order_by(STATE.c.round.desc())
            newest = [row[0] for row in connection.execute(kept.limit(KEPT_STATES)).all()]
            connection.execute(delete(STATE).where(here, STATE.c.round.not_in(newest)))

    def rounds_kept(self, terms_hash: TermsHash) -> list[int]:
        """Rounds after which the public state is here, newest first."""
        query = select(STATE.c.round).where(STATE.c.terms_hash == terms_hash).distinct()
        return [row[0] for row in self._rows(query.order_by(STATE.c.round.desc()))]

    def state(
        self, terms_hash: TermsHash, round_number: int, model: str
    ) -> dict[str, npt.NDArray[Any]] | None:
        """The public state that the log says a round led to; None if it is not here.

        Raises:
            ConfigurationError: if what is here is damaged.
        """
        rows = self._rows(
            select(STATE.c.data).where(
                STATE.c.terms_hash == terms_hash,
                STATE.c.round == round_number,
                STATE.c.model == model,
            )
        )
        if not rows:
            return None
        try:
            arrays: dict[str, npt.NDArray[Any]] = load(rows[0][0])
        except SafetensorError as error:
            raise ConfigurationError(
                f"database: the state after round {round_number} is damaged; restore a backup"
            ) from error
        return arrays

    # Inside.

    def _rows(self, query: Any) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query).all())
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def _writing(self) -> _Writing:
        if self._lock is not None:
            self._lock.check()
        return _Writing(self._engine)


class _Writing:
    """A transaction that is durable when it ends; errors of the database become ours."""

    def __init__(self, engine: Any) -> None:
        self._begin = engine.begin()

    def __enter__(self) -> Any:
        try:
            return self._begin.__enter__()
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._begin.__exit__(kind, error, trace)
        except SQLAlchemyError as failed:
            raise _unusable(failed) from failed
        if isinstance(error, SQLAlchemyError):
            raise _unusable(error) from error


def _unusable(error: SQLAlchemyError) -> ConfigurationError:
    cause = getattr(error, "orig", None) or error
    return ConfigurationError(
        f"database: cannot be written or read ({str(cause).strip().splitlines()[0][:200]}); "
        "mend it and start again, nothing that was acknowledged is lost"
    )


_terms = functools.lru_cache(maxsize=64)(Terms.from_json)
"""Terms of documents that are read again and again."""


def _record(row: Any) -> StudyRecord:
    return StudyRecord(
        _terms(row.document),
        row.version,
        Status(row.status),
        row.sentence,
        row.proposed_ms,
        Wanted(row.wanted),
        row.wanted_ms,
    )
