"""Sums on the coordinator's disk: there before they are named, read back only as they were."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest

from coordinator.kept_sums import KeptSums
from coordinator.round import Release
from privacy.errors import LedgerError
from privacy.fixedpoint import Grid, RingVector
from tests.conftest import make_terms

TERMS = make_terms(members=4, dimension=8)
NAMES = tuple(entry.name for entry in TERMS.roster)


def ring_of(number: int) -> RingVector:
    return np.full(8, number, dtype=Grid.of(TERMS).dtype)


def write(sums: KeptSums, round_number: int) -> str:
    release = Release(round_number, 1, NAMES, ring_of(round_number), Grid.of(TERMS))
    sums.write(TERMS, release).result()
    return hashlib.sha256(release.ring.data).hexdigest()


@pytest.mark.parametrize("most_bytes", [0, 1 << 20])
def test_a_sum_is_read_back_as_it_was_or_not_at_all(tmp_path: Path, most_bytes: int) -> None:
    sums = KeptSums(tmp_path, most_bytes)
    digest = write(sums, 3)
    data = ring_of(3).tobytes()
    sums.close()
    again = KeptSums(tmp_path, 1 << 20 if most_bytes == 0 else 0)  # the operator changed it
    assert again.read(TERMS, 3, 1, digest) == data
    assert again.read(TERMS, 3, 2, digest) is None
    assert again.read(TERMS, 3, 1, "0" * 64) is None
    (file,) = tmp_path.glob("*/*/*.sum")
    file.write_bytes(data[:-1])
    assert again.read(TERMS, 3, 1, digest) is None
    again.close()


@pytest.mark.parametrize(("most_bytes", "left"), [(0, [11]), (1 << 20, [1, 2, 11])])
def test_sums_that_are_needed_no_more_go_unless_all_of_the_study_stay(
    tmp_path: Path, most_bytes: int, left: list[int]
) -> None:
    sums = KeptSums(tmp_path, most_bytes)
    digests = {number: write(sums, number) for number in (1, 2, 11)}
    sums.forget(TERMS, 2)
    assert [n for n, digest in digests.items() if sums.read(TERMS, n, 1, digest)] == left
    sums.close()


def test_a_study_stays_as_a_whole_if_all_its_attempts_fit(tmp_path: Path) -> None:
    size = TERMS.privacy.max_attempts * ring_of(1).nbytes
    for most_bytes, folder in ((size - 1, "sums"), (size, "releases")):
        sums = KeptSums(tmp_path / str(most_bytes), most_bytes)
        write(sums, 1)
        sums.close()
        assert (tmp_path / str(most_bytes) / folder / TERMS.label / "round-1-1.sum").exists()


def test_a_sum_for_which_there_is_no_room_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    """A limit on the size of files cuts it short, as a disk does that runs full."""
    sums = KeptSums(tmp_path, 1 << 20)
    write(sums, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(LedgerError, match=r"round-2-1.sum: cannot be written .* start again"):
            write(sums, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    digest = write(sums, 3)
    assert sums.read(TERMS, 3, 1, digest) == ring_of(3).tobytes()
    assert sorted(path.name for path in tmp_path.rglob("*.sum")) == [
        "round-1-1.sum",
        "round-3-1.sum",
    ]
    sums.close()
