"""A thousand members at one coordinator, and what strangers at its door cost it.

Run with ``python -m benchmarks.many_members --json many.json``. The coordinator is a process with
both ports, a registry and certificates that renew themselves; members are real sessions over mutual
TLS, some hundreds in a process; strangers are another process, of low priority. A round here has no
masks: what secure aggregation adds is in `benchmarks.secagg`.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.many_members.alliance import DIMENSION, Enrolled, Process, process
from benchmarks.many_members.strangers import BODIES, HEADERS_WITHOUT_END
from benchmarks.report import Report, Row, main

KIB: Final = 1024
MIB: Final = 1 << 20
REST_S: Final = 3.0
"""After something big, before memory counts as idle."""
CPU_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything."""

    members: int
    processes: int
    rounds: int
    storms: int
    half_open: int
    slow: int
    window_s: float
    turns: int


FULL: Final = Sizes(
    members=1000, processes=4, rounds=3, storms=3, half_open=10_000, slow=2_000,
    window_s=5.0, turns=4,
)  # fmt: skip
QUICK: Final = Sizes(
    members=100, processes=2, rounds=1, storms=1, half_open=500, slow=100, window_s=1.0, turns=2
)


@dataclass(slots=True)
class _Scene:
    report: Report
    sizes: Sizes
    here: Enrolled
    coordinator: Process
    members: list[Process]
    ports: tuple[str, str]


def measure(report: Report) -> None:
    """Members first, then strangers."""
    sizes = QUICK if report.quick else FULL
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        here = Enrolled(Path(folder), sizes.members)
        start = running.enter_context
        coordinator = start(process("coordinator", here.folder, sizes.members, "127.0.0.1:0"))
        ports = coordinator.ask("listen")
        parts = [here.names[at :: sizes.processes] for at in range(sizes.processes)]
        members = [
            start(process("members", ports[0], {name: here.tls[name] for name in part}))
            for part in parts
        ]
        scene = _Scene(report, sizes, here, coordinator, members, ports)
        _connect(scene)
        _rounds(scene)
        _storms(scene)
        strangers = start(
            process("strangers", *(int(one.rpartition(":")[2]) for one in ports), here.stranger)
        )
        _bodies(scene, strangers)
        _crowds(scene, strangers)
        _restart(scene, parts)


def _connect(scene: _Scene) -> None:
    """What idle members cost, and how soon all are there."""
    sizes, coordinator = scene.sizes, scene.coordinator
    light = sum(one.ask("memory_bytes") for one in scene.members)
    idle = coordinator.ask("forget_peak")
    began_s = time.monotonic()
    for one in scene.members:
        one.ask("connect")
    coordinator.ask("assemble", sizes.members)
    took_s = time.monotonic() - began_s
    time.sleep(REST_S)
    each = (coordinator.ask("memory_bytes") - idle) / sizes.members
    light = (sum(one.ask("memory_bytes") for one in scene.members) - light) // sizes.members
    busy_s = coordinator.ask("processor_s")
    time.sleep(CPU_S)
    busy = (coordinator.ask("processor_s") - busy_s) / CPU_S
    scene.report.add(
        Row(
            name=f"memory of the coordinator for an idle member, {sizes.members} of them",
            unit="KiB", ours=each / KIB, target=200, at="most", trials=sizes.members,
            note=f"all connected after {took_s:.1f} s; idle they take {100 * busy:.1f} % of a "
            f"processor; a light member's own share of its process is {light / KIB:.0f} KiB",
        )
    )  # fmt: skip


def _rounds(scene: _Scene) -> None:
    took_s, growth = [], []
    for number in range(1, scene.sizes.rounds + 1):
        idle = scene.coordinator.ask("forget_peak")
        took_s.append(scene.coordinator.ask("round", number))
        growth.append(scene.coordinator.ask("peak_bytes") - idle)
    scene.report.add(
        Row(
            name=f"round with all of {scene.sizes.members}, {DIMENSION} float32 down and uint32 up",
            unit="s", ours=median(took_s), trials=len(took_s),
            note=f"without masks; slowest {max(took_s):.1f} s; the coordinator's memory grew by "
            f"{max(growth) / MIB:.0f} MiB",
        )
    )  # fmt: skip


def _storms(scene: _Scene) -> None:
    """Every connection is cut at once, and members come back as their sessions do."""
    took_s, growth = [], []
    for _ in range(scene.sizes.storms):
        idle = scene.coordinator.ask("forget_peak")
        began_s = time.monotonic()
        for one in scene.members:
            one.tell("cut")
        cut = sum(one.answer() for one in scene.members)
        scene.coordinator.ask("assemble_again", scene.sizes.members, cut)
        took_s.append(time.monotonic() - began_s)
        time.sleep(REST_S)
        growth.append(scene.coordinator.ask("peak_bytes") - idle)
    scene.report.add(
        Row(
            name=f"reconnect storm, {scene.sizes.members} connections cut at once: all are back",
            unit="s", ours=median(took_s), trials=len(took_s),
            note=f"slowest {max(took_s):.1f} s; the coordinator's memory grew by "
            f"{max(growth) / MIB:.0f} MiB at most",
        )
    )  # fmt: skip


