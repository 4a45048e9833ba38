"""What private evaluation errs by, and whether its intervals hold: Bank Marketing and Adult.

Each run measures one published model on the same 20,000 consumers that it was not trained on, at
epsilon 0.5, as an alliance of ten members does: the members' own counting, the grid and ten
members' shares of noise (N = 10, c = D = 1), the fold and the measures; no sockets. Its figures are
held against the exact ones of the same consumers.
"""

from __future__ import annotations

import gzip
import io
import math
import statistics
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.report import Report, Row, main
from client_sdk.batch import Batch
from client_sdk.recipes.evaluation import fold as recipe
from client_sdk.recipes.evaluation.contribute import contribute
from client_sdk.recipes.evaluation.measures import Evaluation, Figure, evaluate
from client_sdk.recipes.model_file import PublishedModel
from client_sdk.recipes.propensity.model import score
from client_sdk.recipes.propensity.settings import dimension, parse
from privacy.accounting import calibrate
from privacy.fixedpoint import SHARE_SCALE, Grid, decode, encode, to_ring
from privacy.identity import Identity
from privacy.keystream import KeyStream
from privacy.noise import DiscreteGaussian
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Terms

RUNS, QUICK_RUNS = 200, 10
CONSUMERS, BLOCK = 20_000, 250
MEMBERS, EPSILON, TOP = 10, 0.5, 0.1
GROUPS: Final = "age: 30 40 50 60"
LABEL, CONSUMER = "label", "consumer"

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Scene:
    """One data set: a model of the consumers that train, and those that do not, as a batch.

    Args:
        scores: the model's, float32, shape (consumers,).
        labels: 0 or 1, of the same shape.
        groups: by age, of the same shape.
    """

    name: str
    model: PublishedModel
    batch: Batch
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]


def bank(data: Path) -> pd.DataFrame:
    """Bank Marketing without ``duration``, which is known only after the call."""
    with zipfile.ZipFile(data / "bank_marketing" / "bank_marketing_uci.zip") as outer:
        inner = zipfile.ZipFile(io.BytesIO(outer.read("bank.zip")))
        frame = pd.read_csv(io.BytesIO(inner.read("bank-full.csv")), sep=";")
    frame[LABEL] = (frame["y"] == "yes").astype(int)
    return frame.drop(columns=["y", "duration"])


def adult(data: Path) -> pd.DataFrame:
    """Adult, both parts, without the sampling weight ``fnlwgt``."""
    names = [
        "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
        "relationship", "race", "sex", "capital_gain", "capital_loss", "hours", "country", "income",
    ]  # fmt: skip
    parts = []
    for name, skip in (("adult.data.gz", 0), ("adult.test.gz", 1)):
        with gzip.open(data / "adult" / name, "rt") as file:
            parts.append(
                pd.read_csv(file, names=names, skiprows=skip, skipinitialspace=True, header=None)
            )
    frame = pd.concat(parts, ignore_index=True)
    frame[LABEL] = frame["income"].str.startswith(">50K").astype(int)
    return frame.drop(columns=["income", "fnlwgt", "country"])


