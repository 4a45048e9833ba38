"""What makes `propensity` learn more at the same epsilon, on three public data sets.

Every variant pays epsilon 1 at delta 1e-5 in all, spare attempts included, with the noise of ten
members of whom one may collude and one may drop. Variants are what an operator can write into a
study's file; what a file leaves out is the study's plan, so the plan is measured too. Runs of equal
number share the split and the noise's seed. Sums are those of `benchmarks.utility.training`.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.demo.comparison import Scores, scores
from benchmarks.report import Report, Row
from benchmarks.utility.baselines import pooled
from benchmarks.utility.datasets import adult, bank, credit
from benchmarks.utility.tables import Table, rows_of, subset
from benchmarks.utility.training import Run, noise_scale, train_all
from client_sdk.recipes.propensity.model import score
from coordinator.study_file import PrivacyTable, StudyFile
from privacy.contract_table import ColumnTable, ContractTable
from privacy.terms import Column, DataContract, RosterEntry, Terms, one_digit

SEEDS: Final = 5
QUICK_SEEDS: Final = 2
EPSILON, DELTA = 1.0, 1e-5
BINS: Final = 16
SHARES: Final = (0.354, 0.208, 0.122, 0.107, 0.072, 0.053, 0.042, 0.025, 0.014, 0.003)
"""Of each member in all training consumers: twelve thousand of Bank Marketing down to a hundred."""

EDGE_EPSILON: Final = 0.1
"""What private quantiles cost; the study has the rest, and half of delta."""
CELLS: Final = 256

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set and what a person who knows its columns would cross."""

    load: Callable[[Path], Table]
    crosses: tuple[str, ...]
    why: str


