from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.round import Round, State
from privacy.errors import MemberFault, RoundFailed
from privacy.fixedpoint import Grid
from tests.conftest import make_terms

DIMENSION = 6
TERMS = make_terms(dimension=DIMENSION)
NAMES = tuple(entry.name for entry in TERMS.roster)


def open_round(**changes: Any) -> Round:
    return Round(TERMS, round_number=7, attempt=1, cohort=NAMES, **changes)


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, DIMENSION, dtype=np.uint32)


def contribute(target: Round, member: str, values: np.ndarray) -> None:
    target.announce(member, "uint32", (DIMENSION,))
    assert target.cleared() == [member]
    assert target.add(member, 0, values.tobytes()) is not None


def lifted(total: np.ndarray) -> np.ndarray:
    return total.view(np.int32).astype(np.float64) * Grid.of(TERMS).step


def test_sum_is_exact_modulo_the_ring() -> None:
    target = open_round()
    vectors = {name: vector(seed) for seed, name in enumerate(NAMES)}
    for name, values in vectors.items():
        contribute(target, name, values)
    target.close()
    release = target.release()
    expected = np.sum(np.stack(list(vectors.values())), axis=0, dtype=np.uint32)
    np.testing.assert_array_equal(release.total(), lifted(expected))
    assert release.contributors == NAMES
    assert target.state is State.RELEASED


def test_receipt_names_the_bytes_that_were_added() -> None:
    target, values = open_round(), vector(1)
    target.announce(NAMES[0], "uint32", (DIMENSION,))
    target.cleared()
    data = values.tobytes()
    assert target.add(NAMES[0], 0, data[:8]) is None
    receipt = target.add(NAMES[0], 8, data[8:])
    assert receipt is not None
    assert receipt.sha256 == hashlib.sha256(data).digest()
    assert receipt.size_bytes == len(data)


def test_fewer_than_least_survivors_release_nothing() -> None:
    target = open_round()
    for seed, name in enumerate(NAMES[: TERMS.privacy.least_survivors - 1]):
        contribute(target, name, vector(seed))
    with pytest.raises(RoundFailed, match="3 contributions arrived and the terms demand 4"):
        target.close()
    assert target.state is State.FAILED
    with pytest.raises(RoundFailed, match="cannot release"):
        target.release()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("uint32", (5,)), ("uint32", (1, 6)), ("uint32", (6, 1)), ("uint64", (6,)), ("float32", (6,))],
)
def test_wrong_shape_or_dtype_names_the_member(dtype: str, shape: tuple[int, ...]) -> None:
    target = open_round()
    with pytest.raises(MemberFault, match=r"member-0: announced .* the terms say uint32") as fault:
        target.announce(NAMES[0], dtype, shape)
    assert fault.value.member == NAMES[0]
    assert target.cleared() == []


def test_stranger_is_refused() -> None:
    with pytest.raises(MemberFault, match="member mallory: round 7 attempt 1 is not for it"):
        open_round().announce("mallory", "uint32", (DIMENSION,))


def test_second_contribution_is_refused_and_not_added() -> None:
    target = open_round()
    contribute(target, NAMES[0], vector(0))
    with pytest.raises(MemberFault, match="second contribution"):
        target.announce(NAMES[0], "uint32", (DIMENSION,))
    with pytest.raises(MemberFault, match="without being cleared"):
        target.add(NAMES[0], 0, vector(0).tobytes())
    assert list(target.contributions) == [NAMES[0]]


def test_bytes_before_clearance_are_refused() -> None:
    target = open_round()
    target.announce(NAMES[0], "uint32", (DIMENSION,))
    with pytest.raises(MemberFault, match="without being cleared"):
        target.add(NAMES[0], 0, bytes(4))


@pytest.mark.parametrize(
    ("offset", "size", "words"),
    [
        (4, 4, "expected 0"),
        (0, 0, "not whole ring elements"),
        (0, 3, "not whole ring elements"),
        (0, 28, "too many bytes"),
    ],
)
def test_gaps_fragments_and_excess_are_refused(offset: int, size: int, words: str) -> None:
    target = open_round()
    target.announce(NAMES[0], "uint32", (DIMENSION,))
    target.cleared()
    with pytest.raises(MemberFault, match=words):
        target.add(NAMES[0], offset, bytes(size))


@pytest.mark.parametrize("end", [State.CLOSED, State.RELEASED, State.FAILED])
def test_every_message_after_the_close_is_refused(end: State) -> None:
    target = open_round()
    if end is State.FAILED:
        with pytest.raises(RoundFailed):
            target.close()
    else:
        for seed, name in enumerate(NAMES[:4]):
            contribute(target, name, vector(seed))
        target.announce(NAMES[4], "uint32", (DIMENSION,))
        target.cleared()
        target.add(NAMES[4], 0, bytes(8))
        target.close()
        if end is State.RELEASED:
            assert target.release().contributors == NAMES[:4]
    with pytest.raises(MemberFault, match=end.value):
        target.announce(NAMES[4], "uint32", (DIMENSION,))
    with pytest.raises(MemberFault, match=end.value):
        target.add(NAMES[4], 8, bytes(16))
    with pytest.raises(RoundFailed, match=f"cannot close a round that is {end.value}"):
        target.close()


def test_a_round_is_released_once() -> None:
    target = open_round()
    for seed, name in enumerate(NAMES):
        contribute(target, name, vector(seed))
    with pytest.raises(RoundFailed, match="cannot release a round that is collecting"):
        target.release()
    target.close()
    target.release()
    with pytest.raises(RoundFailed, match="cannot release"):
        target.release()


def test_uploads_are_paced_and_the_next_is_cleared_when_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordinator.round.UNDO_BYTES", 0)
    target = open_round()
    for name in NAMES:
        target.announce(name, "uint32", (DIMENSION,))
    assert target.cleared() == list(NAMES[:2])
    assert target.cleared() == []
    target.add(NAMES[1], 0, vector(1).tobytes())
    assert target.cleared() == [NAMES[2]]
    target.drop(NAMES[0])
    assert target.cleared() == [NAMES[3]]


@given(
    order=st.permutations(range(5)),
    cuts=st.lists(st.integers(1, DIMENSION - 1), min_size=5, max_size=5),
    fates=st.lists(st.sampled_from(["whole", "drop", "drop and repeat"]), min_size=5, max_size=5),
)
def test_one_hot_contributions_count_once_or_not_at_all(
    order: list[int], cuts: list[int], fates: list[str]
) -> None:
    """Member i contributes 1 at place i: a double count shows as 2, a remnant as a fraction."""
    target = open_round()
    for index in order:
        target.announce(NAMES[index], "uint32", (DIMENSION,))
    target.cleared()
    whole = set()
    for index in order:
        name, data = NAMES[index], np.eye(DIMENSION, dtype=np.uint32)[index].tobytes()
        cut = cuts[index] * 4
        target.add(name, 0, data[:cut])
        if fates[index] != "whole":
            target.drop(name)
        if fates[index] == "drop and repeat":
            target.announce(name, "uint32", (DIMENSION,))
            target.cleared()
            target.add(name, 0, data[:cut])
        if fates[index] != "drop":
            target.add(name, cut, data[cut:])
            whole.add(index)
    if len(whole) < TERMS.privacy.least_survivors:
        with pytest.raises(RoundFailed):
            target.close()
        return
    target.close()
    total = np.rint(target.release().total() / Grid.of(TERMS).step)
    assert total.tolist() == [float(index in whole) for index in range(DIMENSION)]
