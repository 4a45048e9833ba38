"""The public half: settings, initial state, optimiser steps; and that both halves learn."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.batch import Batch
from client_sdk.recipes.per_consumer.network import Network
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.fold import (
    State,
    dimension,
    fold,
    initial_state,
    published,
    state_from_arrays,
)
from client_sdk.recipes.propensity.model import score
from client_sdk.recipes.propensity.settings import PropensitySettings, network, parse
from privacy.errors import RecipeError
from tests.client_sdk.recipes.reference import (
    Reference,
    contract_for,
    make_batch,
    make_parameters,
    terms_for,
)
from tests.conftest import make_terms

MLP: dict[str, Any] = {"model": "mlp", "hidden": (7, 5), "embedding_width": 3}
LOGISTIC: dict[str, Any] = {"model": "logistic"}


@given(
    numbers=st.integers(0, 5),
    cardinalities=st.lists(st.integers(2, 6), max_size=3),
    hidden=st.lists(st.integers(1, 5), max_size=3),
)
def test_parts_are_the_parameters_of_a_plain_module(
    numbers: int, cardinalities: list[int], hidden: list[int]
) -> None:
    if numbers + len(cardinalities) == 0 or (not numbers and not hidden):
        return
    shape = Network(numbers, tuple(cardinalities), 4 if hidden else 1, tuple(hidden))
    sizes = [parameter.numel() for parameter in Reference(shape).parameters()]
    assert shape.dimension == sum(sizes)
    tables = [part.size for part in shape.parts if part.name == "tables"]
    assert sum(tables) == sum(sizes[: len(cardinalities)])
    assert [p.size for p in shape.parts if p.name != "tables"] == sizes[len(cardinalities) :]


def test_fold_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'opacus', 'flwr', 'grpc'): sys.modules[name] = None\n"
        "import client_sdk.recipes.propensity.fold, client_sdk.recipes.propensity.settings\n"
        "from client_sdk.recipes.propensity.fold import initial_state\n"
        "from privacy.terms import Terms\n"
        "terms = Terms.from_json(sys.stdin.read())\n"
        "print(initial_state(terms).parameters.any())\n"
        "try:\n    import client_sdk.recipes.propensity.contribute\n"
        "except ImportError: print('blocked')\n"
    )
    document = terms_for(contract_for(4, (3, 5)), MLP).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", code], input=document, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "blocked"], done.stderr


def test_the_initial_state_follows_from_the_terms() -> None:
    contract = contract_for(4, (3, 5))
    terms = terms_for(contract, MLP)
    first, again = initial_state(terms), initial_state(terms)
    np.testing.assert_array_equal(first.parameters, again.parameters)
    other = initial_state(terms_for(contract, MLP, noise_multiplier=3.0))
    assert (first.parameters != other.parameters).mean() > 0.8
    assert first.parameters.dtype == np.float32


def test_initial_parameters_are_spread_as_documented() -> None:
    contract = contract_for(20, (50, 60))
    settings = {"model": "mlp", "hidden": (40, 30), "embedding_width": 4}
    terms = terms_for(contract, settings)
    parameters = initial_state(terms).parameters
    limits = {
        "tables": 0.5,
        "weight 0": (6 / 28) ** 0.5,
        "weight 1": (6 / 40) ** 0.5,
        "weight 2": (6 / 31) ** 0.5,
    }
    for part in network(contract, parse(terms)).parts:
        values = parameters[part.offset : part.end]
        if part.name.startswith("bias"):
            assert not values.any()
        else:
            limit = limits[part.name]
            assert 0.8 * limit < np.abs(values).max() <= np.float32(limit)
            assert abs(values.mean()) < limit / 2  # 30 values or more: beyond 4 deviations


def test_logistic_regression_starts_at_zero() -> None:
    assert not initial_state(terms_for(contract_for(4, (3,)), LOGISTIC)).parameters.any()


def test_an_installed_model_starts_within_its_scale() -> None:
    settings = {"model": "ours", "parameters": 1000, "initial_scale": 0.2}
    values = initial_state(terms_for(contract_for(2, ()), settings)).parameters
    assert 0.19 < np.abs(values).max() <= np.float32(0.2)


def steps(settings: dict[str, Any], count: int) -> tuple[list[State], list[np.ndarray]]:
    terms = terms_for(contract_for(4, (3,)), settings)
    states, gradients = [initial_state(terms)], []
    for index in range(count):
        gradients.append(np.random.default_rng(index).normal(size=terms.dimension))
        states.append(fold(states[-1], gradients[-1], terms))
    return states, gradients


@pytest.mark.parametrize(
    "settings",
    [
        LOGISTIC | {"learning_rate": 0.3, "momentum": 0.8},
        LOGISTIC | {"learning_rate": 0.3, "momentum": 0.0},
        MLP | {"optimizer": "adam", "learning_rate": 0.02},
    ],
)
def test_steps_equal_those_of_torch(settings: dict[str, Any]) -> None:
    states, gradients = steps(settings, 12)
    parameter = torch.tensor(states[0].parameters, dtype=torch.float64, requires_grad=True)
    rate, momentum = settings["learning_rate"], settings.get("momentum", 0.9)
    optimizer: torch.optim.Optimizer
    if settings.get("optimizer") == "adam":
        optimizer = torch.optim.Adam([parameter], lr=rate, betas=(momentum, 0.999))
    else:
        optimizer = torch.optim.SGD([parameter], lr=rate, momentum=momentum)
    for state, gradient in zip(states[1:], gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(state.parameters, parameter.detach().numpy(), atol=2e-6)


def test_published_is_the_mean_of_iterates_once_it_begins() -> None:
    states, _ = steps(LOGISTIC | {"average_from": 4}, 9)
    for number, state in enumerate(states):
        wanted = state.parameters
        if number >= 4:
            wanted = np.mean([s.parameters for s in states[4 : number + 1]], axis=0)
        np.testing.assert_allclose(published(state), wanted, atol=1e-5)
    states, _ = steps(LOGISTIC, 3)
    assert published(states[-1]) is states[-1].parameters


@pytest.mark.parametrize("settings", [LOGISTIC | {"average_from": 2}, MLP | {"optimizer": "adam"}])
def test_a_state_survives_its_arrays(settings: dict[str, Any]) -> None:
    terms = terms_for(contract_for(4, (3,)), settings)
    gradient = make_parameters(terms.dimension, 1)
    for count in (0, 3):
        state = initial_state(terms)
        for _ in range(count):
            state = fold(state, gradient, terms)
        resumed = state_from_arrays(state.arrays(), terms)
        onward, direct = fold(resumed, gradient, terms), fold(state, gradient, terms)
        for name, array in direct.arrays().items():
            np.testing.assert_array_equal(onward.arrays()[name], array)


def test_arrays_that_are_no_state_are_refused() -> None:
    terms = terms_for(contract_for(4, (3,)), LOGISTIC)
    good = fold(initial_state(terms), make_parameters(terms.dimension, 1), terms).arrays()
    not_finite = good["velocity"].copy()
    not_finite[0] = np.inf
    for name, array in {
        "parameters": good["parameters"][:-1],
        "velocity": not_finite,
        "squares": good["velocity"],
        "mean": good["velocity"],
        "counts": np.array([1, 2], dtype=np.int64),
        "extra": good["velocity"],
    }.items():
        with pytest.raises(RecipeError, match="state"):
            state_from_arrays(good | {name: array}, terms)
    with pytest.raises(RecipeError, match="float32"):
        state_from_arrays(good | {"parameters": good["parameters"].astype(np.float64)}, terms)
    with pytest.raises(RecipeError, match="needs the arrays"):
        state_from_arrays({"parameters": good["parameters"]}, terms)


def test_gradients_that_do_not_fit_are_refused() -> None:
    terms = terms_for(contract_for(4, (3,)), LOGISTIC)
    state = initial_state(terms)
    good = np.zeros(terms.dimension)
    for bad in (np.nan, np.inf, -np.inf):
        spoiled = good.copy()
        spoiled[1] = bad
        with pytest.raises(RecipeError, match="round 1: the mean gradient is not finite"):
            fold(state, spoiled, terms)
    for array in (good[:-1], good[None], good.astype(np.int64)):
        with pytest.raises(RecipeError, match="must be floats"):
            fold(state, array, terms)
    with pytest.raises(RecipeError, match="lower the learning rate"):
        fold(state, good + 1e300, terms)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "logistic", "learning_rate": 0.0}, "learning_rate"),
        ({"model": "logistic", "momentum": 1.0}, "momentum"),
        ({"model": "logistic", "optimizer": "lbfgs"}, "optimizer"),
        ({"model": "mlp", "hidden": ()}, "hidden layer"),
        ({"model": "mlp", "hidden": (0,)}, "hidden"),
        ({"model": "logistic", "parameters": 3}, "takes no parameters"),
        ({"model": "somebody-elses"}, "state its parameters"),
        ({"model": "theirs", "parameters": 3, "centred": True}, "may form its own"),
        ({"model": "../etc"}, "model"),
        ({"model": "logistic", "colour": 1}, "colour"),
    ],
)
def test_settings_that_are_wrong_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        initial_state(make_terms(settings=settings, dimension=6))


def test_the_default_settings_are_valid() -> None:
    assert PropensitySettings() == parse(make_terms(settings={}))


def test_a_dimension_that_is_not_the_models_is_refused() -> None:
    contract = contract_for(4, (3,))
    with pytest.raises(RecipeError, match="set dimension to 8"):
        initial_state(make_terms(contract=contract, settings=LOGISTIC, dimension=9))
    assert dimension(contract, PropensitySettings()) == 8


def test_terms_of_another_recipe_are_refused() -> None:
    terms = make_terms().model_copy(update={"recipe": "demand"})
    with pytest.raises(RecipeError, match="not propensity"):
        initial_state(terms)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, by ranks."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = labels == 1
    count = positives.sum()
    return float(
        (ranks[positives].sum() - count * (count + 1) / 2) / (count * (len(labels) - count))
    )


def learnable(seed: int, shape: tuple[int, int, int], contract: Any) -> Batch:
    """Labels that depend on numbers, on one category, and on their interplay."""
    batch = make_batch(contract, shape, seed, empty=0.2)
    logit = 4 * (batch.numbers[..., 0] - batch.numbers[..., 1])
    logit = logit + np.where(batch.categories[..., 0] == 1, 2.0, -1.0)
    draw = np.random.default_rng(seed + 1000).random(shape)
    labels = (draw < 1 / (1 + np.exp(-logit))) * batch.present
    return Batch(batch.numbers, batch.categories, labels.astype(np.float32), batch.present)


@pytest.mark.parametrize(
    "settings",
    [
        LOGISTIC,
        MLP,
        MLP | {"optimizer": "adam", "learning_rate": 0.02, "average_from": 20},
    ],
    ids=["logistic", "mlp", "adam"],
)
def test_both_halves_together_learn(settings: dict[str, Any]) -> None:
    contract = contract_for(4, (3, 5))
    terms = terms_for(contract, settings)
    state = initial_state(terms)
    for number in range(60):
        batch = learnable(number, (2, 100, 2), contract)
        total = contribute(state.parameters, batch, terms=terms).sum(0, dtype=np.float64)
        state = fold(state, total / 200, terms)
    fresh = learnable(10_000, (1, 2000, 2), contract)
    scores = score(terms, published(state), fresh.numbers, fresh.categories)
    assert scores.shape == fresh.present.shape
    there = fresh.present > 0
    assert auc(scores[there], fresh.labels[there]) > 0.8
    assert abs(scores[there].mean() - fresh.labels[there].mean()) < 0.1


def test_scores_equal_a_plain_module() -> None:
    from client_sdk.recipes.per_consumer.module import fill

    contract = contract_for(4, (3, 5))
    batch = make_batch(contract, (2, 5, 3), seed=1)
    for settings in (LOGISTIC, MLP):
        terms = terms_for(contract, settings)
        parameters = make_parameters(terms.dimension, 2)
        reference = Reference(network(contract, parse(terms)))
        fill(reference, torch.tensor(parameters))
        values = reference(
            torch.tensor(batch.numbers.reshape(-1, 4)),
            torch.tensor(batch.categories.reshape(-1, 2)),
        )
        np.testing.assert_allclose(
            score(terms, parameters, batch.numbers, batch.categories).reshape(-1),
            torch.sigmoid(values).detach().numpy(),
            atol=1e-6,
        )


def test_a_row_out_of_contract_scores_nan_alone() -> None:
    contract = contract_for(4, (3, 5))
    terms = terms_for(contract, MLP)
    batch = make_batch(contract, (1, 4, 1), seed=1, empty=0)
    batch.numbers[0, 1, 0, 2] = np.nan
    batch.categories[0, 3, 0, 1] = 5
    parameters = make_parameters(terms.dimension, 2)
    scores = score(terms, parameters, batch.numbers[0, :, 0], batch.categories[0, :, 0])
    assert np.isnan(scores).tolist() == [False, True, False, True]


def test_rows_of_another_contract_are_refused() -> None:
    terms = terms_for(contract_for(4, (3, 5)), MLP)
    parameters = make_parameters(terms.dimension, 2)
    with pytest.raises(RecipeError, match="4 numbers and 2 categories"):
        score(
            terms, parameters, np.zeros((2, 3), dtype=np.float32), np.zeros((2, 2), dtype=np.int64)
        )
