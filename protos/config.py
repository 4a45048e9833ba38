"""Configuration files: TOML, validated strictly, paths relative to the file."""

from __future__ import annotations

import json
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
