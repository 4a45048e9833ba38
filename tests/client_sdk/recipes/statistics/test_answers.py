"""What a release says: exact without noise, as often right as it says with noise, and silent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from client_sdk.batch import Batch
from client_sdk.recipes.statistics.answers import Answers, Figure, Z, in_units, scaled
from client_sdk.recipes.statistics.preprocessing import advice, cut_points
from client_sdk.recipes.statistics.settings import blocks, noise, parse, scale
from client_sdk.recipes.statistics.table import lines, suppressed
from privacy.errors import RecipeError
from privacy.terms import Column, Terms
from tests.client_sdk.recipes.statistics.studies import answers, contract, read, terms, total

SHAPE = (40, 250, 1)
QUIET = {"noise_multiplier": 1e-3}


def consumers(seed: int = 7) -> Batch:
    """Ten thousand, one row each; numbers are correlated, kinds and labels too."""
    draw = np.random.default_rng(seed)
    base = draw.random(SHAPE)
    numbers = np.stack(
        [base**2, 0.5 * base + 0.5 * draw.random(SHAPE), 1 - base * draw.random(SHAPE)], -1
    )
    kind = (base * 3).astype(np.int64)
    town = draw.choice(16, SHAPE, p=[0.5, 0.2, 0.2, 0.1, *[0.0] * 12])
    labels = draw.random(SHAPE) < base
    return Batch(
        numbers.astype(np.float32), np.stack([kind, town], -1), labels.astype(np.float32),
        np.ones(SHAPE, np.float32),
    )  # fmt: skip


def released(study: Terms, table: Batch, seed: int, releases: int = 1) -> Iterator[Answers]:
    """With Gaussian noise of the stated size on every coordinate."""
    found = blocks(study.contract, parse(study))
    deviation = noise(study, found, len(study.roster))[0] * scale(study, found)[0]
    draw, exact = np.random.default_rng(seed), total(study, table)
    for _ in range(releases):
        yield read(study, exact + draw.normal(0, deviation, study.dimension))


def test_without_noise_everything_is_exact() -> None:
    study = terms({"bins": 64, "by": "kind"}, **QUIET)
    table = consumers()
    told = answers(study, table)
    spend, age, trips = study.contract.numbers
    kind, town = study.contract.categories
    x = table.numbers.reshape(-1, 3).astype(np.float64)
    codes, labels = table.categories.reshape(-1, 2), table.labels.ravel()
    assert told.consumers.value == pytest.approx(10_000, rel=1e-6)
    assert told.label is not None
    assert told.label.value == pytest.approx(labels.mean(), rel=1e-5)
    for at, column in enumerate((kind, town)):
        cells = told.cells(column)
        assert cells is not None
        np.testing.assert_allclose(
            cells.counts, np.bincount(codes[:, at], minlength=column.codes), atol=0.05
        )
    for name, count, rate in told.rates():
        there = codes[:, 0] == kind.values.index(name)
        assert count.value == pytest.approx(there.sum(), abs=0.05)
        assert rate.value == pytest.approx(labels[there].mean(), rel=1e-4)
    ages, spends = 20 + 80 * x[:, 1], np.expm1(x[:, 0] * np.log1p(1000))
    mean, log_mean = told.mean(age), told.mean(spend)
    assert mean is not None
    assert log_mean is not None
    assert mean.value == pytest.approx(ages.mean(), rel=1e-4)
    assert log_mean.value == pytest.approx(np.expm1(np.log1p(spends).mean()), rel=1e-3)
    for share in (0.01, 0.3, 0.5, 0.9):
        for column, values in ((age, ages), (spend, spends), (trips, 50 * x[:, 2])):
            found = told.quantile(column, share)
            assert found is not None
            assert found.low <= np.quantile(values, share) <= found.high
    correlation = told.correlation()
    assert correlation is not None
    np.testing.assert_allclose(correlation[0], np.corrcoef(x.T), atol=1e-4)


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of 300 releases with about 40 figures each; a false alarm has probability below 1e-4."""
    study = terms({"bins": 16, "by": "kind"}, noise_multiplier=6.0)
    table = consumers()
    exact = {
        (line.figure, line.column, line.cell): line.value
        for line in lines(answers(study, table))
        if line.figure != "quantile"
    }
    spend = study.contract.numbers[0]
    median = answers(study, table).quantile(spend, 0.5)
    assert median is not None
    inside: dict[str, list[bool]] = {}
    for told in released(study, table, 11, 300):
        for line in lines(told):
            if (key := (line.figure, line.column, line.cell)) in exact:
                inside.setdefault(line.figure, []).append(line.low <= exact[key] <= line.high)
        found = told.quantile(spend, 0.5)
        assert found is not None
        right = found.within.low <= median.within.value <= found.within.high
        inside.setdefault("quantile", []).append(right)
    kinds = {"consumers", "share", "count", "share of responded", "mean", "log mean"}
    assert set(inside) >= kinds | {"histogram", "correlation", "quantile"}
    for figure, found_inside in inside.items():
        # Five standard deviations, and one point for what the first order leaves out.
        slack = 5 * np.sqrt(0.05 * 0.95 / len(found_inside)) + 0.01
        assert abs(np.mean(found_inside) - 0.95) < slack, figure


