"""Starts nodes as forks of one process that has their modules loaded, so that a start is quick.

Loading torch takes a node seconds of processor, which says nothing about what a campaign or a test
is after; hundreds of starts would measure little else. A forked node is a process like any other.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final, cast

__all__ = ["start_forked"]

LOADED: Final = [
    "client_sdk.app",
    "client_sdk.cli",
    "client_sdk.process",
    "client_sdk.recipes.propensity.contribute",
    "privacy.accounting",
    "benchmarks.forked",
]


@functools.cache
def _context() -> ForkServerContext:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when it is loaded
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def start_forked(
    main: str,
    arguments: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """A process that has nothing to read, whose output goes nowhere and whose errors go to a file.

    Args:
        main: what it runs, as ``module:function``.
        arguments: of its command line, the command's name first.
        log: its error stream is added to this file.
        environment: on top of this process's when it first forked one.
    """
    process = _context().Process(
        target=_run, args=(main, list(arguments), log, dict(environment or {}))
    )
    process.start()
    return cast("subprocess.Popen[str]", _Forked(process))


def _run(main: str, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    with log.open("ab") as errors, Path(os.devnull).open("r+b") as nothing:
        for number, file in enumerate((nothing, nothing, errors)):
            os.dup2(file.fileno(), number)
    sys.argv = arguments
    module, name = main.split(":")
    getattr(importlib.import_module(module), name)()


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

    @property
    def returncode(self) -> int | None:
        """As `poll`."""
        return self.poll()

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
