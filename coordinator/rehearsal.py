"""How well a study's model may rank, rehearsed on generated consumers before anybody is asked.

Nothing here reads data. Consumers are drawn from a documented generator of the study's declared
sizes and columns; then everything happens as it would: clipped sums, the alliance's noise, the
recipe's own fold. What nobody knows beforehand, how well the columns tell the label and how rare
it is, is drawn from a range; a study that knows more narrows it.

**The generator.** One standard normal factor per consumer is shared by all columns (correlation
`SHARED`). A number is location + spread * normal, clipped to [0, 1], with location uniform in
[0.1, 0.9] and spread in [0.1, 0.3]: scaled numbers of real tables rarely fill their range. The
codes of a category have frequencies in proportion to 1, 1/2, 1/3, ... (Zipf) in random order;
binned numbers and crosses are read from what was drawn. Labels follow a logistic model. A few
columns carry most of it: their strengths are 1, 1/2, 1/3, ... in random order. Within a column
weights are normal, for most columns (`ALIGNED`) in the order of the factor, as redundant columns
are; bins rise or fall with some `WIGGLE`; crosses add little (`CROSSED`). All are scaled so that
the model's own AUC and the share of positive labels are what was drawn. A consumer has one row.

Each study is run twice on the same consumers, with its noise and without: what noise costs is
taken off the AUC that was drawn. Streams are numpy's PCG64 under (terms hash, run).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.special import expit

from client_sdk.recipes.catalogue import recipe_of
from client_sdk.recipes.propensity.settings import crosses, network, parse
from privacy.errors import ConfigurationError
from privacy.terms import Column, Terms

__all__ = ["Believed", "Rehearsal", "auc", "rehearse"]

RUNS: Final = 20
MOST_CONSUMERS: Final = 20_000
"""More are stood for by these, with noise in proportion."""
MOST_WORK: Final = 2_500_000_000
"""Products of one consumer's value, over all runs: seconds on a processor."""
LEAST_CONSUMERS: Final = 2_000
MOST_HELD_OUT: Final = 10_000
SHARED: Final = 0.5
UNIT: Final = 4.0
"""Weight of a number beside that of a code, which varies more."""
WIGGLE: Final = 0.5
ALIGNED: Final = 0.9
CROSSED: Final = 0.5
TAIL: Final = 0.025

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Believed:
    """What is believed of the data, as ranges.

    Args:
        pooled_auc: AUC of a model that learns from all rows in one place without noise.
        label_share: share of rows whose label is 1.
    """

    pooled_auc: tuple[float, float] = (0.6, 0.95)
    label_share: tuple[float, float] = (0.05, 0.5)

    def __post_init__(self) -> None:
        for name, (low, high), least, most in (
            ("the AUC", self.pooled_auc, 0.5, 1.0),
            ("the share of labels", self.label_share, 0.0, 1.0),
        ):
            if not least < low <= high < most:
                raise ConfigurationError(
                    f"{name} is believed to be in [{low:g}, {high:g}]; give two numbers above "
                    f"{least:g} and below {most:g}, the lower one first"
                )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the runs of a rehearsal gave.

    Args:
        auc: of the study's model, low, median and high: 95 % of the runs lie between.
        loss: the same of what noise costs: how far it is below the same study without noise.
        runs: how many.
        consumers: generated for each run, and held-out ones beside them.
    """

    auc: tuple[float, float, float]
    loss: tuple[float, float, float]
    runs: int
    consumers: int


def rehearse(
    terms: Terms,
    believed: Believed | None = None,
    *,
    runs: int = RUNS,
    done: Callable[[int], None] = lambda run: None,
) -> Rehearsal:
    """Rehearses a study of logistic regression.

    Args:
        terms: of recipe ``propensity``; a model with hidden layers is rehearsed as the logistic
            regression of the same columns.
        believed: of the data; wide ranges if it is not given.
        runs: of different generated data.
        done: is told how many runs are over.

    Raises:
        RecipeError: if the recipe is another, or the model is an installed one.
    """
    believed = believed or Believed()
    terms = _logistic(terms)
    ranked: list[float] = []
    lost: list[float] = []
    consumers = _consumers(terms, runs)
    for run in range(runs):
        seed = [*bytes.fromhex(terms.hash), run]
        data = _generate(terms, believed, consumers, np.random.default_rng(seed))
        without, ours = (
            _run(terms, data, np.random.default_rng([*seed, 1]), noisy=noisy)
            for noisy in (False, True)
        )
        lost.append(without - ours)
        ranked.append(data.best_auc - lost[-1])
        done(run + 1)
    return Rehearsal(_band(np.array(ranked)), _band(np.array(lost)), runs, consumers)


def auc(labels: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Area under the ROC curve; ties count half."""
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[place]
    positive = int(labels.sum())
    negative = len(labels) - positive
    least = positive * (positive + 1) / 2
    return float((ranks[labels].sum() - least) / (positive * negative))


