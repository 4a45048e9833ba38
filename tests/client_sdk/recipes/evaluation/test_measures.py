"""From releases to figures: exact without noise, and intervals that hold with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client_sdk.batch import Batch
from client_sdk.recipes.evaluation.contribute import contribute
from client_sdk.recipes.evaluation.fold import (
    State,
    describe,
    fold,
    initial_state,
    published,
    state_from_arrays,
)
from client_sdk.recipes.evaluation.measures import Evaluation, evaluate
from client_sdk.recipes.evaluation.settings import Layout, parse
from client_sdk.recipes.propensity.model import score
from privacy.errors import RecipeError
from privacy.terms import Terms
from tests.client_sdk.recipes.evaluation.scene import consumers, evaluation, learned, noise_of

BLOCKS, EACH = 80, 250
CONSUMERS = BLOCKS * EACH


class Scene:
    """One data set that is measured again and again."""

    def __init__(self, terms: Terms, batch: Batch, *, scale: float = 1.0) -> None:
        model = learned()
        self.terms, self.batch = terms, batch
        self.model = replace(model, parameters=model.parameters * np.float32(scale))
        self.scores = score(
            self.model.terms, self.model.parameters, batch.numbers, batch.categories
        ).ravel()
        self.labels = batch.labels.ravel()
        self.first = self.sums(initial_state(terms))

    def sums(self, state: State) -> np.ndarray:
        blocks = contribute(state.parameters, self.batch, terms=self.terms, model=self.model)
        return blocks.sum(axis=0, dtype=np.float64)

    def run(self, rng: np.random.Generator, noise: float) -> Evaluation:
        return evaluate(self.terms, published(self.states(rng, noise)[-1]))

    def states(self, rng: np.random.Generator, noise: float) -> list[State]:
        states = [initial_state(self.terms)]
        for number in range(2):
            total = self.first if number == 0 else self.sums(states[-1])
            noised = total + rng.normal(0, noise, self.terms.dimension)
            states.append(fold(states[-1], noised / CONSUMERS, self.terms))
        return states

    @property
    def precision(self) -> float:
        most = CONSUMERS // 10
        return float(self.labels[np.argsort(-self.scores, kind="stable")[:most]].mean())


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(evaluation(by="kind"), consumers(BLOCKS, EACH))


def test_without_noise_the_figures_are_the_exact_ones(scene: Scene) -> None:
    found = scene.run(np.random.default_rng(1), 1e-6)
    exact = roc_auc_score(scene.labels, scene.scores)
    assert found.figures["auc"].value == pytest.approx(exact, abs=0.004)
    assert found.figures["precision"].value == pytest.approx(scene.precision, abs=0.01)
    assert found.figures["base_rate"].value == pytest.approx(scene.labels.mean(), abs=1e-4)
    lift = scene.precision / scene.labels.mean()
    assert found.figures["lift"].value == pytest.approx(lift, rel=0.03)
    assert found.figures["calibration_ratio"].value == pytest.approx(1, abs=0.05)
    assert found.figures["calibration_error"].value < 0.01
    chosen = scene.scores >= np.float32(found.threshold)
    kinds = scene.batch.categories.ravel()
    for code, group in enumerate(found.groups):
        here = kinds == code
        assert group.selected.value == pytest.approx(chosen[here].mean(), abs=1e-4)
        positive = here & (scene.labels == 1)
        assert group.found is not None
        assert group.found.value == pytest.approx(chosen[positive].mean(), abs=1e-3)
    parity, opportunity = found.gaps
    rates = [chosen[kinds == code].mean() for code in (0, 1)]
    assert parity.figure.value == pytest.approx(max(rates) - min(rates), abs=1e-4)
    assert (parity.highest, parity.lowest) == ("B", "A")
    assert opportunity.measure == "found"


@pytest.mark.parametrize("scale", [0.1, 0.4])
def test_scores_that_lie_close_together_are_told_apart_in_the_second_round(scale: float) -> None:
    scene = Scene(evaluation(), consumers(BLOCKS, EACH), scale=scale)
    edges = parse(scene.terms).edges
    assert len(set(np.searchsorted(edges, scene.scores))) <= scale * 20  # of 20 cells
    found = scene.run(np.random.default_rng(10), 1e-6)
    exact = roc_auc_score(scene.labels, scene.scores)
    assert found.figures["auc"].value == pytest.approx(exact, abs=0.004)
    assert found.figures["precision"].value == pytest.approx(scene.precision, abs=0.015)


def test_intervals_hold_the_exact_figures(scene: Scene) -> None:
    """A true coverage of 95 % fails this once in 10,000 for each figure (binomial, 120 runs)."""
    rng, runs = np.random.default_rng(2), 120
    exact = {
        "auc": float(roc_auc_score(scene.labels, scene.scores)),
        "precision": scene.precision,
        "base_rate": float(scene.labels.mean()),
    }
    kinds = scene.batch.categories.ravel()
    hits = dict.fromkeys([*exact, "gap"], 0)
    for _ in range(runs):
        found = scene.run(rng, noise_of(scene.terms))
        for name, value in exact.items():
            hits[name] += found.figures[name].low <= value <= found.figures[name].high
        chosen = scene.scores >= np.float32(found.threshold)
        gap = abs(chosen[kinds == 0].mean() - chosen[kinds == 1].mean())
        hits["gap"] += found.gaps[0].figure.low <= gap <= found.gaps[0].figure.high
    assert min(hits.values()) >= 103, hits


def test_a_release_tells_the_size_of_its_own_noise(scene: Scene) -> None:
    noise = noise_of(scene.terms)
    layout = Layout.of(scene.terms.contract, parse(scene.terms))
    _, first, second = scene.states(np.random.default_rng(3), noise)
    told = first.parameters[layout.spare][1], second.parameters[layout.spare][2] * layout.weight
    for one in told:  # five standard errors
        assert one * CONSUMERS == pytest.approx(noise, rel=5 / np.sqrt(2 * 1024))


def test_about_how_many_were_measured_follows_from_it(scene: Scene) -> None:
    found = scene.run(np.random.default_rng(4), noise_of(scene.terms))
    assert found.consumers == pytest.approx(CONSUMERS, rel=0.12)


def test_what_is_too_small_is_named_and_not_reported() -> None:
    batch = consumers(BLOCKS, EACH)
    rare = (np.arange(CONSUMERS) < 50).reshape(batch.categories.shape)
    batch = Batch(batch.numbers, np.where(rare, 0, 1), batch.labels, batch.present)
    found = Scene(evaluation(by="kind"), batch).run(np.random.default_rng(5), 10.0)
    assert found.too_small == (("kind", "A"),)
    assert [one.name for one in found.groups] == ["B"]
    assert found.gaps == ()


def test_too_few_positives_give_no_auc() -> None:
    batch = consumers(BLOCKS, EACH)
    none = Batch(batch.numbers, batch.categories, np.zeros_like(batch.labels), batch.present)
    found = Scene(evaluation(), none).run(np.random.default_rng(6), 10.0)
    assert found.figures == {}


def test_a_state_is_kept_and_found_again(scene: Scene) -> None:
    _, first, _ = scene.states(np.random.default_rng(7), 10.0)
    again = state_from_arrays(first.arrays(), scene.terms)
    assert again.folded == 1
    np.testing.assert_array_equal(again.parameters, first.parameters)
    spoiled = first.arrays() | {"parameters": np.full_like(first.parameters, np.nan)}
    for arrays in ({}, spoiled, first.arrays() | {"folded": np.array([9])}):
        with pytest.raises(RecipeError, match="state: "):
            state_from_arrays(arrays, scene.terms)


def test_what_is_no_release_is_refused(scene: Scene) -> None:
    terms = scene.terms
    _, first, second = scene.states(np.random.default_rng(8), 10.0)
    good = np.zeros(terms.dimension)
    for state, mean, words in (
        (first, good[1:], "of shape"),
        (first, np.full_like(good, np.inf), "not finite"),
        (second, good, "has 2"),
    ):
        with pytest.raises(RecipeError, match=words):
            fold(state, mean, terms)
    with pytest.raises(RecipeError, match="rounds are not over"):
        describe(terms, published(first))
    with pytest.raises(RecipeError, match="does not fit"):
        evaluate(terms, good[1:].astype(np.float32))


def test_noise_alone_is_folded_and_says_nothing(scene: Scene) -> None:
    rng, state = np.random.default_rng(9), initial_state(scene.terms)
    for _ in range(2):
        state = fold(state, rng.normal(0, 0.001, scene.terms.dimension), scene.terms)
    found = evaluate(scene.terms, published(state))
    assert found.figures == {}
    assert len(found.too_small) == 2
