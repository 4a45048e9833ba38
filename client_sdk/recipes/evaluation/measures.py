"""What an evaluation's released counts say of a model, each with the error that their noise causes.

Counts stand in shares of the declared consumers. All measures are ratios of counts, so that the
declared number falls out of them. Formulas are in the recipe's README.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from client_sdk.recipes.evaluation.settings import Cells, EvaluationSettings, Layout, parse
from privacy.errors import RecipeError
from privacy.terms import Terms

__all__ = ["Evaluation", "Figure", "Gap", "Group", "describe", "evaluate", "threshold"]

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
EXTREME = 0.99
"""How sure it must be, for each, that a group has not the highest or lowest rate."""
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure.

    Args:
        value: the estimate.
        error: its standard error by noise and by the cells' width.
        low: where the exact figure of these consumers lies with 95 %, from ...
        high: ... to.
        sampling: standard error of the exact figure itself, as one of a population that these
            consumers are a sample of; None where it is not worked out.
    """

    value: float
    error: float
    low: float
    high: float
    sampling: float | None = None

    def document(self) -> dict[str, float | None]:
        """The same for JSON."""
        return {
            "value": self.value, "error": self.error, "low": self.low, "high": self.high,
            "sampling": self.sampling,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """One group.

    Args:
        name: its own; ``of`` is its column.
        share: of all consumers.
        selected: share of the group that is selected (demographic parity).
        found: share of its positives that is selected (equal opportunity); None if they are too
            few to tell.
        precision: share of its selected that is positive; None if those are too few to tell.
    """

    of: str
    name: str
    share: Figure
    selected: Figure
    found: Figure | None
    precision: Figure | None


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference of a rate between two groups; the interval holds at least 95 %."""

    of: str
    measure: str
    figure: Figure
    highest: str
    lowest: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that an evaluation says.

    Args:
        consumers: about how many were measured, worked out from the noise's size.
        threshold: the score from which a consumer is selected.
        figures: by name: auc, base_rate, precision, lift, selected, calibration_ratio and
            calibration_error.
        calibration: by score, rising: mean predicted probability, and the rate.
        groups: those that are large enough.
        too_small: those that are not, as (column, group).
        gaps: between the groups of each column.
        held_out: whether the consumers were held out from training.
    """

    consumers: int
    threshold: float
    figures: dict[str, Figure]
    calibration: tuple[tuple[float, Figure], ...]
    groups: tuple[Group, ...]
    too_small: tuple[tuple[str, str], ...]
    gaps: tuple[Gap, ...]
    held_out: bool


def threshold(histogram: npt.NDArray[np.float32], settings: EvaluationSettings) -> float:
    """The score above which the top share of consumers lies, by the first histogram.

    Inside its cell consumers are taken to be spread evenly over log-odds.

    Args:
        histogram: shape (2 cells,), for label 0 and then for label 1.
        settings: of the evaluation.

    Returns:
        A probability; 0.5 if the histogram is too noisy to give one.
    """
    cells = settings.cells
    totals = [
        float(a) + float(b) for a, b in zip(histogram[:cells], histogram[cells:], strict=True)
    ]
    wanted = settings.top * math.fsum(totals)
    above = 0.0
    for cell in range(cells - 1, -1, -1):
        if wanted <= 0:
            break
        if totals[cell] > 0 and above + totals[cell] >= wanted:
            part = (wanted - above) / totals[cell]
            edges = [0.0, *map(float, settings.edges), 1.0]
            low, high = edges[cell], edges[cell + 1]
            if cell in (0, cells - 1):  # log-odds have no end there
                return high - part * (high - low)
            low, high = (math.log(one / (1 - one)) for one in (low, high))
            return 1 / (1 + math.exp(-(high - part * (high - low))))
        above += totals[cell]
    return 0.5


def _with_error(
    of: Callable[[Floats], float],
    counts: Floats,
    noise: Floats,
    *,
    other: float = 0.0,
    bounds: tuple[float, float] = (0.0, 1.0),
    sampling: float | None = None,
) -> Figure:
    """A function of counts with the error that their noise causes: delta method.

    Args:
        of: differentiable.
        counts: shape (n,).
        noise: standard deviation of the noise in each, independent; shape (n,).
        other: standard deviation of other errors.
        bounds: of what the figure can be.
        sampling: see `Figure`.
    """
    value = of(counts)
    variance = other**2
    for place in np.flatnonzero(noise > 0):
        step = np.zeros_like(counts)
        step[place] = noise[place] / 2
        variance += (of(counts + step) - of(counts - step)) ** 2
    error = math.sqrt(variance) if math.isfinite(variance) else math.inf
    low, high = bounds
    return Figure(
        min(max(value, low), high),
        error,
        min(max(value - Z * error, low), high),
        min(max(value + Z * error, low), high),
        sampling,
    )


def _slopes(labels: Floats, noise: Floats) -> Floats:
    """By how much the rate of positives rises across each cell; 0 where neighbours say too little.

    Args:
        labels: shape (2, cells).
        noise: of one count of each cell.
    """
    totals = labels.sum(axis=0)
    enough = totals > 10 * noise
    rates = np.where(enough, labels[1] / np.where(enough, totals, 1), 0.0).clip(0, 1)
    slopes = np.zeros(len(totals))
    slopes[1:-1] = np.where(
        enough[2:] & enough[:-2] & enough[1:-1], (rates[2:] - rates[:-2]) / 2, 0.0
    )
    return slopes.clip(0, 1)


@dataclass(frozen=True, slots=True)
class _Scores:
    """Both rounds' histograms as one, on the second's cells.

    A cell of the first round and the sum of its parts measure the same; what they differ by is
    shared among the parts, by what each measurement is worth.

    Args:
        cells: the second round's.
        edges: probabilities between them, shape (count - 1,).
        raw: the first histogram and the second, one after the other.
        noise: standard deviation of each of these.
        first: how many belong to the first round.
    """

    cells: Cells
    edges: Floats
    raw: Floats
    noise: Floats
    first: int

    def combined(self, raw: Floats) -> Floats:
        """Shape (2, count)."""
        coarse, fine = raw[: self.first].reshape(2, -1), raw[self.first :].reshape(2, -1)
        low, high, parts = self.cells.first, self.cells.last, self.cells.parts
        whole = coarse[:, low : high + 1].copy()
        whole[:, 0] += coarse[:, :low].sum(axis=1)
        whole[:, -1] += coarse[:, high + 1 :].sum(axis=1)
        pieces = fine[:, : self.cells.count].reshape(2, -1, parts)
        differ = whole - pieces.sum(axis=2)
        found = pieces + (differ * self._share)[..., None]
        both: Floats = found.reshape(2, -1)
        return both

    @property
    def _share(self) -> Floats:
        """Of a difference, by cell of the first round: what goes to each of its parts."""
        one, two = self.noise[0] ** 2, self.noise[-1] ** 2
        merged = np.ones(self.cells.last - self.cells.first + 1)
        merged[0] += self.cells.first
        merged[-1] += self.first // 2 - 1 - self.cells.last
        share: Floats = two / (self.cells.parts * two + merged * one)
        return share

    @property
    def labels(self) -> Floats:
        """Combined, shape (2, count)."""
        return self.combined(self.raw)

    @property
    def blur(self) -> Floats:
        """Standard deviation of the noise in each count of a label, shape (count,)."""
        two = self.noise[-1]
        return np.repeat(two * np.sqrt(1 - self._share), self.cells.parts)

    @property
    def middles(self) -> Floats:
        """A probability that stands for each cell: the middle of its log-odds."""
        odds = np.log(self.edges / (1 - self.edges))
        inner = 1 / (1 + np.exp(-(odds[:-1] + odds[1:]) / 2))
        if len(odds) < 2:
            return np.concatenate([self.edges / 2, (1 + self.edges) / 2])
        # An end cell is taken to be as wide as its neighbour.
        ends = odds[0] - (odds[1] - odds[0]) / 2, odds[-1] + (odds[-1] - odds[-2]) / 2
        low, high = (1 / (1 + math.exp(-one)) for one in ends)
        return np.concatenate([[low], inner, [high]])


def _auc(counts: Floats, inside: float) -> float:
    """AUC of a histogram, ties within a cell at half weight, and ``inside`` added to the pairs."""
    negative, positive = counts.reshape(2, -1)
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    return float((positive @ below + inside) / pairs)


def evaluate(terms: Terms, parameters: npt.NDArray[np.float32]) -> Evaluation:
    """What a finished evaluation says.

    Args:
        terms: of the evaluation.
        parameters: as it published them, float32, shape (dimension,).

    Raises:
        RecipeError: if they are of another size, or not those after the last round.
    """
    settings = parse(terms)
    layout = Layout.of(terms.contract, settings)
    if parameters.shape != (layout.dimension,):
        raise RecipeError(f"study {terms.study}: the model file does not fit its terms")
    values = parameters.astype(np.float64)
    limit, first, second = (float(one) for one in values[layout.spare][:3])
    if not (first > 0 and second > 0):
        raise RecipeError(f"study {terms.study}: its rounds are not over; wait for the last")
    cells = Cells.of(parameters[layout.histogram], float(parameters[layout.spare][1]), settings)
    scores = _Scores(
        cells=cells,
        edges=cells.edges(settings).astype(np.float64),
        raw=np.concatenate([values[layout.histogram], values[layout.again]]),
        noise=np.repeat([first, second], 2 * settings.cells),
        first=2 * settings.cells,
    )
    tables = [values[table].reshape(-1, 2, 2) for table in layout.tables]
    privacy = terms.privacy
    one = first / (privacy.member_noise_multiplier * math.sqrt(privacy.cohort_size))
    overall = _overall(settings, scores, tables[0][0], second, one)
    groups, too_small, gaps = _groups(settings, layout, tables, second)
    total = float(tables[0].sum())
    return Evaluation(
        consumers=_two_digits(total / one),
        threshold=limit,
        figures=overall,
        calibration=_calibration(settings, scores),
        groups=groups,
        too_small=too_small,
        gaps=gaps,
        held_out=settings.holdout > 0,
    )


def _two_digits(count: float) -> int:
    return int(float(f"{max(count, 0):.1e}"))


def _overall(
    settings: EvaluationSettings, scores: _Scores, table: Floats, noise: float, one: float
) -> dict[str, Figure]:
    """The figures over everybody.

    Args:
        settings: of the evaluation.
        scores: the histogram.
        table: shape (2, 2), by whether selected and by label.
        noise: standard deviation of the noise in each of its counts.
        one: what one consumer counts.
    """
    figures: dict[str, Figure] = {}
    labels, blur = scores.labels, scores.blur
    slopes = _slopes(labels, blur)
    negative, positive = labels.sum(axis=1)
    if min(negative, positive) > settings.least * math.sqrt(float(blur @ blur)):
        inside = float(labels.sum(axis=0) ** 2 @ slopes) / 12
        cells = inside / (negative * positive) / 2
        auc = _auc(labels, inside)
        figures["auc"] = _with_error(
            lambda raw: _auc(scores.combined(raw), inside), scores.raw, scores.noise, other=cells,
            sampling=_auc_sampling(auc, negative / one, positive / one),
        )  # fmt: skip
    flat, noises = table.ravel(), np.full(4, noise)
    total, positives = flat.sum(), flat[1] + flat[3]
    chosen = settings.top * total
    if min(total, positives, chosen) <= settings.least * noise:
        return figures

    def binomial(rate: float, among: float) -> float:
        return math.sqrt(max(rate * (1 - rate), 0) * one / among)

    def base_rate(counts: Floats) -> float:
        return float((counts[1] + counts[3]) / counts.sum())

    rate = _at_threshold(settings, labels, slopes)

    def precision(counts: Floats) -> float:
        wanted = settings.top * counts.sum()
        missing = wanted - counts[2] - counts[3]  # selected at the threshold are a few off
        return float((counts[3] + missing * rate) / wanted)

    off = abs(chosen - flat[2] - flat[3]) / chosen
    base = base_rate(flat)
    tilt = 0.1 * off  # how wrong the rate at the threshold may be, times how much it counts for
    value = precision(flat)
    figures["base_rate"] = _with_error(base_rate, flat, noises, sampling=binomial(base, total))
    figures["precision"] = _with_error(
        precision, flat, noises, other=tilt, sampling=binomial(value, chosen)
    )
    figures["lift"] = _with_error(
        lambda counts: precision(counts) / base_rate(counts), flat, noises,
        other=tilt / base, bounds=(0.0, 1 / settings.top),
    )  # fmt: skip
    figures["selected"] = _with_error(
        lambda counts: float((counts[2] + counts[3]) / counts.sum()), flat, noises
    )
    middles = scores.middles

    def ratio(raw: Floats) -> float:
        by_label = scores.combined(raw)
        return float(by_label.sum(axis=0) @ middles / by_label[1].sum())

    figures["calibration_ratio"] = _with_error(
        ratio, scores.raw, scores.noise, bounds=(0.0, math.inf)
    )
    figures["calibration_error"] = _calibration_error(settings, scores)
    return figures


def _auc_sampling(auc: float, negatives: float, positives: float) -> float:
    """Standard error of an AUC over a sample.

    **Source:** Hanley and McNeil (1982), equations 1 and 2.
    """
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    ) / (negatives * positives)
    return math.sqrt(max(variance, 0.0))