def _logistic(terms: Terms) -> Terms:
    """The same study of the logistic regression on its columns."""
    settings = parse(terms)
    if settings.model == "logistic":
        return terms
    plain = {
        name: value
        for name, value in terms.settings.items()
        if name not in ("model", "hidden", "embedding_width")
    }
    recipe = recipe_of(terms)
    if settings.installed:
        network(terms.contract, settings)  # says why not
    size = recipe.dimension(terms.contract, recipe.Settings.model_validate(plain))
    return terms.model_copy(update={"settings": plain, "dimension": size})


def _consumers(terms: Terms, runs: int) -> int:
    """How many to generate: as many as are declared, unless that takes too long."""
    shape = network(terms.contract, parse(terms))
    work = 2 * runs * terms.privacy.rounds * (shape.numbers + len(shape.cardinalities) + 1)
    most = max(LEAST_CONSUMERS, min(MOST_CONSUMERS, MOST_WORK // work))
    return int(min(_declared(terms), most))


def _declared(terms: Terms) -> float:
    """Consumers of a cohort, as an average over cohorts."""
    everybody = sum(entry.declared_consumers for entry in terms.roster)
    return everybody * terms.privacy.cohort_size / len(terms.roster)


@dataclass(frozen=True, slots=True)
class _Data:
    """Generated rows, in the layout of the model's parameters, and their labels."""

    rows: csr_array
    labels: Floats
    held_out: csr_array
    held_out_labels: npt.NDArray[np.bool_]
    best_auc: float


def _generate(terms: Terms, believed: Believed, consumers: int, rng: np.random.Generator) -> _Data:
    count = consumers + max(LEAST_CONSUMERS, min(MOST_HELD_OUT, consumers // 4))
    rows, weights = _rows(terms, count, rng)
    scores = rows @ weights
    scores = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
    target = rng.uniform(*believed.pooled_auc)
    share = rng.uniform(*believed.label_share)
    chances = _chances(scores, target, share)
    labels = rng.random(count) < chances
    labels[consumers : consumers + 2] = (False, True)  # both kinds are held out
    labels[:2] = (False, True)
    held_out = labels[consumers:]
    return _Data(
        rows[:consumers],
        labels[:consumers].astype(np.float64),
        rows[consumers:],
        held_out,
        auc(held_out, scores[consumers:]),
    )


def _rows(terms: Terms, count: int, rng: np.random.Generator) -> tuple[csr_array, Floats]:
    """Rows over the parameters, and the weights that the labels follow."""
    contract, settings = terms.contract, parse(terms)
    shape = network(contract, settings)
    factor = rng.standard_normal(count)
    columns = len(contract.categories) + shape.numbers
    strengths = iter(rng.permutation(1 / np.arange(1, columns + 1)))

    def normal() -> Floats:
        own = rng.standard_normal(count)
        return math.sqrt(SHARED) * factor + math.sqrt(1 - SHARED) * own

    def number() -> Floats:
        location, spread = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.3)
        return np.asarray(np.clip(location + spread * normal(), 0, 1))

    def slope() -> float:
        drawn = rng.standard_normal()
        return float(abs(drawn) if rng.random() < ALIGNED else drawn)

    weights = np.zeros(shape.dimension)
    places: list[npt.NDArray[np.int64]] = []
    codes: list[npt.NDArray[np.int64]] = []
    for start, column in zip(shape.starts, contract.categories, strict=False):
        strength = next(strengths)
        if column.binned:
            codes.append(np.searchsorted(_scaled_edges(column), number(), side="right"))
            steps = slope() + WIGGLE * rng.standard_normal(column.codes)
            own = UNIT / column.codes * np.cumsum(steps)
        else:
            shares = rng.permutation(1 / np.arange(1, column.codes + 1))
            ranks = np.argsort(np.argsort(normal())) / count
            cuts = np.cumsum(shares)[:-1] / shares.sum()
            codes.append(np.searchsorted(cuts, ranks, side="right"))
            own = rng.standard_normal(column.codes)
            if rng.random() < ALIGNED:
                own.sort()  # codes are in the order of the factor
        places.append(start + codes[-1])
        weights[start : start + column.codes] = strength * own
    for start, size, (first, second) in zip(
        shape.starts[len(codes) :],
        shape.cardinalities[len(codes) :],
        crosses(contract, settings),
        strict=True,
    ):
        places.append(start + codes[first] * contract.categories[second].codes + codes[second])
        weights[start : start + size] = CROSSED / columns * rng.standard_normal(size)
    values = [np.ones(count) for _ in places]
    for at in range(shape.numbers):
        places.append(np.full(count, shape.entries + at))
        drawn, weight = number(), next(strengths) * UNIT * slope()
        # Labels follow the number itself, however the model reads it; a constant is no matter.
        values.append(2 * drawn - 1 if settings.centred else drawn)
        weights[shape.entries + at] = weight / 2 if settings.centred else weight
    places.append(np.full(count, shape.dimension - 1))
    values.append(np.ones(count))
    rows = csr_array(
        (
            np.stack(values, 1).ravel(),
            np.stack(places, 1).ravel(),
            np.arange(count + 1) * len(places),
        ),
        shape=(count, shape.dimension),
    )
    return rows, weights


def _scaled_edges(column: Column) -> Floats:
    """Where bins begin on the column's scale, in [0, 1]."""
    low, high = column.low or 0.0, column.high or 0.0
    parts = np.array(column.edges) - low
    if column.scale == "log":
        return np.asarray(np.log1p(parts) / math.log1p(high - low))
    return np.asarray(parts / (high - low))


def _chances(scores: Floats, target: float, share: float) -> Floats:
    """Chances of a label from standardised scores, so that both come out in expectation."""

    def chances(scale: float) -> Floats:
        def excess(intercept: float) -> float:
            return float(expit(scale * scores + intercept).mean()) - share

        reach = 40 + 10 * scale
        return np.asarray(expit(scale * scores + brentq(excess, -reach, reach)))

    ordered = np.sort(scores)

    def missing(scale: float) -> float:
        chance = np.sort(chances(scale))  # in the order of the scores
        below = np.cumsum(1 - chance) - (1 - chance)
        reached = (chance * below).sum() / (chance.sum() * (1 - chance).sum())
        return float(reached) - target

    if ordered[0] == ordered[-1] or missing(60.0) < 0:
        return chances(60.0)
    return chances(brentq(missing, 0.0, 60.0, xtol=1e-4))


def _run(terms: Terms, data: _Data, rng: np.random.Generator, *, noisy: bool) -> float:
    """The AUC of one study on held-out rows, with its noise or without."""
    privacy, recipe = terms.privacy, recipe_of(terms)
    count, clip = data.rows.shape[0], privacy.clipping_norm
    declared = _declared(terms)
    # N shares of variance (sigma C)^2 / H, on the scale of as many consumers as there are.
    noise = privacy.noise_multiplier * clip
    noise *= math.sqrt(privacy.cohort_size / privacy.honest_survivors) * count / declared
    noise *= noisy
    expected = privacy.sampling_probability * count
    norms = np.sqrt(np.asarray((data.rows * data.rows).sum(axis=1))).ravel()
    transposed = data.rows.T.tocsr()
    state = recipe.initial_state(terms)
    for _ in range(privacy.rounds):
        slopes = expit(data.rows @ state.parameters.astype(np.float64)) - data.labels
        slopes *= np.minimum(1, clip / np.maximum(np.abs(slopes) * norms, 1e-12))
        if privacy.sampling_probability < 1:
            slopes *= rng.random(count) < privacy.sampling_probability
        total = transposed @ slopes + noise * rng.standard_normal(terms.dimension)
        state = recipe.fold(state, total / expected, terms)
    parameters = recipe.published(state).astype(np.float64)
    return auc(data.held_out_labels, data.held_out @ parameters)


def _band(values: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (TAIL, 0.5, 1 - TAIL))
    return float(low), float(middle), float(high)
