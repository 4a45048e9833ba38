"""The public half: settings, what is refused before anything is spent, and the state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from client_sdk.recipes.catalogue import contribute_of, recipe_named
from client_sdk.recipes.statistics.contribute import contribute
from client_sdk.recipes.statistics.fold import (
    check,
    fold,
    initial_state,
    plan,
    published,
    state_from_arrays,
)
from client_sdk.recipes.statistics.settings import (
    StatisticsSettings,
    blocks,
    expected_errors,
    noise,
    parse,
    scale,
)
from privacy.errors import RecipeError
from tests.client_sdk.recipes.statistics.studies import contract, terms


def test_the_recipe_is_installed() -> None:
    assert recipe_named("statistics").Settings is StatisticsSettings
    assert contribute_of("statistics") is contribute


def test_blocks_lie_one_after_the_other_and_fill_the_vector() -> None:
    study = terms({"bins": 8, "by": "kind"})
    found = blocks(study.contract, parse(study))
    assert [one.part for one in found] == [
        "count", "label", "category", "category", "histogram", "histogram", "histogram", "by",
        "means", "products",
    ]  # fmt: skip
    ends = [0, *(one.offset + one.size for one in found)]
    assert [one.offset for one in found] == ends[:-1]
    assert ends[-1] == study.dimension == 1 + 1 + 3 + 16 + 3 * 8 + 3 + 3 + 6
    filled = sum((s * one.norm) ** 2 for s, one in zip(scale(study, found), found, strict=True))
    assert 0.999997 < filled < 1.0


def test_what_has_no_weight_takes_no_room_and_leaves_the_others_less_noise() -> None:
    everything = terms({"bins": 8})
    counts = terms({"bins": 8, "histograms": 0.0, "means": 0.0, "correlation": 0.0, "label": 0.0})
    assert counts.dimension == 1 + 3 + 16
    less = noise(counts, blocks(counts.contract, parse(counts)), 5)[0]
    assert less < noise(everything, blocks(everything.contract, parse(everything)), 5)[0]
    # One of three: norm sqrt(3); sigma 2, five shares of variance sigma^2 / 3.
    assert less == pytest.approx(2.0 * np.sqrt(5 / 3) * np.sqrt(3), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"means": 0.0}, "correlation needs means"),
        ({"by": "kind", "categories": 0.0}, "by needs the categories' counts"),
        ({"bins": 1}, "bins"),
        ({"weights": 1.0}, "weights"),
    ],
)
def test_settings_that_do_not_go_together_are_said(settings: Any, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        StatisticsSettings.model_validate(settings)


def test_the_plan_passes_its_own_check() -> None:
    planned = plan(contract(), StatisticsSettings())
    check(
        terms(
            rounds=planned.rounds,
            clipping_norm=planned.clipping_norm,
            sampling_probability=planned.sampling_probability,
            max_attempts=planned.rounds + (planned.spare_attempts or 0),
        )
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rounds": 2}, "set rounds to 1 and sampling_probability to 1"),
        ({"sampling_probability": 0.5}, "set rounds to 1 and sampling_probability to 1"),
        ({"declared": 5}, "a cell must hold more than 2. consumers to be shown"),
        (
            {"declared": 60, "settings": {"by": "town"}},
            "16 groups by town .* at most 1[0-9] values",
        ),
        ({"settings": {"by": "village"}}, "no category of the contract; name one of kind, town"),
    ],
)
def test_what_could_tell_nothing_is_refused_with_what_would_work(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check(terms(**changes))


def test_errors_are_told_beforehand() -> None:
    study = terms({"bins": 8, "categories": 2.0, "histograms": 0.0})
    found = blocks(study.contract, parse(study))
    whole = np.sqrt(1 + 1 + 2 * 4 + 3 + 3)  # count, label, two categories, means, products
    assert sum((one.weight * one.norm) ** 2 for one in found) == pytest.approx(whole**2)
    count = 1.96 * 2.0 * np.sqrt(5 / 3) * whole
    told = expected_errors(study)
    assert told == pytest.approx(
        {"count": count, "category": count / 2, "shown_above": 3.1 * count / 1.96 / 2}, rel=1e-4
    )


def test_another_dimension_is_refused() -> None:
    study = terms()
    with pytest.raises(RecipeError, match=f"set dimension to {study.dimension}"):
        check(study.model_copy(update={"dimension": study.dimension + 1}))


def test_the_state_is_the_released_mean_and_is_found_again() -> None:
    study = terms()
    before = initial_state(study)
    assert not before.parameters.any()
    mean = np.linspace(-1, 1, study.dimension)
    after = fold(before, mean, study)
    np.testing.assert_array_equal(published(after), mean.astype(np.float32))
    for state in (before, after):
        again = state_from_arrays(state.arrays(), study)
        assert again.folded == state.folded
        np.testing.assert_array_equal(again.parameters, state.parameters)
    with pytest.raises(RecipeError, match="propose another study"):
        fold(after, mean, study)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_mean_that_is_not_finite_is_refused(bad: float) -> None:
    study = terms()
    mean = np.zeros(study.dimension)
    mean[1] = bad
    with pytest.raises(RecipeError, match="not finite"):
        fold(initial_state(study), mean, study)
    with pytest.raises(RecipeError, match="shape"):
        fold(initial_state(study), mean[1:], study)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("folded", np.array([2], np.int64)),
        ("folded", np.array([1.0])),
        ("parameters", np.zeros(3, np.float32)),
        ("other", np.zeros(3)),
    ],
)
def test_states_that_are_none_are_refused(name: str, array: np.ndarray) -> None:
    study = terms()
    arrays: dict[str, Any] = dict(initial_state(study).arrays()) | {name: array}
    with pytest.raises(RecipeError, match="state"):
        state_from_arrays(arrays, study)
