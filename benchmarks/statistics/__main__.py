"""Whether the intervals of a statistics study cover the exact figures in 95 of 100 releases.

Real tables are dealt to five members. Each release is made of the members' own sums, rounding and
noise, and read as an operator reads it. Every figure that is shown is compared with the exact one.
"""

from __future__ import annotations

import functools
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import Report, Row, main
from benchmarks.statistics.tables import STUDIES, rows, write_members
from client_sdk.dataset import Dataset, DataSource, load
from client_sdk.recipes.statistics.answers import Answers, Figure, in_units
from client_sdk.recipes.statistics.contribute import contribute
from client_sdk.recipes.statistics.fold import fold, initial_state, published
from coordinator.study_file import read_study
from privacy.fixedpoint import SHARE_SCALE, Grid, encode
from privacy.identity import Identity
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian
from privacy.sampling import batch_shape, enrol, sample_slots
from privacy.terms import Column, RosterEntry, Terms, one_digit

Floats = npt.NDArray[np.float64]

RELEASES, QUICK_RELEASES = 400, 20
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
EPSILONS = (1.0, 0.3)
EMPTY_SHOWN = 0.0015
"""One in a thousand is what 3.1 standard deviations promise; the rest is chance."""
SIZES = {
    "Bank Marketing": (20_000, 12_000, 8_000, 4_000, 1_000),
    "Adult": (20_000, 12_000, 9_000, 5_000, 2_000),
}
"""Consumers of each member."""


@dataclass(slots=True)
class Covered:
    """Of how many figures the interval held the exact one, and how large errors were."""

    inside: int = 0
    all: int = 0
    squares: float = 0.0

    def add(self, figure: Figure, exact: float) -> None:
        """Compares one figure."""
        self.inside += bool(figure.low <= exact <= figure.high)
        self.all += 1
        self.squares += float(figure.value - exact) ** 2


class Releases:
    """One study, whose members' sums are made once and noised many times.

    Args:
        terms: of the study.
        datasets: of its members, in roster order.
    """

    def __init__(self, terms: Terms, datasets: list[Dataset]) -> None:
        self.terms = terms
        self._grid = Grid.of(terms)
        self._sums = []
        for entry, dataset in zip(terms.roster, datasets, strict=True):
            shape = batch_shape(terms, entry.name)
            enrolment = enrol(terms, entry.name, dataset.consumer_ids, bytes(32))
            slots = sample_slots(enrolment, shape, 1.0, KeyStream.fresh())
            state = initial_state(terms)
            self._sums.append(contribute(state.parameters, dataset.gather(slots), terms=terms))

    def one(self) -> Answers:
        """A fresh release, read."""
        terms, grid = self.terms, self._grid
        total = np.zeros(terms.dimension, dtype=np.int64)
        for entry, sums in zip(terms.roster, self._sums, strict=True):
            stream = KeyStream.fresh()
            total += encode(sums, grid, grid.limit(entry.name), stream)
            total += DiscreteGaussian(SHARE_SCALE).sample(terms.dimension, stream)
        return self.read(total.astype(np.float64) * grid.step)

    def read(self, total: Floats) -> Answers:
        """What a sum says."""
        terms = self.terms
        declared = sum(entry.declared_consumers for entry in terms.roster)
        state = fold(initial_state(terms), total / declared, terms)
        return Answers(terms, published(state), [entry.name for entry in terms.roster])


class Exact:
    """The exact figures, from the rows as they were read, by numpy's own functions.

    Args:
        terms: of the study.
        table: the rows of all members together.
    """

    def __init__(self, terms: Terms, table: Sequence[dict[str, str]]) -> None:
        self._contract = terms.contract
        self.count = len(table)
        self.texts = {
            column.name: np.array([row[column.name].strip() for row in table])
            for column in terms.contract.categories
        }
        self.values = {
            column.name: np.array([float(row[column.name]) for row in table])
            for column in terms.contract.numbers
        }
        self.labels = np.array([float(row[terms.contract.label]) for row in table])
        self.scaled = {
            column.name: _scaled(self.values[column.name], column)
            for column in terms.contract.numbers
        }

    @functools.cache  # noqa: B019
    def cell_counts(self, column: Column) -> Floats:
        """Consumers by value or bucket."""
        texts = self.texts[column.name]
        if column.buckets:
            codes = np.array([column.bucket(str(text)) for text in texts])
            return np.bincount(codes, minlength=column.buckets).astype(np.float64)
        return np.array([np.count_nonzero(texts == value) for value in column.values], float)

    @functools.cache  # noqa: B019
    def rate(self, column: str, value: str) -> float:
        """Share of positive labels among consumers with a value."""
        return float(self.labels[self.texts[column] == value].mean())

    @functools.cache  # noqa: B019
    def mean(self, column: Column) -> float:
        """In the column's own units; of the logarithm, and back, on a logarithmic scale."""
        if column.scale == "linear":
            return float(self.values[column.name].mean())
        low = column.low or 0.0
        return low + float(np.expm1(np.log1p(self.values[column.name] - low).mean()))

    @functools.cache  # noqa: B019
    def quantile(self, column: Column, share: float) -> float:
        """The least value that at least this share of consumers do not exceed."""
        return float(np.quantile(self.values[column.name], share, method="inverted_cdf"))

    @functools.cache  # noqa: B019
    def grid_quantile(self, column: Column, share: float, bins: int) -> float:
        """The same where a cell's values are spread evenly over it, in the column's own units."""
        edges = np.arange(bins + 1) / bins
        inner = self.scaled[column.name].astype(np.float32) + np.float32(2.0**-23)
        counts, _ = np.histogram(np.clip(inner, 0.0, 1.0), bins=edges)
        below = np.concatenate([[0.0], np.cumsum(counts) / self.count])
        at = int(np.searchsorted(below, share))
        part = (share - below[at - 1]) / (below[at] - below[at - 1])
        return in_units(column, (at - 1 + part) / bins)

    @functools.cache  # noqa: B019
    def correlation(self) -> Floats:
        """Of the scaled numbers, in contract order."""
        stacked = np.stack([self.scaled[column.name] for column in self._contract.numbers])
        return np.asarray(np.corrcoef(stacked), dtype=np.float64)


