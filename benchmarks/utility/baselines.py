"""What the alliance is measured against, without privacy: each member alone, and all data pooled.

Both see the contract's columns as they are declared: numbers scaled to [0, 1], categories one by
one. Members choose between logistic regression and boosted trees on consumers of their own that
they hold out for it, never on the test set, and then train on all they have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.demo.comparison import Scores, scores
from benchmarks.utility.tables import Rows
from privacy.terms import DataContract

__all__ = ["MODELS", "alone", "one_hot", "pooled", "side_by_side"]

Ranking = npt.NDArray[np.float64]
VALIDATION: Final = 0.25
"""Share of a member's rows on which it chooses its model."""


def logistic(contract: DataContract, training: Rows, test: Rows, seed: int) -> Ranking:
    """Decision values of scikit-learn's logistic regression, as it comes."""
    model = LogisticRegression(max_iter=3000)
    model.fit(one_hot(contract, training), training.labels)
    return np.asarray(model.decision_function(one_hot(contract, test)))


def boosted(contract: DataContract, training: Rows, test: Rows, seed: int) -> Ranking:
    """Decision values of scikit-learn's histogram boosted trees, as they come."""
    numbers = len(contract.numbers)
    kinds = np.arange(numbers + len(contract.categories)) >= numbers
    # Trees take up to 255 codes as a category; columns with more are read as numbers.
    kinds[numbers:] &= [len(column.values) <= 255 for column in contract.categories]
    model = HistGradientBoostingClassifier(categorical_features=kinds, random_state=seed)
    model.fit(side_by_side(training), training.labels)
    return np.asarray(model.decision_function(side_by_side(test)))


MODELS: Final[dict[str, Callable[[DataContract, Rows, Rows, int], Ranking]]] = {
    "logistic regression": logistic,
    "boosted trees": boosted,
}


def pooled(contract: DataContract, training: Rows, test: Rows, seed: int) -> dict[str, Scores]:
    """Scores of both models on everybody's rows."""
    return {
        name: scores(test.labels, model(contract, training, test, seed))
        for name, model in MODELS.items()
    }


def alone(contract: DataContract, rows: Rows, test: Rows, seed: int) -> tuple[str, Scores]:
    """The better model of one member, chosen on its own rows; its name and its test scores.

    A member whose rows are all of one label has no model: it ranks at random.
    """
    order = np.random.default_rng([seed, 3]).permutation(len(rows.labels))
    for_choice = round(VALIDATION * len(order))
    chosen, fitted = _part(rows, order[:for_choice]), _part(rows, order[for_choice:])
    if len(set(rows.labels.tolist())) < 2:
        noise = np.random.default_rng([seed, 4]).random(len(test.labels))
        return "none: one label", scores(test.labels, noise)
    best = next(iter(MODELS))
    if len(set(chosen.labels.tolist())) == 2 == len(set(fitted.labels.tolist())):
        found = {
            name: roc_auc_score(chosen.labels, model(contract, fitted, chosen, seed))
            for name, model in MODELS.items()
        }
        best = max(found, key=lambda name: found[name])
    return best, scores(test.labels, MODELS[best](contract, rows, test, seed))


def _part(rows: Rows, at: npt.NDArray[np.int64]) -> Rows:
    return Rows(rows.numbers[at], rows.categories[at], rows.labels[at])


def one_hot(contract: DataContract, rows: Rows) -> Ranking:
    """Numbers, and one column per category value: float64."""
    columns = [rows.numbers.astype(np.float64)]
    for index, column in enumerate(contract.categories):
        columns.append(np.eye(len(column.values))[rows.categories[:, index]])
    return np.concatenate(columns, axis=1)


def side_by_side(rows: Rows) -> Ranking:
    """Numbers and category codes: float64."""
    return np.concatenate([rows.numbers, rows.categories], axis=1).astype(np.float64)
