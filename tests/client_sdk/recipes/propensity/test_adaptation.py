"""What a member learns on top of a published model, from its own consumers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from client_sdk.recipes.propensity.adaptation import (
    Adaptation,
    OwnRows,
    Ranking,
    _stacked,
    adapt,
    as_logits,
    unbinned,
)
from privacy.errors import RecipeError
from privacy.terms import Column
from tests.conftest import make_contract

ROWS = 4000


def own_rows(*, own: float, shift: float = 0.0, rows: int = ROWS, seed: int = 1) -> OwnRows:
    """The alliance knows the first column; at this member the second, a category, counts as much
    as ``own`` says, and everybody responds more by ``shift`` on the logit."""
    random = np.random.default_rng(seed)
    first = random.random(rows)
    second = random.integers(0, 3, rows)
    logits = 4 * first - 2
    truth = logits + own * (second == 2) + shift
    labels = (random.random(rows) < expit(truth)).astype(np.float32)
    columns = np.column_stack([first, second]).astype(np.float32)
    return OwnRows(columns, 1, labels, np.arange(rows), logits)


def silent(_: str) -> None:
    """Nobody looks."""


def test_what_the_alliance_does_not_know_is_learned_here() -> None:
    adaptation, found = adapt(own_rows(own=3.0), silent)
    fresh = own_rows(own=3.0, seed=2)
    before = roc_auc_score(fresh.labels, fresh.logits)
    after = roc_auc_score(fresh.labels, adaptation.logits(fresh.columns, fresh.logits))
    assert after > before + 0.03
    assert found.trees > 0
    assert found.adapted.auc == pytest.approx(after, abs=0.02)


def test_equal_rows_give_an_equal_adaptation() -> None:
    first, second = (adapt(own_rows(own=2.0), silent) for _ in range(2))
    assert first == second


def test_where_there_is_nothing_to_learn_the_alliance_counts_and_the_level_is_found() -> None:
    rows = own_rows(own=0.0, shift=-1.5)
    adaptation, found = adapt(rows, silent)
    assert found.share < 0.5
    assert found.adapted.auc > found.alliance.auc - 0.003
    adapted = expit(adaptation.logits(rows.columns, rows.logits))
    assert adapted.mean() == pytest.approx(rows.labels.mean(), abs=0.02)


def test_an_alliance_that_knows_nothing_here_counts_for_little() -> None:
    rows = own_rows(own=3.0)
    noise = np.random.default_rng(9).standard_normal(ROWS)
    other = OwnRows(rows.columns, 1, rows.labels, rows.consumers, noise)
    _, found = adapt(other, silent)
    assert found.share > 0.9
    assert found.alone is not None
    assert found.adapted.auc == pytest.approx(found.alone.auc, abs=0.005)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_those_of_logistic_regression_and_at_least_0(seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((5000, 2)) * [0.1, 30.0]
    for truth in ([7.0, 0.05], [7.0, -0.05]):
        labels = (random.random(5000) < expit(inputs @ truth - 1)).astype(np.float32)
        intercept, weights = _stacked(inputs, labels)
        model = LogisticRegression(C=1e9, max_iter=10_000, tol=1e-10)
        if truth[1] > 0:
            model.fit(inputs, labels)
            np.testing.assert_allclose(weights, model.coef_[0], rtol=1e-3)
        else:
            model.fit(inputs[:, :1], labels)
            np.testing.assert_allclose(weights, [model.coef_[0, 0], 0.0], rtol=1e-3)
        assert intercept == pytest.approx(model.intercept_[0], rel=1e-3)


def test_few_consumers_leave_the_model_as_it_is() -> None:
    rows = own_rows(own=3.0, rows=150)
    adaptation, found = adapt(rows, silent)
    assert not found.enough
    assert adaptation == Adaptation()
    np.testing.assert_array_equal(adaptation.logits(rows.columns, rows.logits), rows.logits)


def test_many_rows_of_few_consumers_are_few_consumers() -> None:
    rows = own_rows(own=3.0)
    whose = np.arange(ROWS) % 150
    few = OwnRows(rows.columns, 1, rows.labels, whose, rows.logits)
    adaptation, found = adapt(few, silent)
    assert found.consumers == 150
    assert adaptation == Adaptation()


def test_a_consumer_is_held_out_with_all_its_rows() -> None:
    """Rows of one consumer are alike and have one label: who sees one row knows the others."""
    random = np.random.default_rng(3)
    whose = np.repeat(np.arange(1000), 4)
    marks = random.random(1000)[whose]
    labels = (random.random(1000) < 0.5).astype(np.float32)[whose]
    columns = np.column_stack([marks, np.zeros(4000)]).astype(np.float32)
    _, found = adapt(OwnRows(columns, 1, labels, whose, np.zeros(4000)), silent)
    assert found.alone is not None
    assert abs(found.alone.auc - 0.5) < 0.06


def test_long_work_says_how_far_it_is() -> None:
    told: list[str] = []
    adapt(own_rows(own=3.0), told.append)
    assert told[0] == "growing trees on 4000 consumers, 5 times without a part of them"


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_that_of_scikit_learn_with_ties_too(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = (random.random(200) < 0.3).astype(np.float32)
    scores = random.integers(0, 10, 200).astype(np.float64)
    found = Ranking.of(labels, scores)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores))
    best = labels[np.argsort(-scores, kind="stable")[:20]]
    assert found.precision == pytest.approx(best.mean())


def test_probabilities_become_logits_and_no_number_is_refused() -> None:
    probabilities = np.array([0.0, 0.2, 1.0], dtype=np.float32)
    logits = as_logits(probabilities)
    np.testing.assert_allclose(expit(logits), probabilities, atol=2e-6)
    broken: npt.NDArray[np.float32] = np.array([0.5, np.nan], dtype=np.float32)
    with pytest.raises(RecipeError, match="no probability for 1 rows"):
        as_logits(broken)


def test_trees_choose_their_own_cuts() -> None:
    column = Column(name="spend", kind="number", low=0.0, high=10.0, edges=(2.0, 5.0))
    contract = make_contract(columns=(column,))
    assert [one.name for one in contract.categories] == ["spend"]
    assert [one.name for one in unbinned(contract).numbers] == ["spend"]
