"""A published model on disk: safetensors with its papers as metadata. Nothing in it executes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from privacy.errors import ConfigurationError, RecipeError
from privacy.terms import Terms

__all__ = [
    "PublishedModel",
    "encode_model",
    "find_model",
    "load_model",
    "save_model",
    "write_model",
]

FORMAT: Final = "alliance/v1/model"


@dataclass(frozen=True, slots=True, eq=False)
class PublishedModel:
    """A published model: the terms it was learned under and its parameters, float32."""

    terms: Terms
    parameters: npt.NDArray[np.float32]


def encode_model(terms: Terms, parameters: npt.NDArray[np.float32], *, round_number: int) -> bytes:
    """The bytes of a model file; equal models give equal bytes.

    Args:
        terms: the study's terms, kept whole in the file.
        parameters: float32, shape (dimension,).
        round_number: the round it was published after.
    """
    papers = {"round": round_number, "terms": terms.model_dump(mode="json")}
    # One entry: several would stand in an order that changes from file to file.
    text = json.dumps(papers, sort_keys=True, separators=(",", ":"))
    return save({"parameters": parameters}, metadata={FORMAT: text})


def save_model(
    path: Path, terms: Terms, parameters: npt.NDArray[np.float32], *, round_number: int
) -> None:
    """Writes a model file with what `encode_model` makes; replaces an older one at once."""
    write_model(path, encode_model(terms, parameters, round_number=round_number))


def write_model(path: Path, data: bytes) -> None:
    """Writes the bytes of a model file; replaces an older one at once.

    Raises:
        ConfigurationError: if it cannot be written; an older one is still there.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ConfigurationError(
            f"{path}: cannot be written ({error.strerror}); make room or name another state "
            "folder, and start again"
        ) from error


def load_model(path: Path) -> tuple[Terms, npt.NDArray[np.float32], int]:
    """Reads a model: its terms, its parameters and the round it was published after.

    Raises:
        RecipeError: if the file is missing, damaged, or not of this format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            papers = file.metadata() or {}
            parameters = file.get_tensor("parameters")
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path}: not a readable model file ({error})") from error
    if FORMAT not in papers:
        raise RecipeError(f"{path}: not a model that this version knows")
    try:
        read = json.loads(papers[FORMAT])
        terms, round_number = Terms.from_json(json.dumps(read["terms"])), int(read["round"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise RecipeError(f"{path}: its papers are not readable") from error
    if parameters.dtype != np.float32 or parameters.shape != (terms.dimension,):
        raise RecipeError(f"{path}: its parameters do not fit its terms")
    return terms, parameters, round_number


def find_model(folder: Path, sha256: str) -> PublishedModel | None:
    """The model whose file in a folder has this SHA-256; None if there is none.

    Raises:
        RecipeError: if that file is no model.
    """
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(OSError):
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                terms, parameters, _ = load_model(path)
                return PublishedModel(terms, parameters)
    return None
