"""Masked contributions on the coordinator's disk: whole, or not there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.kept_rounds import KeptRounds
from privacy.ledger.kept import kept_files
from privacy.secagg import Unmasking
from tests.conftest import make_terms
from tests.privacy.secagg.alliance import Alliance, Sum


@pytest.fixture(scope="module")
def unmasking() -> Unmasking:
    alliance = Alliance(make_terms(members=4, dimension=8))
    one = Sum(alliance, alliance.cohort())
    one.run()
    return one.unmasking


def ended(unmasking: Unmasking | None, attempt: int = 1) -> Any:
    """What `KeptRounds` asks of a round."""
    return SimpleNamespace(round_number=3, attempt=attempt, unmasking=unmasking)


def read(path: Path) -> dict[str, bytes]:
    return {name: b"".join(parts) for name, parts in kept_files(path)}


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[KeptRounds]:
    kept = KeptRounds(tmp_path, 1 << 20)
    yield kept
    kept.close()


def file_of(folder: Path, attempt: int = 1) -> Path:
    return folder / "study" / f"round-3-{attempt}.kept"


def test_a_released_attempt_is_one_file_with_all_that_came(
    tmp_path: Path, rounds: KeptRounds, unmasking: Unmasking
) -> None:
    keep = rounds.keep("study", 3, 1)
    assert keep is not None
    keep("member-1", [b"abcd", b"efgh"])
    keep("member-0", [b"x" * (3 << 20)])
    rounds.seal("study", ended(unmasking))
    rounds.close()
    assert [path.name for path in tmp_path.glob("study/*")] == ["round-3-1.kept"]
    files = read(file_of(tmp_path))
    opening = json.loads(files.pop("opening.json"))
    assert files == {"member-1.bin": b"abcdefgh", "member-0.bin": b"x" * (3 << 20)}
    assert opening["survivors"] == ["member-0", "member-1", "member-2", "member-3"]


def test_large_contributions_are_written_before_the_end(
    tmp_path: Path, rounds: KeptRounds, unmasking: Unmasking
) -> None:
    keep = rounds.keep("study", 3, 1)
    assert keep is not None
    vectors = {f"member-{index}": bytes([index]) * (3 << 20) for index in range(4)}
    for member, vector in vectors.items():
        keep(member, [vector])
    for _ in range(1000):
        if file_of(tmp_path).exists() and file_of(tmp_path).stat().st_size >= 6 << 20:
            break
        time.sleep(0.01)
    assert file_of(tmp_path).stat().st_size >= 6 << 20  # two at a time
    rounds.seal("study", ended(unmasking))
    rounds.close()
    files = read(file_of(tmp_path))
    assert {name: files[f"{name}.bin"] for name in vectors} == vectors


def test_of_a_failed_or_unfinished_attempt_nothing_is_left(
    tmp_path: Path, rounds: KeptRounds
) -> None:
    for attempt in (1, 2):
        keep = rounds.keep("study", 3, attempt)
        assert keep is not None
        keep("member-0", [b"abcd"])
    rounds.drop("study", ended(None))
    rounds.close()  # the second is open still
    assert list(tmp_path.glob("study/*")) == []


def test_an_attempt_that_lost_a_contribution_is_not_kept(
    tmp_path: Path, rounds: KeptRounds, unmasking: Unmasking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.kept_rounds.MOST_WAITING_BYTES", 5)
    keep = rounds.keep("study", 3, 1)
    assert keep is not None
    keep("member-0", [b"abcdefgh"])  # too much at once
    rounds.keep("study", 4, 1)
    keep("member-1", [b"abcd"])
    rounds.seal("study", ended(unmasking))
    rounds.close()
    assert list(tmp_path.glob("study/*")) == []


def test_a_folder_that_cannot_be_written_costs_the_file_and_no_round(
    tmp_path: Path, unmasking: Unmasking
) -> None:
    (tmp_path / "study").write_text("in the way")
    kept = KeptRounds(tmp_path, 1 << 20)
    keep = kept.keep("study", 3, 1)
    assert keep is not None
    keep("member-0", [b"abcd"])
    kept.seal("study", ended(unmasking))
    kept.close()
    assert not file_of(tmp_path).exists()


def test_the_oldest_goes_when_there_is_no_room(tmp_path: Path, unmasking: Unmasking) -> None:
    for start in (1, 4):  # the second one finds what the first left
        kept = KeptRounds(tmp_path, 150_000)
        for attempt in range(start, start + 3):
            keep = kept.keep("study", 3, attempt)
            assert keep is not None
            keep("member-0", [bytes(40_000)])
            kept.seal("study", ended(unmasking, attempt))
        kept.close()
    left = sorted(path.name for path in tmp_path.glob("study/*"))
    assert left[-1] == "round-3-6.kept"
    assert 1 < len(left) < 4
    assert left == [f"round-3-{attempt}.kept" for attempt in range(7 - len(left), 7)]
    assert all(read(tmp_path / "study" / name) for name in left)


def test_a_file_that_was_cut_or_lengthened_is_unfinished(
    tmp_path: Path, rounds: KeptRounds, unmasking: Unmasking
) -> None:
    keep = rounds.keep("study", 3, 1)
    assert keep is not None
    keep("member-0", [bytes(range(256))])
    rounds.seal("study", ended(unmasking))
    rounds.close()
    whole = file_of(tmp_path).read_bytes()
    assert read(file_of(tmp_path))
    for size in (*range(64), *range(200, len(whole), 211), len(whole) - 1):
        file_of(tmp_path).write_bytes(whole[:size])
        assert read(file_of(tmp_path)) == {}, size
    for changed in (whole + b"\0", b"\0" + whole, whole[:100] + whole[101:]):
        file_of(tmp_path).write_bytes(changed)
        assert read(file_of(tmp_path)) == {}


def test_nothing_is_kept_where_nothing_may_be(tmp_path: Path) -> None:
    kept = KeptRounds(tmp_path, 0)
    assert not kept.keeps
    assert kept.keep("study", 1, 1) is None
    kept.close()
