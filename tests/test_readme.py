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


def prose(text: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def sections(text: str) -> list[tuple[str, str]]:
    """By heading: its level, and the prose that follows."""
    parts = re.split(r"^(#+) .*\n", prose(text), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE)


def shared(text: str) -> dict[str, list[str]]:
    """What a section says alike in two languages."""
    text = text.replace("README.zh-CN.md", "README.md")
    words = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    return {
        "figures": sorted(re.findall(r"\d+(?:\.\d+)?", words)),
        "code": sorted(set(re.findall(r"`[^`]+`", text))),
        "links": sorted(re.findall(r"\]\(([^)]+)\)", text)),
    }


CHINESE = (ROOT / "README.zh-CN.md").read_text()


def test_the_chinese_readme_has_the_same_headings_blocks_figures_code_and_links() -> None:
    english, chinese = sections(README), sections(CHINESE)
    assert [level for level, _ in chinese] == [level for level, _ in english]
    assert blocks(CHINESE) == blocks(README)
    for (_, ours), (_, theirs) in zip(english, chinese, strict=True):
        assert shared(theirs) == shared(ours)


def test_the_chinese_readme_is_set_as_chinese_is() -> None:
    text = re.sub(r"\]\([^)]*\)", "]", prose(CHINESE)).replace("**", "")
    han, marks = "[\u4e00-\u9fff]", "[，。；：、！？（）]"
    crowded = (rf"{han}[A-Za-z0-9`]", rf"[A-Za-z0-9`%]{han}", rf"{han}[,;:!?]", rf"[,;:!?] *{han}")
    for wrong in (*crowded, rf"{han} {marks}", rf"{marks} {han}"):
        assert re.search(wrong, text) is None, re.search(f".{{0,9}}{wrong}.{{0,9}}", text)
