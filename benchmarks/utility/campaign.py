"""All models of one data set over seeds: the alliance and everything it is measured against."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.demo.comparison import Scores, scores
from benchmarks.peers.interpret import rankings
from benchmarks.utility.agreement import Alliance, paired
from benchmarks.utility.baselines import alone, one_hot, pooled, side_by_side
from benchmarks.utility.institution import train_institutions
from benchmarks.utility.results import ADAPTED, Results
from benchmarks.utility.study import DELTA, study_terms
from benchmarks.utility.tables import Indices, Rows, Split, Table, rows_of, split, subset
from benchmarks.utility.training import Run, noise_scale, train_all
from client_sdk.dataset import Dataset
from client_sdk.recipes.propensity.adaptation import OwnRows, adapt, as_logits, unbinned
from client_sdk.recipes.propensity.model import score
from privacy.terms import DataContract, Terms

__all__ = ["Plan", "measure", "sizes"]

Parameters = npt.NDArray[np.float32]

LOCAL: Final = "local DP at each member"
INSTITUTION: Final = "DP of institutions, Flower's wrapper"
EBM: Final = "DP-EBM, trusted curator"
EQUAL_NOISE: Final = "trusted curator, equal noise"
EQUAL_EPSILON: Final = "trusted curator, equal epsilon"
PRODUCT: Final = "alliance, every step of it"


def sizes(largest: int, smallest: int, members: int) -> list[int]:
    """Members' consumers in geometric steps.

    >>> sizes(12000, 100, 3)
    [12000, 1095, 100]
    """
    if members == 1:
        return [largest]
    step = (smallest / largest) ** (1 / (members - 1))
    return [round(largest * step**place) for place in range(members)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run on a data set.

    Args:
        sizes: of members whom the table does not name.
        epsilons: the columns.
        seeds: one split, sample and noise each.
        every_step: epsilons at which the members' and coordinator's whole code runs too, beside a
            curator of equal noise.
        baselines: whether models without privacy and each member alone are trained.
        adapted: epsilons at which every member adapts the alliance's model to its own consumers.
        ebm: whether DP-EBM is, in its own environment.
        cache: a file that keeps scores which do not depend on the alliance's study.
    """

    sizes: Sequence[int]
    epsilons: Sequence[float]
    seeds: Sequence[int]
    every_step: Sequence[float] = ()
    adapted: Sequence[float] = ()
    baselines: bool = True
    ebm: bool = True
    cache: Path | None = None


@dataclass(slots=True)
class _Cache:
    """Scores by what they were made of, in one JSON file."""

    path: Path | None
    found: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            self.found = json.loads(self.path.read_text(encoding="utf-8"))

    def keep(self, key: str, value: object) -> None:
        self.found[key] = value
        if self.path is not None:
            self.path.write_text(json.dumps(self.found) + "\n", encoding="utf-8")


def measure(table: Table, plan: Plan, name: str | None = None) -> Results:
    """Every model on every seed of the plan.

    Args:
        table: the consumers.
        plan: what is run.
        name: of the results; the table's if not given.
    """
    results = Results(name or table.name)
    cache = _Cache(plan.cache)
    started = time.perf_counter()
    for place, seed in enumerate(plan.seeds, 1):
        parts = split(table, plan.sizes, seed)
        results.members = {member: len(at) for member, at in parts.members.items()}
        _private(results, table, parts, plan, seed)
        test = rows_of(table.data, parts.test)
        training = rows_of(table.data, parts.training)
        _institutions(results, table, parts, plan, seed)
        if plan.baselines:
            _baselines(results, table, parts, training, test, seed, cache)
        if plan.ebm:
            _ebm(results, table, training, test, plan, seed, cache)
        seconds = time.perf_counter() - started
        print(f"{results.name}: seed {place} of {len(plan.seeds)}, {seconds:.0f} s", flush=True)
    return results


def _private(results: Results, table: Table, parts: Split, plan: Plan, seed: int) -> None:
    """The alliance, trusted curators and local noise."""
    counts = [len(at) for at in parts.members.values()]
    studies: dict[DataContract, list[tuple[float, Terms]]] = {}
    for epsilon in plan.epsilons:
        terms = study_terms(table.contract, counts, epsilon, table.crosses)
        results.settings[epsilon] = _settings(terms)
        studies.setdefault(terms.contract, []).append((epsilon, terms))
    for contract, study in studies.items():
        data = table.under(contract)
        trained = _quickly(results, data, parts, study, seed)
        for epsilon, terms in study:
            if epsilon in plan.adapted:
                _adapted(results, table, data, parts, (epsilon, terms, trained[epsilon]))
        _every_step(results, data, parts, [one for one in study if one[0] in plan.every_step], seed)


def _quickly(
    results: Results,
    data: Dataset,
    parts: Split,
    study: Sequence[tuple[float, Terms]],
    seed: int,
) -> dict[float, Parameters]:
    """Runs at all epsilons side by side; the alliance's parameters by epsilon."""
    test = rows_of(data, parts.test)
    names, runs = [], []
    for epsilon, terms in study:
        privacy = terms.privacy
        single = privacy.noise_multiplier * privacy.clipping_norm
        for model, scale in (
            ("alliance", noise_scale(terms)),
            (EQUAL_EPSILON, single),
            (LOCAL, single * privacy.cohort_size**0.5),
        ):
            names.append((model, epsilon))
            runs.append(Run(terms, scale, seed))
    trained = train_all(runs, subset(data, parts.training))
    for key, run, parameters in zip(names, runs, trained, strict=True):
        results.add(*key, _scored(run.terms, parameters, test))
    return {
        epsilon: parameters
        for (model, epsilon), parameters in zip(names, trained, strict=True)
        if model == "alliance"
    }


