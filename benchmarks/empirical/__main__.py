"""Lower bounds on epsilon from one run, against the accountant's epsilon of the same mechanism.

Run with ``python -m benchmarks.empirical --json empirical.json``. Every run takes 10,000 canaries
through the members' code (`runs`), so discrete noise, rounding and float32 sums are the real ones.
The study is one whose epsilon is 2: two rounds, q = 1, 100 members. Delta is 2e-6, about the best
for the assumption-free bound: it pays 2 m delta, and with a smaller delta a Gaussian mechanism of
epsilon 2 has more noise.
"""

from __future__ import annotations

import time
from statistics import mean, median

from benchmarks.empirical.runs import (
    Member,
    audited_terms,
    enrol_everywhere,
    honest,
    run,
)
from benchmarks.report import Report, Row, main
from privacy.accounting import Accountant, calibrate
from privacy.empirical.measurement import ERROR, Measurement, measure
from privacy.fixedpoint import SHARE_SCALE
from privacy.terms import Terms

EPSILON = 2.0
CANARIES = 10_000
MEMBERS = 100


def _study(*, quick: bool) -> Terms:
    terms = audited_terms(
        members=MEMBERS,
        declared=100,
        dimension=100_000 if quick else 200_000,
        rounds=2,
        q=1.0,
        sigma=2.0,
        delta=2e-6,
    )
    return calibrate(terms, EPSILON)


def _measured(terms: Terms, claimed: float, *, noise_scale: float = SHARE_SCALE) -> Measurement:
    secrets, canaries = enrol_everywhere(terms, CANARIES)
    members = {name: honest(one) for name, one in canaries.items()}
    if noise_scale != SHARE_SCALE:
        members = {
            name: Member(blocks=one.blocks, noise_scale=noise_scale)
            for name, one in members.items()
        }
    return measure(terms, secrets, run(terms, members), claimed=claimed)


def _add_bounds(report: Report, claimed: float, results: list[Measurement]) -> None:
    rows = (
        ("Gaussian hypothesis", "gaussian", 0.85, "Andrew et al. 2023, the null's law known"),
        ("assumption-free", "assumption_free", 0.35, "Steinke et al. 2023"),
        ("Gaussian mechanism, guesses", "gaussian_guessed", None, "Mahloujifar et al. 2024"),
    )
    for name, bound, target, source in rows:
        shares = [result.bounds[bound] / claimed for result in results]
        above = sum(share > 1 for share in shares)
        report.add(
            Row(
                name=f"lower bound over epsilon, {name}, mean",
                unit="of epsilon",
                ours=mean(shares),
                trials=len(shares),
                target=target,
                at=None if target is None else "least",
                failures=above,
                note=f"{source}; least {min(shares):.3f}, median {median(shares):.3f}, largest "
                f"{max(shares):.3f}; a failure is a bound above epsilon",
            )
        )
    above = sum(max(result.bounds.values()) > claimed for result in results)
    report.add(
        Row(
            name=f"runs with a bound above epsilon, confidence {100 * (1 - ERROR):g} % each",
            unit="runs",
            ours=above,
            trials=len(results),
            target=1 if len(results) > 10 else 0,
            at="most",
            note="two or more of 20 at three bounds of 0.1 % each: probability 0.002 at most",
        )
    )


def _measure(report: Report) -> None:
    terms = _study(quick=report.quick)
    claimed = Accountant(terms).epsilon()
    results, seconds = [], []
    for _ in range(2 if report.quick else 20):
        started = time.perf_counter()
        results.append(_measured(terms, claimed))
        seconds.append(time.perf_counter() - started)
    _add_bounds(report, claimed, results)
    flagged = sum(finding.flagged for result in results for finding in result.findings)
    report.add(
        Row(
            name="honest runs: detectors that flagged",
            unit="findings",
            ours=flagged,
            trials=len(results),
            target=0,
            at="most",
            failures=flagged,
        )
    )
    control = _measured(terms, claimed, noise_scale=SHARE_SCALE / 2)
    missed = int(control.sound)
    report.add(
        Row(
            name="control: half the noise, Gaussian bound over the claimed epsilon",
            unit="of epsilon",
            ours=control.gaussian / claimed,
            trials=1,
            target=1,
            at="least",
            failures=missed,
            note=f"assumption-free {control.assumption_free / claimed:.2f}; a failure is a run "
            "that passes for sound",
        )
    )
    report.add(
        Row(
            name=f"a run and its measurement, {CANARIES} canaries, {terms.dimension} coordinates",
            unit="s",
            ours=median(seconds),
            trials=len(seconds),
        )
    )


if __name__ == "__main__":
    main("empirical", "Measures lower bounds on epsilon from one run with canaries.", _measure)
