"""A log's file: what is durable, what is refused when opened, and two processes on one file."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import ConfigurationError, EvidenceError, Fork, LedgerError, Rollback
from privacy.ledger.checkpoint import (
    Checkpoint,
    add_cosignatures,
    cosign,
    cosigners,
    open_checkpoint,
    sign_checkpoint,
)
from privacy.ledger.entry import Opened, Started, decode_entry, encode_entry
from privacy.ledger.merkle import MemoryTree, leaf_hash, root, verify_consistency, verify_inclusion
from privacy.ledger.store import LedgerStore
from tests.conftest import identity

ORIGIN = "a/member/m"
KEY = identity("ledger")


def opened(path, *, origin=ORIGIN, key=KEY):
    return LedgerStore(path, origin=origin, key=key, software="test 1", now_ms=lambda: 5)


def entry(number: int) -> Started:
    return Started(at_ms=number, software="s", nonce=f"{number:032x}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.sqlite"


@pytest.fixture
def store(path):
    with closing(opened(path)) as store:
        yield store


def test_a_new_log_begins_with_whose_it_is(store, path):
    assert store.size == 1
    (data,) = store.entries()
    assert decode_entry(data, where="x") == Opened(
        at_ms=5, origin=ORIGIN, key=KEY.public, software="test 1"
    )
    head = open_checkpoint(store.note(), origin=ORIGIN, key=KEY.public)
    assert (head.size, head.root) == (1, leaf_hash(data)) == (store.size, store.root)
    assert store.key == KEY.public
    assert [
        name.name for name in path.parent.iterdir() if not name.name.startswith(path.name)
    ] == []


def test_only_its_owner_may_read_it(store, path):
    store.append(entry(1))
    for name in path.parent.iterdir():
        assert stat.S_IMODE(name.stat().st_mode) == 0o600, name
    store.close()
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_entries_come_back_in_order_and_after_a_restart(store, path):
    assert store.append(*(entry(number) for number in range(1, 5))) == 1
    assert store.append(entry(5)) == 5
    expected = [encode_entry(entry(number)) for number in range(1, 6)]
    assert list(store.entries(1)) == expected
    assert list(store.entries(2, 4)) == expected[1:3]
    assert list(store.leaf_hashes(1)) == [leaf_hash(data) for data in expected]
    note = store.note()
    store.close()
    with closing(opened(path)) as again:
        assert list(again.entries(1)) == expected
        assert again.note() == note
        assert again.append(entry(6)) == 6


def test_many_entries_come_back_page_by_page(store):
    store.append(*(entry(number) for number in range(1, 2503)))
    assert [decode_entry(data, where="x").at_ms for data in store.entries(1)] == list(
        range(1, 2503)
    )
    assert len(list(store.leaf_hashes(999, 2001))) == 1002


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), max_size=8), st.data())
def test_every_head_has_the_root_and_the_proofs_of_a_tree_in_memory(tmp_path_factory, sizes, data):
    folder = tmp_path_factory.mktemp("log")
    with closing(opened(folder / "log.sqlite")) as store:
        heads = [open_checkpoint(store.note(), origin=ORIGIN, key=KEY.public)]
        for size in sizes:
            store.append(*(entry(number) for number in range(size)))
            heads.append(open_checkpoint(store.note(), origin=ORIGIN, key=KEY.public))
        tree = MemoryTree()
        for leaf in store.leaf_hashes():
            tree.append(leaf)
        for head in heads:
            assert head.root == tree.root(head.size) == root(store, head.size)
        old = data.draw(st.sampled_from(heads))
        new = data.draw(st.sampled_from([head for head in heads if head.size >= old.size]))
        verify_consistency(
            old_size=old.size, new_size=new.size, old_root=old.root, new_root=new.root,
            proof=store.consistency_proof(old.size, new.size),
        )  # fmt: skip
        index = data.draw(st.integers(0, new.size - 1))
        verify_inclusion(
            leaf=store.node(0, index), index=index, size=new.size, root=new.root,
            proof=store.inclusion_proof(index, new.size),
        )  # fmt: skip
    shutil.rmtree(folder)


def test_proofs_of_what_is_not_there_are_refused(store):
    for index, size in [(0, 2), (1, 1), (-1, 1)]:
        with pytest.raises(LedgerError, match="is not among"):
            store.inclusion_proof(index, size)
    for old, new in [(0, 2), (1, 0), (-1, 1)]:
        with pytest.raises(LedgerError, match="has 1 entries"):
            store.consistency_proof(old, new)


def test_a_transaction_is_whole_or_nothing(store, path):
    with store.transaction() as transaction:
        transaction.execute("CREATE TABLE beside (number INTEGER) STRICT")
        transaction.execute("INSERT INTO beside VALUES (7)")
        assert transaction.append(entry(1)) == 1
        assert transaction.size == 2
    note = store.note()

    def give_up() -> None:
        with store.transaction() as transaction:
            transaction.append(entry(2))
            transaction.execute("INSERT INTO beside VALUES (8)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    with closing(opened(path)) as other:
        for one in (store, other):
            assert (one.size, one.note()) == (2, note)
            with one.transaction() as transaction:
                rows = transaction.execute("SELECT number FROM beside").fetchall()
            assert rows == [(7,)]
    assert store.append(entry(2)) == 2


def test_a_second_opening_entry_is_refused(store):
    with pytest.raises(LedgerError, match="one `opened` entry"):
        store.append(Opened(at_ms=1, origin=ORIGIN, key=KEY.public, software=""))
    assert store.append(entry(1)) == 1


def test_a_statement_that_is_wrong_is_an_error_of_ours_and_stops_nothing(store):
    with store.transaction() as transaction:
        transaction.execute("CREATE TABLE beside (number INTEGER PRIMARY KEY) STRICT")

    def insert_twice() -> None:
        with store.transaction() as transaction:
            transaction.append(entry(1))
            transaction.execute("INSERT INTO beside VALUES (1)")
            transaction.execute("INSERT INTO beside VALUES (1)")

    def insert_nowhere() -> None:
        with store.transaction() as transaction:
            transaction.append(entry(1))
            transaction.execute("INSERT INTO nowhere VALUES (1)")

    for _ in range(2):
        with pytest.raises(LedgerError, match="UNIQUE"):
            insert_twice()
        with pytest.raises(LedgerError, match="no such table"):
            insert_nowhere()
    assert store.size == 1
    assert store.append(entry(1)) == 1


def test_transactions_do_not_nest_and_statements_need_one(store):
    with store.transaction() as transaction:
        with pytest.raises(LedgerError, match="open already"):
            store.append(entry(1))
        transaction.append(entry(1))
    with pytest.raises(LedgerError, match="inside a transaction"):
        transaction.execute("SELECT 1")
    assert store.size == 2


def test_threads_take_turns(store):
    def work() -> None:
        for number in range(20):
            store.append(entry(number))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.size == 81


def append_many(path, count):
    with closing(opened(path)) as store:
        for number in range(count):
            store.append(entry(number))
    os._exit(0)


def test_two_processes_on_one_file_lose_nothing(path):
    """They race from the making of the file on, and each sees the other's entries."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append_many, args=(path, 40)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with closing(opened(path)) as store:
        assert store.size == 81
        numbers = [decode_entry(data, where="x").at_ms for data in store.entries(1)]
        assert sorted(numbers) == sorted([*range(40), *range(40)])
    assert [name.name for name in path.parent.iterdir()] == [path.name]


