"""Secure aggregation beside Flower's SecAgg+: a member's work, masks, unmasking, whole rounds.

Run with ``python -m benchmarks.secagg --json secagg.json``; it takes about twelve minutes on two
cores, most of them in the peer's server and in the masks of a thousand simulated members.
"""

from __future__ import annotations

from statistics import median
from typing import Final

import numpy as np

from benchmarks.peers.flower_secagg import PEER_NAME, measure_client, measure_server
from benchmarks.report import Report, Row, main
from benchmarks.secagg.costs import (
    STAGES,
    MemberScene,
    ServerScene,
    WrongResult,
    library_keystream,
    masking,
    medians,
    openssl_keystream,
    study,
)
from benchmarks.secagg.loopback import RoundCost, measure_rounds
from coordinator.round import UNDO_BYTES

DIMENSION: Final = 1_000_000
QUICK_DIMENSION: Final = 100_000
ON_THE_PATH: Final = ("mask", "confirm", "unmask")
MEGABYTE: Final = 1e6


def run(report: Report) -> None:
    """Members, masks, the coordinator's unmasking, whole rounds."""
    dimension = QUICK_DIMENSION if report.quick else DIMENSION
    member(report, dimension, neighbours=4, colluders=1, dropouts=1, least_ratio=7.0)
    member(report, dimension, neighbours=100, colluders=50, dropouts=20, least_ratio=6.0)
    masks(report)
    unmasking(report, dimension)
    unmasking_of_hundred(report, dimension)
    if report.quick:
        whole_round(report, 30, dimension, share=0.1)
        return
    whole_round(report, 100, dimension, share=0.1, most_s=1.0)
    whole_round(report, 1000, dimension, share=0.01, most_s=10.0)


def member(
    report: Report,
    dimension: int,
    *,
    neighbours: int,
    colluders: int,
    dropouts: int,
    least_ratio: float,
) -> None:
    """A member's whole work, ours and the peer's in turns, two threads allowed to both."""
    scene = MemberScene(neighbours, dimension, colluders=colluders, dropouts=dropouts)
    threshold = scene.setup.graph.share_threshold
    turns, ours_each, peer_each = (1, 2, 1) if report.quick else (3, 5, 3)
    if not report.quick:
        scene.trial()
    trials, peers = [], []
    for _ in range(turns):
        trials += [scene.trial() for _ in range(ours_each)]
        peers.append(
            measure_client(dimension, neighbours, trials=peer_each, threshold=threshold, threads=2)
        )
    scene.check()
    cost = medians(trials)
    whole, path = sum(cost.values()), sum(cost[stage] for stage in ON_THE_PATH)
    peer = median(one.wall_ms for one in peers)
    what = f"{dimension:,} coordinates, {neighbours} neighbours, {threshold} shares rebuild"
    told = ", ".join(f"{stage} {cost[stage]:.1f}" for stage in STAGES)
    peer_told = ", ".join(
        f"{stage} {median(one.stages[stage].wall_ms for one in peers):.1f}"
        for stage in peers[0].stages
    )
    report.add(
        Row(
            name=f"member, whole work of one key set and one attempt: {what}",
            unit="ms",
            ours=whole,
            peer_name=PEER_NAME,
            peer=peer,
            ratio=peer / whole,
            target=least_ratio,
            at="least",
            bounds="ratio",
            trials=len(trials),
            note=f"{told}; peer: {peer_told}",
        )
    )
    report.add(
        Row(
            name=f"member, of it on the critical path (mask, confirm, unmask): {what}",
            unit="ms",
            ours=path,
            peer_name=f"{PEER_NAME}, all of its stages are on it",
            peer=peer,
            ratio=peer / path,
            trials=len(trials),
        )
    )
    if neighbours > 4:
        return
    sent, peer_sent = 4 * dimension, peers[0].masked_vector_bytes
    report.add(
        Row(
            name=f"masked vector, {dimension:,} coordinates",
            unit="bytes",
            ours=sent,
            peer_name=PEER_NAME,
            peer=peer_sent,
            ratio=peer_sent / sent,
            target=2.0,
            at="least",
            bounds="ratio",
            trials=1,
            note="uint32 against 8-byte integers; ours without its signature of 64 bytes",
        )
    )


def masks(report: Report) -> None:
    """`apply_masks` on one thread beside raw AES-256-CTR, in turns."""
    seeds, turns = 100, 3 if report.quick else 9
    ours, library, program = [], [], []
    for _ in range(turns):
        library.append(library_keystream(4 * DIMENSION * seeds))
        ours.append(masking(DIMENSION, seeds))
        program.append(openssl_keystream())
    raw = max(median(library), median(program))
    report.add(
        Row(
            name=f"masks added, {DIMENSION:,} coordinates, {seeds} seeds, one thread; "
            "ratio is ours / raw",
            unit="GB/s",
            ours=median(ours) / 1e9,
            peer_name="raw AES-256-CTR of OpenSSL, the faster of two ways to run it",
            peer=raw / 1e9,
            ratio=median(ours) / raw,
            target=0.6,
            at="least",
            bounds="ratio",
            trials=turns,
            note=f"openssl speed {median(program) / 1e9:.2f}, "
            f"cryptography {median(library) / 1e9:.2f}",
        )
    )


