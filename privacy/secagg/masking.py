"""Masks: AES-256-CTR streams, expanded and added in place, one cache-sized block at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.fixedpoint import RingVector
from privacy.keystream import counter_mode

__all__ = ["apply_masks"]

BLOCK_BYTES: Final = 1 << 18
"""Vector block, mask block and zeros stay in the second-level cache together."""
BYTES_PER_THREAD: Final = 8 << 20
"""A second thread pays off from so many mask bytes."""
CORES: Final = os.cpu_count() or 1
_AES_BLOCK: Final = 16
_ZEROS: Final = bytes(BLOCK_BYTES)


def apply_masks(
    vector: RingVector,
    *,
    add: Sequence[bytes] = (),
    subtract: Sequence[bytes] = (),
    most_threads: int | None = None,
) -> None:
    """Adds and subtracts the masks of 32-byte seeds, modulo the ring, in place.

    A mask is the AES-256-CTR key stream of its seed from counter block 0, read as little-endian
    ring elements. A seed serves one mask and nothing else.

    Args:
        vector: uint32 or uint64, one dimension, contiguous, writable.
        add: seeds of masks to add.
        subtract: seeds of masks to subtract.
        most_threads: a speed knob: at most so many; as many as there are cores if None.

    Raises:
        ValueError: if the vector is not as above.
    """
    if vector.ndim != 1 or not vector.flags.c_contiguous or not vector.flags.writeable:
        raise ValueError("masks are added into one-dimensional, contiguous, writable vectors")
    if vector.dtype not in (np.dtype("<u4"), np.dtype("<u8")):
        raise ValueError(f"masks are added on the ring, not into {vector.dtype}")
    work_bytes = vector.nbytes * (len(add) + len(subtract))
    threads = min(most_threads or CORES, work_bytes // BYTES_PER_THREAD)
    if threads <= 1:
        _apply(vector, 0, add, subtract)
        return
    # Cut at whole counter blocks, so that each part's streams start at a block of their own.
    size = -(-vector.nbytes // (threads * _AES_BLOCK)) * _AES_BLOCK // vector.itemsize
    parts = range(0, len(vector), size)
    with ThreadPoolExecutor(len(parts)) as pool:
        for done in [
            pool.submit(
                _apply, vector[start : start + size], start * vector.itemsize, add, subtract
            )
            for start in parts
        ]:
            done.result()


def _apply(
    part: RingVector, offset_bytes: int, add: Sequence[bytes], subtract: Sequence[bytes]
) -> None:
    """Masks one part of a vector that starts at a whole counter block."""
    nonce = (offset_bytes // _AES_BLOCK).to_bytes(_AES_BLOCK)
    adding = [counter_mode(seed, nonce) for seed in add]
    subtracting = [counter_mode(seed, nonce) for seed in subtract]
    scratch = np.empty(min(BLOCK_BYTES, part.nbytes), dtype=np.uint8)
    zeros = memoryview(_ZEROS)
    block_elements = BLOCK_BYTES // part.itemsize
    for start in range(0, len(part), block_elements):
        block = part[start : start + block_elements]
        stream = scratch[: block.nbytes]
        mask: npt.NDArray[np.unsignedinteger] = stream.view(block.dtype)
        target, source = stream.data, zeros[: block.nbytes]
        for context in adding:
            context.update_into(source, target)
            np.add(block, mask, out=block)
        for context in subtracting:
            context.update_into(source, target)
            np.subtract(block, mask, out=block)
