"""A whole alliance on this machine: one coordinator and its members as separate processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.forked import start_forked
from coordinator.config import CoordinatorConfig
from coordinator.study_desk import StudyDesk
from privacy.errors import AllianceError
from privacy.identity import Identity
from privacy.terms import Terms
from protos.config import read_config

__all__ = ["LocalAlliance", "LocalMember"]

STOP_S = 5.0
"""A process that was asked to stop is killed after this long."""
SAMPLE_S = 0.5
"""Between two looks at the memory."""


@dataclass(frozen=True, slots=True)
class LocalMember:
    """One member to start.

    Args:
        identity: what it signs with; the roster names its public half.
        data: the ``[data]`` table of its configuration.
        policy: the ``[policy]`` table.
    """

    name: str
    identity: Identity
    declared_consumers: int
    data: Mapping[str, str]
    policy: Mapping[str, Any]


class LocalAlliance:
    """Writes configurations and certificates into a folder, starts the processes, and ends them.

    Args:
        folder: emptied by nobody; each side gets a folder of its own in it.
        study: terms, or a study's TOML file.
        members: in roster order.
        alliance: its name; needed with a file.
        propose: whether to have the study run at once, and the coordinator end with it; otherwise
            the coordinator stays, and commands say what happens.
        deadlines: the coordinator's ``[deadlines]`` table.
        database: the coordinator's, if not a file in its state folder.
        forked: whether nodes are forks of one process that has their modules loaded, as tests want
            that start hundreds.
        watch_memory: whether to look at the memory now and then, which takes time from the rounds.

    Raises:
        AllianceError: if a process ends before the study does; the message has its last words.
    """

    def __init__(
        self,
        folder: Path,
        study: Terms | Path,
        members: list[LocalMember],
        *,
        alliance: str = "",
        propose: bool = True,
        deadlines: Mapping[str, float] | None = None,
        forked: bool = False,
        watch_memory: bool = False,
        database: str | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.members = members
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self.peak_memory_bytes = 0
        self._study = study
        self._terms: Terms | None = None
        self._alliance = study.alliance if isinstance(study, Terms) else alliance
        self._contract = "contract.json" if isinstance(study, Terms) else "study.toml"
        self._proposes = propose
        self._deadlines = dict(deadlines or {})
        self._database = database
        self._forked = forked
        self._coordinator: subprocess.Popen[str] | None = None
        self._address = "127.0.0.1:0"
        self._watch_memory = watch_memory
        self._stopping = threading.Event()
        self._sampler = threading.Thread(target=self._sample_memory, daemon=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._certificates()
        self._configure_coordinator()
        if isinstance(self._study, Terms):
            (self.folder / "terms.json").write_text(self._study.model_dump_json(indent=1))
            contract = self._study.contract.model_dump_json(indent=1)
            (self.folder / "contract.json").write_text(contract)
        else:
            (self.folder / "study.toml").write_bytes(self._study.read_bytes())
        (self.folder / "roster.json").write_text(json.dumps(self._roster(), indent=1))
        if self._proposes:
            self._terms = self._propose()
        self._start_coordinator()
        if self._watch_memory:
            self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        processes = [self._coordinator, *self.nodes.values()]
        running = [process for process in processes if process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._sampler.is_alive():
            self._sampler.join()

    def restart_coordinator(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the coordinator and starts it again on the same port; `events` goes on with it."""
        self.stop_coordinator(how)
        self._start_coordinator()

    def stop_coordinator(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the coordinator."""
        if self._coordinator is not None:
            self._coordinator.send_signal(how)
            self._coordinator.wait()

    def restart_node(self, name: str) -> None:
        """Kills a node and starts it again."""
        self.nodes[name].kill()
        self.nodes[name].wait()
        self.nodes[name] = self._start("client_sdk.cli", name, self.folder / f"{name}.toml")

    def events(self) -> Iterator[dict[str, Any]]:
        """The coordinator's events until the study ends; starts the nodes once it listens.

        Raises:
            AllianceError: if the coordinator ends early.
        """
        finished, process = False, None
        while process is not self._coordinator:  # it was started again meanwhile
            process = self._coordinator
            if process is None or process.stdout is None:
                raise AllianceError("the alliance is not started; use it in a with statement")
            for line in process.stdout:
                if not line.endswith("\n"):
                    break  # it was killed while it wrote
                event: dict[str, Any] = json.loads(line)
                if event["event"] == "Listening":
                    self._listening(event["address"])
                finished |= event["event"] == "StudyFinished"
                yield event
            if process is not self._coordinator:
                process.stdout.close()
        if process is None:
            raise AllianceError("the alliance is not started; use it in a with statement")
        code = process.wait()
        if code != 0 or not finished:
            words = [f"the coordinator ended with {code}", self.log("coordinator")]
            words += [f"{name}: {self.log(name)}" for name in self.nodes]
            raise AllianceError("\n".join(words))

    def log(self, side: str, *, lines: int = 5) -> str:
        """The last lines a process wrote to its error stream."""
        path = self.folder / f"{side}.log"
        return (
            "\n".join(path.read_text(encoding="utf-8").splitlines()[-lines:])
            if path.exists()
            else ""
        )

    @property
    def terms(self) -> Terms:
        """Of the study that was proposed.

        Raises:
            AllianceError: if none was.
        """
        if self._terms is None:
            raise AllianceError("this alliance proposed no study")
        return self._terms

    def _propose(self) -> Terms:
        """Offers the study and has it run, as `alliance-coordinator study propose --start` does."""
        config = read_config(self._config, CoordinatorConfig).relative_to(self.folder)
        file = "terms.json" if isinstance(self._study, Terms) else "study.toml"
        with StudyDesk(config) as desk:
            record = desk.propose(self.folder / file, roster=self.folder / "roster.json")
            return desk.start(record.terms.label).terms

    def _roster(self) -> list[dict[str, Any]]:
        """As `alliance-coordinator members --json` lists members."""
        return [
            {
                "member": member.name,
                "identity": member.identity.public,
                "declared_consumers": member.declared_consumers,
            }
            for member in self.members
        ]

    @property
    def _config(self) -> Path:
        return self.folder / "coordinator.toml"

    def _configure_coordinator(self) -> None:
        database = f"database = {json.dumps(self._database)}\n" if self._database else ""
        self._config.write_text(
            f'listen = "{self._address}"\nalliance = "{self._alliance}"\n'
            'state = "coordinator-state"\n'
            + database
            + _tls("coordinator")
            + _table("deadlines", self._deadlines)
        )

    def _start_coordinator(self) -> None:
        self._configure_coordinator()
        self._coordinator = self._start(
            "coordinator.cli",
            "coordinator",
            self._config,
            "--json",
            *(("--until-finished",) if self._proposes else ()),
        )

    def _listening(self, address: str) -> None:
        """Starts the nodes once the coordinator's port is known; it keeps it from then on."""
        self._address = address
        if not self.nodes:
            for member in self.members:
                self._start_node(member, address)

    def _start_node(self, member: LocalMember, address: str) -> None:
        identity = self.folder / f"{member.name}.identity.pem"
        identity.touch(mode=0o600)
        identity.write_bytes(member.identity.pem())
        config = self.folder / f"{member.name}.toml"
        config.write_text(
            f'alliance = "{self._alliance}"\n'
            f'member = "{member.name}"\ndeclared_consumers = {member.declared_consumers}\n'
            f'coordinator = "{address}"\ncontract = "{self._contract}"\n'
            f'state = "{member.name}-state"\nidentity = "{identity.name}"\n'
            + _table("data", member.data)
            + _table("policy", member.policy)
            + _tls(member.name)
        )
        self.nodes[member.name] = self._start("client_sdk.cli", member.name, config)

    def _start(self, module: str, name: str, *arguments: Path | str) -> subprocess.Popen[str]:
        if self._forked and module.startswith("client_sdk"):
            return start_forked(
                f"{module}:main",
                ["alliance-node", "run", *map(str, arguments)],
                log=self.folder / f"{name}.log",
            )
        program = f"from {module} import main; main()"
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-c", program, "run", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if module.startswith("coordinator") else subprocess.DEVNULL,
                stderr=log,
                text=True,
                # One thread each: the members share this machine's cores.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def _certificates(self) -> None:
        program = "from coordinator.cli import main; main()"
        names = [part for member in self.members for part in ("--member", member.name)]
        subprocess.run(
            [sys.executable, "-c", program, "throw-away-authority", str(self.folder / "tls")]
            + ["--host", "127.0.0.1", "--host", "localhost", *names],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _sample_memory(self) -> None:
        """Proportional set size of this process and all it started, at its peak."""
        own = psutil.Process()
        while not self._stopping.wait(SAMPLE_S):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_memory_bytes = max(self.peak_memory_bytes, total)


def _tls(name: str) -> str:
    files = {"key": "key.pem", "certificate": "certificate.pem", "authority": "authority.pem"}
    return _table("tls", {key: f"tls/{name}/{file}" for key, file in files.items()})


def _table(name: str, values: Mapping[str, Any]) -> str:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"\n[{name}]\n{lines}"
