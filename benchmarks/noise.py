"""The discrete Gaussian sampler: speed on one core, fit to theory, and controls that must fail.

Run with ``python -m benchmarks.noise --json noise.json``. The statistics at the top are the ones
the tests use.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from importlib.metadata import version
from statistics import median

import numpy as np
import numpy.typing as npt
import opendp.prelude as dp
from scipy import stats

from benchmarks.report import Report, Row, main
from privacy.keystream import KeyStream
from privacy.noise import CELL_BITS, HEAD_BITS, DiscreteGaussian, _build

Samples = npt.NDArray[np.int64]

ALARM = 1e-6
"""A chi-square p-value below this counts as a misfit: one false alarm in a million rows."""
WORKING_SCALE = 2**14
"""The least scale that rule R7 allows, in grid steps."""


def theory(scale: int) -> list[Fraction]:
    """P(0), P(1), ... of the discrete Gaussian cut at 12 standard deviations, to 75 digits."""
    with localcontext() as context:
        context.prec = 80
        weights = [(Decimal(-k * k) / (2 * scale * scale)).exp() for k in range(12 * scale + 1)]
        total = weights[0] + 2 * sum(weights[1:])
        return [Fraction(weight / total) for weight in weights]


def worst_error(sampler: DiscreteGaussian) -> Fraction:
    """Largest distance between a probability implied by the table and theory."""
    weights, denominator = sampler.weights()
    expected = theory(int(sampler.scale))
    expected += [Fraction(0)] * (len(weights) - len(expected))
    implied = [Fraction(weight, denominator) for weight in weights]
    return max(abs(a - b) for a, b in zip(implied, expected, strict=True))


def chi_square_p(samples: Samples, scale: int) -> float:
    """P-value of samples against theory; values expected fewer than ten times are pooled."""
    half = [float(p) for p in theory(scale)]
    probabilities = np.array(half[:0:-1] + half)
    counts = np.bincount(samples + 12 * scale, minlength=len(probabilities))
    expected = probabilities * len(samples)
    rare = expected < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(stats.chi2.sf(statistic, len(expected) - 1))


def with_short_thresholds(sampler: DiscreteGaussian, bits: int) -> DiscreteGaussian:
    """The sampler with its thresholds cut to ``bits`` bits: a fault that must be flagged."""
    faulty = DiscreteGaussian(sampler.scale)
    words, cut = sampler._table.words, CELL_BITS + HEAD_BITS - bits
    alias = words & ((1 << CELL_BITS) - 1)
    faulty._table = dataclasses.replace(
        sampler._table,
        words=(words >> cut << cut) | alias,
        tails=np.zeros_like(sampler._table.tails),
    )
    return faulty


def opendp_samples(scale: float, count: int) -> Samples:
    """Noise of OpenDP's exact sampler, the oracle."""
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64"), size=count), dp.l2_distance(T="f64")
    return np.array(dp.m.make_gaussian(*space, scale=float(scale))([0] * count), dtype=np.int64)


def _rate(draw: Callable[[], object], count: int) -> float:
    """Millions of samples per second of one call."""
    started = time.perf_counter()
    draw()
    return count / (time.perf_counter() - started) / 1e6


def _measure_speed(report: Report) -> None:
    repetitions = 5 if report.quick else 15
    count, peer_count = 1 << 22, 2000 if report.quick else 8000
    sampler, stream = DiscreteGaussian(WORKING_SCALE), KeyStream.fresh()
    vector = np.ones(count, dtype=np.int64)
    floats = np.random.default_rng(0)
    block = np.empty(1 << 13, dtype=np.uint64)

    def add_float_noise() -> None:
        for start in range(0, count, 8192):
            noise = np.rint(floats.standard_normal(8192) * WORKING_SCALE)
            vector[start : start + 8192] += noise.astype(np.int64)

    def fill() -> None:
        for _ in range(0, count, len(block)):
            stream.fill(block)

    rates = [
        (
            _rate(lambda: sampler.add_to(vector, stream), count),
            _rate(lambda: opendp_samples(WORKING_SCALE, peer_count), peer_count),
            _rate(add_float_noise, count),
            _rate(lambda: sampler.sample(count, stream), count),
            _rate(fill, count),
        )
        for _ in range(repetitions)
    ]
    ours, exact, rounded, allocated, filled = (
        median(column) for column in zip(*rates, strict=True)
    )
    unit = "million samples/s"
    report.add(
        Row(
            name="noise added in place, scale 2^14, one core",
            unit=unit,
            ours=ours,
            trials=repetitions,
            peer_name=f"opendp {version('opendp')} make_gaussian",
            peer=exact,
            ratio=ours / exact,
            target=80,
            at="least",
            note=f"{count} coordinates a time; OpenDP is exact without a table, {peer_count}",
        )
    )
    report.add(
        Row(
            name="the same beside float noise",
            unit=unit,
            ours=ours,
            trials=repetitions,
            peer_name=f"numpy {np.__version__} standard_normal, rounded, not private",
            peer=rounded,
            ratio=ours / rounded,
        )
    )
    report.add(
        Row(
            name="samples into a new array, scale 2^14, one core",
            unit=unit,
            ours=allocated,
            trials=repetitions,
            note="pays for fresh pages of memory",
        )
    )
    report.add(
        Row(
            name="key stream, 64 KiB a time",
            unit="GB/s",
            ours=filled * 8 / 1e3,
            trials=repetitions,
            note="a sample takes 8 bytes",
        )
    )