def _adapted(
    results: Results,
    table: Table,
    data: Dataset,
    parts: Split,
    study: tuple[float, Terms, Parameters],
) -> None:
    """The alliance's model as each member adapts it to its own consumers."""
    epsilon, terms, parameters = study
    plain = table.under(unbinned(table.contract))

    def rows(consumers: Indices) -> OwnRows:
        own, read = rows_of(plain, consumers), rows_of(data, consumers)
        probabilities = score(terms, parameters, read.numbers, read.categories)
        return OwnRows(
            columns=side_by_side(own).astype(np.float32),
            categories=len(plain.contract.categories),
            labels=own.labels,
            consumers=np.nonzero(plain.gather(consumers[None, :]).present[0])[0],
            logits=as_logits(probabilities),
        )

    test = rows(parts.test)
    for member, at in parts.members.items():
        adaptation, _ = adapt(rows(at), lambda _: None)
        ranked = adaptation.logits(test.columns, test.logits)
        results.add(f"{ADAPTED}{member}", epsilon, scores(test.labels, ranked))


def _every_step(
    results: Results,
    data: Dataset,
    parts: Split,
    study: Sequence[tuple[float, Terms]],
    seed: int,
) -> None:
    """The members' and the coordinator's whole code, beside a curator of equal noise."""
    test = rows_of(data, parts.test)
    for epsilon, terms in study:
        members = {
            entry.name: subset(data, at)
            for entry, at in zip(terms.roster, parts.members.values(), strict=True)
        }
        together, curator = paired(Alliance(terms, members, seed), subset(data, parts.training))
        results.add(PRODUCT, epsilon, _scored(terms, together, test))
        results.add(EQUAL_NOISE, epsilon, _scored(terms, curator, test))


def _settings(terms: Terms) -> str:
    privacy = terms.privacy
    return (
        f"{privacy.rounds} rounds, q {privacy.sampling_probability:g}, "
        f"C {privacy.clipping_norm:g}, "
        f"sigma {privacy.noise_multiplier:.4g}, N {privacy.cohort_size}, c {privacy.colluders}, "
        f"D {privacy.dropouts}, {terms.dimension} parameters"
    )


def _scored(terms: Terms, parameters: np.ndarray, test: Rows) -> Scores:
    return scores(test.labels, score(terms, parameters, test.numbers, test.categories))


def _institutions(results: Results, table: Table, parts: Split, plan: Plan, seed: int) -> None:
    """Flower's wrapper around federated averaging of logistic regressions."""
    test = rows_of(table.data, parts.test)
    members = [rows_of(table.data, at) for at in parts.members.values()]
    designs = [(_with_bias(table, rows), rows.labels) for rows in members]
    held_out = _with_bias(table, test)
    for epsilon in plan.epsilons:
        model = train_institutions(designs, epsilon, DELTA, seed)
        results.add(INSTITUTION, epsilon, scores(test.labels, held_out @ model))


def _with_bias(table: Table, rows: Rows) -> np.ndarray:
    columns = one_hot(table.contract, rows)
    return np.concatenate([columns, np.ones((len(columns), 1))], axis=1).astype(np.float32)


def _baselines(
    results: Results,
    table: Table,
    parts: Split,
    training: Rows,
    test: Rows,
    seed: int,
    cache: _Cache,
) -> None:
    """Each member alone, and pooled models without privacy."""
    key = f"{table.name}, {list(results.members.values())}, seed {seed}, without privacy"
    if key not in cache.found:
        found: dict[str, object] = {
            f"pooled {model}": ["", asdict(one)]
            for model, one in pooled(table.contract, training, test, seed).items()
        }
        for member, at in parts.members.items():
            choice, one = alone(table.contract, rows_of(table.data, at), test, seed)
            found[f"alone: {member}"] = [choice, asdict(one)]
        cache.keep(key, found)
    kept = cache.found[key]
    assert isinstance(kept, dict)
    for model, (choice, one) in kept.items():
        results.add(model, None, Scores(**one))
        if choice:
            results.choices.setdefault(model.removeprefix("alone: "), []).append(choice)


def _ebm(
    results: Results,
    table: Table,
    training: Rows,
    test: Rows,
    plan: Plan,
    seed: int,
    cache: _Cache,
) -> None:
    """DP-EBM on everybody's rows."""
    key = f"{table.name}, {list(results.members.values())}, seed {seed}, {EBM}"
    kept = cache.found.get(key, {})
    assert isinstance(kept, dict)
    missing = [epsilon for epsilon in plan.epsilons if f"{epsilon:g}" not in kept]
    if missing:
        numbers = len(table.contract.numbers)
        kinds = [False] * numbers + [True] * len(table.contract.categories)
        ranked = rankings(
            (side_by_side(training), training.labels),
            side_by_side(test),
            categorical=kinds,
            fits=[(epsilon, seed) for epsilon in missing],
            delta=DELTA,
        )
        for epsilon, ranking in zip(missing, ranked, strict=True):
            kept[f"{epsilon:g}"] = asdict(scores(test.labels, ranking))
        cache.keep(key, kept)
    for epsilon in plan.epsilons:
        results.add(EBM, epsilon, Scores(**kept[f"{epsilon:g}"]))
