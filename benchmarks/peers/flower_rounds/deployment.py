"""Starts a SuperLink and its SuperNodes on loopback, runs the timing app, ends everything.

What favours the peer: no TLS, no node authentication, no evaluation and no strategy (a bare loop
over ``Grid.send_and_receive``), state in memory. What is stock: every polling interval, and a new
process for each ClientApp message (``--isolation subprocess``). Nothing leaves the machine:
telemetry, the update check and the installation of an app's dependencies are off.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.peers.environment import PeerError, environment

__all__ = ["PEER_NAME", "measure"]

PEER_NAME = "flwr 1.41 SuperLink"

_REQUIREMENTS = ("flwr==1.41.*", "numpy>=2.4,<3", "click<8.5")  # click 8.5 makes flwr 1.41 warn
_APP = Path(__file__).resolve().parent / "app"
_CONNECTION = "loopback"
_START_S = 60.0
_ROUND_S = 30.0
_END_S = 10.0
_TAIL_CHARS = 3000
# A process that ended meanwhile or belongs to somebody else.
_PASSED_OVER = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


def measure(rounds: int, members: int = 3, dimension: int = 100_000) -> list[float]:
    """Returns the seconds of each round: one float32 vector down, one back from every node.

    One more round runs first as a warm-up and is left out. The app checks every sum. A round
    begins before the messages are made and ends when the replies are summed.

    Args:
        rounds: number of timed rounds, at least 1.
        members: number of SuperNodes, each a process of its own.
        dimension: coordinates of the vector.

    Returns:
        ``rounds`` durations in seconds, in order.

    Raises:
        PeerError: the peer could not be installed or started, a sum was wrong, or the rounds took
            longer than a generous deadline; the message ends with the peer's last log lines.
    """
    if min(rounds, members, dimension) < 1:
        raise PeerError("flower: rounds, members and dimension must be at least 1")
    programs = environment("flower", _REQUIREMENTS) / "bin"
    with tempfile.TemporaryDirectory(prefix="flower-rounds-") as name, ExitStack() as cleanup:
        deployment = _Deployment(Path(name).resolve(), programs)
        cleanup.callback(deployment.end)
        link_port, *node_ports = _free_ports(1 + members)
        deployment.start_link(link_port)
        for number, port in enumerate(node_ports):
            deployment.start_node(number, port, link_port)
        return deployment.run_app(link_port, rounds + 1, members, dimension)[1:]


@dataclass(slots=True)
class _Deployment:
    """The peer's processes, all below one temporary folder, which also marks them as ours."""

    folder: Path
    programs: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_link(self, port: int) -> None:
        """Starts the SuperLink and waits until it listens."""
        options = ["--insecure", "--host", "127.0.0.1", "--port", str(port)]
        options.append("--disable-runtime-dependency-installation")
        link = self._start("superlink", ["flower-superlink", *options])
        deadline = time.monotonic() + _START_S
        while not _listens(port):
            if link.poll() is not None or time.monotonic() > deadline:
                raise PeerError(f"flower: the SuperLink did not start\n{self._tails()}")
            time.sleep(0.1)

    def start_node(self, number: int, port: int, link_port: int) -> None:
        """Starts one SuperNode; it connects by itself and the app waits for it."""
        options = ["--insecure", "--superlink", f"127.0.0.1:{link_port}"]
        options += ["--host", "127.0.0.1", "--port", str(port)]
        options += ["--node-config", f"number={number}"]
        self._start(f"supernode-{number}", ["flower-supernode", *options])

    def run_app(self, link_port: int, rounds: int, members: int, dimension: int) -> list[float]:
        """Submits the app, waits until the run has ended and returns the seconds of its rounds."""
        variables = self._variables("cli")
        home = Path(variables["FLWR_HOME"])
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
            f'address = "127.0.0.1:{link_port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        app = self.folder / "app"
        shutil.copytree(_APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        output = self.folder / "seconds.json"
        config = f"rounds={rounds} members={members} dimension={dimension} output='{output}'"
        command = [str(self.programs / "flwr"), "run", str(app), _CONNECTION]
        command += ["--run-config", config, "--stream"]
        limit_s = 2 * _START_S + rounds * _ROUND_S
        with (self.folder / "run.log").open("wb") as log:
            try:
                # With --stream the command ends when the run does.
                subprocess.run(
                    command,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise PeerError(
                    f"flower: {rounds} rounds took more than {limit_s:.0f} s\n{self._tails()}"
                ) from None
        if not output.is_file():
            raise PeerError(f"flower: the run failed\n{self._tails()}")
        seconds = [float(value) for value in json.loads(output.read_text(encoding="utf-8"))]
        if len(seconds) != rounds or not all(math.isfinite(s) and s > 0 for s in seconds):
            raise PeerError(f"flower: the app reported {seconds} for {rounds} rounds")
        return seconds

    def end(self) -> None:
        """Ends every process below the temporary folder: politely first, then for good."""
        for own in reversed(self.processes):
            own.terminate()
        deadline = time.monotonic() + _END_S
        while time.monotonic() < deadline and self._alive():
            time.sleep(0.1)
        left = self._alive()
        for process in left:
            with suppress(*_PASSED_OVER):
                process.kill()
        psutil.wait_procs(left, timeout=_END_S)
        for own in self.processes:
            own.wait()

    def _alive(self) -> list[psutil.Process]:
        """Processes of this deployment that still run, the detached ones among them.

        Flower detaches some of its processes; all inherit FLWR_HOME, which lies below our folder.
        """
        for own in self.processes:
            own.poll()
        mine = []
        for process in psutil.process_iter():
            with suppress(*_PASSED_OVER):
                if process.environ().get("FLWR_HOME", "").startswith(f"{self.folder}{os.sep}"):
                    mine.append(process)
        return mine

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.programs / command[0]), *command[1:]],
                env=self._variables(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def _variables(self, name: str) -> dict[str, str]:
        """The whole environment of one peer process; nothing of ours, no proxy, no telemetry."""
        home = self.folder / f"home-{name}"
        home.mkdir()
        return {
            "PATH": f"{self.programs}{os.pathsep}{os.defpath}",
            "HOME": str(home),
            "TMPDIR": str(self.folder),
            "LANG": "C.UTF-8",
            "NO_PROXY": "*",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        }

    def _tails(self) -> str:
        """The end of every log, for an error message; the run's own log comes last."""
        logs = sorted(self.folder.glob("*.log"), key=lambda log: (log.stem == "run", log.stem))
        return "\n".join(
            f"--- {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-_TAIL_CHARS:]}"
            for log in logs
        )


def _free_ports(count: int) -> list[int]:
    """Distinct loopback ports that were free a moment ago."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
