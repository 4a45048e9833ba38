"""What a ledger costs to write and to audit, and how fast and exact epsilon is.

The million entries are one member's log, exported and audited as `alliance-audit verify` does it:
hashes of files, canonical form, schema, tree and signed head, the budget folded entry by entry,
epsilon recomputed. Seconds of what computes are the processor's, since the machine is shared;
appends wait for the disk and are timed by the clock.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from scipy import optimize, stats

from benchmarks.report import Report, Row, main
from privacy.acceptance import sign_acceptance
from privacy.accounting import Accountant, calibrate
from privacy.budget import attempt_costs, failure_atto
from privacy.identity import Identity
from privacy.ledger.audit import audit_bundle
from privacy.ledger.entry import Consent, Contribution, Entry, Reservation, Rule, Started
from privacy.ledger.export import export_bundle
from privacy.ledger.store import LedgerStore
from privacy.mechanism import accounted_noise_multiplier
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Terms

BATCH = 16
"""Entries appended together: as many attempts as are reserved ahead."""
CHUNK = 10_000

IDENTITY = Identity.generate()
KEY = Identity.generate()
MEMBER = "member-0"
ORIGIN = f"benchmark/member/{MEMBER}"
ORDERS = (3500,)

STUDIES = {
    "12 attempts at q = 0.1": {"max_attempts": 12, "sampling_probability": 0.1},
    "220 attempts at q = 0.05": {"max_attempts": 220, "sampling_probability": 0.05},
    "2,200 attempts at q = 0.01": {"max_attempts": 2200, "sampling_probability": 0.01},
    "5 attempts of everybody": {"max_attempts": 5, "sampling_probability": 1.0},
}


def make_terms(**privacy: float) -> Terms:
    """Five members of 10,000 consumers; keyword arguments change the privacy parameters."""
    values = {
        "clipping_norm": 1.0,
        "noise_multiplier": 1.0,
        "sampling_probability": 0.1,
        "rounds": 5,
        "max_attempts": 5,
        "delta": 1e-6,
        "cohort_size": 5,
        "colluders": 1,
        "dropouts": 1,
    }
    return Terms(
        alliance="benchmark",
        study="ledger",
        purpose="Measuring what a ledger costs",
        recipe="propensity",
        settings={"model": "logistic"},
        dimension=1000,
        contract=DataContract(
            name="nothing-to-do",
            version=1,
            consumer_id="consumer",
            label="label",
            columns=(Column(name="x", kind="number", low=0.0, high=1.0),),
            rows_per_consumer=1,
        ),
        privacy=PrivacyTerms.model_validate(values | privacy),
        roster=tuple(
            RosterEntry(
                name=f"member-{index}",
                identity=(IDENTITY if index == 0 else Identity.generate()).public,
                declared_consumers=10_000,
            )
            for index in range(5)
        ),
    )


def open_store(folder: Path) -> LedgerStore:
    """A member's log in a state folder."""
    (folder / "ledger.pem").write_bytes(KEY.pem())
    return LedgerStore(
        folder / "ledger.sqlite", origin=ORIGIN, key=KEY, software="benchmark", now_ms=lambda: 1
    )


def appends(report: Report) -> None:
    """Appends with full durability: every one is on the disk before the next begins."""
    count = 200 if report.quick else 3000
    entries = [Started(at_ms=n, software="benchmark", nonce=f"{n:032x}") for n in range(BATCH)]
    for size in (1, BATCH):
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(open_store(Path(folder))) as store,
        ):
            times = [
                timed(lambda: store.append(*entries[:size]), time.perf_counter)  # noqa: B023
                for _ in range(count)
            ]
        seconds = statistics.median(times)
        what = "one by one" if size == 1 else f"{size} at a time"
        rate = size / seconds
        note = f"median {seconds * 1e3:.2f} ms, 99th percentile {quantile(times, 0.99) * 1e3:.2f}"
        report.add(
            Row(name=f"durable appends, {what}", unit="1/s", ours=rate, trials=count, note=note)
        )


def audit(report: Report) -> None:
    """A long log of one member, audited offline on one core."""
    size = 20_000 if report.quick else 1_000_000
    with tempfile.TemporaryDirectory() as temporary:
        folder, bundle = Path(temporary) / "state", Path(temporary) / "bundle"
        folder.mkdir()
        log = islice(member_log(size), size - 1)
        with closing(open_store(folder)) as store:
            while chunk := list(islice(log, CHUNK)):
                store.append(*chunk)
            length = store.size
        opening = timed(lambda: open_store(folder).close())
        export_bundle(bundle, coordinator=None, members={MEMBER: folder}, key=KEY)
        wall, processor = time.perf_counter(), time.process_time()
        result = audit_bundle(bundle, seed="benchmark")
        processor, wall = time.process_time() - processor, time.perf_counter() - wall
        lines = (bundle / f"members/{MEMBER}/entries.jsonl").stat().st_size
    # Alone, a member's log shows no quorum; that is said, and nothing else may be found.
    failures = len(result.findings) + (result.entries != length)
    report.add(
        Row(
            name=f"audit of {length:,} entries offline, one core",
            unit="s",
            ours=processor,
            target=60.0,
            at="most",
            trials=1,
            failures=failures,
            note=f"{lines / 1e6:.0f} MB, {wall:.1f} s by the clock",
        )
    )
    report.add(Row(name=f"opening a log of {length:,} entries", unit="s", ours=opening, trials=1))


