"""Work that can wait gives way to a round in progress."""

from __future__ import annotations

import os
import threading
from typing import Final

__all__ = ["give_way"]

NICENESS: Final = 10


def give_way() -> None:
    """Lowers the calling thread's priority, where the system has one for threads (Linux)."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
