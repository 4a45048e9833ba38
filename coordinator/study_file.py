"""A study as an operator writes it: one short TOML file, which becomes the terms members sign.

What the file leaves out has a cautious default, and what it says wrong is answered with one
sentence that names the remedy. Noise is worked out from the epsilon that the study may cost.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from client_sdk.recipes.catalogue import Plan, Recipe, recipe_named, recipe_of, recipes
from coordinator.evaluation_plan import UNKNOWN, EvaluationTable, evaluation_terms
from privacy.contract_table import ContractTable
from privacy.documents import StrictModel, first_problem
from privacy.errors import ConfigurationError, RecipeError, TermsError
from privacy.fixedpoint import Grid
from privacy.secagg.graph import Graph
from privacy.terms import (
    SMALLEST_NUMBER,
    Name,
    PhaseDeadlines,
    PrivacyTerms,
    RosterEntry,
    Sentence,
    Setting,
    Terms,
)
from protos.config import explained, read_config_or_explain

__all__ = ["PrivacyTable", "StudyFile", "WhoTable", "read_evaluation", "read_study", "read_terms"]

LARGEST_DEFAULT_COHORT: Final = 64
"""Beyond it secure aggregation works on a sparse graph; an operator asks for that by number."""


class PrivacyTable(StrictModel):
    """The table ``[privacy]``. One of ``epsilon`` and ``noise_multiplier`` rules the noise."""

    epsilon: float | None = Field(default=None, gt=0, le=100)
    """epsilon(1) of the whole study, all attempts used; 1.0 if neither is given."""
    noise_multiplier: float | None = Field(default=None, ge=SMALLEST_NUMBER, le=1e6)
    delta: float = Field(default=1e-5, gt=0, lt=0.01)
    clipping_norm: float | None = Field(default=None, ge=SMALLEST_NUMBER, le=1e6)
    """The recipe's plan says it, if it is not given; so too the sampling probability."""
    sampling_probability: float | None = Field(default=None, ge=SMALLEST_NUMBER, le=1)
    spare_attempts: int | None = Field(default=None, ge=0, le=1_000_000)
    """For rounds that fail; a tenth of the rounds, and at least two, if it is not given."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("epsilon and noise_multiplier say the same; write only epsilon")
        return self


class WhoTable(StrictModel):
    """The table ``[who]``: which members, and how many of them a sum needs."""

    members: Literal["all"] | tuple[Name, ...] = "all"
    """``all`` that the registry or the roster's file holds, or names among them."""
    cohort_size: int | None = Field(default=None, ge=3, le=100_000)
    """N; all members up to 64 if it is not given."""
    colluders: int = Field(default=1, ge=1)
    """c"""
    dropouts: int | None = Field(default=None, ge=0)
    """D; a tenth of the cohort, and one where the rules allow it, if it is not given."""


