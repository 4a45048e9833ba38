"""Reads what an alliance left on its disks while it runs, each entry once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from benchmarks.crash_campaign.alliance import COORDINATOR, CrashAlliance
from benchmarks.crash_campaign.judge import Evidence, Problem
from benchmarks.crash_campaign.steps import Left
from benchmarks.crash_campaign.study import MEMBERS
from privacy.empirical.releases import release_name
from privacy.ledger.entry import Release, decode_entry
from privacy.terms import Terms

__all__ = ["Record"]


class Record:
    """What is known so far of an alliance, from its files.

    Args:
        alliance: whose.
        terms: of its study.
    """

    def __init__(self, alliance: CrashAlliance, terms: Terms) -> None:
        self._alliance = alliance
        self._terms = terms
        self._leaves: dict[str, list[bytes]] = {name: [] for name in (COORDINATOR, *MEMBERS)}
        self._entries: dict[str, list[Any]] = {name: [] for name in self._leaves}
        self._sums: dict[int, bytes] = {}
        self._closed: tuple[dict[str, Any], ...] = ()
        self._left: dict[str, tuple[Left, ...]] = {}
        self.problems: list[Problem] = []
        """Entries that were there and are not there any more."""

    def read(self) -> bool:
        """Reads on; False if a log could not be read, as when its process just opens it.

        What was told or noted is read before the ledgers, and the coordinator's before members',
        so that each can only hold more than what it is held against.
        """
        self._closed = tuple(one.event for one in list(self._alliance.closed))
        self._left = {name: self._alliance.left(name) for name in MEMBERS}
        try:
            for name in self._leaves:
                self._read_log(name)
            self._read_sums()
        except sqlite3.OperationalError:
            return False
        return True

    def evidence(self) -> Evidence:
        """What was read."""
        return Evidence(
            self._terms,
            tuple(self._entries[COORDINATOR]),
            {name: tuple(self._entries[name]) for name in MEMBERS},
            dict(self._sums),
            self._closed,
            self._left,
        )

    def _query(self, name: str, work: Callable[[sqlite3.Connection], None]) -> None:
        path = self._alliance.folder / f"{name}-state" / "ledger.sqlite"
        address = f"file:{path}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
            work(connection)

    def _read_log(self, name: str) -> None:
        leaves = self._leaves[name]

        def read(connection: sqlite3.Connection) -> None:
            first = max(0, len(leaves) - 1)
            query = "SELECT data FROM leaf WHERE idx >= ? ORDER BY idx"
            found = [row[0] for row in connection.execute(query, (first,))]
            if leaves and found[:1] != leaves[-1:]:
                what = f"{name}: entry {first} was there and is gone, or another one"
                self.problems.append(Problem("log", what))
                return
            for data in found[1 if leaves else 0 :]:
                self._entries[name].append(decode_entry(data, where=name))
                leaves.append(data)

        self._query(name, read)

    def _read_sums(self) -> None:
        folder = self._alliance.folder / "coordinator-state" / "releases" / self._terms.label
        for entry in self._entries[COORDINATOR]:
            if isinstance(entry, Release) and entry.round not in self._sums:
                path = folder / release_name(entry.round, entry.attempt)
                if path.exists():
                    self._sums[entry.round] = path.read_bytes()