def scene(name: str, frame: pd.DataFrame) -> Scene:
    """Trains logistic regression on all but 20,000 consumers."""
    inputs = frame.drop(columns=[LABEL])
    numbers = inputs.select_dtypes("number")
    codes = inputs.drop(columns=list(numbers)).apply(lambda one: one.astype("category").cat.codes)
    low, high = (dict(one.astype(float)) for one in (numbers.min(), numbers.max()))
    # Ranges are the data's own here: what is measured is the evaluation, not the training.
    columns = [
        *(Column(name=str(one), kind="number", low=low[one], high=high[one]) for one in numbers),
        *(
            Column(
                name=str(one),
                kind="category",
                values=tuple(str(code) for code in range(int(codes[one].max()) + 1)),
            )
            for one in codes
        ),
    ]
    contract = DataContract(
        name=name, version=1, consumer_id=CONSUMER, label=LABEL, columns=tuple(columns),
        rows_per_consumer=1,
    )  # fmt: skip
    scaled = ((numbers - numbers.min()) / (numbers.max() - numbers.min())).to_numpy(np.float32)
    coded, labels = codes.to_numpy(np.int64), frame[LABEL].to_numpy(np.int64)
    order = np.random.default_rng(7).permutation(len(frame))
    held, rest = order[:CONSUMERS], order[CONSUMERS:]
    one_hot = [np.eye(int(column.max()) + 1, dtype=np.float32)[column] for column in coded.T]
    features = np.concatenate([*one_hot, scaled], axis=1)
    fitted = LogisticRegression(max_iter=2000).fit(features[rest], labels[rest])
    terms = _terms(contract, {"model": "logistic"}, "propensity", name)
    terms = terms.model_copy(update={"dimension": dimension(contract, parse(terms))})
    parameters = np.concatenate([fitted.coef_[0], fitted.intercept_]).astype(np.float32)
    model = PublishedModel(terms, parameters)
    shape = (CONSUMERS // BLOCK, BLOCK, 1)
    batch = Batch(
        scaled[held].reshape(*shape, -1),
        coded[held].reshape(*shape, -1),
        labels[held].reshape(shape).astype(np.float32),
        np.ones(shape, dtype=np.float32),
    )
    scores = score(terms, parameters, batch.numbers, batch.categories).ravel()
    ages = frame["age"].to_numpy()[held]
    return Scene(name, model, batch, scores, labels[held], np.digitize(ages, [30, 40, 50, 60]))


def _terms(contract: DataContract, settings: dict[str, Any], kind: str, study: str) -> Terms:
    roster = tuple(
        RosterEntry(
            name=f"member-{place}",
            identity=Identity(Ed25519PrivateKey.from_private_bytes(bytes([place]) * 32)).public,
            declared_consumers=CONSUMERS // MEMBERS,
        )
        for place in range(MEMBERS)
    )
    privacy = PrivacyTerms(
        clipping_norm=1.0, noise_multiplier=1.0, sampling_probability=1.0, rounds=2,
        max_attempts=2, delta=1e-5, cohort_size=MEMBERS, colluders=1, dropouts=1,
    )  # fmt: skip
    return Terms(
        alliance="benchmark", study=study, purpose="Measuring an evaluation", recipe=kind,
        settings=settings, dimension=1, contract=contract, privacy=privacy, roster=roster,
    )  # fmt: skip


def evaluation_terms(one: Scene) -> Terms:
    """Terms at epsilon 0.5 for both rounds together, with groups by age."""
    settings = {"model": "0" * 64, "study": one.name, "by": GROUPS, "top": TOP}
    terms = _terms(one.model.terms.contract, settings, "evaluation", f"{one.name}-evaluation")
    size = recipe.dimension(terms.contract, recipe.Settings.model_validate(settings))
    terms = calibrate(terms.model_copy(update={"dimension": size}), EPSILON)
    recipe.check(terms)
    return terms


class Measurement:
    """Runs evaluations of one scene.

    Args:
        one: the scene.
        terms: of the evaluation.
    """

    def __init__(self, one: Scene, terms: Terms) -> None:
        self._scene, self._terms = one, terms
        self._grid = Grid.of(terms)
        self._limit = sum(self._grid.limits.values())
        self._noise = DiscreteGaussian(SHARE_SCALE)
        self._first = self._blocks(recipe.initial_state(terms))

    def run(self, stream: KeyStream) -> Evaluation:
        """One evaluation with fresh noise."""
        state = recipe.fold(
            recipe.initial_state(self._terms), self._mean(self._first, stream), self._terms
        )
        state = recipe.fold(state, self._mean(self._blocks(state), stream), self._terms)
        return evaluate(self._terms, recipe.published(state))

    def _blocks(self, state: recipe.State) -> npt.NDArray[np.float32]:
        one = self._scene
        return contribute(state.parameters, one.batch, terms=self._terms, model=one.model)

    def _mean(self, blocks: npt.NDArray[np.float32], stream: KeyStream) -> npt.NDArray[np.float64]:
        """The release: all members' consumers and every member's share of noise."""
        total = encode(blocks, self._grid, self._limit, stream)
        for _ in range(MEMBERS):
            total += self._noise.sample(self._terms.dimension, stream)
        return decode(to_ring(total, self._grid), self._grid) / CONSUMERS


def exact(one: Scene) -> dict[str, float]:
    """The figures that an evaluation estimates, without noise and cells."""
    order = np.argsort(-one.scores, kind="stable")
    most = round(TOP * CONSUMERS)
    last = one.scores[order[most - 1]]
    above, tied = one.scores > last, one.scores == last  # a tie at the end counts in part
    found = one.labels[above].sum() + (most - above.sum()) * one.labels[tied].mean()
    return {
        "auc": float(roc_auc_score(one.labels, one.scores)),
        "precision": float(found / most),
        "lift": float(found / most / one.labels.mean()),
        "base_rate": float(one.labels.mean()),
    }


def exact_gap(one: Scene, run: Evaluation, measure: str) -> float:
    """The largest difference between the age groups that a run reports, at its threshold."""
    chosen = one.scores >= np.float32(run.threshold)
    among = np.ones(CONSUMERS, dtype=bool) if measure == "selected" else one.labels == 1
    names = ["below 30", "30 to 40", "40 to 50", "50 to 60", "60 and above"]
    told = {group.name for group in run.groups if getattr(group, measure) is not None}
    rates = [
        chosen[among & (one.groups == place)].mean()
        for place, name in enumerate(names)
        if name in told
    ]
    return float(max(rates) - min(rates))


def measure(report: Report, data: Path) -> None:
    """Adds the rows of both data sets."""
    runs = QUICK_RUNS if report.quick else RUNS
    for name, read in (("bank", bank), ("adult", adult)):
        one = scene(name, read(data))
        terms = evaluation_terms(one)
        measurement = Measurement(one, terms)
        true = exact(one)
        # Noise that is the same in every run of this benchmark, so that its figures are.
        streams = (KeyStream(f"{name:>8}{number:024}".encode()) for number in range(runs))
        found = [measurement.run(stream) for stream in streams]
        _figures(report, name, true, found)
        _gaps(report, one, found)


def _figures(report: Report, name: str, true: dict[str, float], found: list[Evaluation]) -> None:
    targets = {"auc": 0.01, "precision": 0.02}
    for figure, value in true.items():
        estimates = [one.figures[figure] for one in found]
        errors = [one.value - value for one in estimates]
        report.add(
            Row(
                name=f"{name}: standard error of {figure}",
                unit="",
                ours=statistics.stdev(errors),
                trials=len(found),
                target=targets.get(figure),
                at="most" if figure in targets else None,
                note=f"exact {value:.4f}, mean error {statistics.fmean(errors):+.4f}, stated "
                f"error {statistics.fmean(one.error for one in estimates):.4f}",
            )
        )
        _coverage(report, f"{name}: {figure}", estimates, lambda _, value=value: value)  # type: ignore[misc]


def _gaps(report: Report, one: Scene, found: list[Evaluation]) -> None:
    for place, measure_ in enumerate(("selected", "found")):
        estimates = [run.gaps[place].figure for run in found]
        trues = [exact_gap(one, run, measure_) for run in found]
        errors = [figure.value - value for figure, value in zip(estimates, trues, strict=True)]
        report.add(
            Row(
                name=f"{one.name}: standard error of the gap by age of the share {measure_}",
                unit="",
                ours=math.sqrt(statistics.fmean(error**2 for error in errors)),
                trials=len(found),
                note=f"exact {statistics.fmean(trues):.4f}, mean error "
                f"{statistics.fmean(errors):+.4f}",
            )
        )
        _coverage(report, f"{one.name}: gap of the share {measure_}", estimates, trues.__getitem__)


def _coverage(
    report: Report, what: str, estimates: list[Figure], true: Callable[[int], float]
) -> None:
    """How often the stated 95 % interval holds the exact figure."""
    misses = sum(not one.low <= true(place) <= one.high for place, one in enumerate(estimates))
    gap = "gap" in what  # its interval holds at least 95 %, and says so
    bounds: tuple[tuple[float, Literal["least", "most"]], ...] = ((0.93, "least"), (0.97, "most"))
    for target, at in bounds[:1] if gap else bounds:
        report.add(
            Row(
                name=f"{what}: share of 95 % intervals that hold the exact figure",
                unit="",
                ours=1 - misses / len(estimates),
                trials=len(estimates),
                target=target,
                at=at,
                failures=misses,
            )
        )


def run(report: Report) -> None:
    """A row for each figure."""
    torch.set_num_threads(1)
    measure(report, report.data)


if __name__ == "__main__":
    main("evaluation", __doc__ or "", run, reads_data=True)