class StudyFile(StrictModel):
    """One study, as its file says it."""

    study: Name
    purpose: Sentence
    rounds: int | None = Field(default=None, ge=1, le=1_000_000)
    """The recipe's plan says it, if it is not given."""
    recipe: dict[str, Setting] = Field(default_factory=dict)
    """``name`` and the recipe's own settings."""
    privacy: PrivacyTable = PrivacyTable()
    who: WhoTable = WhoTable()
    contract: ContractTable
    deadlines: PhaseDeadlines = PhaseDeadlines()
    evaluation: EvaluationTable | None = None
    """How the study's model is measured once it is published; by default it is not."""

    def terms(self, *, alliance: str, everybody: Sequence[RosterEntry]) -> Terms:
        """The terms that members sign.

        Args:
            alliance: its name.
            everybody: members there are, in the order in which rosters name them.

        Raises:
            ConfigurationError: in one sentence with the remedy, if no terms follow from the file.
        """
        roster = self._roster(everybody)
        contract = self.contract.contract(self.study)
        name, recipe, settings = self._recipe()
        parsed = recipe.Settings.model_validate(settings)
        plan = recipe.plan(contract, parsed)
        try:
            terms = Terms(
                alliance=alliance,
                study=self.study,
                purpose=self.purpose,
                recipe=name,
                settings=settings,
                dimension=recipe.dimension(contract, parsed),
                contract=contract,
                privacy=self._privacy(len(roster), plan),
                roster=roster,
                deadlines=self.deadlines,
            )
        except ValidationError as error:
            raise ConfigurationError(f"study {self.study}: {first_problem(error)}") from error
        if self.privacy.noise_multiplier is None:
            from privacy.accounting import calibrate

            terms = calibrate(terms, self.privacy.epsilon or 1.0)
        terms = terms.model_copy(update={"settings": {**plan.settings(terms), **settings}})
        terms = _checked(terms)
        if self.evaluation is not None:  # what is wrong with it is said before anything is spent
            evaluation_terms(terms, UNKNOWN, self.evaluation)
        return terms

    def _roster(self, everybody: Sequence[RosterEntry]) -> tuple[RosterEntry, ...]:
        """The members that the study names."""
        there = {entry.name: entry for entry in everybody}
        names = tuple(there) if self.who.members == "all" else self.who.members
        for name in names:
            if name not in there:
                raise ConfigurationError(
                    f"study {self.study}: who.members: {name} is no member of this alliance; "
                    + _nearest(name, there, "members are")
                )
        if len(set(names)) != len(names):
            raise ConfigurationError(f"study {self.study}: who.members names a member twice")
        if len(names) < 3:
            raise ConfigurationError(
                f"study {self.study}: {len(names)} members are too few for a private sum; invite "
                "others until there are at least 3 (alliance-coordinator invite)"
            )
        return tuple(there[name] for name in names)

    def _recipe(self) -> tuple[str, Recipe, dict[str, Setting]]:
        """The recipe and its settings, once they are known to be some."""
        name = str(self.recipe.get("name", "propensity"))
        if name not in recipes():
            raise ConfigurationError(
                f"study {self.study}: recipe.name: {name} is no recipe of this version; "
                + _nearest(name, recipes(), "there are")
            )
        recipe = recipe_named(name)
        settings = {key: value for key, value in self.recipe.items() if key != "name"}
        if self.evaluation is not None and self.evaluation.holdout:
            held = settings.setdefault("holdout", self.evaluation.holdout)
            if held != self.evaluation.holdout:
                raise ConfigurationError(
                    f"study {self.study}: recipe.holdout is {held} and evaluation.holdout "
                    f"{self.evaluation.holdout:g}; write it in [evaluation] alone"
                )
        try:
            recipe.Settings.model_validate(settings)
        except ValidationError as error:
            raise ConfigurationError(
                f"study {self.study}: recipe.{explained(error, recipe.Settings)}"
            ) from error
        return name, recipe, settings

    def _privacy(self, members: int, plan: Plan) -> PrivacyTerms:
        """N, c and D as asked for, or as rule R1 allows them."""
        size = self.who.cohort_size or min(members, LARGEST_DEFAULT_COHORT)
        if size > members:
            raise ConfigurationError(
                f"study {self.study}: who.cohort_size is {size} and there are {members} members; "
                f"write at most {members}"
            )
        colluders = self.who.colluders
        most_colluders, most_dropouts = size - 2, (size - colluders - 1) // 2
        if colluders > most_colluders:
            raise ConfigurationError(
                f"study {self.study}: who.colluders is {colluders}; a cohort of {size} needs two "
                f"honest members, so write at most {most_colluders}"
            )
        most_dropouts = max(0, min(most_dropouts, size - colluders - 2))
        dropouts = self.who.dropouts
        if dropouts is None:
            dropouts = min(max(1, size // 10), most_dropouts)
        if dropouts > most_dropouts:
            raise ConfigurationError(
                f"study {self.study}: who.dropouts is {dropouts}; a cohort of {size} with "
                f"{colluders} colluders holds with at most {most_dropouts}, so write that or less"
            )
        spare = self.privacy.spare_attempts
        spare = plan.spare_attempts if spare is None else spare
        rounds = self.rounds or plan.rounds
        return PrivacyTerms(
            clipping_norm=self.privacy.clipping_norm or plan.clipping_norm,
            noise_multiplier=self.privacy.noise_multiplier or 1.0,
            sampling_probability=self.privacy.sampling_probability or plan.sampling_probability,
            rounds=rounds,
            max_attempts=rounds + (max(2, rounds // 10) if spare is None else spare),
            delta=self.privacy.delta,
            cohort_size=size,
            colluders=colluders,
            dropouts=dropouts,
        )


def read_study(path: Path, *, alliance: str, everybody: Sequence[RosterEntry]) -> Terms:
    """The terms in a study's file; one that ends in ``.json`` holds complete terms already.

    Raises:
        ConfigurationError: naming the file, the first thing that is wrong, and the remedy.
    """
    if path.suffix == ".json":
        terms = read_terms(path)
    else:
        study = read_config_or_explain(path, StudyFile)
        try:
            terms = study.terms(alliance=alliance, everybody=everybody)
        except (ConfigurationError, RecipeError) as error:
            raise ConfigurationError(f"{path}: {error}") from error
    if terms.alliance != alliance:
        raise ConfigurationError(
            f"{path}: is of the alliance {terms.alliance}, this coordinator's is {alliance}"
        )
    return terms


def read_evaluation(path: Path) -> EvaluationTable | None:
    """How a study's file has its model measured; None if it says nothing of it.

    Raises:
        ConfigurationError: naming the file and the first thing that is wrong.
    """
    if path.suffix == ".json":
        return None
    return read_config_or_explain(path, StudyFile).evaluation


def read_terms(path: Path) -> Terms:
    """Complete terms from a JSON file.

    Raises:
        ConfigurationError: if the file cannot be read, or its terms break a rule.
    """
    try:
        return Terms.from_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _checked(terms: Terms) -> Terms:
    """The terms on the narrowest ring that holds their sums, once everything fits."""
    try:
        Grid.of(terms)
    except TermsError:
        wide = terms.privacy.model_copy(update={"ring_bits": 64})
        terms = terms.model_copy(update={"privacy": wide})
        Grid.of(terms)
    Graph.of(terms.privacy)
    recipe_of(terms).check(terms)
    return Terms.from_json(terms.model_dump_json())


def _nearest(name: str, there: Any, else_: str) -> str:
    """A remedy for a name that is not there."""
    near = difflib.get_close_matches(name, list(there), n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{else_} {', '.join(list(there)[:10]) or 'none'}"
