"""A throw-away PostgreSQL: its own cluster in a folder, as an ordinary user, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from privacy.errors import ConfigurationError

__all__ = ["MISSING", "Cluster", "available", "cluster"]

PROGRAMS: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
MISSING: Final = "PostgreSQL's programs are not on this machine: apt-get install postgresql"


def available() -> bool:
    """Whether its programs are here, and somebody who may run them."""
    return bool(PROGRAMS) and (os.getuid() != 0 or _user() is not None)


def _user() -> str | None:
    """The ordinary user that runs it where the tests run as root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


class Cluster:
    """One server and its data.

    Args:
        folder: of data, socket and log; its user's.

    Raises:
        ConfigurationError: with its last words, if one of its programs fails.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://alliance@/postgres?host={self.folder}"

    def make(self) -> None:
        """Makes its data folder."""
        self._run("initdb", "-D", self._data, "-U", "alliance", "-A", "trust", "--no-sync")

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder}"
        self._run(
            "pg_ctl", "-D", self._data, "-w", "-l", self.folder / "log", "-o", options, "start"
        )

    def stop(self, mode: str = "fast") -> None:
        """Stops it; ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        user = _user()
        done = subprocess.run(
            [PROGRAMS[-1] / program, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
            cwd="/",
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
        )
        if done.returncode != 0:
            raise ConfigurationError(f"{program}: {done.stderr.strip()[-300:]}")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster; gone when the context ends."""
    folder = Path(tempfile.mkdtemp(prefix="alliance-pg-"))  # short: a socket's path is limited
    user = _user()
    if user:
        shutil.chown(folder, user)
    here = Cluster(folder)
    try:
        here.make()
        here.start()
        try:
            yield here
        finally:
            here.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