def test_two_stores_on_one_file_see_each_other(store, path):
    with closing(opened(path)) as other:
        store.append(entry(1))
        with other.transaction() as transaction:
            assert transaction.size == 2
            transaction.append(entry(2))
        assert store.append(entry(3)) == 3
        assert other.note() == store.note()


def test_a_file_that_another_process_holds_says_so(store, path, monkeypatch):
    monkeypatch.setattr("privacy.ledger.database.BUSY_S", 0.01)
    with closing(opened(path)) as other, store.transaction():
        with pytest.raises(LedgerError, match="another process holds it"):
            other.append(entry(1))
        with pytest.raises(LedgerError, match="another process holds it"):
            opened(path)
    with closing(opened(path)) as other:
        other.append(entry(1))


# What is refused when opened.


@pytest.fixture
def closed(path):
    with closing(opened(path)) as store:
        store.append(*(entry(number) for number in range(1, 12)))
    return path


CHANGES = {
    "last leaf lost": "DELETE FROM leaf WHERE idx = 11",
    "first leaf lost": "DELETE FROM leaf WHERE idx = 0",
    "leaf in the middle lost": "DELETE FROM leaf WHERE idx = 5",
    "leaves swapped": "UPDATE leaf SET data = (SELECT data FROM leaf AS b WHERE b.idx = 9 - "
    "leaf.idx) WHERE idx IN (4, 5)",
    "leaf changed": "UPDATE leaf SET data = replace(data, '\"at_ms\":3', '\"at_ms\":4') "
    "WHERE idx = 3",
    "leaf added": "INSERT INTO leaf VALUES (12, x'7b7d')",
    "leaf renumbered": "UPDATE leaf SET idx = 20 WHERE idx = 11",
    "tail lost": "DELETE FROM leaf WHERE idx > 6",
    "subtree lost": "DELETE FROM node WHERE level = 2 AND idx = 1",
    "subtree changed": "UPDATE node SET hash = zeroblob(32) WHERE level = 1 AND idx = 0",
    "subtree added": "INSERT INTO node VALUES (0, 12, zeroblob(32))",
    "level added": "INSERT INTO node VALUES (9, 0, zeroblob(32))",
    "everything lost": "DELETE FROM leaf",
    "head lost": "DELETE FROM head",
    "head cut": "UPDATE head SET note = substr(note, 1, 40)",
    "other format": "PRAGMA user_version=2",
    "table lost": "DROP TABLE node",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_was_changed_is_refused(closed, name):
    with closing(sqlite3.connect(closed, isolation_level=None)) as connection:
        if name == "leaf changed":
            connection.execute(
                "UPDATE leaf SET data = CAST(replace(CAST(data AS TEXT), '\"at_ms\":3', "
                "'\"at_ms\":4') AS BLOB) WHERE idx = 3"
            )
            assert connection.total_changes == 1
        else:
            connection.execute(CHANGES[name])
    with pytest.raises(LedgerError, match=r"log\.sqlite"):
        opened(closed)


def test_a_tree_that_is_whole_but_was_not_signed_is_refused(closed):
    """An entry appended with its subtrees, but without the key."""
    with closing(sqlite3.connect(closed, isolation_level=None)) as connection:
        connection.execute("INSERT INTO leaf VALUES (12, x'7b7d')")
        connection.execute("INSERT INTO node VALUES (0, 12, ?)", (leaf_hash(b"{}"),))
    with pytest.raises(LedgerError, match=r"of 12|level 0|subtree"):
        opened(closed)


def test_another_log_s_file_is_refused(closed):
    for changes in ({"origin": "a/member/other"}, {"key": identity("other")}):
        with pytest.raises(LedgerError, match="is not a log of"):
            opened(closed, **changes)


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\x00" + bytes(5000)])
def test_a_file_that_is_no_log_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"log\.sqlite"):
        opened(path)
    assert path.read_bytes()[:16] == content[:16] or content == b""


