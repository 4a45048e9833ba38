"""Memory of a long-running side of the link: vectors come and go every round."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

__all__ = ["settle"]

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 256 << 20
_COLLECT_EVERY: Final = 50_000
"""New objects between two looks for cycles; a round makes some thousands, and few cycles."""
_LARGEST_KEPT_BYTES: Final = 32 << 20
"""The most that glibc accepts as the threshold from which a block is mapped by itself."""


def settle() -> None:
    """Tunes the process once everything is imported; a speed knob, without effect elsewhere.

    glibc keeps freed vectors of up to 32 MiB instead of handing their pages back and faulting them
    in again every round (where the C library is another one, nothing happens), and the garbage
    collector no longer looks at what was imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
