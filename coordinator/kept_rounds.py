"""Masked contributions kept on disk, so that an auditor can add rounds of its choice again.

Masked vectors and what the members revealed to unmask their sum are all that the coordinator ever
saw of a round; no more comes to light when an auditor reads them than came to the coordinator.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from coordinator.round import Keep, Release, Round
from privacy.empirical.releases import INDEX, release_line, release_name
from privacy.secagg import Unmasking
from privacy.terms import Terms
from protos.logs import log

__all__ = ["KeptRounds"]

MOST_WAITING_BYTES: Final = 64 << 20
"""Contributions on their way to the disk; a round that would exceed it is not kept."""


class KeptRounds:
    """Writes rounds into folders, on a thread of its own, and lets the oldest go.

    Args:
        folder: holds one folder per study and in it one per attempt, ``round-R-A``.
        most_bytes: of all rounds together; 0 keeps nothing.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._waiting_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kept-rounds")
        self._sizes: dict[Path, int] = {
            path: sum(file.stat().st_size for file in path.iterdir())
            for path in sorted(folder.glob("*/round-*"), key=lambda one: one.stat().st_mtime_ns)
        }

    @property
    def keeps(self) -> bool:
        """Whether rounds are kept at all."""
        return self._most_bytes > 0

    def keep(self, study: str, round_number: int, attempt: int) -> Keep | None:
        """Takes the contributions of one attempt; None where nothing is kept."""
        if not self._most_bytes:
            return None
        target = self._target(study, round_number, attempt)

        def keep(member: str, parts: list[bytes]) -> None:
            size = sum(map(len, parts))
            if self._waiting_bytes + size > MOST_WAITING_BYTES:
                self._thread.submit(self._let_go, target)
                return
            self._waiting_bytes += size
            self._thread.submit(self._write, target / f"{member}.bin", parts, size)

        return keep

    def seal(self, study: str, round_: Round) -> None:
        """Writes what opens the sum of a released attempt."""
        if self._most_bytes and round_.unmasking is not None:
            target = self._target(study, round_.round_number, round_.attempt)
            self._thread.submit(self._seal, target, round_.unmasking)

    def release(self, terms: Terms, release: Release) -> None:
        """Keeps a decoded sum, which is public, for whoever measures it (`privacy.empirical`).

        All of a study's are kept or none: none where they would not fit.
        """
        if terms.privacy.max_attempts * release.total.nbytes > self._most_bytes:
            return
        folder = self._folder.with_name("releases") / terms.label
        self._thread.submit(_write_release, folder, terms, release)

    def drop(self, study: str, round_: Round) -> None:
        """Lets go of an attempt that released nothing."""
        target = self._target(study, round_.round_number, round_.attempt)
        self._thread.submit(self._let_go, target)

    def close(self) -> None:
        """Finishes what is on its way to the disk."""
        self._thread.shutdown()

    def _target(self, study: str, round_number: int, attempt: int) -> Path:
        return self._folder / study / f"round-{round_number}-{attempt}"

    # On the thread; a disk that is full costs evidence, said in the log, and never a round.

    def _write(self, path: Path, parts: list[bytes], size: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines(parts)
            self._sizes[path.parent] = self._sizes.get(path.parent, 0) + size
        except OSError as error:
            log("RoundUnkept", file=str(path.parent), reason=error.strerror)
            self._let_go(path.parent)
        finally:
            self._waiting_bytes -= size

    def _seal(self, target: Path, unmasking: Unmasking) -> None:
        if target not in self._sizes:
            return
        data = json.dumps(_opening(unmasking), sort_keys=True, separators=(",", ":")).encode()
        try:
            (target / "opening.json").write_bytes(data)
        except OSError as error:
            log("RoundUnkept", file=str(target), reason=error.strerror)
            self._let_go(target)
            return
        self._sizes[target] += len(data)
        while sum(self._sizes.values()) > self._most_bytes and len(self._sizes) > 1:
            self._let_go(next(iter(self._sizes)))

    def _let_go(self, target: Path) -> None:
        self._sizes.pop(target, None)
        shutil.rmtree(target, ignore_errors=True)


def _write_release(folder: Path, terms: Terms, release: Release) -> None:
    name = release_name(release.round, release.attempt)
    data = release.total.astype("<f8").tobytes()
    line = release_line(
        terms,
        round_number=release.round,
        attempt=release.attempt,
        contributors=release.contributors,
        file=data,
        sum_sha256=release.sha256,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        with (folder / INDEX).open("ab") as index:
            index.write(line)
    except OSError as error:
        log("ReleaseUnkept", file=str(folder / name), reason=error.strerror)


def _opening(unmasking: Unmasking) -> dict[str, Any]:
    """Section 6 of privacy/ledger/README.md."""
    cohort, lists = unmasking.cohort, unmasking.lists
    name = cohort.setup.name
    survivors = set(lists.survivors)

    def signed(bodies: Any) -> dict[str, dict[str, str]]:
        return {
            name(index): {"body": body.hex(), "signature": signature.hex()}
            for index, (body, signature) in bodies.items()
        }

    rebuilt = unmasking.rebuilt
    return {
        "advertised": signed(cohort.advertised),
        "count": cohort.key_sets.count,
        "dropped": [name(index) for index in lists.dropped],
        "first": cohort.key_sets.first,
        "key_set": unmasking.attempt.key_set,
        "mask_keys": {name(i): secret.hex() for i, secret in rebuilt.items() if i not in survivors},
        "seeds": {name(i): secret.hex() for i, secret in rebuilt.items() if i in survivors},
        "shared": signed(cohort.shared),
        "survivors": [name(index) for index in lists.survivors],
    }
