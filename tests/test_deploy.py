"""Units and container file: what can be checked without a service manager and a builder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from client_sdk.cli import app as node_app
from coordinator.app import DRAIN_S
from coordinator.cli import app as coordinator_app

ROOT = Path(__file__).parent.parent
APPS: dict[str, typer.Typer] = {
    "alliance-coordinator": coordinator_app,
    "alliance-node": node_app,
}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNITS = {
    "coordinator": ROOT / "coordinator" / "deploy" / "alliance-coordinator.service",
    "client_sdk": ROOT / "client_sdk" / "deploy" / "alliance-node.service",
}
CONTAINER = ROOT / "coordinator" / "deploy" / "Containerfile"
MOST_EXPOSURE = 20
"""In tenths, of systemd-analyze's 10.0; both stand at 1.5."""

Stage = list[tuple[str, str]]


def parse_command(words: list[str]) -> dict[str, Any]:
    """What the real command makes of these words; nothing is run."""
    program, verb, *rest = words
    group = typer.main.get_command(APPS[Path(program).name])
    assert isinstance(group, click.Group)
    return group.commands[verb].make_context(verb, rest).params


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def stages() -> dict[str, Stage]:
    """The container file's instructions by stage, comments away and lines joined."""
    text = re.sub(r"^#.*\n", "", CONTAINER.read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = [("FROM", base)]
        else:
            stage.append((instruction, rest.strip()))
    return found


def built(name: str) -> Stage:
    """A target with what it is built on."""
    stage = stages()[name]
    base = stage[0][1]
    return (built(base) if base in stages() else []) + stage


@pytest.mark.parametrize("side", UNITS)
def test_a_unit_runs_what_the_command_takes(side: str) -> None:
    unit = settings(UNITS[side])
    (command,) = unit["ExecStart"]
    words = shlex.split(command)
    taken = parse_command(words)
    assert taken["log_format"] == "json"
    assert not Path(taken["config"]).is_absolute()  # in the working directory, beside its keys
    assert words[0] == f"/opt/alliance/bin/{Path(words[0]).name}"
    assert Path(words[0]).name in PROJECT["scripts"]
    (state,), (folder,) = unit["StateDirectory"], unit["WorkingDirectory"]
    assert folder == f"/var/lib/{state}"
    assert unit["User"] == unit["Group"] == [state] == [UNITS[side].stem]


@pytest.mark.parametrize("side", UNITS)
def test_a_unit_is_hardened(side: str) -> None:
    unit = settings(UNITS[side])
    for name, value in {
        "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
        "StateDirectoryMode": "0700", "UMask": "0077", "LimitCORE": "0", "PrivateTmp": "yes",
        "CapabilityBoundingSet": "", "Restart": "on-failure",
        "SystemCallFilter": "@system-service",
    }.items():  # fmt: skip
        assert unit[name] == [value], name
    assert "ReadWritePaths" not in unit


def test_stopping_waits_for_the_open_round() -> None:
    unit = settings(UNITS["coordinator"])
    assert float(unit["TimeoutStopSec"][0]) >= DRAIN_S + 10
    assert unit["SuccessExitStatus"] == ["143"]  # what a drain that took too long ends with


@pytest.mark.parametrize("side", UNITS)
def test_systemd_takes_a_unit(tmp_path: Path, side: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine: apt-get install systemd")
    unit = tmp_path / UNITS[side].name
    text = UNITS[side].read_text().replace("/opt/alliance/bin", str(tmp_path))
    unit.write_text(text)
    (tmp_path / UNITS[side].stem).write_text("#!/bin/sh\n")
    (tmp_path / UNITS[side].stem).chmod(0o755)
    for command in (
        ["systemd-analyze", "verify", str(unit)],
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSURE}",
            str(unit),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr.lower()


@pytest.mark.parametrize("side", UNITS)
def test_the_readme_and_the_unit_name_the_same_places(side: str) -> None:
    text = (ROOT / side / "README.md").read_text()
    unit = settings(UNITS[side])
    for part in (UNITS[side].name, unit["WorkingDirectory"][0], unit["User"][0]):
        assert part in text, part
    assert "/opt/alliance" in text
    assert f"{side}/deploy/{UNITS[side].name}" in text


@pytest.mark.parametrize(("target", "program"), [("coordinator", 0), ("node", 1)])
def test_an_image_runs_what_the_command_takes_and_not_as_root(target: str, program: int) -> None:
    name = list(APPS)[program]
    last = dict(built(target))
    (entry,) = re.findall(r'"([^"]+)"', last["ENTRYPOINT"])
    assert entry == name
    taken = parse_command([entry, *re.findall(r'"([^"]+)"', last["CMD"])])
    assert taken["log_format"] == "json"
    assert last["USER"] == "10001"
    assert "useradd --system --uid 10001" in " ".join(rest for _, rest in built(target))
    assert last["VOLUME"] == last["WORKDIR"] == "/state"
    assert last["STOPSIGNAL"] == "SIGTERM"
    installed = " ".join(rest for _, rest in stages()[f"{target}-installed"])
    (extra,) = re.findall(r"\.whl\)\[(\w+)\]", installed)
    assert extra in PROJECT["optional-dependencies"]
    assert extra == target


def test_images_hold_the_packages_and_nothing_secret() -> None:
    copied = set()
    for stage in stages().values():
        for instruction, rest in stage:
            assert instruction in {
                "FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "STOPSIGNAL", "USER", "EXPOSE",
                "ENTRYPOINT", "CMD",
            }  # fmt: skip
            if instruction == "COPY" and not rest.startswith("--from="):
                copied |= set(rest.split()[:-1])
            if instruction == "ENV":
                assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD", rest)
    packages = {"privacy", "protos", "client_sdk", "coordinator"}
    assert copied == packages | {"pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in copied)


def test_the_images_python_and_torch_are_those_of_the_project() -> None:
    text = CONTAINER.read_text()
    (version,) = set(re.findall(r"python:(\d+\.\d+)-", text))
    least = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, least.split(".")))
    (torch,) = re.findall(r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"install --no-cache-dir {torch} " in re.sub(r"\s+", " ", text)
    for stage in stages().values():
        base = stage[0][1]
        assert base in stages() or base.startswith("docker.io/library/python:")
