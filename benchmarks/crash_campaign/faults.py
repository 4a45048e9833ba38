"""What happens to an alliance: kills at chosen steps, stops, bad lines, full disks."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from benchmarks.crash_campaign.alliance import COORDINATOR, CrashAlliance
from benchmarks.crash_campaign.steps import BETWEEN, COORDINATOR_STEPS, MEMBER_STEPS
from benchmarks.crash_campaign.study import MEMBERS

__all__ = ["FAULTS", "Deaths", "Fault", "Kill", "Scene", "can_mount", "kills"]

WAIT_S: Final = 4.0
"""For a process to come to the step in which it is to die; then it dies where it is."""
WAIT_ONCE_S: Final = 60.0
"""The same for steps that a study has but once."""
ONCE: Final = ("propose", "publish")
LOOK_S: Final = 0.0003
LATER_S: Final = 0.004
"""After a step began, at most; most of them are shorter."""
START_S: Final = 3.0
"""Into a start, at most, for a process that dies while it starts."""


@dataclass(slots=True)
class Deaths:
    """Who died in one fault.

    Args:
        at_s: of the last kill, on the monotonic clock: recovery is counted from it.
        died: each killed process with the steps it died in.
    """

    at_s: float = 0.0
    died: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def kill(self, alliance: CrashAlliance, names: Collection[str]) -> None:
        """Kills processes at once."""
        died = alliance.kill(names)
        self.at_s = time.monotonic()
        self.died += died.items()


@dataclass(frozen=True, slots=True)
class Kill:
    """One process to be killed, with others at the same moment.

    Args:
        step: it dies in, if it comes to it; ``BETWEEN``: whenever.
        others: sides that die with it.
    """

    target: str
    step: str
    others: tuple[str, ...] = ()

    def __call__(self, alliance: CrashAlliance, draw: random.Random) -> Deaths:
        """Kills, and starts again; the first moment and who died where."""
        names, died = (self.target, *self.others), Deaths()
        if self.step == "starting":
            died.kill(alliance, (self.target,))
            alliance.start_again(self.target)
            time.sleep(draw.uniform(0, START_S))
        elif self.step == BETWEEN:
            time.sleep(draw.uniform(0, 0.3))
        elif self.step == "failure":  # more members die than may, and then the coordinator
            died.kill(alliance, self.others)
            _come_to(alliance, self)
            names = (self.target,)
        else:
            _come_to(alliance, self)
            time.sleep(draw.choice((0.0, draw.uniform(0, LATER_S))))
        died.kill(alliance, names)
        for name in (self.target, *self.others):
            alliance.start_again(name)
        return died


def _come_to(alliance: CrashAlliance, kill: Kill) -> None:
    """Waits until the process is in its step, but not for long."""
    wait_s = WAIT_ONCE_S if kill.step in ONCE else WAIT_S
    until_s, steps = time.monotonic() + wait_s, alliance.steps[kill.target]
    while not steps.is_in(kill.step) and time.monotonic() < until_s:
        time.sleep(LOOK_S)


def kills(draw: random.Random) -> Iterator[Kill]:
    """Kills without end: every step of every side comes up before any comes up again."""
    while True:
        steps = [(COORDINATOR, step) for step in (*COORDINATOR_STEPS, BETWEEN)]
        steps += [(draw.choice(MEMBERS), step) for step in (*MEMBER_STEPS, BETWEEN)]
        draw.shuffle(steps)
        for target, step in steps:
            if step in ONCE:
                continue  # `life` has them at the beginning and at the end
            others = [name for name in (COORDINATOR, *MEMBERS) if name != target]
            count = draw.choices((0, 1, 2, 4), (30, 30, 20, 20))[0]
            if step == "failure":
                others, count = list(MEMBERS), 2
            yield Kill(target, step, tuple(draw.sample(others, count)))


class Scene(Protocol):
    """What other faults need."""

    alliance: CrashAlliance
    draw: random.Random
    disks: dict[str, Path]
    """File systems that may run full, by side."""
    restart_database: Callable[[], None] | None


def _hold(scene: Scene, least_s: float, most_s: float) -> None:
    time.sleep(scene.draw.uniform(least_s, most_s))


def _some(scene: Scene) -> list[str]:
    return scene.draw.sample(MEMBERS, scene.draw.choice((1, 1, 2, 4)))


def part(scene: Scene) -> None:
    """Parts members from the coordinator: not a packet passes, nobody is told."""
    members = _some(scene)
    scene.alliance.links.lose(members, 1.0)
    _hold(scene, 0.5, 8.0)
    scene.alliance.links.mend(members)


def part_all(scene: Scene) -> None:
    """Parts the coordinator from everybody."""
    scene.alliance.links.lose(MEMBERS, 1.0)
    _hold(scene, 0.5, 8.0)
    scene.alliance.links.mend(MEMBERS)


def cut(scene: Scene) -> None:
    """Resets connections a few times, as a firewall does that was restarted."""
    for _ in range(scene.draw.randint(1, 4)):
        scene.alliance.links.cut(_some(scene))
        _hold(scene, 0.0, 0.5)


def lose(scene: Scene) -> None:
    """Loses 20 % of packets, with latency."""
    members = _some(scene)
    scene.alliance.links.lose(members, 0.2, scene.draw.choice((0.05, 0.2, 2.0)))
    _hold(scene, 3.0, 8.0)
    scene.alliance.links.mend(members)


def stop(scene: Scene) -> None:
    """Stops a process in the middle of whatever it does, and lets it go on."""
    name = scene.draw.choice((COORDINATOR, *MEMBERS))
    process = scene.alliance.process(name)
    process.send_signal(signal.SIGSTOP)
    _hold(scene, 0.2, 6.0)
    process.send_signal(signal.SIGCONT)


def fill(scene: Scene) -> None:
    """Fills the disk of one side to the last byte, and makes room again."""
    folder = scene.disks[scene.draw.choice(sorted(scene.disks))]
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
        until_s = time.monotonic() + scene.draw.uniform(0.5, 4.0)
        while time.monotonic() < until_s:
            time.sleep(0.1)
    filler.unlink()


def restart_database(scene: Scene) -> None:
    """Has the database server crash and start again."""
    if scene.restart_database is not None:
        scene.restart_database()


Fault = Callable[[Scene], None]

FAULTS: Final[dict[str, Fault]] = {
    "members parted": part,
    "coordinator parted from all": part_all,
    "connections reset": cut,
    "20 % of packets lost, with latency": lose,
    "SIGSTOP and SIGCONT": stop,
    "disk full": fill,
    "database server crashed": restart_database,
}
"""By name; those that need a disk of their own or a server are left out where there is none."""


@functools.cache
def can_mount() -> bool:
    """Whether this process may make file systems."""
    if os.geteuid() != 0:
        return False
    with TemporaryDirectory(prefix="crash-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        allowed = subprocess.run(command, check=False, capture_output=True).returncode == 0
        if allowed:
            subprocess.run(["umount", folder], check=True)
        return allowed
