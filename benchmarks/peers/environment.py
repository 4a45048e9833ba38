"""Virtual environments of peers, made with pip and kept under ``.peers/``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PeerError", "environment"]

_ROOT = Path(__file__).resolve().parents[2] / ".peers"
_STAMP = "requirements.json"
_TAIL_LINES = 15


class PeerError(Exception):
    """A peer could not be installed, started or measured; never a fault of the alliance."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Returns the folder of a virtual environment that holds ``requirements``.

    It is made on the first call (``.peers/NAME/`` at the repository root, with pip) and reused as
    long as the requirements and the interpreter's version stay the same. Programs and the
    interpreter lie in its ``bin`` folder.

    Args:
        name: name of the folder, one plain word.
        requirements: what pip installs, each with a version bound.

    Returns:
        The absolute path of the environment.

    Raises:
        PeerError: ``name`` is not a plain word, or pip failed; the message says what to do.
    """
    if not name.replace("-", "").isalnum():
        raise PeerError(f"peer {name!r}: the name must be letters, digits and hyphens")
    folder = _ROOT / name
    stamp = folder / _STAMP
    wanted = json.dumps([platform.python_version(), *requirements], indent=1) + "\n"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    print(f"peer {name}: making {folder} with {', '.join(requirements)} ...", flush=True)
    _step(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
    python = str(folder / "bin" / "python")
    _step(name, [python, "-m", "pip", "install", "--disable-pip-version-check", *requirements])
    # The stamp comes last: an interrupted installation is made anew by the next call.
    stamp.write_text(wanted, encoding="utf-8")
    print(f"peer {name}: ready", flush=True)
    return folder


def _step(name: str, command: list[str]) -> None:
    """Runs one command of the installation, without the caller's own Python settings."""
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {key: value for key, value in os.environ.items() if key not in own}
    done = subprocess.run(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_TAIL_LINES:])
        raise PeerError(
            f"peer {name}: `{' '.join(command)}` ended with {done.returncode}; pip must reach a "
            f"package index that has these versions:\n{tail}"
        )
