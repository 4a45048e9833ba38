"""An adapted model on disk: the published one, and what one member learned on top of it.

It knows the member's consumers without any privacy, so it is readable by its owner alone and has a
format of its own, which nothing that publishes, evaluates or sends a model takes.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from client_sdk.recipes.model_file import ADAPTED, read_file, write_model
from client_sdk.recipes.propensity.adaptation import Adaptation
from privacy.errors import RecipeError
from privacy.terms import Terms

__all__ = ["AdaptedModel", "load_adapted", "save_adapted"]


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedModel:
    """A published model, and what a member learned on top.

    Args:
        terms: the study's.
        parameters: as published, float32, shape (dimension,).
        round_number: the round they were published after.
        adaptation: the member's.
    """

    terms: Terms
    parameters: npt.NDArray[np.float32]
    round_number: int
    adaptation: Adaptation


def save_adapted(path: Path, model: AdaptedModel) -> None:
    """Writes an adapted model, readable by its owner alone; replaces an older one at once.

    Raises:
        ConfigurationError: if it cannot be written.
    """
    adaptation = model.adaptation
    trees = adaptation.trees.encode()
    papers = {
        "round": model.round_number,
        "terms": model.terms.model_dump(mode="json"),
        "intercept": adaptation.intercept,
        "weights": [adaptation.alliance, adaptation.own],
        "trees_sha256": hashlib.sha256(trees).hexdigest(),
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "parameters": model.parameters,
        "trees": np.frombuffer(trees, np.uint8),
    }
    text = json.dumps(papers, sort_keys=True, separators=(",", ":"))
    write_model(path, save(arrays, metadata={ADAPTED: text}), mode=0o600)


def load_adapted(path: Path) -> AdaptedModel:
    """Reads an adapted model of this member's own; nobody else's should be scored with.

    Raises:
        RecipeError: if the file is missing, damaged, or not of this format.
    """
    papers, (parameters, trees) = read_file(path, ADAPTED, "parameters", "trees")
    parameters = papers.checked(parameters)
    # LightGBM reads text that it wrote; what was damaged since is not handed to it. Who may write
    # the file can write the hash as well, so its owner alone may.
    if hashlib.sha256(trees.tobytes()).hexdigest() != papers.others.get("trees_sha256"):
        raise RecipeError(f"{path}: its trees are damaged; adapt the model again")
    try:
        alliance, own = papers.others["weights"]
        line = float(papers.others["intercept"]), float(alliance), float(own)
        text = trees.tobytes().decode()
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RecipeError(f"{path}: its papers are not readable") from error
    if not all(math.isfinite(part) for part in line):
        raise RecipeError(f"{path}: its papers are not readable")
    adaptation = Adaptation(*line, text)
    return AdaptedModel(papers.terms, parameters, papers.round_number, adaptation)
