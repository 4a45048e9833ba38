"""How long a round takes with everything on and no work to do, beside Flower's own deployment."""

from __future__ import annotations

import csv
import statistics
import tempfile
from pathlib import Path

from benchmarks.local_alliance import LocalAlliance, LocalMember
from benchmarks.peers.flower_rounds import PEER_NAME, measure
from benchmarks.report import Report, Row, main
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.identity import Identity
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Setting, Terms

MEMBERS = 3
"""Of which none may drop, so a round is one trip; of four one may, and it is three."""
COLUMNS, HIDDEN = 96, 1021
"""An MLP of 100,059 parameters; ten consumers, so that there is next to no work."""
WARM_UP = 5


def main_terms(rounds: int, identities: list[Identity]) -> Terms:
    """c = 1, and D = 0 for three members, which is the most that three allow, 1 for more."""
    contract = DataContract(
        name="nothing-to-do",
        version=1,
        consumer_id="consumer",
        label="label",
        columns=tuple(
            Column(name=f"x{index}", kind="number", low=0.0, high=1.0) for index in range(COLUMNS)
        ),
        rows_per_consumer=1,
    )
    settings: dict[str, Setting] = {
        "model": "mlp",
        "hidden": (HIDDEN,),
    }
    return Terms(
        alliance="benchmark",
        study="round-latency",
        purpose="Measuring what a round costs",
        recipe="propensity",
        settings=settings,
        dimension=dimension(contract, PropensitySettings.model_validate(settings)),
        contract=contract,
        privacy=PrivacyTerms(
            clipping_norm=1.0,
            noise_multiplier=10.0,
            sampling_probability=0.1,
            rounds=rounds,
            max_attempts=rounds,
            delta=1e-5,
            cohort_size=len(identities),
            colluders=1,
            dropouts=int(len(identities) > 3),
        ),
        roster=tuple(
            RosterEntry(name=f"member-{index}", identity=identity.public, declared_consumers=10)
            for index, identity in enumerate(identities)
        ),
    )


def ours(rounds: int, members: int = MEMBERS) -> list[float]:
    """Seconds per round of a coordinator and its nodes, each in its own process."""
    identities = [Identity.generate() for _ in range(members)]
    terms = main_terms(rounds + WARM_UP, identities)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data.csv"
        with data.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["consumer", "label", *(f"x{index}" for index in range(COLUMNS))])
            writer.writerows([f"c{row}", row % 2, *[row / 10] * COLUMNS] for row in range(10))
        policy: dict[str, float | int] = {
            "most_epsilon": 10.0,
            "most_epsilon_local": 20.0,
            "least_cohort": 3,
        }
        nodes = [
            LocalMember(entry.name, identity, entry.declared_consumers, {"path": str(data)}, policy)
            for entry, identity in zip(terms.roster, identities, strict=True)
        ]
        with LocalAlliance(folder, terms, nodes) as alliance:
            closed = [event for event in alliance.events() if event["event"] == "RoundClosed"]
    if any(len(event["contributors"]) != members for event in closed):
        raise RuntimeError("a member was missing from a round: the figure would not count")
    return [event["seconds"] for event in closed[WARM_UP:]]


def run(report: Report) -> None:
    """Ours, the peer, ours again; medians."""
    rounds, peer_rounds = (50, 2) if report.quick else (200, 5)
    seconds = ours(rounds)
    peer = statistics.median(measure(peer_rounds, MEMBERS, 100_000))
    seconds += ours(rounds)
    median = statistics.median(seconds)
    name = f"round, {MEMBERS} members, 100k float32, TLS, reservation, noise, secure aggregation"
    row = {"unit": "ms", "ours": 1000 * median, "trials": len(seconds)}
    report.add(Row(name=name, target=25.0, at="most", **row))  # type: ignore[arg-type]
    report.add(
        Row(
            name="the same beside the peer (no TLS, no privacy, no durability)",
            peer_name=PEER_NAME,
            peer=1000 * peer,
            ratio=peer / median,
            target=200.0,
            at="least",
            bounds="ratio",
            **row,  # type: ignore[arg-type]
        )
    )
    with_drops = ours(rounds, MEMBERS + 1)
    report.add(
        Row(
            name=f"the same, {MEMBERS + 1} members of which one may drop",
            unit="ms",
            ours=1000 * statistics.median(with_drops),
            trials=len(with_drops),
        )
    )
    slow = statistics.quantiles(seconds, n=100)[98]
    report.add(
        Row(name="99th percentile of the same", unit="ms", ours=1000 * slow, trials=len(seconds))
    )


if __name__ == "__main__":
    main("round_latency", __doc__ or "", run)