def _at_threshold(settings: EvaluationSettings, labels: Floats, slopes: Floats) -> float:
    """The rate of positives among consumers just at the threshold."""
    totals = labels.sum(axis=0)
    above = np.cumsum(totals[::-1])[::-1]
    wanted = settings.top * totals.sum()
    cell = int(np.flatnonzero(above >= wanted)[-1]) if (above >= wanted).any() else 0
    if totals[cell] <= 0:
        return 0.0
    part = (wanted - above[cell] + totals[cell]) / totals[cell]
    rate = labels[1, cell] / totals[cell] + slopes[cell] * (0.5 - part)
    return float(np.clip(rate, 0, 1))


def _bins(settings: EvaluationSettings, scores: _Scores) -> list[slice]:
    """Runs of cells that hold a tenth of the consumers, or enough to tell a rate."""
    totals, blur = scores.labels.sum(axis=0), scores.blur
    ends, held, variance = [0], 0.0, 0.0
    for cell, count in enumerate(totals, start=1):
        held, variance = held + count, variance + 2 * blur[cell - 1] ** 2
        if held >= max(totals.sum() / CALIBRATION_BINS, settings.least * math.sqrt(variance)):
            ends.append(cell)
            held = variance = 0.0
    if len(ends) == 1:
        return []
    ends[-1] = len(totals)  # what is left at the end goes to the last
    return [slice(low, high) for low, high in itertools.pairwise(ends)]


