"""What an evaluation cannot be is said beforehand, with what to do."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from client_sdk.recipes.evaluation.settings import (
    EvaluationSettings,
    Layout,
    check,
    check_model,
    parse,
    takes,
)
from client_sdk.recipes.holdout import Holdout
from client_sdk.recipes.propensity.settings import takes as trains
from privacy.errors import RecipeError
from privacy.terms import Column, Terms
from tests.client_sdk.recipes.evaluation.scene import contract, evaluation, learned


def test_a_study_that_fits_passes() -> None:
    terms = evaluation(by="kind, spend: 200 400", holdout=0.5)
    check(terms)
    check_model(terms, learned(holdout=0.5).terms)
    layout = Layout.of(terms.contract, parse(terms))
    assert [one.labels for one in layout.groupings] == [
        ("everybody",),
        ("A", "B"),
        ("below 200", "200 to 400", "400 and above"),
    ]
    places = [layout.histogram, layout.again, *layout.tables, layout.spare]
    assert all(one.stop == two.start for one, two in itertools.pairwise(places))
    assert places[-1].stop == terms.dimension


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("region", "region is no column of the contract; name columns of the contract, such as sp"),
        ("kind, kind", "kind comes twice"),
        ("kind: 3", "is a category and takes no edges"),
        ("spend", "needs rising edges between 0 and 1000, such as spend: 500"),
        ("spend: 400 200", "rising edges"),
        ("spend: 0 200", "rising edges"),
        ("spend: x", "rising edges"),
    ],
)
def test_groups_that_the_contract_does_not_have(by: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Layout.of(contract(), EvaluationSettings(model="ab" * 32, study="coupons", by=by))


def test_a_binned_number_is_parted_at_its_own_edges() -> None:
    binned = Column(name="spend", kind="number", low=0.0, high=1000.0, edges=(100.0, 300.0, 600.0))
    columns = contract().model_copy(update={"columns": (binned, contract().columns[1])})
    codes = np.array([[0, 0], [1, 0], [2, 0], [3, 1], [4, 1]])
    for by, labels, groups in (
        ("spend", ("below 100", "100 to 300", "300 to 600", "600 and above"), [0, 1, 2, 3]),
        ("spend: 300", ("below 300", "300 and above"), [0, 0, 1, 1]),
    ):
        settings = EvaluationSettings(model="ab" * 32, study="coupons", by=by)
        grouping = Layout.of(columns, settings).groupings[1]
        assert grouping.labels == labels
        found, sound = grouping.of(np.zeros((5, 0), dtype=np.float32), codes, columns)
        assert found[:4].tolist() == groups
        assert sound.tolist() == [True, True, True, True, False]
    settings = EvaluationSettings(model="ab" * 32, study="coupons", by="spend: 200")
    with pytest.raises(RecipeError, match="200 is between two of them; its edges are 100, 300"):
        Layout.of(columns, settings)


def test_groups_too_small_to_report() -> None:
    with pytest.raises(RecipeError, match=r"kind: a group is reported from \d+ consumers on"):
        check(evaluation(by="kind", declared=50))
    with pytest.raises(RecipeError, match=r"everybody: .* by a larger epsilon, or hold out more"):
        check(evaluation(declared=9))
    edges = " ".join(str(edge) for edge in range(10, 1000, 10))
    with pytest.raises(RecipeError, match=r"spend: .* name a column with at most \d+ groups"):
        check(evaluation(by=f"spend: {edges}"))


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"rounds": 3, "max_attempts": 3}, "needs rounds 2 and the terms say 3; set it to 2"),
        ({"sampling_probability": 0.5}, "needs sampling_probability 1"),
    ],
)
def test_rounds_and_sampling_are_given(privacy: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check(evaluation(privacy=privacy))


def test_another_dimension_is_refused() -> None:
    terms = evaluation()
    with pytest.raises(RecipeError, match=f"set it to {terms.dimension}"):
        check(terms.model_copy(update={"dimension": 7}))


def test_settings_that_are_none() -> None:
    for wrong in ({"model": "ab"}, {"lowest": 0.9, "highest": 0.1}, {"top": 0.9}):
        with pytest.raises(ValidationError):
            EvaluationSettings.model_validate({"model": "ab" * 32, "study": "a"} | wrong)


def changed(terms: Terms, **contract_: Any) -> Terms:
    return terms.model_copy(update={"contract": terms.contract.model_copy(update=contract_)})


def test_a_model_that_does_not_fit() -> None:
    terms, model = evaluation(), learned().terms
    _, kind = contract().columns
    capped = Column(name="spend", kind="number", low=0.0, high=500.0)
    for ours, theirs, words in (
        (changed(terms, columns=(kind,)), model, "lacks the model's column spend"),
        (changed(terms, columns=(capped, kind)), model, "declares otherwise the model's column"),
        (changed(terms, label="bought"), model, "label is bought, the model's is responded"),
        (terms, model.model_copy(update={"study": "other"}), "write recipe.study = other"),
        (terms, terms, "recipe evaluation cannot be evaluated"),
        (evaluation(holdout=0.2), model, "was trained with holdout 0; write 0"),
    ):
        with pytest.raises(RecipeError, match=words):
            check_model(ours, theirs)
    check_model(terms, learned(holdout=0.2).terms)  # on everybody, and says so


def test_who_is_measured_did_not_train() -> None:
    terms, model = evaluation(holdout=0.3), learned(holdout=0.3).terms
    names = [f"h{number}" for number in range(2000)]
    assert all(takes(terms, name) != trains(model, name) for name in names)
    assert 500 < sum(takes(terms, name) for name in names) < 700
    assert all(takes(evaluation(), name) and trains(learned().terms, name) for name in names)


def test_a_larger_share_holds_out_the_same_consumers_and_more() -> None:
    names = [f"h{number}" for number in range(500)]
    few, many = (
        {name for name in names if name in Holdout("a", "s", share)} for share in (0.1, 0.4)
    )
    assert few < many
    assert few != {name for name in names if name in Holdout("a", "t", 0.1)}
    assert not any(name in Holdout("a", "s", 0.0) for name in names)


def test_edges_are_even_in_log_odds() -> None:
    edges = EvaluationSettings(model="ab" * 32, study="a", cells=5, lowest=0.1, highest=0.9).edges
    odds = np.log(edges / (1 - edges.astype(np.float64)))
    np.testing.assert_allclose(np.diff(odds), odds[1] - odds[0], rtol=1e-5)
    assert edges[[0, -1]] == pytest.approx([0.1, 0.9])
