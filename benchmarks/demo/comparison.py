"""What the alliance is compared with. Needs all data on one machine, so it is the demo's alone.

- *alone*: scikit-learn's logistic regression on one member's rows, not private;
- *pooled*: the same on the union of all members' rows, not private;
- *curator*: one trusted party that sees every member's sums and adds noise once, at the same
  noise multiplier and so the same epsilon(m); the alliance adds more, because c of its members may
  collude and D may drop.
All are scored on the held-out households' rows at all members.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from client_sdk.app import RecordJournal
from client_sdk.contribution import contribution
from client_sdk.dataset import Dataset, DataSource, load
from client_sdk.node import Node
from client_sdk.policy import Policy
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.fold import State, fold, initial_state, published
from client_sdk.recipes.propensity.model import score
from coordinator.round import Round
from privacy.keystream import KeyStream
from privacy.sampling import batch_shape, sample_slots
from privacy.terms import Terms

__all__ = [
    "Scores",
    "Tables",
    "alliance_sums",
    "curator_sums",
    "model_scores",
    "regression_scores",
    "scores",
    "train",
]

Floats = npt.NDArray[np.float64]
Sums = Callable[[State, int], Floats]
"""The sum of one round at a state: float64, shape (dimension,)."""

TOP = 0.10
"""Share of rows among which precision is counted: those a retailer would write to."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well rows are ranked."""

    auc: float
    precision_at_10pct: float


@dataclass(frozen=True, slots=True)
class Tables:
    """What the comparison needs in one place: each member's data, and the held-out rows."""

    nodes: list[Node]
    held_out: Dataset

    @classmethod
    def load(cls, terms: Terms, sources: Mapping[str, Mapping[str, str]], held_out: Path) -> Tables:
        """Reads the members' files through their own door."""
        nodes = [
            Node(
                entry,
                Policy(),
                terms.contract,
                load(_source(sources[entry.name]), terms.contract),
                RecordJournal(RecordDict()),
                lambda terms, parameters: None,
            )
            for entry in terms.roster
        ]
        return cls(nodes, load(DataSource(path=held_out), terms.contract))

    @property
    def datasets(self) -> dict[str, Dataset]:
        """By member."""
        return {node.entry.name: node.dataset for node in self.nodes}


def _source(table: Mapping[str, str]) -> DataSource:
    return DataSource.model_validate_json(json.dumps(dict(table)))


def scores(labels: npt.NDArray[np.float32], ranking: npt.NDArray[np.floating]) -> Scores:
    """AUC and the share of responders among the tenth that ranks highest."""
    most = max(1, round(TOP * len(labels)))
    top = np.argsort(-ranking, kind="stable")[:most]
    return Scores(float(roc_auc_score(labels, ranking)), float(labels[top].mean()))


def model_scores(terms: Terms, parameters: npt.NDArray[np.float32], held_out: Dataset) -> Scores:
    """Scores of a published model on held-out rows."""
    rows = _rows(held_out)
    return scores(rows.labels, score(terms, parameters, rows.numbers, rows.categories))


def regression_scores(training: list[Dataset], held_out: Dataset) -> Scores:
    """Scores of a logistic regression on the union of rows; not private."""
    parts = [_rows(dataset) for dataset in training]
    model = LogisticRegression(max_iter=2000)
    model.fit(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    rows = _rows(held_out)
    return scores(rows.labels, model.decision_function(rows.features))


def train(terms: Terms, sums: Sums) -> npt.NDArray[np.float32]:
    """The published parameters after all rounds, each round's sum coming from ``sums``."""
    state = initial_state(terms)
    declared = sum(entry.declared_consumers for entry in terms.roster)
    for number in range(1, terms.privacy.rounds + 1):
        mean = sums(state, number) / (terms.privacy.sampling_probability * declared)
        state = fold(state, mean, terms)
    return published(state)


def alliance_sums(terms: Terms, nodes: list[Node]) -> Sums:
    """What the alliance releases: the members' own code and the coordinator's round, no sockets."""

    def sums(state: State, number: int) -> Floats:
        names = tuple(node.entry.name for node in nodes)
        attempt = Round(terms, round_number=number, attempt=1, cohort=names)
        for node in nodes:
            vector = contribution(terms, node, state.parameters)
            attempt.announce(node.entry.name, vector.dtype.name, vector.shape)
            attempt.cleared()
            attempt.add(node.entry.name, 0, vector.tobytes())
        attempt.close()
        return attempt.release().total()

    return sums


def curator_sums(terms: Terms, nodes: list[Node], rng: np.random.Generator) -> Sums:
    """What a trusted curator would release: the members' exact sums and sigma C of noise, once."""
    scale = terms.privacy.noise_multiplier * terms.privacy.clipping_norm

    def sums(state: State, number: int) -> Floats:
        total = rng.normal(0.0, scale, terms.dimension)
        for node in nodes:
            slots = sample_slots(
                node.enrolment(terms),
                batch_shape(terms, node.entry.name),
                terms.privacy.sampling_probability,
                KeyStream.fresh(),
            )
            blocks = contribute(state.parameters, node.dataset.gather(slots), terms=terms)
            total += blocks.sum(axis=0, dtype=np.float64)
        return total

    return sums


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a dataset, without empty slots."""

    numbers: npt.NDArray[np.float32]
    categories: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    features: Floats


def _rows(dataset: Dataset) -> _Rows:
    """All rows; ``features`` has the numbers and one column per category value."""
    batch = dataset.gather(np.arange(len(dataset.consumer_ids), dtype=np.int64)[None, :])
    there = batch.present > 0
    numbers, categories = batch.numbers[there], batch.categories[there]
    columns = [numbers.astype(np.float64)]
    for index, column in enumerate(dataset.contract.categories):
        columns.append(np.eye(column.codes)[categories[:, index]])
    return _Rows(numbers, categories, batch.labels[there], np.concatenate(columns, axis=1))