def _restart(scene: _Scene, parts: list[tuple[str, ...]]) -> None:
    """The coordinator is killed and started again on its port."""
    scene.coordinator.kill()
    began_s = time.monotonic()
    folder, count = scene.here.folder, sum(map(len, parts))
    with process("coordinator", folder, count, scene.ports[0]) as coordinator:
        coordinator.ask("listen")
        listening_s = time.monotonic()
        coordinator.ask("assemble", count)
        took_s = time.monotonic() - listening_s
    scene.report.add(
        Row(
            name=f"coordinator killed and started again: all {count} are back",
            unit="s", ours=took_s, trials=1,
            note=f"from when it listened, {listening_s - began_s:.1f} s after it was killed",
        )
    )  # fmt: skip


def _bodies(scene: _Scene, strangers: Process) -> None:
    """A gibibyte in each way; the coordinator's peak above what it had before."""
    growth: dict[str, int] = {}
    taken: dict[str, int] = {}
    for kind in BODIES:
        idle = scene.coordinator.ask("forget_peak")
        taken[kind] = strangers.ask("body", kind)
        growth[kind] = scene.coordinator.ask("peak_bytes") - idle
    headers = growth.pop(HEADERS_WITHOUT_END)
    worst = max(growth, key=lambda kind: growth[kind])
    said = ", ".join(f"{kind} {taken[kind] / MIB:.1f}" for kind in growth)
    scene.report.add(
        Row(
            name="a body of 1 GiB before authentication: growth of the coordinator's memory",
            unit="MiB", ours=growth[worst] / MIB, target=16, at="most", trials=len(growth),
            note=f"largest for: {worst}; MiB taken before it was refused: {said}",
        )
    )  # fmt: skip
    scene.report.add(
        Row(
            name="headers without an end at the enrolment port: growth of the coordinator's memory",
            unit="MiB", ours=headers / MIB, trials=1,
            note=f"{taken[HEADERS_WITHOUT_END] / MIB:.0f} MiB taken; gRPC reads and drops them",
        )
    )  # fmt: skip


def _crowds(scene: _Scene, strangers: Process) -> None:
    """A member's round trips with and without strangers, in turns."""
    sizes = scene.sizes
    for name, target, attack in (
        (f"{sizes.half_open} half-open connections at the members' port", 2.0,
         ("half_open", "members", sizes.half_open)),
        (f"{sizes.half_open} half-open connections at the enrolment port", 2.0,
         ("half_open", "enrolment", sizes.half_open)),
        (f"{sizes.slow} connections that say a byte a second", 2.0,
         ("slow", "members", sizes.slow)),
        ("10000 requests a second that are taken back at once", None, ("resets", 10_000)),
        ("200 requests whose bodies never end", None, ("trickle", 200)),
    ):  # fmt: skip
        calm, busy, growth, did = _turns(scene, strangers, attack)
        scene.report.add(
            Row(
                name=f"{name}: p99 of a member's round trip, over that without them",
                unit="ms", ours=1000 * median(busy), peer_name="without", peer=1000 * median(calm),
                ratio=median(busy) / median(calm), target=target,
                at="most" if target is not None else None, bounds="ratio", trials=len(busy),
                note=f"in all {did} of them; memory grew by {growth / MIB:.0f} MiB; "
                f"{scene.coordinator.ask('connected')} members connected after it",
            )
        )  # fmt: skip


def _turns(
    scene: _Scene, strangers: Process, attack: tuple[str | int, ...]
) -> tuple[list[float], list[float], int, int]:
    """p99 without and with an attack, turn by turn; growth of memory, and how much was done."""
    calm, busy, growth, did = [], [], 0, 0
    for _ in range(scene.sizes.turns):
        calm.append(_p99(scene))
        idle = scene.coordinator.ask("forget_peak")
        strangers.ask("begin", *attack)
        time.sleep(REST_S)
        busy.append(_p99(scene))
        growth = max(growth, scene.coordinator.ask("peak_bytes") - idle)
        did += strangers.ask("end")
        time.sleep(1.0)
    return calm, busy, growth, did


def _p99(scene: _Scene) -> float:
    took_s = sorted(scene.coordinator.ask("round_trips", scene.here.names[0], scene.sizes.window_s))
    return float(took_s[int(0.99 * (len(took_s) - 1))])


if __name__ == "__main__":
    main("many_members", __doc__ or "", measure)
