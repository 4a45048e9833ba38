"""A slice of the campaign; the whole of it is ``python -m benchmarks.ledger_campaign``."""

from __future__ import annotations

import re

import pytest

from benchmarks.ledger_campaign import backups, full_disk, kills, races, syscalls, writer
from benchmarks.secagg_campaign.protocol import Finding

needs_strace = pytest.mark.skipif(
    not syscalls.can_trace(), reason="strace is missing or may not attach"
)
needs_mount = pytest.mark.skipif(
    not full_disk.can_mount(), reason="this process may not mount file systems"
)


def test_killed_writers_lose_nothing_they_acknowledged():
    tally = kills.kills("test", range(40))
    assert (tally.trials, tally.reasons) == (40, [])
    assert tally.counts["acknowledged"] > 0


def test_a_writer_that_acknowledges_too_early_is_caught():
    assert kills.hasty_kills(range(60)).failures > 0


def test_an_acknowledged_entry_that_is_not_there_is_found(tmp_path):
    path = tmp_path / "log.sqlite"
    with pytest.raises(Finding, match="the file is gone"):
        writer.check(path, 1)
    store = writer.open_store(path)
    writer.append(store, 2)
    assert writer.check(path, 3) == 3
    with pytest.raises(Finding, match="4 entries were acknowledged, 3 are there"):
        writer.check(path, 4)
    with store.transaction() as transaction:
        transaction.execute("DELETE FROM spent WHERE number = 1")
    with pytest.raises(Finding, match="1 rows beside 2 entries"):
        writer.check(path, 3)
    store.append(writer.entry(7))
    with pytest.raises(Finding, match="entry 3 is another one"):
        writer.check(path, 3)
    store.close()


@needs_strace
@pytest.mark.parametrize("fault", syscalls.FAULTS)
def test_no_failing_write_or_sync_of_an_append_loses_anything(fault):
    chosen = [call for call in syscalls.calls("append") if call.name in ("pwrite64", "fdatasync")]
    tally = syscalls.faults("append", chosen[:6], fault)
    assert (tally.trials, tally.reasons) == (6, [])
    assert tally.counts["struck"] == 6


@needs_strace
def test_after_one_failed_sync_nothing_is_acknowledged_until_the_file_is_opened_again(tmp_path):
    injection = ("-e", "inject=fdatasync:error=EIO:when=1")
    sizes, trace = syscalls.traced("append", tmp_path, injection)
    assert any("(INJECTED)" in line for line in trace)
    assert sizes == []
    assert writer.check(tmp_path / "log.sqlite", syscalls.BEFORE) in (3, 4)


WRITTEN = re.compile(r"(?:pwrite64|ftruncate)\(\d+<(.*?)>")
GONE = re.compile(r'unlink\("(.*?)"')
SYNCED = re.compile(r"(?:fdatasync|fsync)\(\d+<(.*?)>")


@needs_strace
@pytest.mark.parametrize("step", syscalls.STEPS)
def test_nothing_is_acknowledged_that_a_power_cut_could_take_back(step, tmp_path):
    """D8: when a size is told, every write to the file and its write-ahead log was synced."""
    sizes, trace = syscalls.traced(step, tmp_path, ("-y",))
    unsynced, told = set(), 0
    for line in trace:
        if written := WRITTEN.match(line):
            if not written.group(1).endswith("-shm"):  # rebuilt from the log after a crash
                unsynced.add(written.group(1))
        elif line.startswith("link("):
            unsynced.add(str(tmp_path))  # the folder has a new name in it
        elif gone := GONE.match(line):
            unsynced.discard(gone.group(1))
        elif synced := SYNCED.match(line):
            unsynced.discard(synced.group(1))
        elif line.startswith("write(") and "pipe:" in line:
            assert unsynced == set(), line
            told += 1
    assert told >= len(sizes) > 0


@needs_mount
def test_full_disks_lose_nothing():
    tally = full_disk.full_disks(range(20, 50, 6))
    assert (tally.trials, tally.reasons) == (5, [])
    assert tally.counts["acknowledged"] > 0


def test_restored_backups_are_cosigned_by_nobody():
    tally = backups.restored("test", range(9))
    assert (tally.trials, tally.reasons) == (9, [])
    assert tally.counts["behind its own head"] > 2


def test_races_for_the_last_unit_have_one_winner():
    tally = races.spenders(range(30))
    assert (tally.trials, tally.reasons) == (30, [])
    tally = races.appenders(range(60))
    assert (tally.trials, tally.reasons) == (60, [])


def test_a_writer_that_looks_too_early_is_caught():
    assert races.careless_appenders(range(60)).failures > 0
