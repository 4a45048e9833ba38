"""Settings of the propensity recipe, and the parameters they imply for a data contract."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from client_sdk.recipes.catalogue import Plan, parse_settings
from client_sdk.recipes.holdout import Holdout
from client_sdk.recipes.per_consumer.network import Network
from privacy.documents import StrictModel
from privacy.errors import RecipeError
from privacy.terms import DataContract, Setting, Terms

__all__ = [
    "PropensitySettings",
    "check",
    "check_dimension",
    "crosses",
    "dimension",
    "network",
    "parse",
    "plan",
    "takes",
]

LOGIT_NOISE: Final = 1.0
"""Standard deviation, about, that a study's noise may give a consumer's logit."""

FASTEST: Final = 60.0
"""The step's upper bound, times the inputs of a logit: beyond, larger steps gained nothing."""


class PropensitySettings(StrictModel):
    """What a study chooses about its model and optimiser. None of it changes the guarantee."""

    model: str = Field(default="logistic", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """``logistic``, ``mlp``, or the name of a model that every member has installed."""
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(default=(64,), max_length=8)
    """Outputs of each hidden layer (``mlp``)."""
    embedding_width: int = Field(default=8, ge=1, le=512)
    """Numbers that stand for one category code (``mlp``)."""
    crosses: tuple[str, ...] = Field(default=(), max_length=256)
    """Pairs of category columns, each as ``first*second``, that are read as one more column with
    a code for every pair of theirs; binned numbers count as categories."""
    centred: bool = False
    """Whether a number enters the model as 2x - 1 and not as x, which is scaled to [0, 1]: then
    the middle of its range is 0, and it moves a gradient twice as far beside the same noise."""
    parameters: int = Field(default=0, ge=0, le=100_000_000)
    """How many parameters an installed model has: a coordinator does not have its code."""
    initial_scale: float = Field(default=0.05, gt=0, le=10)
    """An installed model starts from uniform parameters within this distance of zero."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.5, gt=0, le=1000)
    """Step size; about 0.5 suits ``sgd`` and 0.01 ``adam``."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the last step that is taken again (``sgd``), or kept of the mean (``adam``)."""
    average_from: int = Field(default=0, ge=0)
    """Round whose result is the first in the published mean of iterates; 0: no mean."""
    holdout: float = Field(default=0.0, ge=0, le=0.9)
    """Share of consumers that never train, so that an evaluation can measure on them (`Holdout`).
    Steps are then shorter by as much: the mean is over all declared consumers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model == "mlp" and not self.hidden:
            raise ValueError("an mlp needs a hidden layer; without one, name the model logistic")
        if self.installed and not self.parameters:
            raise ValueError(f"model {self.model} is an installed one: state its parameters")
        if not self.installed and self.parameters:
            raise ValueError(f"model {self.model} takes no parameters: the contract implies them")
        if self.installed and (self.crosses or self.centred):
            raise ValueError(
                f"model {self.model} takes neither crosses nor centred numbers: it may form its own"
            )
        return self

    @property
    def installed(self) -> bool:
        """Whether the model is code that members installed, not one of ours."""
        return self.model not in ("logistic", "mlp")


def parse(terms: Terms) -> PropensitySettings:
    """The recipe's settings in these terms.

    Raises:
        RecipeError: naming the first setting that is wrong, or another recipe.
    """
    return parse_settings(terms, "propensity", PropensitySettings)


def network(contract: DataContract, settings: PropensitySettings) -> Network:
    """The shape of ``logistic`` and ``mlp`` models for a data contract.

    Raises:
        RecipeError: if the model is an installed one.
    """
    if settings.installed:
        raise RecipeError(f"model {settings.model} is installed: its shape is in its own code")
    logistic = settings.model == "logistic"
    codes = [column.codes for column in contract.categories]
    return Network(
        numbers=len(contract.numbers),
        cardinalities=(*codes, *(codes[a] * codes[b] for a, b in crosses(contract, settings))),
        width=1 if logistic else settings.embedding_width,
        hidden=() if logistic else settings.hidden,
    )


def crosses(contract: DataContract, settings: PropensitySettings) -> tuple[tuple[int, int], ...]:
    """The pairs of columns that are crossed, as positions among the contract's categories.

    Raises:
        RecipeError: if one names no category column, or the same pair comes twice.
    """
    names = [column.name for column in contract.categories]
    pairs: list[tuple[int, int]] = []
    for cross in settings.crosses:
        first, _, second = cross.partition("*")
        for name in (first, second):
            if name not in names:
                raise RecipeError(
                    f"setting crosses: {cross!r:.140} crosses {name!r:.70}, which is no category "
                    'and no binned number of the contract; write "first*second"'
                )
        pair = (names.index(first), names.index(second))
        if first == second or pair in pairs or pair[::-1] in pairs:
            raise RecipeError(f"setting crosses: {cross!r:.140} adds nothing; leave it out")
        pairs.append(pair)
    return tuple(pairs)


def dimension(contract: DataContract, settings: PropensitySettings) -> int:
    """How many parameters the model has: what ``dimension`` in the terms must be."""
    if settings.installed:
        return settings.parameters
    return network(contract, settings).dimension


def plan(contract: DataContract, settings: PropensitySettings) -> Plan:
    """What a study does where its file is silent; the recipe's README has what it was chosen on."""
    if settings.model != "logistic":
        return Plan(rounds=100, sampling_probability=0.25, clipping_norm=1.0)
    return Plan(rounds=120, sampling_probability=1.0, clipping_norm=1.0, settings=_tuned)


def _tuned(terms: Terms) -> dict[str, Setting]:
    """What suits logistic regression, from public facts: noise, consumers, columns.

    Convex, and each step's noise the same: then heavy ball on everybody and the mean of the second
    half of the iterates is as good as anything tried, and only the step size matters. It is such
    that the noise of all steps moves a consumer's logit by about `LOGIT_NOISE`: T steps of rate r
    under momentum m add r sqrt(T) / (1 - m) of one step's noise to every parameter, and a logit
    is the sum of at most as many parameters as there are columns, crosses and one bias.
    """
    settings, privacy = parse(terms), terms.privacy
    if settings.optimizer == "adam":
        return {"learning_rate": 0.1, "average_from": privacy.rounds // 2 + 1}
    shape = network(terms.contract, settings)
    inputs = shape.numbers + len(shape.cardinalities) + 1
    declared = sum(entry.declared_consumers for entry in terms.roster)
    consumers = declared * privacy.cohort_size / len(terms.roster)
    surplus = math.sqrt(privacy.cohort_size / privacy.honest_survivors)
    noise = privacy.noise_multiplier * privacy.clipping_norm * surplus
    noise /= privacy.sampling_probability * consumers
    rate = LOGIT_NOISE * (1 - settings.momentum) / (noise * math.sqrt(privacy.rounds * inputs))
    rate = min(rate, FASTEST / inputs)
    planned: dict[str, Setting] = {
        "optimizer": "sgd",
        "momentum": settings.momentum,
        "learning_rate": float(f"{min(max(rate, 1e-6), 1000.0):.2g}"),
        "average_from": privacy.rounds // 2 + 1,
    }
    # Only where it does something: nodes from before this setting refuse what they do not know.
    return planned | {"centred": True} if shape.numbers else planned


def check(terms: Terms) -> None:
    """Checks that settings are some, and fit the terms' contract and dimension.

    Raises:
        RecipeError: if not, with the remedy.
    """
    check_dimension(terms, parse(terms))


def check_dimension(terms: Terms, settings: PropensitySettings) -> None:
    """Checks that the terms' dimension is the model's.

    Raises:
        RecipeError: if it is not.
    """
    needed = dimension(terms.contract, settings)
    if terms.dimension != needed:
        raise RecipeError(
            f"study {terms.study}: the model has {needed} parameters and the terms say "
            f"{terms.dimension}; set dimension to {needed}"
        )


def takes(terms: Terms, consumer_id: str) -> bool:
    """Whether a consumer trains: it is not held out."""
    share = parse(terms).holdout
    return not share or consumer_id not in Holdout(terms.alliance, terms.study, share)
