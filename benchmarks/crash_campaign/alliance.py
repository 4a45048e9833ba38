"""An alliance whose processes note their steps, reach each other through relays, and are tended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from benchmarks.crash_campaign.links import Links
from benchmarks.crash_campaign.steps import LEFT, MAP, Left, Steps, read_left
from benchmarks.crash_campaign.study import MEMBERS, local_members
from benchmarks.forked import start_forked
from benchmarks.local_alliance import LocalAlliance
from privacy.terms import Terms

__all__ = ["COORDINATOR", "CrashAlliance", "Seen"]

COORDINATOR: Final = "coordinator"
DEADLINES: Final = {"assemble_s": 300.0}
DELAY_S: Final = 0.01
"""Each way, as between institutions of one country."""
LISTEN_S: Final = 600.0
"""For the first start, on however busy a machine."""
PAUSE_S: Final = 0.5
"""Before a process that ended by itself is started again, as systemd would."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event of the coordinator's, and when it was read, on the monotonic clock."""

    at_s: float
    event: dict[str, Any]


class CrashAlliance(LocalAlliance):
    """Coordinator and nodes that are killed, stopped and parted, and started again.

    Args:
        folder: as in `LocalAlliance`.
        terms: the study (`study.make_terms`).
        database: the coordinator's, if not a file in its state folder.
    """

    def __init__(self, folder: Path, terms: Terms, *, database: str | None) -> None:
        folder.mkdir(parents=True)
        super().__init__(
            folder, terms, local_members(folder), deadlines=DEADLINES, database=database
        )
        self.links = Links(DELAY_S)
        self.steps = {name: Steps(folder / f"{name}.steps") for name in (COORDINATOR, *MEMBERS)}
        self.seen: list[Seen] = []
        self.closed: list[Seen] = []
        """Of `seen`, the releases that the coordinator told."""
        self.finished = False
        self.ended: list[str] = []
        """Last words of processes that ended by themselves."""
        self._readers: list[threading.Thread] = []
        self._listens = threading.Event()

    def __enter__(self) -> CrashAlliance:
        self.links.__enter__()
        super().__enter__()
        self._follow()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        for reader in self._readers:
            reader.join()
        self.links.__exit__(kind, error, trace)

    # Processes.

    def process(self, name: str) -> subprocess.Popen[str]:
        """A side's present process."""
        if name != COORDINATOR:
            return self.nodes[name]
        assert self._coordinator is not None
        return self._coordinator

    def kill(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Kills processes as close together as can be; the steps in which each one died."""
        for name in names:
            self.process(name).send_signal(signal.SIGKILL)
        for name in names:
            self.process(name).wait()
        return {name: self.steps[name].inside for name in names}

    def start_again(self, name: str) -> None:
        """Starts a side whose process has ended."""
        if name == COORDINATOR:
            self._start_coordinator()
            self._follow()
        else:
            self.restart_node(name)

    def tend(self) -> None:
        """Starts what ended by itself; the coordinator's end after its study is no such thing."""
        for name in (COORDINATOR, *self.nodes):
            code = self.process(name).poll()
            if code is None or (name == COORDINATOR and (self.finished or code == 0)):
                continue
            self.ended.append(f"{name} ended with {code}: {self.log(name, lines=1)[-300:]}")
            time.sleep(PAUSE_S)
            self.start_again(name)

    # What is known of them.

    def left(self, name: str) -> tuple[Left, ...]:
        """Contributions that a node handed to its link, over all its processes."""
        return read_left(self.folder / f"{name}.left")

    # As the alliance of `LocalAlliance`, with these differences.

    def _start_node(self, member: Any, address: str) -> None:
        super()._start_node(member, self.links.open(member.name, address))

    def _start(self, module: str, name: str, *arguments: Path | str) -> subprocess.Popen[str]:
        self.steps[name].begin()
        steps, log = self.steps[name].path, self.folder / f"{name}.log"
        if name != COORDINATOR:
            return start_forked(
                "benchmarks.crash_campaign.steps:run_node",
                ["alliance-node", "run", *map(str, arguments)],
                log=log,
                environment={MAP: str(steps), LEFT: str(self.folder / f"{name}.left")},
            )
        program = "from benchmarks.crash_campaign.steps import run_coordinator as run; run()"
        with log.open("a", encoding="utf-8") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", program, "run", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {MAP: str(steps)},
                start_new_session=True,
            )

    def _follow(self) -> None:
        """Reads the present coordinator's events on a thread."""
        process = self.process(COORDINATOR)

        def read() -> None:
            assert process.stdout is not None
            with contextlib.suppress(ValueError), process.stdout:  # closed by `__exit__`
                for line in process.stdout:
                    if not line.endswith("\n"):
                        return  # it was killed while it wrote
                    self._take(json.loads(line))

        self._readers.append(threading.Thread(target=read, daemon=True))
        self._readers[-1].start()
        if not self._listens.wait(LISTEN_S):
            raise TimeoutError(f"the coordinator does not listen: {self.log(COORDINATOR)}")

    def _take(self, event: dict[str, Any]) -> None:
        """Notes one event; the first `Listening` starts the nodes."""
        if event["event"] == "Listening":
            self._listening(event["address"])
            self._listens.set()
        self.finished |= event["event"] == "StudyFinished"
        self.seen.append(Seen(time.monotonic(), event))
        if event["event"] == "RoundClosed":
            self.closed.append(self.seen[-1])
