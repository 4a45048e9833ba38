"""Masked contributions kept on disk, so that an auditor can add rounds of its choice again.

Masked vectors and what the members revealed to unmask their sum are all that the coordinator ever
saw of a round; no more comes to light when an auditor reads them than came to the coordinator.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from coordinator.round import Keep, Round
from privacy.ledger.entry import canonical
from privacy.ledger.kept import HEAD, SUFFIX, kept_tail
from privacy.secagg import Unmasking
from protos.logs import log

__all__ = ["KeptRounds"]

WRITTEN_BYTES: Final = 4 << 20
"""Contributions are written when they are so many, and at the end: small ones all at once."""
MOST_WAITING_BYTES: Final = 64 << 20
"""Contributions on their way to the disk; a round that would exceed it is not kept."""


class _Vector(NamedTuple):
    """A contribution on its way to the disk."""

    member: str
    parts: list[bytes]
    size: int


@dataclass(slots=True)
class _Open:
    """The file of an attempt that is not released yet."""

    file: BinaryIO
    vectors: list[tuple[str, int]] = field(default_factory=list)

    def add(self, vectors: list[_Vector]) -> None:
        parts = [part for one in vectors for part in one.parts]
        self.file.writelines([*([] if self.vectors else [HEAD]), *parts])
        self.vectors += [(one.member, one.size) for one in vectors]

    def seal(self, opening: bytes) -> int:
        """Finishes it: its size."""
        self.file.write(kept_tail(opening, self.vectors))
        size = self.file.tell()
        self.file.close()
        return size


class KeptRounds:
    """Writes rounds into files, on a thread of its own, and lets the oldest go.

    Args:
        folder: holds one folder per study and in it one file per attempt (`privacy.ledger.kept`).
        most_bytes: of all rounds together; 0 keeps nothing.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._waiting_bytes = 0
        self._counting = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kept-rounds")
        self._sizes: dict[Path, int] = {
            path: path.stat().st_size
            for path in sorted(
                folder.glob(f"*/round-*{SUFFIX}"), key=lambda one: one.stat().st_mtime_ns
            )
        }
        self._gathered: dict[Path, list[_Vector]] = {}
        """Of open attempts, what the thread has not been given yet."""
        self._open: dict[Path, _Open] = {}
        self._lost: set[Path] = set()
        """Open attempts that will not be whole."""

    @property
    def keeps(self) -> bool:
        """Whether rounds are kept at all."""
        return self._most_bytes > 0

    def keep(self, study: str, round_number: int, attempt: int) -> Keep | None:
        """Takes the contributions of one attempt; None where nothing is kept."""
        if not self._most_bytes:
            return None
        target = self._target(study, round_number, attempt)

        gathered = self._gathered[target] = []

        def keep(member: str, parts: list[bytes]) -> None:
            vector = _Vector(member, parts, sum(map(len, parts)))
            if self._waiting_bytes + vector.size > MOST_WAITING_BYTES:
                self._thread.submit(self._lose, target)
                return
            self._count(vector.size)
            gathered.append(vector)
            if sum(one.size for one in gathered) >= WRITTEN_BYTES:
                self._thread.submit(self._write, target, gathered.copy())
                gathered.clear()

        return keep

    def seal(self, study: str, round_: Round) -> None:
        """Writes what opens the sum of a released attempt."""
        if self._most_bytes and round_.unmasking is not None:
            target = self._target(study, round_.round_number, round_.attempt)
            self._thread.submit(
                self._seal, target, round_.unmasking, self._gathered.pop(target, [])
            )

    def drop(self, study: str, round_: Round) -> None:
        """Lets go of an attempt that released nothing."""
        target = self._target(study, round_.round_number, round_.attempt)
        self._count(-sum(one.size for one in self._gathered.pop(target, [])))
        self._thread.submit(self._end, target)

    def close(self) -> None:
        """Finishes what is on its way to the disk."""
        self._thread.shutdown()
        for target in tuple(self._open):
            self._let_go(target)

    def _count(self, size: int) -> None:
        """Counts bytes that wait; three threads do."""
        with self._counting:
            self._waiting_bytes += size

    def _target(self, study: str, round_number: int, attempt: int) -> Path:
        return self._folder / study / f"round-{round_number}-{attempt}{SUFFIX}"

    # On the thread; a disk that is full costs evidence, said in the log, and never a round.

    def _write(self, target: Path, vectors: list[_Vector]) -> None:
        try:
            if target not in self._lost and vectors:
                if target not in self._open:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._open[target] = _Open(target.open("wb"))
                self._open[target].add(vectors)
        except OSError as error:
            self._fail(target, error)
        finally:
            self._count(-sum(one.size for one in vectors))

    def _seal(self, target: Path, unmasking: Unmasking, vectors: list[_Vector]) -> None:
        self._write(target, vectors)
        try:
            if target in self._open:
                self._sizes[target] = self._open[target].seal(canonical(_opening(unmasking)))
                del self._open[target]
        except OSError as error:
            self._fail(target, error)
        self._end(target)
        while sum(self._sizes.values()) > self._most_bytes and len(self._sizes) > 1:
            self._let_go(next(iter(self._sizes)))

    def _fail(self, target: Path, error: OSError) -> None:
        log("RoundUnkept", file=str(target), reason=error.strerror)
        self._lose(target)

    def _lose(self, target: Path) -> None:
        """Lets go of an attempt that is open still."""
        self._lost.add(target)
        self._let_go(target)

    def _end(self, target: Path) -> None:
        """Nothing more comes of an attempt; what is not sealed goes."""
        self._lost.discard(target)
        if target not in self._sizes:
            self._let_go(target)

    def _let_go(self, target: Path) -> None:
        self._sizes.pop(target, None)
        unfinished = self._open.pop(target, None)
        with suppress(OSError):
            if unfinished is not None:
                unfinished.file.close()
            target.unlink(missing_ok=True)


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