def _calibration(settings: EvaluationSettings, scores: _Scores) -> tuple[tuple[float, Figure], ...]:
    """Mean predicted probability and rate, bin by bin."""
    labels, middles, blur = scores.labels, scores.middles, scores.blur
    found = []
    for some in _bins(settings, scores):
        cells = labels[:, some]
        predicted = float(cells.sum(axis=0) @ middles[some] / cells.sum())
        noise = float(np.linalg.norm(blur[some]))  # of its cells together
        rate = _with_error(
            lambda counts: float(counts[1] / counts.sum()), cells.sum(axis=1), np.full(2, noise)
        )
        found.append((predicted, rate))
    return tuple(found)


def _calibration_error(settings: EvaluationSettings, scores: _Scores) -> Figure:
    """Mean distance of rate and prediction over the bins, weighed by their consumers.

    Noise can only add to distances of zero, so the interval allows for the mean of its absolute
    value as well: it holds at least 95 %.
    """
    labels, middles, blur = scores.labels, scores.middles, scores.blur
    total = labels.sum()
    value = bias = variance = 0.0
    for some in _bins(settings, scores):
        (negative, positive), predicted = labels[:, some], middles[some]
        distance = float((positive - (negative + positive) * predicted).sum() / total)
        # By label 1 - predicted and -predicted a count.
        spread = (1 - predicted) ** 2 + predicted**2
        error = math.sqrt(float(blur[some] ** 2 @ spread)) / total
        value += abs(distance)
        bias += error * math.sqrt(2 / math.pi)
        variance += error**2 * (1 - 2 / math.pi)
    reach = bias + Z * math.sqrt(variance)
    error = math.sqrt(bias**2 + variance)
    return Figure(value, error, max(0.0, value - reach), min(1.0, value + reach))


