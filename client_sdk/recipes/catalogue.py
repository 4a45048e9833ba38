"""The recipes of this installation, by name. Loads neither torch nor flwr by itself.

A distribution that brings a recipe declares two entry points under its name: its public half in
the group ``alliance.folds`` (a module of numpy alone, which auditors use as well), and its
members' half in ``alliance.contributions`` (a function, which may need torch).
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from client_sdk.batch import Batch
from client_sdk.recipes.model_file import PublishedModel
from privacy.documents import StrictModel, first_problem
from privacy.errors import RecipeError
from privacy.ledger.folds import GROUP, Fold, PublicState, installed_fold, installed_part
from privacy.terms import DataContract, Setting, Terms

__all__ = [
    "Contribute",
    "ContributeWithModel",
    "Plan",
    "Recipe",
    "State",
    "check_model",
    "contribute_of",
    "model_needed",
    "parse_settings",
    "recipe_named",
    "recipe_of",
    "recipes",
    "takes",
]

Settings = TypeVar("Settings", bound=StrictModel)

CONTRIBUTIONS: Final = "alliance.contributions"


class State(PublicState, Protocol):
    """A public state that can be kept and found again."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state as named arrays."""


def _no_settings(_: Terms) -> Mapping[str, Setting]:
    return {}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study does where its file is silent; it follows from public facts alone."""

    rounds: int
    sampling_probability: float
    clipping_norm: float
    settings: Callable[[Terms], Mapping[str, Setting]] = _no_settings
    """Of the study's terms, complete but for them: settings to write in where there are none."""
    spare_attempts: int | None = None
    """None: as many as suit the rounds."""


class Recipe(Fold, Protocol):
    """A recipe's public half, as a coordinator and a member's guard need it."""

    Settings: type[StrictModel]

    def check(self, terms: Terms, /) -> None:
        """Raises RecipeError unless settings, dimension and contract fit."""

    def dimension(self, contract: DataContract, settings: Any, /) -> int:
        """Length of the summed vector: what ``dimension`` in the terms must be."""

    def plan(self, contract: DataContract, settings: Any, /) -> Plan:
        """Rounds, sampling and clipping for a study that names none."""

    def state_from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]], terms: Terms, /) -> State:
        """The state that `State.arrays` gave; RecipeError if it is none."""


class Contribute(Protocol):
    """A recipe's members' half."""

    def __call__(
        self, parameters: npt.NDArray[np.float32], batch: Batch, *, terms: Terms
    ) -> npt.NDArray[np.float32]:
        """For each block the sum of its consumers' vectors, each of norm at most C.

        Float32, shape (blocks, dimension); guarantees as in rules R4 to R6.
        """


class ContributeWithModel(Protocol):
    """A members' half that scores with a published model: see `model_needed`."""

    def __call__(
        self,
        parameters: npt.NDArray[np.float32],
        batch: Batch,
        *,
        terms: Terms,
        model: PublishedModel,
    ) -> npt.NDArray[np.float32]:
        """As `Contribute`."""


def model_needed(terms: Terms) -> str:
    """SHA-256 of the published model's file that a study's contributions need; "" if none.

    A recipe that needs one has, in its public half, ``model_needed(terms)`` and
    ``check_model(terms, model's terms)``, which raises RecipeError if they do not fit.

    Raises:
        RecipeError: if the settings are none.
    """
    asked = getattr(recipe_of(terms), "model_needed", None)
    return str(asked(terms)) if asked is not None else ""


def check_model(terms: Terms, model: PublishedModel) -> None:
    """Checks that the model which terms name can be used under them.

    Raises:
        RecipeError: if not, with what to do.
    """
    getattr(recipe_of(terms), "check_model")(terms, model.terms)  # noqa: B009


def takes(terms: Terms) -> Callable[[str], bool] | None:
    """Which consumers, by id, are in a study; None: all of them.

    A recipe that leaves some out has ``takes(terms, consumer id)`` in its public half. The answer
    depends on the terms and on that id alone (rule R5).
    """
    asked = getattr(recipe_of(terms), "takes", None)
    return functools.partial(asked, terms) if asked is not None else None


def recipes() -> tuple[str, ...]:
    """Names of the recipes that are installed."""
    return tuple(sorted({point.name for point in importlib.metadata.entry_points(group=GROUP)}))


@functools.cache
def recipe_named(name: str) -> Recipe:
    """The public half of a recipe.

    Raises:
        RecipeError: if this installation has none of that name.
    """
    found = installed_fold(name)
    if found is None:
        raise RecipeError(
            f"recipe {name} is none of this installation, which has {', '.join(recipes())}; "
            "update it, or name one of those"
        )
    return cast("Recipe", found)


def recipe_of(terms: Terms) -> Recipe:
    """The public half of the recipe that terms name; errors as `recipe_named` has them."""
    return recipe_named(terms.recipe)


@functools.cache
def contribute_of(name: str) -> Contribute:
    """The members' half of a recipe.

    Raises:
        RecipeError: if this installation has none of that name.
        ConfigurationError: if it is there and cannot be imported.
    """
    found = installed_part(CONTRIBUTIONS, name)
    if found is None:
        raise RecipeError(
            f"recipe {name}: this installation has no half of it for members; update it"
        )
    return cast("Contribute", found)


def parse_settings(terms: Terms, recipe: str, kind: type[Settings]) -> Settings:
    """The settings in terms of one recipe.

    Raises:
        RecipeError: naming the first setting that is wrong, or another recipe.
    """
    if terms.recipe != recipe:
        raise RecipeError(f"study {terms.study}: recipe is {terms.recipe}, not {recipe}")
    try:
        return kind.model_validate(terms.settings)
    except ValidationError as error:
        raise RecipeError(
            f"study {terms.study}: setting {first_problem(error)}; change the terms"
        ) from error
