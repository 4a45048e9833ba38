"""Restores backups of a log that went on, and tries to spend from them again."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.ledger_campaign.writer import KEY, ORIGIN, append, open_store
from benchmarks.secagg_campaign.protocol import Finding
from benchmarks.secagg_campaign.tally import Tally
from privacy.errors import EvidenceError, Fork, LedgerError, Rollback
from privacy.identity import Identity
from privacy.ledger.entry import Started
from privacy.ledger.store import LedgerStore
from privacy.ledger.witness import Witness

__all__ = ["KINDS", "restored"]

KINDS: Final = ("whole", "without its write-ahead log", "under the newer write-ahead log")
"""What is restored: all files; the file alone; the file alone, beside what is there."""

FILES: Final = ("log.sqlite", "log.sqlite-wal")
MOST: Final = 40
"""Entries before the backup, between backup and crash, and after it."""

WITNESS: Final = Identity.generate()


def restored(name: str, trials: Sequence[int]) -> Tally:
    """Each trial is one backup, restored over a newer log."""
    tally = Tally()
    for trial in trials:
        with TemporaryDirectory(prefix="backups-") as folder:
            kind = KINDS[trial % len(KINDS)]
            work = functools.partial(
                _restore, Path(folder), kind, random.Random(f"{name} {trial}"), tally
            )
            tally.attempt(f"backup {trial}, {kind}", work)
    return tally


def _restore(folder: Path, kind: str, draw: random.Random, tally: Tally) -> None:
    path, backup = folder / "log.sqlite", folder / "backup"
    backup.mkdir()
    with closing(_witness_store(folder)) as memory:
        witness = Witness("campaign/member/witness", WITNESS, memory, lambda: 1)
        store = open_store(path)
        append(store, draw.randint(1, MOST))
        if draw.random() < 0.5:
            _show(witness, store)
        _copy(folder, backup, FILES)
        for _ in range(draw.randint(1, 3)):
            append(store, draw.randint(1, MOST))
            if draw.random() < 0.3:
                store.close()  # moves the write-ahead log into the file
                store = open_store(path)
        _show(witness, store)
        newest, size = store.note(), store.size
        crash = folder / "crash"
        crash.mkdir()
        _copy(folder, crash, FILES)  # as a killed process leaves them
        store.close()
        _clear(folder)
        if kind == "under the newer write-ahead log":
            _copy(crash, folder, FILES[1:])
            _copy(backup, folder, FILES[:1])
        else:
            _copy(backup, folder, FILES if kind == "whole" else FILES[:1])
        try:
            store = open_store(path)
        except LedgerError:
            tally.counts["refused when opened"] += 1
            return
        with closing(store):
            _expect_refusal(witness, store, newest, size, draw, tally)


def _expect_refusal(
    witness: Witness,
    store: LedgerStore,
    newest: bytes,
    size: int,
    draw: random.Random,
    tally: Tally,
) -> None:
    """The restored log sees that it is behind; and if it looks away, no witness signs."""
    if store.size == size and store.note() == newest:
        tally.counts["restored nothing"] += 1  # the newer write-ahead log held it all
        return
    try:
        store.check_head(newest)
    except Rollback:
        tally.counts["behind its own head"] += 1
    else:
        raise Finding(f"{store.size} entries pass for {size}")
    wanted = draw.choice((store.size, size, size + draw.randint(1, MOST)))
    with store.transaction() as transaction:
        transaction.execute("CREATE TABLE IF NOT EXISTS spent (number INTEGER PRIMARY KEY) STRICT")
        for _ in range(wanted - store.size):
            # Not the entries that were lost: what a process that knows nothing of them would write.
            transaction.execute("INSERT INTO spent VALUES (?)", (transaction.size,))
            transaction.append(_other(transaction.size))
    try:
        _show(witness, store)
    except (Rollback, Fork, EvidenceError) as error:
        tally.counts[f"not cosigned: {type(error).__name__}"] += 1
    else:
        raise Finding(f"a restored log of {store.size} entries was cosigned after one of {size}")


def _show(witness: Witness, store: LedgerStore) -> None:
    held = witness.known(ORIGIN)
    old = held.size if held else 0
    proof = store.consistency_proof(min(old, store.size), store.size)
    witness.consider(origin=ORIGIN, key=KEY.public, note=store.note(), old_size=old, proof=proof)


def _other(number: int) -> Started:
    return Started(at_ms=number, software="campaign", nonce=f"{number:x}".rjust(32, "f"))


def _witness_store(folder: Path) -> LedgerStore:
    return LedgerStore(
        folder / "witness.sqlite",
        origin="campaign/member/witness",
        key=WITNESS,
        software="campaign",
        now_ms=lambda: 1,
    )


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def _clear(folder: Path) -> None:
    for path in folder.glob("log.sqlite*"):
        path.unlink()
