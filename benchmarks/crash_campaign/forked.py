"""Starts nodes as forks of one process that has their modules loaded, so that a start is quick.

Loading torch takes a node seconds of processor, which says nothing about crashes; a campaign that
starts a thousand nodes would measure little else. A forked node is a process like any other.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final, cast

from benchmarks.crash_campaign.steps import LEFT, MAP, main

__all__ = ["start_node"]

LOADED: Final = [
    "privacy.accounting",
    "client_sdk.app",
    "client_sdk.canaries",
    "client_sdk.cli",
    "client_sdk.process",
    "client_sdk.recipes.propensity.contribute",
    "benchmarks.crash_campaign.forked",
]


@functools.cache
def _context() -> ForkServerContext:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when it is loaded
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def start_node(config: str, *, log: Path, steps: Path, left: Path) -> subprocess.Popen[str]:
    """A node, as `LocalAlliance` handles it.

    Args:
        config: its node.toml.
        log: its error stream is added to this file.
        steps: of `Steps`.
        left: where it notes what leaves.
    """
    process = _context().Process(target=_run, args=(config, log, steps, left))
    process.start()
    return cast("subprocess.Popen[str]", _Forked(process))


def _run(config: str, log: Path, steps: Path, left: Path) -> None:
    os.setsid()
    os.environ[MAP], os.environ[LEFT] = str(steps), str(left)
    with log.open("ab") as errors, Path(os.devnull).open("r+b") as nothing:
        for number, file in enumerate((nothing, nothing, errors)):
            os.dup2(file.fileno(), number)
    sys.argv = ["alliance-node", "run", config]
    main("client_sdk.cli")


class _Forked:
    """What `LocalAlliance` uses of a `Popen`.

    Args:
        process: which has started.
    """

    stdout = None

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    def poll(self) -> int | None:
        """Its exit code, once there is one."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("node", timeout or 0.0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """As `Popen` does: nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)