def test_empty_cells_are_not_shown_but_one_in_a_thousand() -> None:
    """Positive control: without the threshold half of them are."""
    table = consumers()
    shown = {}
    for least in (3.1, 0.0):
        study = terms({"bins": 8, "suppress_below": least}, noise_multiplier=20.0)
        counts = []
        for told in released(study, table, 5, 300):
            cells = told.cells(study.contract.categories[1])
            assert cells is not None
            counts.append(int(cells.shown[4:].sum()))
            hidden, of, below = suppressed(told)["town"]
            assert (hidden, of) == (int((~cells.shown).sum()), 16)
            assert below == pytest.approx(least * cells.error)
        shown[least] = sum(counts) / (300 * 12)
    assert shown[3.1] < 0.004
    assert 0.45 < shown[0.0] < 0.55


def test_nothing_is_divided_by_a_count_that_the_noise_hides() -> None:
    study = terms({"bins": 8, "by": "kind"}, noise_multiplier=5000.0)
    for told in released(study, consumers(), 3, 20):
        if not told.seen:
            assert told.label is None
            assert told.correlation() is None
            for column in study.contract.numbers:
                assert told.mean(column) is None
                assert told.quantile(column, 0.5) is None
        for line in lines(told):
            assert np.isfinite([line.value, line.low, line.high]).all()


def test_a_column_without_spread_has_no_correlation() -> None:
    table = consumers()
    numbers = table.numbers.copy()
    numbers[..., 2] = 0.25
    flat = Batch(numbers, table.categories, table.labels, table.present)
    (answer,) = released(terms({"bins": 8}), flat, 1)
    told = answer.correlation()
    assert told is not None
    values, _ = told
    assert np.isfinite(values[0, 1])
    assert np.isnan(values[2]).all()


def test_members_that_dropped_are_in_no_count() -> None:
    study = terms({"bins": 8})
    table = consumers()
    whole = answers(study, table)
    mean = whole._total / 50_000
    part = Answers(study, mean, [entry.name for entry in study.roster[:4]])
    assert part.consumers.value == pytest.approx(whole.consumers.value * 4 / 5)
    wide, narrow = (one.consumers.high - one.consumers.value for one in (whole, part))
    assert narrow == pytest.approx(wide * np.sqrt(4 / 5))


