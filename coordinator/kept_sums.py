"""Unmasked sums on disk: what a study goes on from after a restart, and what an auditor measures.

A sum is public. It is on the disk before the log names it, so the log names none that is lost; a
file that the log does not name is of an attempt that was under way when its process ended.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from coordinator.round import Release
from privacy.empirical.releases import release_name
from privacy.errors import ConfigurationError, LedgerError
from privacy.ledger.database import sync_folder
from privacy.terms import Terms

__all__ = ["KeptSums"]

RELEASES: Final = "releases"
"""Folder of studies all of whose sums stay."""
PASSING: Final = "sums"
"""Folder of the others, whose sums stay until `KeptSums.forget`."""


class KeptSums:
    """Writes each sum into a file, on a thread of its own.

    Args:
        state: the coordinator's folder; files are ``releases/STUDY/round-R-A.sum`` or
            ``sums/STUDY/round-R-A.sum``.
        most_bytes: a study stays as a whole where all its attempts take no more than this.

    Raises:
        ConfigurationError: if the folders cannot be made.
    """

    def __init__(self, state: Path, most_bytes: int) -> None:
        self._state = state
        self._most_bytes = most_bytes
        self._folders: set[Path] = set()
        """Of studies, with their names on the disk; used on the thread only."""
        try:
            for base in (RELEASES, PASSING):
                (state / base).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{state}: folders cannot be made in it ({error.strerror}); give this process a "
                "state folder of its own"
            ) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kept-sums")

    def write(self, terms: Terms, release: Release) -> Future[None]:
        """Begins to write a sum.

        Returns:
            Done once it is on the disk; fails with `LedgerError` if it cannot be written.
        """
        stays = terms.privacy.max_attempts * release.ring.nbytes <= self._most_bytes
        folder = self._state / (RELEASES if stays else PASSING) / terms.label
        path = folder / release_name(release.round, release.attempt)
        return self._thread.submit(self._write, path, release.ring.data)

    def read(self, terms: Terms, round_number: int, attempt: int, sha256: str) -> bytes | None:
        """A sum's ring elements, little-endian; None if the one of that hash is not there."""
        for base in (RELEASES, PASSING):
            path = self._state / base / terms.label / release_name(round_number, attempt)
            with suppress(OSError):
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == sha256:
                    return data
        return None

    def forget(self, terms: Terms, up_to: int) -> None:
        """Lets go of sums of rounds up to one, unless the study's stay as a whole."""
        for path in (self._state / PASSING / terms.label).glob("round-*"):
            if int(path.name.split("-")[1]) <= up_to:
                with suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Finishes what is being written."""
        self._thread.shutdown()

    def _write(self, path: Path, data: memoryview) -> None:
        """Writes a file that is on the disk, under its name, when this returns.

        Raises:
            LedgerError: if it cannot be.
        """
        try:
            if path.parent not in self._folders:  # one that is there may not be on the disk
                path.parent.mkdir(exist_ok=True)
                sync_folder(self._state)
                sync_folder(path.parent.parent)
                self._folders.add(path.parent)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise LedgerError(
                f"{path}: cannot be written ({error.strerror}); make room or look after the disk, "
                "and start again"
            ) from error
