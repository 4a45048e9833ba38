"""What the demo's alliance is worth over many splits: beside a trusted curator and pooled data.

Each run holds out other households and trains four models on the same rows: the alliance (the
members' and the coordinator's own code, without sockets), the same with c = D = 0 in its noise, a
trusted curator with equal noise multiplier, and pooled logistic regression without privacy.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.demo.comparison import (
    Scores,
    Tables,
    alliance_sums,
    curator_sums,
    model_scores,
    regression_scores,
    train,
)
from benchmarks.demo.journey import build
from benchmarks.demo.study import demo_identities, demo_terms
from benchmarks.report import Report, Row, main

torch.set_num_threads(1)  # batches are small: threads would only wait for each other

RUNS, QUICK_RUNS = 40, 4
FIRST_SPLIT = 5000
"""Far from the splits on which the settings were chosen."""
MODELS = ("alliance", "equal noise", "curator", "pooled", "newcomer")


def one_run(split: int) -> dict[str, Scores]:
    """Scores of every model on one split."""
    journey = build(split)
    terms = demo_terms(demo_identities())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = Tables.load(terms, journey.write(folder), folder / "held-out.parquet")
    rng = np.random.default_rng(split)
    datasets = tables.datasets
    learned = {
        "alliance": train(terms, alliance_sums(terms, tables.nodes)),
        "curator": train(terms, curator_sums(terms, tables.nodes, rng)),
    }
    privacy = terms.privacy
    # N shares of variance sigma^2 C^2 / H sum to N / H of the curator's: take that factor out.
    surplus = (privacy.cohort_size / privacy.honest_survivors) ** 0.5
    lower = privacy.model_copy(
        update={"noise_multiplier": round(privacy.noise_multiplier / surplus, 6)}
    )
    equal = terms.model_copy(update={"privacy": lower})
    learned["equal noise"] = train(equal, alliance_sums(equal, tables.nodes))
    found = {
        model: model_scores(terms, parameters, tables.held_out)
        for model, parameters in learned.items()
    }
    found["pooled"] = regression_scores(list(datasets.values()), tables.held_out)
    found["newcomer"] = regression_scores([datasets["newcomer"]], tables.held_out)
    return found


def run(report: Report) -> None:
    """Means over paired runs, with standard errors."""
    count = QUICK_RUNS if report.quick else RUNS
    runs = []
    for split in range(FIRST_SPLIT, FIRST_SPLIT + count):
        runs.append(one_run(split))
        if len(runs) % 10 == 0:
            print(f"{len(runs)} of {count} runs", flush=True)

    def mean(of: Callable[[dict[str, Scores]], float]) -> tuple[float, str]:
        values = [of(one) for one in runs]
        error = statistics.stdev(values) / len(values) ** 0.5
        return statistics.fmean(values), f"standard error {error:.4f}"

    for model in MODELS:
        for figure in ("auc", "precision_at_10pct"):
            value, note = mean(lambda one, m=model, f=figure: float(getattr(one[m], f)))  # type: ignore[misc]
            report.add(Row(name=f"{figure}, {model}", unit="", ours=value, trials=count, note=note))
    pooled, _ = mean(lambda one: one["pooled"].auc)
    alliance, note = mean(lambda one: one["alliance"].auc)
    report.add(
        Row(
            name="AUC of the alliance over pooled logistic regression's",
            unit="AUC",
            ours=alliance,
            peer_name="pooled, scikit-learn, not private",
            peer=pooled,
            ratio=alliance / pooled,
            target=0.975,
            at="least",
            bounds="ratio",
            trials=count,
            note=note,
        )
    )
    gap, note = mean(lambda one: one["curator"].auc - one["equal noise"].auc)
    report.add(
        Row(
            name="AUC gap to the trusted curator at equal noise, absolute",
            unit="AUC",
            ours=abs(gap),
            target=0.005,
            at="most",
            trials=count,
            note=note,
        )
    )
    gap, note = mean(lambda one: one["curator"].auc - one["alliance"].auc)
    report.add(
        Row(
            name="AUC gap to the trusted curator with the c = D = 1 allowance",
            unit="AUC",
            ours=gap,
            trials=count,
            note=note,
        )
    )
    worst = min(one["alliance"].auc / one["pooled"].auc for one in runs)
    report.add(
        Row(
            name="worst single run, alliance AUC over pooled",
            unit="ratio",
            ours=worst,
            target=0.95,
            at="least",
            trials=count,
        )
    )


if __name__ == "__main__":
    main("demo_utility", (__doc__ or "").splitlines()[0], run)
