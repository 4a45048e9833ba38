"""A node whose plain update is written to a file, and one of whose contributions goes wrong.

Run as ``python -m tests.spied_node FILE ARGUMENTS``, as `alliance-node` with those arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import client_sdk.contribution as made
from client_sdk.cli import main
from client_sdk.recipes.propensity.contribute import contribute

SPIED = Path(sys.argv[1] if __name__ == "__main__" else "/dev/null")
SPIED_ROUND = 3
"""Counted in contributions; its error quotes the data, as other software's errors do."""

encode, count = made.encode, 0


def spy_encode(block_sums: Iterable[Any], *arguments: Any) -> Any:
    blocks = [np.asarray(block, dtype=np.float32) for block in block_sums]
    with SPIED.open("ab") as file:
        for block in blocks:
            file.write(block.tobytes())
    return encode(blocks, *arguments)


def spy_contribute(parameters: Any, batch: Any, **named: Any) -> Any:
    global count
    count += 1
    if count == SPIED_ROUND:
        quoted = np.asarray(batch.numbers).ravel()[:50].tolist()
        raise ValueError(f"could not convert {quoted} of {SPIED.with_suffix('.csv').read_text()}")
    return contribute(parameters, batch, **named)


if __name__ == "__main__":
    made.encode = spy_encode  # type: ignore[assignment]
    made.contribute_of = lambda name: spy_contribute  # type: ignore[assignment]
    sys.argv[1:2] = []
    main()
