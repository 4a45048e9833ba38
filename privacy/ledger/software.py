"""Which code ran: a hash over the files of the installed packages."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Final

from privacy.errors import ConfigurationError

__all__ = ["PACKAGES", "code_hash", "software"]

PACKAGES: Final = ("client_sdk", "coordinator", "privacy", "protos")


def software() -> str:
    """Name and version of what is installed."""
    return f"alliance {importlib.metadata.version('alliance')}"


@functools.cache
def code_hash() -> str:
    """SHA-256 over the listing of all files of the installed packages.

    The listing has a line ``SHA-256 in hex, two spaces, path`` for each file, in order of the
    paths, which begin with the package's name; compiled files are left out. The same release gives
    the same hash wherever it is installed.

    Raises:
        ConfigurationError: if a package cannot be read.
    """
    lines = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigurationError(f"package {package} is not installed; install alliance again")
        root = Path(spec.submodule_search_locations[0])
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                name = f"{package}/{path.relative_to(root).as_posix()}"
                lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    lines.sort(key=lambda line: line[66:])
    return hashlib.sha256("".join(lines).encode()).hexdigest()
