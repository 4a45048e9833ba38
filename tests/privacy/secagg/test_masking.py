"""Masks: they are the key streams of their seeds, and what is added comes off again."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from privacy.keystream import KeyStream
from privacy.secagg import masking
from privacy.secagg.masking import BLOCK_BYTES, BYTES_PER_THREAD, apply_masks

DTYPES = [np.uint32, np.uint64]
ODD = [0, 1, 2, 3, 5, 7, 15, 16, 17, 33, 1001]

seeds = st.lists(st.binary(min_size=32, max_size=32), max_size=6)
dtypes = st.sampled_from(DTYPES)


def vector(size, dtype, number=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(number).integers(0, top, size, dtype=dtype, endpoint=True)


def stream(seed, size, dtype):
    own = KeyStream(seed)
    return own.uint32(size) if dtype == np.uint32 else own.uint64(size)


def naive(before, add, subtract):
    after = before.copy()
    for seed in add:
        after += stream(seed, before.size, before.dtype)
    for seed in subtract:
        after -= stream(seed, before.size, before.dtype)
    return after


def some_seeds(count, first=0):
    return [bytes([first + place]) * 32 for place in range(count)]


def block_sizes(dtype):
    block = BLOCK_BYTES // np.dtype(dtype).itemsize
    return [block - 1, block, block + 1, 2 * block + 5]


def test_a_mask_is_aes_256_counter_mode_over_zeros_from_block_zero():
    seed = bytes(range(32))
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    expected = np.frombuffer(encryptor.update(bytes(44)), dtype="<u4")
    masked = np.zeros(11, dtype=np.uint32)
    apply_masks(masked, add=[seed])
    assert masked.tolist() == expected.tolist()


@given(st.integers(0, 200), dtypes, seeds, seeds)
def test_masks_are_added_and_subtracted_modulo_the_ring(size, dtype, add, subtract):
    before = vector(size, dtype)
    after = before.copy()
    apply_masks(after, add=add, subtract=subtract)
    assert (after == naive(before, add, subtract)).all()


@given(st.integers(0, 200), dtypes, seeds, seeds)
def test_masks_cancel(size, dtype, add, subtract):
    before = vector(size, dtype)
    after = before.copy()
    apply_masks(after, add=add, subtract=subtract)
    apply_masks(after, add=subtract, subtract=add)
    assert (after == before).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_around_the_edge_of_a_block(dtype):
    for size in block_sizes(dtype):
        before = vector(size, dtype)
        after = before.copy()
        apply_masks(after, add=some_seeds(2), subtract=some_seeds(1, 7))
        assert (after == naive(before, some_seeds(2), some_seeds(1, 7))).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_seeds(dtype):
    before = vector(77, dtype)
    after = before.copy()
    apply_masks(after, add=some_seeds(120), subtract=some_seeds(99, 120))
    assert (after == naive(before, some_seeds(120), some_seeds(99, 120))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_nothing(monkeypatch, dtype, threads):
    """Small vectors, cut among threads as large ones are."""
    monkeypatch.setattr(masking, "BYTES_PER_THREAD", 1)
    for size in [*ODD, *block_sizes(dtype)]:
        before = vector(size, dtype)
        after = before.copy()
        apply_masks(after, add=some_seeds(3), subtract=some_seeds(2, 9), most_threads=threads)
        assert (after == naive(before, some_seeds(3), some_seeds(2, 9))).all(), size


def test_large_vectors_are_cut_among_threads_and_small_ones_are_not(monkeypatch):
    calls = []
    whole = masking._apply

    def counted(part, offset_bytes, add, subtract):
        calls.append((len(part), offset_bytes))
        whole(part, offset_bytes, add, subtract)

    monkeypatch.setattr(masking, "_apply", counted)
    size = BYTES_PER_THREAD // 4 + 13
    before = vector(size, np.uint32)
    after = before.copy()
    apply_masks(after, add=some_seeds(3), most_threads=3)
    assert len(calls) == 3
    assert sum(length for length, _ in calls) == size
    assert all(offset % 16 == 0 for _, offset in calls)
    assert (after == naive(before, some_seeds(3), [])).all()
    calls.clear()
    apply_masks(after, subtract=some_seeds(3), most_threads=1)
    apply_masks(vector(10, np.uint32), subtract=some_seeds(3), most_threads=3)
    assert calls == [(size, 0), (10, 0)]
    assert (after == before).all()


def test_a_view_is_masked_in_place_and_its_neighbours_are_not():
    whole = np.zeros(30, dtype=np.uint32)
    apply_masks(whole[10:20], add=some_seeds(1))
    assert not whole[:10].any()
    assert not whole[20:].any()
    assert (whole[10:20] == stream(some_seeds(1)[0], 10, np.uint32)).all()


def test_without_seeds_nothing_changes():
    after = vector(9, np.uint64)
    apply_masks(after)
    assert (after == vector(9, np.uint64)).all()


def _read_only():
    array = np.zeros(4, dtype=np.uint32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((2, 2), dtype=np.uint32), "one-dimensional, contiguous, writable"),
        (np.zeros(8, dtype=np.uint32)[::2], "one-dimensional, contiguous, writable"),
        (_read_only(), "one-dimensional, contiguous, writable"),
        (np.zeros(4, dtype=np.int32), "not into int32"),
        (np.zeros(4, dtype=np.float32), "not into float32"),
        (np.zeros(4, dtype=np.uint16), "not into uint16"),
        (np.zeros(4, dtype=">u4"), "not into >u4"),
    ],
)
def test_vectors_it_cannot_mask_are_refused_untouched(array, problem):
    with pytest.raises(ValueError, match=problem):
        apply_masks(array, add=some_seeds(1))
    assert not array.any()