def test_another_database_is_refused(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with pytest.raises(LedgerError, match="its format is 0"):
        opened(path)


def test_no_flipped_byte_of_an_entry_or_hash_goes_unnoticed(closed):
    """Bytes everywhere in the file; what a flip leaves readable is what it was before."""
    content = bytearray(closed.read_bytes())
    with closing(opened(closed)) as store:
        before = (list(store.entries()), store.note())
    refused = 0
    for place in range(100, len(content), 97):
        changed = content.copy()
        changed[place] ^= 0x10
        closed.write_bytes(changed)
        try:
            with closing(opened(closed)) as store:
                assert (list(store.entries()), store.note()) == before
        except LedgerError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("left", [1, 512, 4096, 5000, 3 * 4096])
def test_a_file_that_was_cut_is_refused(closed, left):
    content = closed.read_bytes()
    assert left < len(content)
    closed.write_bytes(content[:left])
    with pytest.raises(LedgerError):
        opened(closed)


def test_a_lost_file_beside_its_write_ahead_log_is_not_begun_anew(store, path):
    store.append(entry(1))
    path.unlink()
    with pytest.raises(LedgerError, match="write-ahead log is there"):
        opened(path)


def test_a_folder_that_cannot_be_written_is_the_operator_s_to_mend(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be made"):
        opened(tmp_path / "missing" / "log.sqlite")
    with pytest.raises(LedgerError):
        opened(tmp_path)


def test_after_closing_there_are_only_errors_of_ours(path):
    store = opened(path)
    store.close()
    for work in (lambda: store.append(entry(1)), store.note, lambda: list(store.entries())):
        with pytest.raises(LedgerError, match="closed"):
            work()


# Heads that others hold.


def cosigned(note: bytes, *names: str) -> bytes:
    return add_cosignatures(
        note, [cosign(note, witness=name, key=identity(name), time_s=5) for name in names]
    )


def test_the_newest_cosigned_head_is_kept_with_all_its_lines(store, path):
    assert store.newest_note() is None
    first = store.note()
    store.append(entry(1))
    second = store.note()
    store.keep_note(cosigned(first, "one"))
    store.keep_note(cosigned(second, "one"))
    store.keep_note(cosigned(first, "two"))
    store.keep_note(cosigned(second, "two"))
    store.close()
    with closing(opened(path)) as again:
        kept = again.newest_note()
        keys = {name: identity(name).public for name in ("one", "two")}
        assert cosigners(kept, keys) == ("one", "two")
        assert open_checkpoint(kept, origin=ORIGIN, key=KEY.public).size == 2


def test_a_head_that_the_log_does_not_contain_is_refused(store):
    store.append(entry(1))
    newer = sign_checkpoint(Checkpoint(ORIGIN, 3, bytes(32)), KEY)
    other = sign_checkpoint(Checkpoint(ORIGIN, 2, bytes(32)), KEY)
    strange = sign_checkpoint(Checkpoint(ORIGIN, 2, store.root), identity("other"))
    for note, kind in [(newer, Rollback), (other, Fork), (strange, EvidenceError)]:
        for work in (store.check_head, store.keep_note):
            with pytest.raises(kind):
                work(note)
    assert store.newest_note() is None
    assert store.check_head(store.note()).size == 2


def test_a_log_behind_its_own_cosigned_head_is_refused(closed):
    newer = sign_checkpoint(Checkpoint(ORIGIN, 13, bytes(32)), KEY)
    with closing(sqlite3.connect(closed, isolation_level=None)) as connection:
        connection.execute("INSERT INTO head VALUES (1, ?)", (newer,))
    with pytest.raises(Rollback, match="restore the newest copy"):
        opened(closed)


def test_a_restored_backup_is_given_away_by_its_newer_head(store, path):
    store.append(entry(1))
    store.close()
    backup = path.read_bytes()
    with closing(opened(path)) as going_on:
        going_on.append(entry(2))
        newest = going_on.note()
    path.write_bytes(backup)
    with closing(opened(path)) as restored:
        with pytest.raises(Rollback, match="has 2 entries, but its head of 3"):
            restored.check_head(newest)
        restored.append(entry(3))
        with pytest.raises(Fork):
            restored.check_head(newest)


def test_receipts_are_kept_once_and_in_order(store, path):
    for receipt in (b"two", b"one", b"two"):
        store.keep_receipts([receipt])
    store.close()
    with closing(opened(path)) as again:
        assert list(again.receipts()) == [b"two", b"one"]
