"""Two bundles: what is new, and that nothing old changed."""

from __future__ import annotations

from contextlib import closing

import pytest

from privacy.ledger.diff import compare_bundles
from tests.privacy.ledger.bundles import Liar, copy, export


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A bundle of before the second round, and one of after the study."""
    folder = tmp_path_factory.mktemp("two")
    with closing(Liar(folder / "alliance")) as made:
        made.agree()
        made.reserve(4)
        made.exchange()
        made.attempt(1, 1)
        before = export(made, folder / "before")
        made.attempt(2, 1)
        made.publish(last=True)
        made.witness()
        made.receipts()
        after = export(made, folder / "after")
    return before, after


def test_a_later_bundle_extends_an_earlier_one(two):
    before, after = two
    difference = compare_bundles(before, after)
    assert difference.extends
    assert "coordinator/entries.jsonl: 2 more (1 publication, 1 release)" in difference.added
    assert any("models/coupons.safetensors: is new" in one for one in difference.added)
    assert any("receipts.jsonl: 2 more" in one for one in difference.added)


def test_the_same_bundle_adds_nothing(two):
    before, _ = two
    difference = compare_bundles(before, before)
    assert difference.extends
    assert difference.added == ()


def test_an_earlier_bundle_does_not_extend_a_later_one(two):
    before, after = two
    found = {one.file for one in compare_bundles(after, before).findings}
    assert {"coordinator/entries.jsonl", "models/coupons.safetensors"} <= found


def test_what_changed_is_found(two, tmp_path):
    before, after = two
    folder = copy(after, tmp_path / "b")
    log = folder / "members/member-1/entries.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]))
    (kept,) = folder.glob("coordinator/rounds/*/round-1-1/member-0.bin")
    kept.write_bytes(b"other")
    found = {(one.file, one.entry) for one in compare_bundles(before, folder).findings}
    assert found == {
        ("members/member-1/entries.jsonl", 3),
        (kept.relative_to(folder).as_posix(), None),
    }


def test_rounds_may_be_let_go(two, tmp_path):
    before, after = two
    folder = copy(after, tmp_path / "b")
    for path in folder.glob("coordinator/rounds/*/round-1-1/*"):
        path.unlink()
    difference = compare_bundles(before, folder)
    assert difference.extends
    assert sum("is no longer kept" in one for one in difference.added) == 1