DATA_SETS: Final[Mapping[str, DataSet]] = {
    "Bank Marketing": DataSet(
        bank,
        ("month*poutcome", "month*contact", "day*month", "housing*month"),
        "campaigns are runs of calls in time, each with its own offer",
    ),
    "Adult": DataSet(
        adult,
        ("age*relationship", "education_num*relationship", "relationship*sex"),
        "what schooling and age earn depends on the household",
    ),
    "Default of Credit Card Clients": DataSet(
        credit,
        ("pay_0*pay_2", "limit_bal*pay_0", "pay_0*pay_3"),
        "a delay counts otherwise if there was one before",
    ),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """What the study's file says beyond its columns.

    Args:
        recipe: settings.
        top: of the file.
        privacy: of its table of that name.
        bins: of every number; 0 for none.
        quantiles: bins from private quantiles instead of equal ones.
        crossed: with the data set's crosses.
        kept: in the product's plan or its documentation.
    """

    recipe: Mapping[str, Any]
    top: Mapping[str, Any]
    privacy: Mapping[str, Any]
    bins: int = 0
    quantiles: bool = False
    crossed: bool = False
    kept: bool = False


def _variant(recipe: Mapping[str, Any] | None = None, **changes: Any) -> Variant:
    return Variant(recipe or {}, changes.pop("top", {}), changes.pop("privacy", {}), **changes)


EARLIER, PLAN = "logistic, earlier plan", "logistic, this plan"
ADAM: Final = {"optimizer": "adam", "learning_rate": 0.1, "momentum": 0.9}
VARIANTS: Final[Mapping[str, Variant]] = {
    EARLIER: _variant(
        {
            "optimizer": "sgd",
            "learning_rate": 0.5,
            "momentum": 0.9,
            "average_from": 0,
            "centred": False,
        },
        top={"rounds": 100},
        privacy={"sampling_probability": 0.25, "clipping_norm": 1.0},
    ),
    PLAN: _variant(kept=True),
    "logistic, numbers from 0 to 1": _variant({"centred": False}),
    "16 equal bins": _variant(bins=BINS, kept=True),
    "16 equal bins and crosses": _variant(bins=BINS, crossed=True, kept=True),
    "8 equal bins": _variant(bins=8),
    "32 equal bins": _variant(bins=32),
    "16 private quantile bins": _variant(bins=BINS, quantiles=True),
    "16 equal bins, adam": _variant(ADAM, bins=BINS),
    "16 equal bins, no mean": _variant({"average_from": 0}, bins=BINS),
    "16 equal bins, a quarter sampled": _variant(privacy={"sampling_probability": 0.25}, bins=BINS),
}


def _split(table: Table, seed: int) -> tuple[Indices, Indices]:
    """Training and held-out consumers: the publisher's, or three quarters and one by seed."""
    held_out = table.test
    if held_out is None:
        held_out = np.random.default_rng(1000 + seed).random(table.consumers) < 0.25
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _equal(column: Column, bins: int) -> Column:
    table = ColumnTable(low=column.low or 0.0, high=column.high, scale=column.scale, bins=bins)
    return table.column(column.name)


def _quantiles(
    contract: DataContract, table: Table, training: Indices, bins: int, rng: np.random.Generator
) -> DataContract:
    """The contract with edges at noised quantiles, from one private sum of all histograms.

    A consumer adds one to one cell of every number, so the norm is the root of their count.
    """
    rows = rows_of(table.data, training)
    count = len(contract.numbers)
    noise = math.sqrt(10 / 8) * math.sqrt(count) * _gaussian(EDGE_EPSILON, DELTA / 2)
    found: dict[str, Column] = {}
    for at, column in enumerate(contract.numbers):
        cells = np.minimum((rows.numbers[:, at] * CELLS).astype(np.int64), CELLS - 1)
        counts = np.bincount(cells, minlength=CELLS) + rng.normal(0, noise, CELLS)
        below = np.maximum.accumulate(np.maximum(np.cumsum(counts), 0))
        places = 1 + np.searchsorted(below / below[-1], np.arange(1, bins) / bins)
        grid = _equal(column, CELLS).edges
        edges = tuple(grid[place - 1] for place in sorted({*places.tolist()}) if place < CELLS)
        found[column.name] = column.model_copy(update={"edges": edges})
    columns = tuple(found.get(column.name, column) for column in contract.columns)
    return contract.model_copy(update={"columns": columns})


@functools.cache
def _gaussian(epsilon: float, delta: float) -> float:
    """The noise multiplier of one Gaussian release, in closed form (Balle and Wang, 2018)."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    def excess(sigma: float) -> float:
        half, whole = 1 / (2 * sigma), epsilon * sigma
        return float(norm.cdf(half - whole) - math.exp(epsilon) * norm.cdf(-half - whole) - delta)

    return float(brentq(excess, 0.1, 1000))


@functools.lru_cache
def _terms(title: str, contract: DataContract, crosses: tuple[str, ...], count: int) -> Terms:
    """The terms of the study as its file would make them."""
    variant = VARIANTS[title]
    declared = [one_digit(max(1, round(share * count))) for share in SHARES]
    roster = [
        RosterEntry(name=f"member-{at}", identity=f"{at:064x}", declared_consumers=size)
        for at, size in enumerate(declared)
    ]
    paid = {"epsilon": EPSILON - EDGE_EPSILON, "delta": DELTA / 2} if variant.quantiles else {}
    crossed = {"crosses": crosses} if variant.crossed else {}
    study = StudyFile(
        study=contract.name,
        purpose="Show what a study should ask for",
        recipe={"name": "propensity", **variant.recipe, **crossed},
        privacy=PrivacyTable(**{"epsilon": EPSILON, "delta": DELTA, **paid, **variant.privacy}),
        contract=ContractTable(
            consumer_id=contract.consumer_id,
            label=contract.label,
            rows_per_consumer=1,
            columns={column.name: _written(column) for column in contract.columns},
        ),
        **variant.top,
    )
    return study.terms(alliance="learning", everybody=roster)


def _written(column: Column) -> ColumnTable:
    if column.kind == "category":
        return ColumnTable(values=column.values)
    return ColumnTable(
        low=column.low or 0.0, high=column.high, scale=column.scale, edges=column.edges
    )


def _measure(title: str, data_set: DataSet, table: Table, seeds: range) -> list[Scores]:
    """Scores of each seed; seeds of one split and one contract are trained side by side."""
    variant = VARIANTS[title]
    if table.test is None or variant.quantiles:
        return [_scores(title, data_set, table, range(seed, seed + 1))[0] for seed in seeds]
    return _scores(title, data_set, table, seeds)


def _scores(title: str, data_set: DataSet, table: Table, seeds: range) -> list[Scores]:
    """Scores of seeds that share a split and a contract."""
    terms, training, test = study_of(title, data_set, table, seeds[0])
    data = table.under(terms.contract)
    runs = [Run(terms=terms, scale=noise_scale(terms), seed=seed) for seed in seeds]
    rows = rows_of(data, test)
    return [
        scores(rows.labels, score(terms, parameters, rows.numbers, rows.categories))
        for parameters in train_all(runs, subset(data, training))
    ]


def study_of(
    title: str, data_set: DataSet, table: Table, seed: int
) -> tuple[Terms, Indices, Indices]:
    """The study of a variant, and the consumers it learns from and is measured on."""
    variant, contract = VARIANTS[title], table.contract
    training, test = _split(table, seed)
    if variant.quantiles:
        rng = np.random.default_rng([seed, 3])
        contract = _quantiles(contract, table, training, variant.bins, rng)
    elif variant.bins:
        columns = [
            _equal(column, variant.bins) if column.kind == "number" else column
            for column in contract.columns
        ]
        contract = contract.model_copy(update={"columns": tuple(columns)})
    # A split by chance moves the count a little; members would declare the same.
    declared = round(len(training), -3) or len(training)
    return _terms(title, contract, data_set.crosses, declared), training, test


def measure(report: Report, data: Path, names: Sequence[str], variants: Sequence[str]) -> None:
    """These variants on the data sets named."""
    seeds = range(QUICK_SEEDS if report.quick else SEEDS)
    for name in names:
        data_set = DATA_SETS[name]
        table = data_set.load(data)
        best = [
            pooled(
                table.contract,
                rows_of(table.data, _split(table, seed)[0]),
                rows_of(table.data, _split(table, seed)[1]),
                seed,
            )
            for seed in seeds[: None if table.test is None else 1]
        ]
        for model in best[0]:
            for figure in ("auc", "precision_at_10pct"):
                _add(report, f"{name}: pooled {model}, not private", figure,
                     [getattr(one[model], figure) for one in best])  # fmt: skip
        plain: list[Scores] = []
        for title in variants:
            found = _measure(title, data_set, table, seeds)
            plain = plain if title != PLAN else found
            for figure in ("auc", "precision_at_10pct"):
                regression = statistics.fmean(
                    getattr(one["logistic regression"], figure) for one in best
                )
                against = [getattr(one, figure) for one in plain] if plain else None
                _add(report, f"{name}: {title}", figure, [getattr(one, figure) for one in found],
                     regression, against, VARIANTS[title].kept)  # fmt: skip
            plain = found if title == PLAN else plain


def _add(
    report: Report,
    title: str,
    figure: str,
    values: Sequence[float],
    regression: float | None = None,
    plain: Sequence[float] | None = None,
    kept: bool = False,
) -> None:
    """One figure with its standard error, beside pooled and plain logistic regression."""
    mean = statistics.fmean(values)
    note = f"standard error {_error(values):.4f}"
    if plain is not None:
        gains = [one - other for one, other in zip(values, plain, strict=True)]
        note += (
            f"; over plain logistic regression {statistics.fmean(gains):+.4f}, paired standard "
            f"error {_error(gains):.4f}"
        )
    report.add(
        Row(
            name=f"{title}, {'AUC' if figure == 'auc' else 'precision among the top 10 %'}",
            unit="",
            ours=mean,
            trials=len(values),
            peer_name=None if regression is None else "pooled logistic regression",
            peer=regression,
            ratio=None if regression is None else mean / regression,
            target=0.99 if kept else None,
            at="least" if kept else None,
            bounds="ratio",
            note=note,
        )
    )


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="see its README")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="two seeds, only what was kept")
    parser.add_argument("--kept", action="store_true", help="only what was kept")
    parser.add_argument("--only", choices=tuple(DATA_SETS), help="one data set")
    options = parser.parse_args()
    report = Report("learning", options.quick, options.json)
    variants = [
        title
        for title, variant in VARIANTS.items()
        if title == EARLIER or variant.kept or not (options.quick or options.kept)
    ]
    measure(report, options.data, [options.only] if options.only else list(DATA_SETS), variants)
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