def _scaled(values: Floats, column: Column) -> Floats:
    low, high = column.low or 0.0, column.high or 0.0
    part, whole = values - low, high - low
    return np.log1p(part) / np.log1p(whole) if column.scale == "log" else part / whole


def compare(answers: Answers, exact: Exact, covered: dict[str, Covered]) -> None:
    """Adds every figure of a release that is shown."""
    contract = answers.terms.contract
    covered["count of consumers"].add(answers.consumers, exact.count)
    if answers.label is not None:
        covered["share of labels"].add(answers.label, float(exact.labels.mean()))
    for column in contract.categories:
        cells = answers.cells(column)
        counts = exact.cell_counts(column)
        assert cells is not None
        for at in np.flatnonzero(cells.shown):
            figure = Figure.about(float(cells.counts[at]), cells.error)
            covered["counts of cells, shown"].add(figure, float(counts[at]))
        empty = counts == 0
        if empty.any():
            covered["empty cells that are shown"].all += int(empty.sum())
            covered["empty cells that are shown"].inside += int((empty & cells.shown).sum())
    for name, _, rate in answers.rates():
        covered["label rates by group"].add(rate, exact.rate(answers.settings.by, name))
    for column in contract.numbers:
        mean = answers.mean(column)
        assert mean is not None
        covered["means"].add(mean, exact.mean(column))
        for share in SHARES:
            found = answers.quantile(column, share)
            assert found is not None
            on_grid = exact.grid_quantile(column, share, answers.settings.bins)
            covered["quantiles of the grid, noise alone"].add(found.within, on_grid)
            whole = Figure(found.within.value, found.low, found.high)
            covered["quantiles of the values, whole cells"].add(
                whole, exact.quantile(column, share)
            )
    told = answers.correlation()
    assert told is not None
    values, errors = told
    known = exact.correlation()
    for i in range(len(values)):
        for j in range(i):
            if np.isfinite(values[i, j]):
                figure = Figure.about(float(values[i, j]), float(errors[i, j]))
                covered["correlations"].add(figure, float(known[i, j]))


def prepare(name: str, data: Path, folder: Path, epsilon: float) -> tuple[Releases, Exact]:
    """The study of a data set, calibrated and with its members' sums; and what is exact."""
    table = rows(name, data)
    sizes = SIZES[name]
    order = np.random.default_rng(1).permutation(len(table))[: sum(sizes)].tolist()
    paths = write_members(folder, table, sizes, order)
    file = folder / "study.toml"
    privacy = f"[privacy]\nepsilon = {epsilon}\n\n[contract]"
    file.write_text(STUDIES[name].replace("[contract]", privacy, 1), encoding="utf-8")
    roster = [
        RosterEntry(
            name=f"member-{at}",
            identity=Identity.generate().public,
            declared_consumers=one_digit(size),
        )
        for at, size in enumerate(sizes)
    ]
    terms = read_study(file, alliance="test", everybody=roster)
    datasets = [load(DataSource(path=path), terms.contract) for path in paths]
    return Releases(terms, datasets), Exact(terms, [table[place] for place in order])


def run(report: Report, data: Path) -> None:
    """All data sets, all epsilons."""
    count = QUICK_RELEASES if report.quick else RELEASES
    for name in SIZES:
        for epsilon in (1.0,) if report.quick else EPSILONS:
            with tempfile.TemporaryDirectory() as folder:
                releases, exact = prepare(name, data, Path(folder), epsilon)
            covered: dict[str, Covered] = defaultdict(Covered)
            for _ in range(count):
                compare(releases.one(), exact, covered)
            for row in _rows(f"{name}, epsilon {epsilon:g}", covered, count):
                report.add(row)


def _rows(where: str, covered: dict[str, Covered], count: int) -> Iterator[Row]:
    for what, one in covered.items():
        share = one.inside / one.all
        if what.startswith("empty"):
            yield Row(
                name=f"{where}: {what}", unit="share", ours=share, target=EMPTY_SHOWN, at="most",
                trials=one.all,
            )  # fmt: skip
            continue
        note = f"{one.all / count:.1f} figures a release"
        if not what.startswith(("means", "quantiles")):  # those are of several units
            note += f"; root mean square error {np.sqrt(one.squares / one.all):.4g}"
        yield Row(
            name=f"{where}: {what}, least coverage", unit="share", ours=share, target=0.93,
            at="least", trials=one.all, note=note,
        )  # fmt: skip
        if not what.endswith("whole cells"):
            yield Row(
                name=f"{where}: {what}, most coverage", unit="share", ours=share, target=0.97,
                at="most", trials=one.all,
            )  # fmt: skip


if __name__ == "__main__":
    main("statistics", __doc__ or "", lambda report: run(report, report.data), reads_data=True)
