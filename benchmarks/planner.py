"""Whether projections hold: the band foretold for a study's AUC against what the study then gives.

Each run is one study on one of the public data sets, at another epsilon and split. It is projected
twice before it is run: by an operator who knows nothing of the data, and by one who knows about how
well pooled data rank and how rare labels are, as a campaign of last year tells.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.demo.comparison import scores
from benchmarks.report import Report, Row, main
from benchmarks.utility.campaign import sizes
from benchmarks.utility.datasets import DATASETS
from benchmarks.utility.study import study_terms
from benchmarks.utility.tables import Table, rows_of, split, subset
from benchmarks.utility.training import Run, noise_scale, train_all
from client_sdk.recipes.propensity.model import score
from coordinator.projection import project
from coordinator.rehearsal import Believed
from privacy.terms import Terms

EPSILONS: Final = (0.5, 1.0, 2.0, 4.0)
RUNS, QUICK_RUNS = 52, 4
MEMBERS: Final = 10
STEEPNESS: Final = 120
KNOWN: Final = 0.02
"""How far last year's AUC may be from this year's; its share of labels by a fifth."""
FIRST_SEED: Final = 900


@dataclass(frozen=True, slots=True)
class Outcome:
    """One study: what was foretold, without and with knowledge, and what came."""

    auc: float
    blind: tuple[float, float, float]
    informed: tuple[float, float, float]
    seconds: float

    def inside(self, band: tuple[float, float, float]) -> bool:
        """Whether the study's AUC lies in a band."""
        return band[0] <= self.auc <= band[2]


def outcomes(runs: int, data: Path) -> Iterator[Outcome]:
    """Data sets and epsilons in turn, each run on a split of its own."""
    tables = [read(data) for read in DATASETS.values()]
    known = {
        (epsilon, at): _known(tables[at], epsilon)
        for epsilon, at in itertools.product(EPSILONS, range(len(tables)))
    }
    for run, (epsilon, at) in zip(
        range(runs), itertools.cycle(itertools.product(EPSILONS, range(len(tables)))), strict=False
    ):
        outcome = _one(tables[at], known[epsilon, at], epsilon, FIRST_SEED + run)
        low, _, high = outcome.informed
        print(
            f"{tables[at].name}, epsilon {epsilon:g}: {outcome.auc:.3f}, foretold {low:.3f} to "
            f"{high:.3f}, {outcome.seconds:.1f} s",
            flush=True,
        )
        yield outcome


def _sizes(table: Table) -> list[int]:
    """Ten members in geometric steps, the largest 120 times the smallest."""
    there = table.consumers if table.test is None else int((~table.test).sum())
    shape = sizes(STEEPNESS * 1000, 1000, MEMBERS)
    return [max(1, there * 3 // 4 * part // sum(shape)) for part in shape]


def _known(table: Table, epsilon: float) -> Believed:
    """What another split of the same data shows without noise, as an operator would remember it."""
    auc, share = _study(table, epsilon, FIRST_SEED - 1, noise=0.0)
    return Believed((auc - KNOWN, min(auc + KNOWN, 0.999)), (0.8 * share, min(1.2 * share, 0.99)))


def _terms(table: Table, epsilon: float) -> Terms:
    return study_terms(table.contract, _sizes(table), epsilon, table.crosses)


def _study(table: Table, epsilon: float, seed: int, *, noise: float = 1.0) -> tuple[float, float]:
    """The AUC of one study on held-out consumers, and the share of labels among the others."""
    terms = _terms(table, epsilon)
    data = table.under(terms.contract)
    parts = split(table, _sizes(table), seed)
    run = Run(terms, noise * noise_scale(terms), seed)
    (parameters,) = train_all([run], subset(data, parts.training))
    test = rows_of(data, parts.test)
    ranked = scores(test.labels, score(terms, parameters, test.numbers, test.categories))
    return ranked.auc, float(np.mean(rows_of(data, parts.training).labels))


def _one(table: Table, known: Believed, epsilon: float, seed: int) -> Outcome:
    terms = _terms(table, epsilon)
    began_s = time.perf_counter()
    blind = project(terms).rehearsal
    seconds = time.perf_counter() - began_s
    informed = project(terms, known).rehearsal
    assert blind is not None
    assert informed is not None
    auc, _ = _study(table, epsilon, seed)
    return Outcome(auc, blind.auc, informed.auc, seconds)


def run(report: Report) -> None:
    """Shares of studies inside their bands, widths of the bands, and seconds."""
    found = list(outcomes(QUICK_RUNS if report.quick else RUNS, report.data))
    for name, bands in (
        ("knowing nothing of the data", [(one, one.blind) for one in found]),
        (f"knowing the pooled AUC to within {KNOWN:g}", [(one, one.informed) for one in found]),
    ):
        inside = [one.inside(band) for one, band in bands]
        width = statistics.median(band[2] - band[0] for _, band in bands)
        report.add(
            Row(
                name=f"studies whose AUC lies in the projected band, {name}",
                unit="",
                ours=statistics.mean(inside),
                target=0.9,
                at="least",
                trials=len(inside),
                note=f"median width of the band {width:.3f}",
            )
        )
    slowest = max(one.seconds for one in found)
    report.add(
        Row(
            name="seconds of a projection, the slowest",
            unit="s",
            ours=slowest,
            target=60.0,
            at="most",
            trials=len(found),
        )
    )


if __name__ == "__main__":
    main("planner", __doc__ or "", run, reads_data=True)
