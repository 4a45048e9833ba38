"""What a member counts: each consumer once, by label, score, group and side of the threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from client_sdk.batch import Batch
from client_sdk.recipes.evaluation.contribute import contribute
from client_sdk.recipes.evaluation.fold import initial_state
from client_sdk.recipes.evaluation.settings import Layout, parse
from client_sdk.recipes.propensity.model import score
from privacy.errors import RecipeError
from privacy.terms import Column, Terms
from tests.client_sdk.recipes.evaluation.scene import consumers, contract, evaluation, learned


def second(terms: Terms, limit: float) -> np.ndarray:
    """A public state after the first round."""
    state = initial_state(terms).parameters.copy()
    state[Layout.of(terms.contract, parse(terms)).spare.start :][:2] = limit, 0.01
    return state


def counted(terms: Terms, batch: Batch, state: np.ndarray) -> np.ndarray:
    return contribute(state, batch, terms=terms, model=learned(terms.contract.rows_per_consumer))


def test_the_first_round_counts_every_consumer_in_its_cell() -> None:
    terms, batch = evaluation(), consumers(3, 50)
    settings, model = parse(terms), learned()
    scores = score(model.terms, model.parameters, batch.numbers, batch.categories).ravel()
    found = counted(terms, batch, initial_state(terms).parameters).sum(axis=0)
    edges = [0.0, *settings.edges, 1.0]
    for label in (0, 1):
        here = scores[batch.labels.ravel() == label]
        expected, _ = np.histogram(here, edges)
        part = slice(label * settings.cells, (label + 1) * settings.cells)
        np.testing.assert_array_equal(found[part], expected)
    assert not found[2 * settings.cells :].any()


def test_the_second_round_counts_groups_on_either_side_of_the_threshold() -> None:
    terms, batch = evaluation(by="kind, spend: 250 500"), consumers(2, 100)
    layout, model = Layout.of(terms.contract, parse(terms)), learned()
    limit = np.float32(0.1)
    scores = score(model.terms, model.parameters, batch.numbers, batch.categories)
    blocks = counted(terms, batch, second(terms, float(limit)))
    found = blocks.sum(axis=0, dtype=np.float64) / layout.weight
    kinds = batch.categories[..., 0]
    spends = np.digitize(batch.numbers[..., 0], np.array([0.25, 0.5], dtype=np.float32))
    for groups, table in zip((np.zeros_like(kinds), kinds, spends), layout.tables, strict=True):
        for group in range((table.stop - table.start) // 4):
            for side in (0, 1):
                for label in (0, 1):
                    here = (groups == group) & ((scores >= limit) == side)
                    expected = np.count_nonzero(here & (batch.labels == label))
                    place = table.start + 4 * group + 2 * side + label
                    assert found[place] == pytest.approx(expected, abs=1e-3)
    assert not found[layout.spare].any()


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("norm", [1.0, 0.3])
def test_a_consumer_never_has_more_than_the_clipping_norm(rows: int, norm: float) -> None:
    terms = evaluation(rows=rows, by="kind", privacy={"clipping_norm": norm})
    batch = consumers(200, 1, rows=rows)
    same = replace(  # all rows alike: the longest vector there is
        batch, numbers=np.ones_like(batch.numbers), categories=np.zeros_like(batch.categories),
        labels=np.ones_like(batch.labels),
    )  # fmt: skip
    for some in (batch, same):
        for state in (initial_state(terms).parameters, second(terms, 0.1)):
            norms = np.linalg.norm(counted(terms, some, state).astype(np.float64), axis=1)
            assert norms.max() <= norm * (1 + 2**-23)
    assert norms.max() > 0.999 * norm * (1 - 2e-4)


def test_a_row_that_cannot_be_scored_adds_nothing_and_the_others_what_they_did() -> None:
    terms, batch = evaluation(by="kind"), consumers(1, 6)
    numbers, categories = batch.numbers.copy(), batch.categories.copy()
    labels, present = batch.labels.copy(), batch.present.copy()
    numbers[0, 0], categories[0, 1], labels[0, 2], present[0, 3] = np.nan, 7, 0.5, 0.0
    spoiled = Batch(numbers, categories, labels, present)
    rest = replace(batch, present=batch.present * np.array([0, 0, 0, 0, 1, 1.0])[:, None])
    rest = replace(rest, present=rest.present.astype(np.float32))
    for state in (initial_state(terms).parameters, second(terms, 0.1)):
        found = counted(terms, spoiled, state)
        np.testing.assert_array_equal(found, counted(terms, rest, state))
        assert found.any()


def test_columns_are_found_by_name_in_a_wider_contract() -> None:
    wide = contract().model_copy(
        update={
            "columns": (
                Column(name="region", kind="category", values=("north", "south")),
                Column(name="age", kind="number", low=0.0, high=100.0),
                *contract().columns,
            )
        }
    )
    batch = consumers(2, 40)
    more = replace(
        batch,
        numbers=np.concatenate([np.zeros_like(batch.numbers), batch.numbers], axis=-1),
        categories=np.concatenate([np.ones_like(batch.categories), batch.categories], axis=-1),
    )
    narrow, broad = evaluation(), evaluation(contract_=wide)
    state = initial_state(narrow).parameters
    np.testing.assert_array_equal(
        counted(narrow, batch, state),
        contribute(state, more, terms=broad, model=learned()),
    )
    with pytest.raises(RecipeError, match="does not have the contract's columns"):
        contribute(state, batch, terms=broad, model=learned())