def _measure_build(report: Report) -> None:
    trials = 3 if report.quick else 7
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        _build.__wrapped__(Fraction(WORKING_SCALE))
        seconds.append(time.perf_counter() - started)
    report.add(
        Row(
            name="table built, scale 2^14",
            unit="s",
            ours=median(seconds),
            trials=trials,
            target=1.5,
            at="most",
        )
    )


def _measure_probabilities(report: Report) -> None:
    for scale in (1, 3):
        sampler = DiscreteGaussian(scale)
        weights, denominator = sampler.weights()
        missing = weights[0] + 2 * sum(weights[1:]) != denominator
        for name, error, at in (
            (f"implied probabilities, scale {scale}", worst_error(sampler), "most"),
            (
                f"control: 32-bit thresholds, scale {scale}",
                worst_error(with_short_thresholds(sampler, 32)),
                "least",
            ),
        ):
            report.add(
                Row(
                    name=name,
                    unit="log2 of the worst error",
                    ours=math.log2(error),
                    trials=len(weights),
                    target=-100,
                    at="most" if at == "most" else "least",
                    failures=int(missing),
                    note="a failure is a total other than one",
                )
            )


def _measure_fit(report: Report) -> None:
    count = 10**6 if report.quick else 10**7
    for scale in (1, 3):
        fit = chi_square_p(DiscreteGaussian(scale).sample(count, KeyStream.fresh()), scale)
        report.add(
            Row(
                name=f"chi-square against theory, scale {scale}",
                unit="p-value",
                ours=fit,
                trials=count,
                target=ALARM,
                at="least",
                failures=int(fit < ALARM),
            )
        )
    few = 20_000
    for name, samples in (
        ("half the scale", DiscreteGaussian(1.5).sample(few, KeyStream.fresh())),
        ("zero counted twice", _with_zero_twice(few)),
    ):
        misfit = chi_square_p(samples, 3)
        report.add(
            Row(
                name=f"control: {name}, scale 3",
                unit="p-value",
                ours=misfit,
                trials=len(samples),
                target=ALARM,
                at="most",
                failures=int(misfit >= ALARM),
                note="a failure is a fault that was not flagged",
            )
        )


def _with_zero_twice(count: int) -> Samples:
    samples = DiscreteGaussian(3).sample(count, KeyStream.fresh())
    return np.append(samples, samples[samples == 0])


def _measure_repetition(report: Report) -> None:
    trials = 200
    sampler = DiscreteGaussian(WORKING_SCALE)

    def repeated(make: Callable[[], KeyStream]) -> int:
        runs = {sampler.sample(64, make()).tobytes() for _ in range(trials)}
        return trials - len(runs)

    fresh, fixed = repeated(KeyStream.fresh), repeated(lambda: KeyStream(bytes(32)))
    report.add(
        Row(
            name="draws that repeat an earlier one, fresh keys",
            unit="draws",
            ours=fresh,
            trials=trials,
            target=0,
            at="most",
            failures=fresh,
        )
    )
    report.add(
        Row(
            name="control: the same with one fixed key",
            unit="draws",
            ours=fixed,
            trials=trials,
            target=trials - 1,
            at="least",
            failures=trials - 1 - fixed,
            note="a failure is a repetition that was not flagged",
        )
    )


def _measure(report: Report) -> None:
    _measure_speed(report)
    _measure_build(report)
    _measure_probabilities(report)
    _measure_fit(report)
    _measure_repetition(report)


if __name__ == "__main__":
    main("noise", "Measures the discrete Gaussian sampler against theory and OpenDP.", _measure)