def unmasking(report: Report, dimension: int) -> None:
    """32 members, nobody drops, beside the peer; the same vectors and threshold on both sides."""
    members, turns = 32, 1 if report.quick else 3
    scene = ServerScene(study(members, 3, 3, dimension))
    scene.unmask()
    threshold = scene.setup.graph.share_threshold
    costs, peers = [], []
    for _ in range(turns):
        costs += [scene.unmask() for _ in range(5)]
        peer = measure_server(
            dimension, members, threshold=threshold, trials=1 if report.quick else 3
        )
        if np.abs(peer.total - scene.expected).max() > peer.quantisation_error:
            raise WrongResult("the peer's sum is not the survivors'")
        peers.append(peer.unmask_ms)
    checks = median(one.checks_ms for one in costs)
    removal = median(one.removal_ms for one in costs)
    what = f"{members} members x {dimension:,}, nobody dropped"
    for name, ours in (
        ("rebuild and remove masks", removal),
        ("checks included", checks + removal),
    ):
        report.add(
            Row(
                name=f"coordinator, unmask, {name}: {what}",
                unit="ms",
                ours=ours,
                peer_name=f"{PEER_NAME}, its unmask stage",
                peer=median(peers),
                ratio=median(peers) / ours,
                target=None if report.quick else 75.0,
                at=None if report.quick else "least",
                bounds="ratio",
                trials=len(costs),
            )
        )
    report.add(
        Row(
            name=f"coordinator, signatures and hashes of revealed shares: {what}",
            unit="ms",
            ours=checks,
            trials=len(costs),
        )
    )


def unmasking_of_hundred(report: Report, dimension: int) -> None:
    """100 members, nobody or ten dropped; the peer once, in a full run only."""
    for dropped, most_s in ((0, 0.1), (10, 1.0)):
        scene = ServerScene(study(100, 10, 10, dimension), dropped=dropped)
        costs = [scene.unmask() for _ in range(3 if report.quick else 9)]
        checks = median(one.checks_ms for one in costs) / 1000
        removal = median(one.removal_ms for one in costs) / 1000
        peer = None
        if not report.quick and not dropped:
            measured = measure_server(dimension, 100)
            if np.abs(measured.total - scene.expected).max() > measured.quantisation_error:
                raise WrongResult("the peer's sum is not the survivors'")
            peer = measured.unmask_ms / 1000
        what = f"100 members x {dimension:,}, {dropped} dropped"
        note = f"ours on the sparse graph, {scene.setup.graph.degree} holders"
        report.add(
            Row(
                name=f"coordinator, unmask, rebuild and remove masks: {what}",
                unit="s",
                ours=removal,
                peer_name=None if peer is None else f"{PEER_NAME}, its unmask stage",
                peer=peer,
                ratio=None if peer is None else peer / removal,
                target=most_s,
                at="most",
                trials=len(costs),
                note=f"{note}; the peer on the complete graph, once" if peer else note,
            )
        )
        report.add(
            Row(
                name=f"coordinator, unmask, checks included: {what}",
                unit="s",
                ours=checks + removal,
                trials=len(costs),
            )
        )


def whole_round(
    report: Report, members: int, dimension: int, *, share: float, most_s: float | None = None
) -> None:
    """Rounds over loopback; medians, and of memory the largest."""
    allowed = round(members * share)
    rounds = 5 if members < 1000 else 3
    models = [False, True] * rounds
    costs = measure_rounds(members, dimension, colluders=allowed, dropouts=allowed, models=models)
    what = f"{members} members x {dimension:,}, c = D = {allowed}"
    for with_model in (False, True):
        some = [one for one in costs if one.with_model == with_model]
        sent = "the model sent first" if with_model else "contributions there, no model sent"
        report.add(
            Row(
                name=f"whole round over mutual TLS on loopback, {sent}: {what}",
                unit="s",
                ours=median(one.seconds for one in some),
                target=None if with_model else most_s,
                at=None if with_model or most_s is None else "most",
                trials=rounds,
                note=_spent(some),
            )
        )
    vectors = 4 * dimension
    report.add(
        Row(
            name=f"coordinator's memory, peak of a round above its idle state: {what}",
            unit="MB",
            ours=max(one.growth_bytes for one in costs) / MEGABYTE,
            target=None if report.quick else (3 * vectors + UNDO_BYTES) / MEGABYTE,
            at=None if report.quick else "most",
            trials=rounds,
            note="three vectors and 32 MiB of unfinished uploads are the bound; idle, with "
            f"connections and keys: {costs[0].idle_bytes / MEGABYTE:.0f} MB at first, "
            f"{costs[-1].idle_bytes / MEGABYTE:.0f} MB at last",
        )
    )


def _spent(costs: list[RoundCost]) -> str:
    """Where a round's time goes, in medians, and what the members did before."""

    def at(field: str) -> str:
        return f"{median(getattr(one, field) for one in costs):.2f}"

    return (
        f"task at the last member after {at('model_s')} s, last one added after "
        f"{at('collect_s')} s, confirm and unmask {at('consent_s')} s, removal "
        f"{at('removal_s')} s; processor: coordinator {at('server_cpu_s')} s, all members in one "
        f"process that yields to it {at('members_cpu_s')} s; members' masks, signatures and "
        "revealed shares were made before the round"
    )


if __name__ == "__main__":
    main("secagg", __doc__ or "", run)