def _groups(
    settings: EvaluationSettings, layout: Layout, tables: list[Floats], noise: float
) -> tuple[tuple[Group, ...], tuple[tuple[str, str], ...], tuple[Gap, ...]]:
    """Groups that are large enough, those that are not, and the gaps between the former."""
    groups: list[Group] = []
    too_small: list[tuple[str, str]] = []
    gaps: list[Gap] = []
    total = float(tables[0].sum())
    for grouping, table in zip(layout.groupings[1:], tables[1:], strict=True):
        own: list[Group] = []
        for name, counts in zip(grouping.labels, table, strict=True):
            if counts.sum() <= settings.least * 2 * noise:
                too_small.append((grouping.name, name))
            else:
                own.append(_group(settings, grouping.name, name, counts.ravel(), total, noise))
        groups += own
        for measure in ("selected", "found"):
            rates = {
                one.name: figure for one in own if (figure := getattr(one, measure)) is not None
            }
            if len(rates) > 1:
                gaps.append(_gap(grouping.name, measure, rates))
    return tuple(groups), tuple(too_small), tuple(gaps)


def _group(
    settings: EvaluationSettings, of: str, name: str, counts: Floats, total: float, noise: float
) -> Group:
    noises = np.full(4, noise)
    enough = settings.least * math.sqrt(2) * noise
    chosen, positive = counts[2] + counts[3], counts[1] + counts[3]
    return Group(
        of=of,
        name=name,
        share=_with_error(lambda four: float(four.sum() / total), counts, noises),
        selected=_with_error(lambda four: float((four[2] + four[3]) / four.sum()), counts, noises),
        found=_with_error(lambda four: float(four[3] / (four[1] + four[3])), counts, noises)
        if positive > enough
        else None,
        precision=_with_error(lambda four: float(four[3] / (four[2] + four[3])), counts, noises)
        if chosen > enough
        else None,
    )


