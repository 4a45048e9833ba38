"""Configuration files: TOML, validated strictly, paths relative to the file."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from privacy.errors import ConfigurationError
from privacy.terms import StrictModel, first_problem

__all__ = ["read_config"]

Config = TypeVar("Config", bound=StrictModel)


def read_config(path: Path, model: type[Config]) -> Config:
    """Reads and validates a TOML file.

    Raises:
        ConfigurationError: naming the file and the first thing that is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    try:
        return model.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {first_problem(error)}") from error


def read_secret(path: Path) -> bytes:
    """The bytes of a file that only its owner may read.

    Raises:
        ConfigurationError: if it is missing or unreadable, or others may read it.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"{path}: others may read this key; run chmod 600 on it")
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
