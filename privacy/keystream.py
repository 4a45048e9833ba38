"""Random bits: an AES-256-CTR stream written straight into numpy buffers."""

from __future__ import annotations

import os
import sys
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["KEY_BYTES", "NONCE_BYTES", "KeyStream", "counter_mode"]

KEY_BYTES = 32
NONCE_BYTES = 16

_ZEROS = bytes(1 << 16)
"""What is encrypted: CTR mode turns zeros into the stream itself. Fits the first-level caches."""

_forks = 0
"""How many forks lie between this process and the first one that imported this module."""


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class KeyStream:
    """A stream of pseudorandom bits: AES-256 in counter mode over zeros.

    A stream is one sequence of bytes; every call takes the next ones, so how they are asked for
    does not change them: ``uint32(4)`` reads the bytes that two calls of ``uint32(2)`` read.
    Integers are little-endian on every machine.

    A stream made by the constructor is **derived**: key and nonce decide it, so that two parties
    can draw the same initial parameters or masks. One made by `fresh` is **secret** and is what
    noise must be drawn from.

    Not thread-safe: a stream belongs to one thread; give each thread its own.

    **Guarantees:** computational: whoever tells the bits from uniform ones breaks AES-256 (no
    counter block repeats; after 2^40 bytes the birthday term is below 2^-56). A fresh stream
    never gives the same bits to two processes: the child of a fork takes a new key before its
    next bit. A derived stream is repeatable by design, so parent and child of a fork both
    continue it alike: never draw noise from one. Neither key nor position appears in ``repr``,
    and a stream cannot be pickled or copied.

    **Source:** NIST SP 800-38A (2001), section 6.5 (counter mode).

    >>> KeyStream(bytes(32)).uint32(2)
    array([2025887196, 2307473570], dtype=uint32)

    Args:
        key: 32 bytes; derive it with HKDF under a context string of its own.
        nonce: 16 bytes, the first counter block. One key serves one stream, unless the callers
            make sure that the counter ranges of its nonces cannot meet.

    Raises:
        ValueError: key or nonce has another length.
    """

    __slots__ = ("_born", "_context", "_secret")

    def __init__(self, key: bytes, *, nonce: bytes = bytes(NONCE_BYTES)) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key stream's key has {KEY_BYTES} bytes, got {len(key)}")
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a key stream's nonce has {NONCE_BYTES} bytes, got {len(nonce)}")
        self._context = counter_mode(key, nonce)
        self._secret = False
        self._born = (0, 0)

    @classmethod
    def fresh(cls) -> Self:
        """A secret stream under a new key from the operating system."""
        stream = cls(os.urandom(KEY_BYTES))
        stream._secret = True
        stream._born = (os.getpid(), _forks)
        return stream

    def fill(self, buffer: npt.NDArray[Any]) -> None:
        """Overwrites an array with the next bytes of the stream.

        Args:
            buffer: writable, contiguous (C order), of native integers of any width, any shape;
                takes exactly ``buffer.nbytes`` bytes.

        Raises:
            ValueError: the array is read-only, not contiguous, or not of native integers.
        """
        if buffer.dtype.kind not in "iu" or not buffer.dtype.isnative:
            raise ValueError(f"a key stream fills native integer arrays only, got {buffer.dtype}")
        if not (buffer.flags.c_contiguous and buffer.flags.writeable):
            raise ValueError("a key stream fills writable C-contiguous arrays only; pass a copy")
        if self._secret:
            self._rekey_after_fork()
        target = buffer.reshape(-1).view(np.uint8).data
        step = len(_ZEROS)
        whole = len(target) - len(target) % step
        for start in range(0, whole, step):
            self._context.update_into(_ZEROS, target[start : start + step])
        if whole < len(target):
            self._context.update_into(memoryview(_ZEROS)[: len(target) - whole], target[whole:])
        if sys.byteorder == "big":
            buffer.byteswap(inplace=True)

    def uint32(self, count: int) -> npt.NDArray[np.uint32]:
        """The next ``count`` integers of 32 bits, uint32, shape (count,)."""
        values = np.empty(count, dtype=np.uint32)
        self.fill(values)
        return values

    def uint64(self, count: int) -> npt.NDArray[np.uint64]:
        """The next ``count`` integers of 64 bits, uint64, shape (count,)."""
        values = np.empty(count, dtype=np.uint64)
        self.fill(values)
        return values

    def __repr__(self) -> str:
        return f"<KeyStream {'fresh' if self._secret else 'derived'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a key stream is never pickled or copied; make another one")

    def _rekey_after_fork(self) -> None:
        # The process id also catches a fork in C, which runs no Python hook; the counter catches
        # a process id that was used again.
        here = (os.getpid(), _forks)
        if here != self._born:
            self._context = counter_mode(os.urandom(KEY_BYTES), bytes(NONCE_BYTES))
            self._born = here


def counter_mode(key: bytes, nonce: bytes) -> CipherContext:
    """AES-256-CTR: encrypting zeros gives the key stream from counter block ``nonce``."""
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
