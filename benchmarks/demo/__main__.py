"""`make demo`: a coordinator and five retailers, each in its own process, learn one model."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from privacy.errors import AllianceError, ConfigurationError


def main() -> None:
    """Runs the demo; errors of ours end in one sentence and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo",
        description="Five retailers learn, privately, which household will redeem a coupon of "
        "which campaign. Real grocery data, real processes, mutual TLS.",
    )
    parser.add_argument("--folder", type=Path, default=Path("demo-run"), help="results go here")
    parser.add_argument("--split", type=int, default=0, help="which households are held out")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has them ignored
        signal.signal(number, _interrupt)
    try:
        run(options.folder, options.split)
    except AllianceError as error:
        sys.exit(f"demo: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"demo: {error.name} is not installed; run: pip install -e '.[demo]'")
    except KeyboardInterrupt:
        print("\ndemo: stopped; every process it started has ended", file=sys.stderr)
        sys.exit(130)


def run(folder: Path, split: int) -> None:
    """One demo run.

    Raises:
        ConfigurationError: if the folder cannot be written.
        AllianceError: if the study fails.
    """
    import numpy as np
    from rich.console import Console

    from benchmarks.demo import comparison
    from benchmarks.demo.audit import audit
    from benchmarks.demo.journey import STUDY, build
    from benchmarks.demo.live import follow
    from benchmarks.demo.outcome import Outcome
    from benchmarks.demo.study import ALLIANCE, DECLARED, POLICY, demo_identities
    from benchmarks.local_alliance import LocalAlliance, LocalMember
    from client_sdk.recipes.model_file import load_model

    started = time.monotonic()
    console = Console()
    folder = folder.resolve()
    _fresh_folder(folder)
    console.print("Preparing Complete Journey: coupon campaigns as five retailers see them")
    journey = build(split)
    identities = demo_identities()
    sources = journey.write(folder / "data")
    members = [
        LocalMember(name, identities[name], declared, sources[name], POLICY)
        for name, declared in DECLARED.items()
    ]

    def alliance_scores() -> comparison.Scores:
        return comparison.model_scores(terms, load_model(model)[1], tables.held_out)

    with LocalAlliance(
        folder / "alliance", STUDY, members, alliance=ALLIANCE, watch_memory=True
    ) as alliance:
        terms = alliance.terms
        models = folder / "alliance" / "coordinator-state" / "models"
        model = models / f"{terms.study}.safetensors"
        console.print(f"Proposed {terms.label}; terms {terms.hash}", highlight=False)
        console.print("Starting a coordinator and five nodes; each weighs the terms for itself")
        tables = comparison.Tables.load(terms, sources, folder / "data" / "held-out.parquet")
        names = list(journey.members)
        live = follow(
            alliance.events(), names, console=console, hold_out=lambda: alliance_scores().auc
        )
        events = list(live)
    console.print("Comparing with each retailer alone, a trusted curator, and pooled data\n")
    datasets = tables.datasets
    curated = comparison.train(
        terms, comparison.curator_sums(terms, tables.nodes, np.random.default_rng())
    )
    outcome = Outcome(
        members={name: len(dataset.consumer_ids) for name, dataset in datasets.items()},
        known_to=journey.known_to,
        opened=next(event for event in events if event["event"] == "StudyOpened"),
        rounds=sum(event["event"] == "RoundClosed" for event in events),
        alliance=alliance_scores(),
        curator=comparison.model_scores(terms, curated, tables.held_out),
        pooled=comparison.regression_scores(list(datasets.values()), tables.held_out),
        alone={
            name: comparison.regression_scores([dataset], tables.held_out)
            for name, dataset in datasets.items()
        },
        seconds=time.monotonic() - started,
        peak_memory_bytes=alliance.peak_memory_bytes,
    )
    outcome.show(console)
    console.print("\nAuditing: the members' and the coordinator's logs, by a process of its own")
    verdict = audit(folder, folder / "alliance", names)
    checks = sum(check["count"] for check in verdict["checked"])
    console.print(
        f"Sound: {verdict['entries']} log entries, {len(verdict['checked'])} kinds of checks made "
        f"{checks} times, no finding",
        highlight=False,
    )
    outcome.draw(folder / "comparison.png")
    (folder / "summary.json").write_text(
        json.dumps(outcome.summary(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    console.print(
        f"\n{outcome.seconds:.0f} s, {outcome.peak_memory_bytes / 2**30:.1f} GiB at the peak. "
        f"Picture and figures: comparison.png and summary.json in {folder.name}; for the auditor: "
        "bundle and audit-report.html",
        highlight=False,
    )


def _fresh_folder(folder: Path) -> None:
    """Empties what an earlier run left, and nothing else."""
    try:
        for name in ("data", "alliance", "bundle"):
            if (folder / name).exists():
                shutil.rmtree(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").unlink(missing_ok=True)
        (folder / "data").mkdir()
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: cannot be written ({error.strerror}); name another with --folder"
        ) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
