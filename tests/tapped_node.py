"""A node whose outgoing frames are written to a file, before TLS hides them.

Run as ``python -m tests.tapped_node FILE ARGUMENTS``, as `alliance-node` with those arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from protos import frames

TAP = Path(sys.argv[1] if __name__ == "__main__" else "/dev/null")
serialized = frames.serialized


def tapped(frame: Any) -> bytes:
    raw = serialized(frame)
    with TAP.open("ab") as file:
        file.write(raw)
    return raw


if __name__ == "__main__":
    frames.serialized = tapped  # before the session takes it
    sys.argv[1:2] = []
    from client_sdk.cli import main

    main()
