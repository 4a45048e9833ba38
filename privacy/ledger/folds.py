"""How an auditor finds the recipes' folds without importing them: by entry point.

A distribution that brings a recipe declares its fold in the group ``alliance.folds``, under the
recipe's name, as a module of numpy alone. So nothing here depends on the members' side, and an
auditor's installation says which folds it has.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigurationError
from privacy.terms import Terms

__all__ = ["Fold", "PublicState", "installed_fold", "installed_part"]

GROUP: Final = "alliance.folds"


class PublicState(Protocol):
    """What a recipe keeps between rounds; all of it follows from terms and releases."""

    @property
    def parameters(self) -> npt.NDArray[np.float32]:
        """What members compute the next update at."""


class Fold(Protocol):
    """A recipe's public half."""

    def initial_state(self, terms: Terms, /) -> Any:
        """The state before the first round."""

    def fold(self, state: Any, mean: npt.NDArray[np.float64], terms: Terms, /) -> Any:
        """The state after one more release."""

    def published(self, state: Any, /) -> npt.NDArray[np.float32]:
        """The parameters to publish."""


def installed_fold(recipe: str) -> Fold | None:
    """The fold of a recipe; None where no installed distribution brings it.

    Raises:
        ConfigurationError: if it is there and cannot be imported.
    """
    return cast("Fold | None", installed_part(GROUP, recipe))


def installed_part(group: str, recipe: str) -> Any:
    """What an installed distribution declares for a recipe in a group of entry points, or None.

    Raises:
        ConfigurationError: if it is there and cannot be imported.
    """
    for point in importlib.metadata.entry_points(group=group, name=recipe):
        try:
            return point.load()
        except ImportError as error:
            raise ConfigurationError(
                f"recipe {recipe}: its part {point.value} cannot be imported ({error}); "
                "install alliance again"
            ) from error
    return None
