"""How a study's model will be measured, as its file says: the terms of that, and its cost.

The plan is kept beside the coordinator's log until the study's last model is published.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError

from client_sdk.recipes.catalogue import recipe_named
from client_sdk.recipes.evaluation.settings import EvaluationSettings, Layout, smallest_group
from client_sdk.recipes.model_file import write_model
from privacy.documents import StrictModel, first_problem
from privacy.errors import ConfigurationError, RecipeError
from privacy.fixedpoint import Grid
from privacy.terms import Terms

__all__ = [
    "UNKNOWN",
    "EvaluationTable",
    "evaluation_terms",
    "keep_plan",
    "planned",
    "prospect",
]

UNKNOWN: Final = "0" * 64
"""Stands for a model that is not learned yet."""


class EvaluationTable(StrictModel):
    """The table ``[evaluation]`` of a study's file."""

    epsilon: float = Field(default=0.5, gt=0, le=100)
    """epsilon(1) of the evaluation, over and above the study's own."""
    holdout: float = Field(default=0.2, ge=0, le=0.9)
    """Share of consumers that do not train and are measured; 0 measures those that trained."""
    by: str = ""
    """Groups to compare, such as ``region, age: 30 45 60``."""
    top: float = Field(default=0.1, ge=0.001, le=0.5)
    cells: int = Field(default=20, ge=4, le=1000)
    lowest: float = Field(default=0.005, gt=0, lt=1)
    highest: float = Field(default=0.9, gt=0, lt=1)


def evaluation_terms(learned: Terms, model: str, table: EvaluationTable) -> Terms:
    """The terms of a study that measures a model, on the roster and the contract it was learned on.

    Args:
        learned: the terms it was learned under.
        model: SHA-256 of its file.
        table: how to measure it.

    Raises:
        ConfigurationError: if no terms follow; with what to do.
    """
    from privacy.accounting import calibrate

    recipe = recipe_named("evaluation")
    values = table.model_dump(exclude={"epsilon"}, exclude_defaults=True)
    settings: dict[str, Any] = {"model": model, "study": learned.study, **values}
    settings["holdout"] = table.holdout
    try:
        parsed = recipe.Settings.model_validate(settings)
        privacy = learned.privacy.model_copy(
            update={
                "clipping_norm": 1.0, "sampling_probability": 1.0, "rounds": 2, "max_attempts": 2,
                "noise_multiplier": 1.0, "ring_bits": 64,
            }
        )  # fmt: skip
        terms = learned.model_copy(
            update={
                "study": f"{learned.study[:52]}-evaluation",
                "purpose": f"How good the model of {learned.study} is: {learned.purpose}"[:500],
                "recipe": "evaluation",
                "settings": settings,
                "dimension": recipe.dimension(learned.contract, parsed),
                "privacy": privacy,
            }
        )
        terms = calibrate(terms, table.epsilon)
        recipe.check(terms)
    except ValidationError as error:
        raise ConfigurationError(f"evaluation: {first_problem(error)}") from error
    except RecipeError as error:
        raise ConfigurationError(f"evaluation: {error}") from error
    Grid.of(terms)
    return Terms.from_json(terms.model_dump_json())


def prospect(terms: Terms) -> dict[str, Any]:
    """What a planned or proposed evaluation will cost, and how finely it will tell."""
    from privacy.accounting import Accountant

    settings = EvaluationSettings.model_validate(terms.settings)
    layout = Layout.of(terms.contract, settings)
    profile = Accountant(terms).projection().profile
    return {
        "epsilon": {str(members): epsilon for members, epsilon in profile.items()},
        "holdout": settings.holdout,
        "smallest_group": math.ceil(smallest_group(terms, settings, layout)),
    }


def keep_plan(state: Path, terms: Terms, table: EvaluationTable | None) -> None:
    """Keeps how a study's model is to be measured; None: not any more.

    Raises:
        ConfigurationError: if it cannot be written.
    """
    path = _plan(state, terms)
    try:
        if table is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; make its folder writable") from error
    write_model(path, table.model_dump_json(indent=1).encode())


def _plan(state: Path, terms: Terms) -> Path:
    return state / "evaluations" / f"{terms.hash}.json"


def planned(state: Path, terms: Terms) -> EvaluationTable | None:
    """How a study's model is to be measured; None if that was not planned.

    Raises:
        ConfigurationError: if the plan cannot be read.
    """
    path = _plan(state, terms)
    if not path.exists():
        return None
    try:
        return EvaluationTable.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read; alliance-coordinator study evaluate {terms.study}"
        ) from error
