"""Statistics studies for the tests: terms, tables and what they say exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from client_sdk.batch import Batch
from client_sdk.recipes.statistics.answers import Answers
from client_sdk.recipes.statistics.contribute import contribute
from client_sdk.recipes.statistics.fold import dimension, fold, initial_state, published
from client_sdk.recipes.statistics.settings import StatisticsSettings
from privacy.terms import Column, DataContract, Terms
from tests.conftest import make_contract, make_terms


def contract(**changes: Any) -> DataContract:
    columns = (
        Column(name="spend", kind="number", low=0.0, high=1000.0, scale="log"),
        Column(name="age", kind="number", low=20.0, high=100.0),
        Column(name="trips", kind="number", low=0.0, high=50.0),
        Column(name="kind", kind="category", values=("A", "B", "C")),
        Column(name="town", kind="category", buckets=16),
    )
    return make_contract(**({"columns": columns} | changes))


def terms(
    settings: dict[str, Any] | None = None,
    *,
    declared: int = 10_000,
    table: DataContract | None = None,
    **privacy: Any,
) -> Terms:
    table = table or contract()
    settings = {"bins": 8} if settings is None else settings
    size = dimension(table, StatisticsSettings.model_validate(settings))
    values: dict[str, Any] = {"rounds": 1, "max_attempts": 2, "sampling_probability": 1.0}
    study = make_terms(
        contract=table, settings=settings, dimension=size, declared=declared, **(values | privacy)
    )
    return study.model_copy(update={"recipe": "statistics"})


def batch(shape: tuple[int, int, int], seed: int, *, empty: float = 0.3) -> Batch:
    """Random consumers of `contract`; a share of rows is empty."""
    draw = np.random.default_rng(seed)
    present = (draw.random(shape) >= empty).astype(np.float32)
    numbers = draw.random((*shape, 3), dtype=np.float32) * present[..., None]
    codes = np.stack([draw.integers(0, 3, shape), draw.integers(0, 16, shape)], -1)
    labels = (draw.random(shape) < 0.4).astype(np.float32) * present
    return Batch(numbers, codes * present[..., None].astype(np.int64), labels, present)


def total(study: Terms, consumers: Batch) -> np.ndarray:
    """The exact sum of these consumers."""
    state = initial_state(study)
    return contribute(state.parameters, consumers, terms=study).sum(0, dtype=np.float64)


def read(study: Terms, summed: np.ndarray) -> Answers:
    """What a sum says, everybody contributing."""
    declared = sum(entry.declared_consumers for entry in study.roster)
    state = fold(initial_state(study), summed / declared, study)
    return Answers(study, published(state), [entry.name for entry in study.roster])


def answers(study: Terms, consumers: Batch) -> Answers:
    """What a release of these consumers says without noise."""
    return read(study, total(study, consumers))