def test_words_are_looked_up_by_their_bucket() -> None:
    study = terms({"bins": 8})
    told = answers(study, consumers())
    kind, town = study.contract.categories
    words = told.cells(town)
    values = told.cells(kind)
    assert words is not None
    assert values is not None
    for word in ("Lyon", "上海", ""):
        count = words.count_of(word)
        exact = words.counts[town.bucket(word)]
        assert (count is None) == (not words.shown[town.bucket(word)])
        assert count is None or count.value == exact
    with pytest.raises(RecipeError, match="none of its values"):
        values.count_of("D")
    assert values.count_of("A") == Figure.about(float(values.counts[0]), values.error)


@pytest.mark.parametrize("bins", [2, 5, 16])
def test_cut_points_part_consumers_evenly(bins: int) -> None:
    study = terms({"bins": 256}, **QUIET)
    table = consumers()
    told = answers(study, table)
    x = table.numbers.reshape(-1, 3).astype(np.float64)
    for at, column in enumerate(study.contract.numbers):
        points = cut_points(told, column, bins)
        assert len(points) == bins - 1
        values = np.array([in_units(column, float(one)) for one in x[:, at]])
        edges = [column.low, *points, column.high]
        assert sorted(set(edges)) == edges
        shares = np.histogram(values, edges)[0] / len(values)
        assert np.abs(shares - 1 / bins).max() < 0.05


def test_values_on_which_many_sit_get_one_bin() -> None:
    table = consumers()
    numbers = np.where(np.random.default_rng(2).random((*SHAPE, 3)) < 0.7, 0.0, table.numbers)
    many = Batch(numbers.astype(np.float32), table.categories, table.labels, table.present)
    study = terms({"bins": 64}, noise_multiplier=2.0)
    (told,) = released(study, many, 4)
    age = study.contract.numbers[1]
    points = cut_points(told, age, 10)
    assert 2 <= len(points) <= 4
    assert age.low is not None
    assert min(points) > age.low
    said = list(advice(told, age))
    assert any('scale = "log"' in one for one in said)


@pytest.mark.parametrize(("bins", "settings"), [(1, {}), (9, {}), (4, {"histograms": 0.0})])
def test_bins_that_cannot_be_told_are_refused(bins: int, settings: dict[str, Any]) -> None:
    study = terms({"bins": 8} | settings)
    told = answers(study, consumers())
    with pytest.raises(RecipeError, match=r"ask for 2 to 8|histograms = 1\.0"):
        cut_points(told, study.contract.numbers[0], bins)


def test_a_binned_number_is_counted_by_its_bins() -> None:
    """As another study's contract has it: models read it as a category, and so do statistics."""
    binned = contract().columns[1].model_copy(update={"edges": (30.0, 45.5)})
    kind = contract().columns[3]
    study = terms({"bins": 8}, table=contract(columns=(binned, kind)))
    shape = (1, 9, 1)
    codes = np.stack([np.repeat([0, 1, 2], [2, 3, 4]), np.zeros(9, int)], -1).reshape(*shape, 2)
    ones = np.ones(shape, np.float32)
    told = answers(study, Batch(np.zeros((*shape, 0), np.float32), codes, ones, ones))
    cells = told.cells(study.contract.categories[0])
    assert cells is not None
    assert cells.names == ("20 to 30", "30 to 45.5", "45.5 to 100")
    np.testing.assert_allclose(cells.counts, [2, 3, 4], atol=1e-3)


def test_scaling_and_its_inverse() -> None:
    for column in contract().numbers:
        for value in (column.low, 30.0, column.high):
            assert value is not None
            assert in_units(column, scaled(column, value)) == pytest.approx(value)


def test_a_released_vector_of_another_study_is_refused() -> None:
    study = terms()
    with pytest.raises(RecipeError, match="use the file that was published"):
        Answers(study, np.zeros(3), ["member-0"])


def test_an_interval_is_two_standard_deviations_wide() -> None:
    assert Figure.about(10.0, 2.0) == Figure(10.0, 10.0 - 2 * Z, 10.0 + 2 * Z)
    assert Column(name="x", kind="category", buckets=3).codes == 3
