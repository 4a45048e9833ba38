"""The coordinator's database, SQLite and PostgreSQL: durable, migrated, held by one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.store import Starts, Status, StudyStore
from privacy.errors import ConfigurationError
from privacy.terms import Terms
from tests import postgres
from tests.test_alliance import terms

STUDY = terms(rounds=3)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
        return
    if not postgres.available():
        pytest.skip(postgres.MISSING)
    with postgres.cluster() as cluster:
        yield cluster.url


def other(study: Terms, purpose: str) -> Terms:
    return study.model_copy(update={"purpose": purpose})


def test_what_was_kept_is_there_after_reopening(url: str) -> None:
    arrays = {"parameters": np.arange(3, dtype=np.float32), "counts": np.array([1, 2])}
    with StudyStore(url) as store:
        assert store.propose(STUDY, now_ms=5).version == 1
        assert store.start(STUDY.hash) == Starts(1, 0)
        store.keep_state(STUDY.hash, 1, bytes(32), arrays)
    with StudyStore(url) as store:
        (record,) = store.studies()
        assert record.terms == STUDY
        assert record.status is Status.RUNNING
        assert store.start(STUDY.hash) == Starts(2, 1)
        store.set_status(STUDY.hash, Status.PAUSED)
        assert store.start(STUDY.hash) == Starts(3, 1)
        kept = store.state(STUDY.hash, 1, bytes(32).hex())
        assert kept is not None
        assert {name: array.tolist() for name, array in kept.items()} == {
            name: array.tolist() for name, array in arrays.items()
        }
        assert store.state(STUDY.hash, 1, "ff" * 32) is None


def test_a_change_of_terms_is_a_new_version_and_the_same_terms_are_not(url: str) -> None:
    with StudyStore(url) as store:
        store.propose(STUDY, now_ms=5)
        assert store.propose(other(STUDY, "Another purpose"), now_ms=6).version == 2
        assert store.propose(STUDY, now_ms=7).version == 1
        store.set_status(STUDY.hash, Status.STOPPED, "the operator said so")
        assert [(one.version, one.status.value) for one in store.studies()] == [
            (1, "stopped"), (2, "proposed"),
        ]  # fmt: skip


def test_two_states_of_a_study_are_kept_and_a_state_again_replaces_it(url: str) -> None:
    with StudyStore(url) as store:
        store.propose(STUDY, now_ms=5)
        for number in range(1, 6):
            for value in (0.0, 1.0):
                array = np.full(2, value, dtype=np.float32)
                store.keep_state(STUDY.hash, number, bytes(32), {"a": array})
        found = [store.state(STUDY.hash, number, bytes(32).hex()) for number in range(1, 6)]
        assert [state is not None for state in found] == [False, False, False, True, True]
        assert found[-1] is not None
        assert found[-1]["a"].tolist() == [1.0, 1.0]


def test_a_second_coordinator_is_refused_until_the_first_ends(url: str) -> None:
    """The first one is another process, and it is killed."""
    program = (
        "import sys; from coordinator.store import StudyStore; store = StudyStore(sys.argv[1]); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, url],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match="in use by another coordinator"):
            StudyStore(url)
        first.kill()
        first.wait()
        if url.startswith("postgresql"):
            _wait_for_the_server_to_notice(url)
        StudyStore(url).close()


def _wait_for_the_server_to_notice(url: str) -> None:
    import time

    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        try:
            StudyStore(url).close()
        except ConfigurationError:
            time.sleep(0.1)
        else:
            return


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nonsense", "not a URL"),
        ("mysql://here/there", "mysql is not supported"),
        ("sqlite://", "is a file"),
        ("postgresql://nobody:secret@127.0.0.1:1/none", "cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_in_one_sentence(
    address: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        StudyStore(address)
    assert "secret" not in str(caught.value)


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    StudyStore(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        StudyStore(f"sqlite:///{path}")


def test_the_tables_are_what_the_migrations_make(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine

    from coordinator.store.tables import METADATA

    path = tmp_path / "coordinator.sqlite"
    StudyStore(f"sqlite:///{path}").close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_commits_are_on_the_disk(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    with StudyStore(address) as store, store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