def _gap(of: str, measure: str, rates: dict[str, Figure]) -> Gap:
    """The largest difference between two groups' rates.

    Only groups that may well have the highest or the lowest rate take part, and their pairs share
    the 5 % that the interval may miss: where two groups stand out it is the plain interval of
    their difference, and never a shorter one.

    **Source:** Andrews and Soares (2010) for leaving out what is far from the extremes; Bonferroni.
    """
    surely = NormalDist().inv_cdf(EXTREME)

    def may_lead(sign: int) -> list[str]:
        found = []
        for name, one in rates.items():
            beaten = any(
                sign * (other.value - one.value) > surely * math.hypot(other.error, one.error)
                for other in rates.values()
            )
            if not beaten:
                found.append(name)
        return found

    highest = max(rates, key=lambda name: rates[name].value)
    lowest = min(rates, key=lambda name: rates[name].value)
    pairs = [
        (rates[high], rates[low]) for high in may_lead(1) for low in may_lead(-1) if high != low
    ]
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / max(len(pairs), 1))
    differences = [
        (high.value - low.value, math.hypot(high.error, low.error)) for high, low in pairs
    ]
    value = rates[highest].value - rates[lowest].value
    figure = Figure(
        value,
        math.hypot(rates[highest].error, rates[lowest].error),
        max([0.0, *(difference - z * error for difference, error in differences)]),
        min(1.0, max(difference + z * error for difference, error in differences)),
    )
    return Gap(of, measure, figure, highest, lowest)


def describe(terms: Terms, parameters: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What an evaluation says, for ``--json`` and for a table; errors as `evaluate` has them."""
    settings = parse(terms)
    found = evaluate(terms, parameters)
    return {
        "study": settings.study,
        "model": settings.model,
        "measured_on": "consumers held out from training"
        if found.held_out
        else "all consumers, those it was trained on among them",
        "consumers": found.consumers,
        "top": settings.top,
        "threshold": found.threshold,
        "figures": {name: figure.document() for name, figure in found.figures.items()},
        "calibration": [
            {"predicted": predicted, "rate": rate.document()}
            for predicted, rate in found.calibration
        ],
        "groups": [
            {
                "of": one.of,
                "group": one.name,
                "share": one.share.document(),
                "selected": one.selected.document(),
                "found": one.found.document() if one.found else None,
                "precision": one.precision.document() if one.precision else None,
            }
            for one in found.groups
        ],
        "too_small": [{"of": of, "group": name} for of, name in found.too_small],
        "gaps": [
            {
                "of": one.of,
                "measure": "demographic parity"
                if one.measure == "selected"
                else "equal opportunity",
                "highest": one.highest,
                "lowest": one.lowest,
                "gap": one.figure.document(),
            }
            for one in found.gaps
        ],
    }
