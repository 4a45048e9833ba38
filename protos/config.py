"""Configuration files: TOML, validated strictly, paths relative to the file."""

from __future__ import annotations

import difflib
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from privacy.documents import StrictModel, first_problem
from privacy.errors import ConfigurationError
from privacy.identity import Identity

__all__ = [
    "explained",
    "make_key",
    "read_config",
    "read_config_or_explain",
    "read_or_make_key",
    "read_secret",
]

Config = TypeVar("Config", bound=StrictModel)


def read_config(path: Path, model: type[Config]) -> Config:
    """Reads and validates a TOML file.

    Raises:
        ConfigurationError: naming the file and the first thing that is wrong.
    """
    try:
        return model.model_validate_json(_document(path))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {first_problem(error)}") from error


def read_config_or_explain(path: Path, model: type[Config]) -> Config:
    """The same for a file that people write often: what is wrong comes with what to write.

    Raises:
        ConfigurationError: naming the file, the first thing that is wrong, and the remedy.
    """
    try:
        return model.model_validate_json(_document(path))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explained(error, model)}") from error


def explained(error: ValidationError, model: type[StrictModel]) -> str:
    """The first thing that is wrong with a setting of ``model``, and what to write instead."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {_explained(problem, model)}" if where else _explained(problem, model)


def _document(path: Path) -> str:
    """A TOML file as JSON.

    Raises:
        ConfigurationError: if it cannot be read or is not TOML.
    """
    try:
        return json.dumps(tomllib.loads(path.read_text(encoding="utf-8")), default=str)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number too long, too deep
        raise ConfigurationError(f"{path}: not TOML: {error}") from error


def _explained(problem: Any, model: type[StrictModel]) -> str:
    """What is wrong with one setting, and what to write; never more than a line."""
    context, name = problem.get("ctx", {}), "".join(map(str, problem["loc"][-1:]))
    match problem["type"]:
        case "missing":
            said = f"is missing; write a line {name} = ..."
        case "extra_forbidden":
            near = difflib.get_close_matches(name, _settings(problem["loc"], model), n=1)
            said = "is no setting; " + (f"did you mean {near[0]}?" if near else "leave it out")
        case "greater_than_equal":
            said = f"{problem['input']} is too small; write {context['ge']} or more"
        case "greater_than":
            said = f"{problem['input']} is too small; write more than {context['gt']}"
        case "less_than_equal":
            said = f"{problem['input']} is too large; write {context['le']} or less"
        case "less_than":
            said = f"{problem['input']} is too large; write less than {context['lt']}"
        case "int_type" | "int_from_float":
            said = f"{problem['input']!r:.80} is no whole number; write one without quotes"
        case "float_type" | "finite_number":
            said = f"{problem['input']!r:.80} is no number; write one without quotes"
        case "string_type":
            said = f"{problem['input']!r:.80} is no text; write it in quotes"
        case "literal_error":
            said = f"{problem['input']!r:.80} is not known; write {context['expected']}"
        case "string_pattern_mismatch":
            said = f"{problem['input']!r:.80} is no name; " + _spelling(str(context["pattern"]))
        case _:
            said = str(problem["msg"]).removeprefix("Value error, ")
    return said[:300]


def _spelling(pattern: str) -> str:
    if "A-Z" in pattern:
        return "use letters, digits and underscores"
    return "use lower-case letters, digits and hyphens"


def _settings(place: tuple[int | str, ...], model: type[StrictModel]) -> list[str]:
    """The settings there are where an unknown one was found."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, StrictModel)):
            return []
        model = kind
    return list(model.model_fields)


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
