"""A published model on disk: safetensors with its papers as metadata. Nothing in it executes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from privacy.documents import check_shape
from privacy.errors import ConfigurationError, RecipeError, TermsError
from privacy.terms import Terms

__all__ = [
    "ADAPTED",
    "Papers",
    "PublishedModel",
    "encode_model",
    "find_model",
    "is_adapted",
    "load_model",
    "read_file",
    "save_model",
    "write_model",
]

FORMAT: Final = "alliance/v1/model"
ADAPTED: Final = "alliance/v1/adapted-model"
_NO_PAPERS: Final = (
    TermsError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
ANYBODY: Final = 0o666
_UNKNOWN: Final = "not a model that this version knows"
_NOT_THAT: Final = {
    FORMAT: "a published model, not an adapted one; alliance-node adapt makes one of it",
    ADAPTED: "adapted to one member; it stays there, and only alliance-node score takes it",
}


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


def write_model(path: Path, data: bytes, *, mode: int = ANYBODY) -> None:
    """Writes the bytes of a model file; replaces an older one at once.

    Args:
        path: of the file.
        data: its bytes.
        mode: its permissions, before the process's mask.

    Raises:
        ConfigurationError: if it cannot be written; an older one is still there.
    """
    partial = path.with_suffix(".partial")
    try:
        if mode != ANYBODY:
            partial.unlink(missing_ok=True)  # one that is there would keep its permissions
        opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(opened, "wb") as file:
            file.write(data)
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
    papers, (parameters,) = read_file(path, FORMAT, "parameters")
    return papers.terms, papers.checked(parameters), papers.round_number


@dataclass(frozen=True, slots=True)
class Papers:
    """What a model file says beside its arrays.

    Args:
        path: of the file.
        terms: the study's.
        round_number: the round it was published after.
        others: whatever else its format has.
    """

    path: Path
    terms: Terms
    round_number: int
    others: Mapping[str, Any]

    def checked(self, parameters: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The parameters, if they are such as the terms say.

        Raises:
            RecipeError: if they are not.
        """
        if parameters.dtype != np.float32 or parameters.shape != (self.terms.dimension,):
            raise RecipeError(f"{self.path}: its parameters do not fit its terms")
        return parameters


def read_file(path: Path, format_: str, *names: str) -> tuple[Papers, list[npt.NDArray[Any]]]:
    """The papers and some arrays of a model file.

    Args:
        path: of the file.
        format_: which it must have.
        names: of the arrays.

    Raises:
        RecipeError: if the file is missing, damaged, or not of this format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if format_ not in metadata:
                raise RecipeError(f"{path}: {_NOT_THAT.get(next(iter(metadata), ''), _UNKNOWN)}")
            arrays = [file.get_tensor(name) for name in names]
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path}: not a readable model file ({error})") from error
    try:
        check_shape(metadata[format_])
        read = json.loads(metadata[format_])
        terms, number = Terms.from_json(json.dumps(read.pop("terms"))), int(read.pop("round"))
    except _NO_PAPERS as error:
        raise RecipeError(f"{path}: its papers are not readable") from error
    return Papers(path, terms, number, read), arrays


def is_adapted(path: Path) -> bool:
    """Whether a file is a model that a member adapted to its own consumers."""
    try:
        with safe_open(path, framework="numpy") as file:
            return ADAPTED in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


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
