"""The ledger's campaign: kills, failing system calls, restored backups, races, mutations, controls.

Run with ``python -m benchmarks.ledger_campaign --json campaign.json``, at low priority. Moments of
kills are drawn from fixed seeds, but what a process was doing then differs from run to run.
"""

from __future__ import annotations

from benchmarks.ledger_campaign.campaign import FULL, QUICK, control_jobs, jobs, left_out
from benchmarks.report import Report, Row, main
from benchmarks.secagg_campaign.tally import Tally, gather


def run(report: Report) -> None:
    """What must not fail, then what must be seen to."""
    sizes = QUICK if report.quick else FULL
    for row in left_out():
        print(f"left out: {row}")
    for row, tally in gather(jobs(sizes)).items():
        add(report, row, tally)
    for row, tally in gather(control_jobs(sizes)).items():
        report.add(
            Row(
                name=f"control: a writer that {row}",
                unit="seen",
                ours=tally.failures,
                target=1,
                at="least",
                trials=tally.trials,
                failures=int(tally.failures == 0),
            )
        )


def add(report: Report, name: str, tally: Tally) -> None:
    """A row whose failures must be none."""
    counts = [f"{count} {what}" for what, count in sorted(tally.counts.items())]
    report.add(
        Row(
            name=name,
            unit="failures",
            ours=tally.failures,
            target=0,
            at="most",
            trials=tally.trials,
            failures=tally.failures,
            note="; ".join([*counts, *tally.reasons]) or None,
        )
    )


if __name__ == "__main__":
    main("ledger_campaign", __doc__ or "", run)
