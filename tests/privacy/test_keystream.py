"""The key stream: what it gives, that it repeats only when it should, and what it hides."""

import copy
import os
import pickle
import sys

import numpy as np
import pytest

from privacy.keystream import KeyStream

# Python 3.12 and later warn of any fork in a process that has threads; these children only read
# the stream and leave.
FORKS = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def read_in_child(stream, size_bytes=32):
    """What a forked child reads from the stream, and what its own child reads after that."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, stream.uint64(size_bytes // 8).tobytes())
            if os.fork() == 0:
                os.write(writer, stream.uint64(size_bytes // 8).tobytes())
                os._exit(0)
            os.wait()
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        received = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert len(received) == 2 * size_bytes
    return received[:size_bytes], received[size_bytes:]


def test_stream_is_the_published_counter_mode_vector():
    # NIST SP 800-38A, F.5.5 (CTR-AES256.Encrypt), all four blocks.
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    nonce = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    expected = bytes(a ^ b for a, b in zip(plain, cipher, strict=True))
    assert KeyStream(key, nonce=nonce).uint32(16).astype("<u4").tobytes() == expected
    assert KeyStream(key, nonce=nonce).uint64(8).astype("<u8").tobytes() == expected


@pytest.mark.parametrize("pieces", [(1,) * 40, (3, 5, 7, 11, 14), (40,), (0, 39, 1)])
def test_how_bytes_are_asked_for_does_not_change_them(pieces):
    whole = KeyStream(b"k" * 32).uint32(40)
    stream = KeyStream(b"k" * 32)
    assert np.array_equal(np.concatenate([stream.uint32(size) for size in pieces]), whole)


def test_a_fill_larger_than_the_inner_chunk_is_the_same_stream():
    large = KeyStream(b"k" * 32).uint32(50_001)
    stream = KeyStream(b"k" * 32)
    parts = [stream.uint32(size) for size in (16_383, 2, 16_384, 17_232)]
    assert np.array_equal(np.concatenate(parts), large)
    table = np.empty((3, 16_667), dtype=np.int32)
    KeyStream(b"k" * 32).fill(table)
    assert np.array_equal(table.reshape(-1).view(np.uint32), large)


def test_derived_streams_repeat_and_keys_and_nonces_separate_them():
    streams = [
        KeyStream(b"k" * 32),
        KeyStream(b"K" * 32),
        KeyStream(b"k" * 32, nonce=b"n" * 16),
    ]
    reads = {stream.uint64(4).tobytes() for stream in streams}
    assert len(reads) == 3
    assert KeyStream(b"k" * 32).uint64(4).tobytes() in reads


def test_two_fresh_streams_differ():
    assert not np.array_equal(KeyStream.fresh().uint64(2), KeyStream.fresh().uint64(2))


class TestFork:
    pytestmark = FORKS

    def test_child_of_a_fresh_stream_never_repeats_its_parent(self):
        stream = KeyStream.fresh()
        stream.uint32(5)
        child, grandchild = read_in_child(stream)
        own = stream.uint64(4).tobytes()
        assert len({own, child, grandchild}) == 3

    def test_child_of_a_derived_stream_does_repeat_and_is_flagged(self):
        # The positive control of the test above: the same comparison sees a repetition.
        stream = KeyStream(bytes(32))
        child, grandchild = read_in_child(stream)
        own = stream.uint64(4).tobytes()
        assert own == child != grandchild

    def test_parent_keeps_its_stream_after_a_fork(self):
        stream = KeyStream.fresh()
        context = stream._context
        read_in_child(stream)
        stream.uint32(1)
        assert stream._context is context


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_keys_of_another_length_are_refused(size):
    with pytest.raises(ValueError, match=f"32 bytes, got {size}"):
        KeyStream(bytes(size))


@pytest.mark.parametrize("size", [0, 12, 17])
def test_nonces_of_another_length_are_refused(size):
    with pytest.raises(ValueError, match=f"16 bytes, got {size}"):
        KeyStream(bytes(32), nonce=bytes(size))


def _read_only():
    array = np.zeros(4, dtype=np.uint32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros(4, dtype=np.float64), "native integer arrays only, got float64"),
        (np.zeros(4, dtype=bool), "native integer arrays only, got bool"),
        (
            np.zeros(4, dtype=">u4" if sys.byteorder == "little" else "<u4"),
            "native integer arrays only",
        ),
        (np.zeros(8, dtype=np.uint32)[::2], "C-contiguous"),
        (_read_only(), "writable"),
    ],
)
def test_arrays_it_cannot_fill_are_refused_untouched(array, problem):
    with pytest.raises(ValueError, match=problem):
        KeyStream(bytes(32)).fill(array)
    assert not array.any()


def test_neither_repr_nor_pickle_nor_copy_gives_the_key_away():
    key = b"an open secret of 32 bytes......"
    stream = KeyStream(key)
    assert repr(stream) == "<KeyStream derived>"
    assert repr(KeyStream.fresh()) == "<KeyStream fresh>"
    assert not hasattr(stream, "__dict__")
    assert all(getattr(stream, name) != key for name in stream.__slots__)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled or copied"):
            attempt(stream)
