"""A consumer's vector against an explicit loop, its bound, and what odd rows may not do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.batch import Batch
from client_sdk.recipes.statistics import contribute as module
from client_sdk.recipes.statistics.contribute import contribute
from client_sdk.recipes.statistics.settings import blocks, parse, scale
from privacy.errors import RecipeError
from privacy.terms import Column, Terms
from tests.client_sdk.recipes.statistics.studies import batch, contract, terms

ALL = {"bins": 8, "by": "kind", "categories": 2.0, "correlation": 0.5}


def vector(study: Terms, numbers: Any, codes: Any, labels: Any) -> np.ndarray:
    """One consumer's vector, row by row, in the order and with the weights of the settings."""
    found = blocks(study.contract, parse(study))
    rows = []
    for x, code, label in zip(numbers, codes, labels, strict=True):
        z = 2 * x.astype(np.float64) - 1
        parts: list[np.ndarray] = []
        for block in found:
            if block.part == "count":
                parts.append(np.ones(1))
            elif block.part == "label":
                parts.append(np.array([label]))
            elif block.part in ("category", "by"):
                at = ["kind", "town"].index(block.column)
                hot = np.eye(block.size)[code[at]]
                parts.append(hot * (label if block.part == "by" else 1))
            elif block.part == "histogram":
                at = ["spend", "age", "trips"].index(block.column)
                parts.append(np.eye(8)[min(int(x[at] * 8), 7)])
            elif block.part == "means":
                parts.append(z)
            else:
                parts.append(np.array([z[i] * z[j] for i in range(3) for j in range(i, 3)]))
        rows.append(
            np.concatenate([p * f for p, f in zip(parts, scale(study, found), strict=True)])
        )
    return np.mean(rows, axis=0) if rows else np.zeros(study.dimension)


@pytest.mark.parametrize("at_once", [1, 1 << 16])
def test_sums_equal_an_explicit_loop(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "_SLOTS_AT_ONCE", at_once)
    study = terms(ALL, clipping_norm=2.5)
    consumers = batch((3, 7, 3), 1, empty=0.6)
    assert (consumers.present.sum(2) == 0).any()
    actual = contribute(np.zeros(study.dimension, np.float32), consumers, terms=study)
    assert actual.dtype == np.float32
    for block in range(3):
        wanted = np.zeros(study.dimension)
        for consumer in range(7):
            there = consumers.present[block, consumer] > 0
            wanted += vector(
                study,
                consumers.numbers[block, consumer][there],
                consumers.categories[block, consumer][there],
                consumers.labels[block, consumer][there],
            )
        np.testing.assert_allclose(actual[block], wanted, atol=1e-6)


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([1e-3, 1.0, 37.5]))
def test_no_consumer_exceeds_the_clipping_norm(seed: int, odd: bool, clipping_norm: float) -> None:
    """Each alone in its block, corners of the range and values outside it among them."""
    study = terms(ALL, clipping_norm=clipping_norm)
    draw = np.random.default_rng(seed)
    consumers = batch((20, 1, 3), seed)
    numbers = draw.choice([0.0, 1.0, 0.5], consumers.numbers.shape).astype(np.float32)
    if odd:
        numbers = draw.choice([-5.0, 9.0, np.inf, -np.inf, np.nan, 1.0], numbers.shape)
    labels = draw.choice([0.0, 1.0, 7.0, np.nan] if odd else [1.0], consumers.labels.shape)
    changed = dataclasses.replace(
        consumers, numbers=numbers.astype(np.float32), labels=labels.astype(np.float32)
    )
    sums = contribute(np.zeros(study.dimension, np.float32), changed, terms=study)
    norms = np.linalg.norm(sums.astype(np.float64), axis=1)
    assert norms.max() <= clipping_norm


def test_the_bound_is_reached_by_a_consumer_in_the_corner() -> None:
    study = terms(ALL)
    present = np.ones((1, 1, 1), np.float32)
    corner = Batch(
        np.ones((1, 1, 1, 3), np.float32), np.zeros((1, 1, 1, 2), np.int64), present, present
    )
    (sums,) = contribute(np.zeros(study.dimension, np.float32), corner, terms=study)
    assert 0.999998 < np.linalg.norm(sums.astype(np.float64)) <= 1.0


@pytest.mark.parametrize(
    ("column", "odd", "silent"),
    [
        (0, np.nan, ("histogram", "spend")),
        (1, np.inf, ("histogram", "age")),
        (None, 3, ("category", "kind")),
        (None, -1, ("category", "kind")),
    ],
)
def test_a_row_out_of_contract_adds_nothing_to_that_column_and_the_rest_stays(
    column: int | None, odd: float, silent: tuple[str, str]
) -> None:
    study = terms({"bins": 8, "by": "kind"})
    zeros = np.zeros(study.dimension, np.float32)
    sound = batch((1, 1, 1), 3, empty=0.0)
    numbers, codes = sound.numbers.copy(), sound.categories.copy()
    if column is None:
        codes[..., 0] = int(odd)
    else:
        numbers[..., column] = odd
    changed = dataclasses.replace(sound, numbers=numbers, categories=codes)
    (before,) = contribute(zeros, sound, terms=study)
    (after,) = contribute(zeros, changed, terms=study)
    for block in blocks(study.contract, parse(study)):
        here = after[block.slice]
        if (block.part, block.column) == silent:
            assert not here.any()
        elif block.part in ("count", "label", "category", "histogram"):
            np.testing.assert_array_equal(here, before[block.slice])
    means = next(one for one in blocks(study.contract, parse(study)) if one.part == "means")
    if column is not None:
        assert after[means.slice][column] == 0


def test_a_number_on_an_edge_counts_above_it() -> None:
    """Of 50 cells: each whole number is an edge, and in float32 some lie a little below it."""
    one = contract(columns=(Column(name="trips", kind="number", low=0.0, high=50.0),))
    study = terms({"bins": 50}, table=one)
    trips = np.arange(50, dtype=np.float64)
    shape = (1, 50, 1)
    consumers = Batch(
        (trips / 50).astype(np.float32).reshape(*shape, 1), np.zeros((*shape, 0), np.int64),
        np.zeros(shape, np.float32), np.ones(shape, np.float32),
    )  # fmt: skip
    (sums,) = contribute(np.zeros(study.dimension, np.float32), consumers, terms=study)
    (block,) = [one for one in blocks(one, parse(study)) if one.part == "histogram"]
    assert len(set(sums[block.slice].tolist())) == 1


def test_shapes_that_are_not_the_contracts_are_refused() -> None:
    study = terms()
    zeros = np.zeros(study.dimension, np.float32)
    good = batch((1, 2, 3), 0)
    with pytest.raises(RecipeError, match="categories must have shape"):
        contribute(zeros, dataclasses.replace(good, categories=good.numbers), terms=study)
    with pytest.raises(RecipeError, match="present must be"):
        contribute(zeros, dataclasses.replace(good, present=good.present[0]), terms=study)


def test_members_need_no_torch_for_it() -> None:
    program = (
        "import sys, client_sdk.recipes.statistics.contribute, "
        "client_sdk.recipes.statistics.table, client_sdk.recipes.statistics.preprocessing\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr', 'grpc')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
