from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from client_sdk.config import NodeConfig
from coordinator.config import CoordinatorConfig
from protos.config import read_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "model"), [("node", NodeConfig), ("coordinator", CoordinatorConfig)]
)
def test_sample_configurations_are_valid(
    tmp_path: Path, name: str, model: type[NodeConfig] | type[CoordinatorConfig]
) -> None:
    (sample,) = re.findall(rf"```toml\n# {name}.toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / f"{name}.toml"
    path.write_text(sample)
    read_config(path, model).relative_to(tmp_path)


@pytest.mark.parametrize("command", re.findall(r"^alliance-(\w+ [\w-]+)", README, re.MULTILINE))
def test_commands_exist(command: str) -> None:
    side, verb = command.split()
    module = {"node": "client_sdk", "coordinator": "coordinator", "audit": "privacy.ledger"}[side]
    done = subprocess.run(
        [sys.executable, "-c", f"from {module}.cli import main; main()", verb, "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+) +#", README, re.MULTILINE))
    assert targets == {"demo", "test"}
    for target in targets | set(re.findall(r"`make (\w+)`", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_linked_files_exist() -> None:
    for path in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
