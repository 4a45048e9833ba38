"""The house as a whole: what is shipped, what may be imported, what is generated."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("coordinator", "client_sdk", "protos", "privacy")

BLOCKED_IMPORT = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Block())
{program}
"""


def import_without(blocked: set[str], program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORT.format(blocked=blocked, program=program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_coordinator_imports_with_torch_blocked() -> None:
    program = "import coordinator.app, coordinator.cli, coordinator.strategy"
    done = import_without({"torch", "opacus", "duckdb", "pyarrow"}, program)
    assert done.returncode == 0, done.stderr


def test_the_base_install_imports_without_frameworks() -> None:
    paths = [path.relative_to(ROOT) for path in (ROOT / "privacy").rglob("*.py")]
    modules = sorted(".".join(path.with_suffix("").parts) for path in paths)
    assert "privacy.ledger.cli" in modules
    program = "\n".join(f"import {name}" for name in modules if "__" not in name)
    done = import_without({"torch", "opacus", "flwr", "grpc", "google", "duckdb"}, program)
    assert done.returncode == 0, done.stderr


def test_blocking_works() -> None:
    """The positive control of the two tests above."""
    done = import_without({"torch"}, "import torch")
    assert "blocked: torch" in done.stderr


@pytest.mark.parametrize("command", ["alliance-coordinator", "alliance-node"])
def test_a_missing_extra_is_said_in_one_sentence(command: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module = scripts[command].partition(":")[0]
    program = f"import sys; sys.argv = [{command!r}, 'run', 'x.toml']\n"
    program += f"from {module} import main; main()"
    done = import_without({"grpc", "flwr", "torch", "duckdb"}, program)
    assert done.returncode == 1
    assert f"pip install 'alliance[{command.removeprefix('alliance-')}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_generated_protocol_code_is_fresh(tmp_path: Path) -> None:
    generated = ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py"]
    sources = sorted(path.relative_to(ROOT) for path in (ROOT / "protos").rglob("*.proto"))
    assert sources
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}"]
        + [f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}", *map(str, sources)],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    for source in sources:
        for ending in generated:
            name = source.with_name(source.stem + ending)
            assert (ROOT / name).read_text() == (tmp_path / name).read_text(), "run: make protos"


def test_the_wheel_holds_the_four_packages_and_nothing_else(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    source = tmp_path / "source"
    for name in tracked:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == set(PACKAGES)
    expected = {name for name in tracked if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    assert names == {name for name in expected if (ROOT / name).is_file()}


def test_package_initialisers_that_must_stay_light_import_nothing() -> None:
    recipes = ROOT / "client_sdk" / "recipes"
    for path in [recipes / "__init__.py", *recipes.glob("*/__init__.py")]:
        tree = ast.parse(path.read_text())
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)], path


def test_help_is_there_for_every_command() -> None:
    for module in ("coordinator.cli", "client_sdk.cli", "privacy.ledger.cli"):
        done = subprocess.run(
            [sys.executable, "-c", f"from {module} import main; main()", "--help"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ("verify" if "ledger" in module else "run") in done.stdout