def member_log(size: int) -> Iterator[Entry]:
    """One study's attempts, reserved in batches and used; after `opened`."""
    attempts = size
    terms = make_terms(
        noise_multiplier=1000.0, rounds=attempts, max_attempts=attempts, sampling_probability=0.01
    )
    signature = sign_acceptance(IDENTITY, terms, member=MEMBER, ledger_key=KEY.public)
    profile = Accountant(terms).profile()
    yield Rule(
        at_ms=1, epsilon_micro=30_000_000, delta_billionths=10_000, orders_thousandths=ORDERS,
        renewal_days=0, renewal_column="",
    )  # fmt: skip
    yield Consent(
        at_ms=1,
        terms=json.loads(terms.canonical()),
        hash=terms.hash,
        attempts=attempts,
        profile_micro=tuple(round(profile[m] * 1e6) for m in sorted(profile)),
        costs=attempt_costs(terms, ORDERS),
        failure_atto=failure_atto(terms),
        signature=signature.hex(),
    )
    yield Started(at_ms=1, software="benchmark", nonce="0" * 32)
    for first in range(1, attempts - BATCH, BATCH):
        yield Reservation(
            at_ms=first, terms=terms.hash, first=first, count=BATCH, nonce=f"{first:032x}"
        )
        for number in range(first, first + BATCH):
            yield Contribution(
                at_ms=number,
                terms=terms.hash,
                round=number,
                attempt=1,
                number=number,
                key_set=number,
                sha256=f"{number:064x}",
                signature=f"{number:0128x}",
            )


def projections(report: Report) -> None:
    """Epsilon after one more attempt of studies of epsilon(1) = 2, once one attempt's is there."""
    worst, trials, slowest = 0.0, 0, ""
    for name, privacy in STUDIES.items():
        most = int(privacy["max_attempts"])
        accountant = Accountant(calibrate(make_terms(**privacy, rounds=most), 2.0))
        accountant.profile()
        for members in (1, 5):
            times = [
                timed(lambda: accountant.epsilon(members=members, attempts=attempts))  # noqa: B023
                for attempts in range(max(1, most - 11), most)
            ]
            trials += len(times)
            if statistics.median(times) > worst:
                worst, slowest = statistics.median(times), f"{name}, m = {members}"
    report.add(
        Row(
            name="projection of the next round, studies of epsilon(1) = 2",
            unit="ms",
            ours=worst * 1e3,
            target=100.0,
            at="most",
            trials=trials,
            note=f"slowest of {2 * len(STUDIES)}: {slowest}",
        )
    )


def calibrations(report: Report) -> None:
    """The noise for an epsilon, from nothing."""
    repeats = 1 if report.quick else 5
    worst, trials, slowest = 0.0, 0, ""
    for name, privacy in STUDIES.items():
        terms = make_terms(**privacy, rounds=int(privacy["max_attempts"]))
        for epsilon in (0.5, 2.0, 8.0):
            times = [timed(lambda: calibrate(terms, epsilon)) for _ in range(repeats)]  # noqa: B023
            trials += repeats
            if statistics.median(times) > worst:
                worst, slowest = statistics.median(times), f"{name}, epsilon {epsilon:g}"
    report.add(
        Row(
            name="calibration",
            unit="s",
            ours=worst,
            target=2.0,
            at="most",
            trials=trials,
            note=f"slowest of {3 * len(STUDIES)}: {slowest}",
        )
    )


def closed_form(report: Report) -> None:
    """Epsilon of everybody at every attempt, beside the exact one."""
    worst, trials, where = 0.0, 0, ""
    for attempts in (1, 10, 100):
        for sigma in (1.0, 4.0, 20.0):
            for delta in (1e-5, 1e-9):
                terms = make_terms(
                    noise_multiplier=sigma,
                    sampling_probability=1.0,
                    rounds=attempts,
                    max_attempts=attempts,
                    delta=delta,
                )
                exact = gaussian(math.sqrt(attempts) / accounted_noise_multiplier(terms), delta)
                excess = Accountant(terms).epsilon() / exact - 1
                trials += 1
                if abs(excess) > worst:
                    worst = abs(excess)
                    where = f"sigma {sigma:g}, {attempts} attempts, delta {delta:g}: {exact:.3f}"
    report.add(
        Row(
            name="epsilon against the closed form, q = 1",
            unit="%",
            ours=100 * worst,
            target=0.1,
            at="most",
            trials=trials,
            note=f"worst at {where}",
        )
    )


def gaussian(mu: float, delta: float) -> float:
    """Balle and Wang (2018), theorem 8: epsilon of a Gaussian, mu = shift / deviation."""

    def excess(epsilon: float) -> float:
        above = stats.norm.cdf(mu / 2 - epsilon / mu)
        below = math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)
        return float(above - below - delta)

    return float(optimize.brentq(excess, 0, 700, xtol=1e-12))


def timed(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that it takes: the processor's, or by another clock."""
    started = clock()
    work()
    return clock() - started


def quantile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run(report: Report) -> None:
    """Writing, auditing, accounting."""
    appends(report)
    projections(report)
    calibrations(report)
    closed_form(report)
    audit(report)


if __name__ == "__main__":
    main("ledger", __doc__ or "", run)
