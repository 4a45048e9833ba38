"""Opening the coordinator's database: durable, migrated, and by one coordinator at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from privacy.errors import ConfigurationError

__all__ = ["Lock", "open_engine"]

NEWEST: Final = "0002"
"""The newest of the migrations."""

ADVISORY_LOCK: Final = 0x616C6C69616E6365
"""``alliance`` in ASCII: the key of PostgreSQL's advisory lock."""

IN_USE: Final = "is in use by another coordinator; stop that one first, or give this one its own"


def open_engine(address: str) -> Engine:
    """An engine whose commits are on the disk when they return, its tables at the newest version.

    Args:
        address: an SQLAlchemy URL of SQLite or PostgreSQL.

    Raises:
        ConfigurationError: if it cannot be reached, or belongs to a newer version.
    """
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise ConfigurationError("database: not a URL such as sqlite:///FILE") from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"database: {url.get_backend_name()} is not supported")
    try:
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
        with engine.begin() as connection:
            if not _is_newest(connection):
                _migrate(connection, _shown(url))
    except NoSuchModuleError as error:
        raise ConfigurationError("database: psycopg is not installed") from error
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"database {_shown(url)}: cannot be opened ({_cause(error)})"
        ) from error
    return engine


class Lock:
    """Held by the one coordinator that may write; let go when its process ends, however it ends.

    Args:
        engine: whose database.

    Raises:
        ConfigurationError: if another coordinator holds it.
    """

    def __init__(self, engine: Engine) -> None:
        self._connection: Connection | None = None
        self._file: int | None = None
        shown = _shown(engine.url)
        if engine.url.get_backend_name() == "sqlite":
            path = Path(f"{engine.url.database}.lock")
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._file)
                raise ConfigurationError(f"database {shown}: {IN_USE}") from error
            return
        self._connection = engine.connect()
        held = self._connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}
        ).scalar()
        self._connection.commit()
        if not held:
            self._connection.close()
            raise ConfigurationError(f"database {shown}: {IN_USE}")

    def check(self) -> None:
        """Whether it is still held: a lost connection to PostgreSQL lets go of it.

        Raises:
            ConfigurationError: if it is not.
        """
        if self._connection is None:
            return
        try:
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()
        except SQLAlchemyError as error:
            raise ConfigurationError(
                "database: the connection that held its lock was lost; start again"
            ) from error

    def release(self) -> None:
        """Lets another coordinator in."""
        if self._file is not None:
            os.close(self._file)
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigurationError("database: a coordinator's SQLite database is a file")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
        connection.commit()

    return engine


def _is_newest(connection: Connection) -> bool:
    """Whether nothing is to migrate, asked without Alembic, which takes long to load."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return found == [NEWEST]


def _migrate(connection: Connection, shown: str) -> None:
    """Brings the tables to the newest version.

    Raises:
        ConfigurationError: if they are of a newer one.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "coordinator:store/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, NEWEST)
    except CommandError as error:
        raise ConfigurationError(
            f"database {shown}: was written by a newer version ({error}); update this one"
        ) from error


def _shown(url: URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


def _cause(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0][:200]
