"""A published model on disk: safetensors with its papers as metadata. Nothing in it executes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from privacy.errors import RecipeError
from privacy.terms import Terms

__all__ = ["load_model", "save_model"]


def save_model(
    path: Path, terms: Terms, parameters: npt.NDArray[np.float32], *, round_number: int
) -> None:
    """Writes a model and the terms it was learned under; replaces an older file at once.

    Args:
        path: where.
        terms: the study's terms, kept whole in the file.
        parameters: float32, shape (dimension,).
        round_number: the round it was published after.
    """
    papers = {
        "format": "alliance/v1/model",
        "terms": terms.model_dump_json(),
        "round": str(round_number),
    }
    partial = path.with_suffix(".partial")
    partial.write_bytes(save({"parameters": parameters}, metadata=papers))
    partial.replace(path)


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
    if papers.get("format") != "alliance/v1/model":
        raise RecipeError(f"{path}: not a model that this version knows")
    terms = Terms.from_json(papers["terms"])
    if parameters.dtype != np.float32 or parameters.shape != (terms.dimension,):
        raise RecipeError(f"{path}: its parameters do not fit its terms")
    return terms, parameters, int(papers["round"])
