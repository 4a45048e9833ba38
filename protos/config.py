"""Configuration files: TOML, validated strictly, paths relative to the file."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from privacy.errors import ConfigurationError
from privacy.identity import Identity
from privacy.terms import StrictModel, first_problem

__all__ = ["make_key", "read_config", "read_or_make_key", "read_secret"]

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


def make_key(path: Path) -> Identity:
    """Makes an Ed25519 key and writes it where only its owner may read it, durably.

    Raises:
        ConfigurationError: if the file is there already or cannot be written.
    """
    identity = Identity.generate()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(identity.pem())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigurationError(f"{path}: is there already; a key is kept") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    return identity


def read_or_make_key(path: Path) -> Identity:
    """The Ed25519 key in a file; makes one where there is none.

    Raises:
        ConfigurationError: if it is not such a key, others may read it, or it cannot be made.
    """
    return Identity.from_pem(read_secret(path)) if path.exists() else make_key(path)
