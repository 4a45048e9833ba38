"""A small evaluation: its terms, a model, and consumers whose labels follow the model's scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from client_sdk.batch import Batch
from client_sdk.recipes.evaluation import fold as recipe
from client_sdk.recipes.model_file import PublishedModel
from client_sdk.recipes.propensity.model import score
from client_sdk.recipes.propensity.settings import dimension, parse
from privacy.terms import Column, DataContract, Terms
from tests.conftest import make_contract, make_terms

WEIGHTS = np.array([-1.0, 0.5, 1.5, -3.0], dtype=np.float32)
"""Of kind A and B, of spend, and the bias."""


def contract(rows: int = 1) -> DataContract:
    return make_contract(
        rows_per_consumer=rows,
        columns=(
            Column(name="spend", kind="number", low=0.0, high=1000.0),
            Column(name="kind", kind="category", values=("A", "B")),
        ),
    )


def learned(rows: int = 1, **settings: Any) -> PublishedModel:
    terms = make_terms(contract=contract(rows), settings={"model": "logistic"} | settings)
    size = dimension(terms.contract, parse(terms))
    return PublishedModel(terms.model_copy(update={"dimension": size}), WEIGHTS)


def evaluation(
    *, rows: int = 1, declared: int = 4000, contract_: DataContract | None = None,
    privacy: dict[str, Any] | None = None, **settings: Any,
) -> Terms:  # fmt: skip
    wanted = {"model": "ab" * 32, "study": "coupons"} | settings
    values = {"noise_multiplier": 5.0, "rounds": 2, "max_attempts": 2, "sampling_probability": 1.0}
    terms = make_terms(
        declared=declared, contract=contract_ or contract(rows), settings=wanted,
        **(values | (privacy or {})),
    )  # fmt: skip
    size = recipe.dimension(terms.contract, recipe.Settings.model_validate(wanted))
    return terms.model_copy(
        update={"recipe": "evaluation", "study": "coupons-evaluation", "dimension": size}
    )


def consumers(blocks: int, each: int, rows: int = 1, seed: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    shape = (blocks, each, rows)
    numbers = rng.random((*shape, 1), dtype=np.float32)
    categories = rng.integers(0, 2, (*shape, 1))
    model = learned(rows)
    chances = score(model.terms, model.parameters, numbers, categories)
    labels = (rng.random(shape) < chances).astype(np.float32)
    return Batch(numbers, categories, labels, np.ones(shape, dtype=np.float32))


def noise_of(terms: Terms) -> float:
    """Standard deviation of one coordinate of a sum that all members are in, in counts."""
    privacy = terms.privacy
    return float(privacy.member_noise_multiplier * privacy.cohort_size**0.5)
