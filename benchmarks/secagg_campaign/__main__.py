"""The campaign of secure aggregation: every dropout, one-hot sums, attacks, positive controls.

Run with ``python -m benchmarks.secagg_campaign --json campaign.json``, at low priority; it takes
the better part of an hour on two cores. Trials draw their cases from fixed seeds, but keys and
noise are fresh in every run.
"""

from __future__ import annotations

from benchmarks.report import Report, Row, main
from benchmarks.secagg_campaign.campaign import (
    FULL,
    QUICK,
    attack_jobs,
    control_jobs,
    dropout_jobs,
)
from benchmarks.secagg_campaign.controls import CONTROLS
from benchmarks.secagg_campaign.tally import Tally, gather


def run(report: Report) -> None:
    """Dropouts and one-hot, then attacks, then controls."""
    sizes = QUICK if report.quick else FULL
    for row, tally in gather(dropout_jobs(sizes)).items():
        add(report, row, tally, _counted(tally))
    for row, tally in gather(attack_jobs(sizes)).items():
        add(report, row, tally)
    for row, tally in gather(control_jobs(sizes)).items():
        broken = tally.trials - tally.failures
        told = f"broken {broken} of {tally.trials}"
        _, note = CONTROLS.get(row, (None, "flagged by the simulation's own check"))
        report.add(
            Row(
                name=f"control: {row}",
                unit="broken",
                ours=broken,
                target=tally.trials,
                at="least",
                trials=tally.trials,
                failures=tally.failures,
                note=f"{told}; {note}" if note else told,
            )
        )


def add(report: Report, name: str, tally: Tally, *notes: str) -> None:
    """A row whose failures must be none."""
    report.add(
        Row(
            name=name,
            unit="failures",
            ours=tally.failures,
            target=0,
            at="most",
            trials=tally.trials,
            failures=tally.failures,
            note="; ".join([*notes, *tally.reasons]) or None,
        )
    )


def _counted(tally: Tally) -> str:
    """What the trials were, in numbers."""
    counts = dict(tally.counts)
    if "key exchanges" in counts:
        return (
            f"{tally.trials} patterns were {counts['key exchanges']} key exchanges and "
            f"{counts.get('attempts', 0)} attempts, {counts.get('completed', 0)} completed; "
            "patterns that differ only in what would have come after a failure are one run"
        )
    if "attempts" in counts:
        return f"{counts['attempts']} attempts, {counts['completed']} completed and checked"
    return f"{counts.get('completed', 0)} completed, {tally.trials} with the end the README gives"


if __name__ == "__main__":
    main("secagg_campaign", __doc__ or "", run)
