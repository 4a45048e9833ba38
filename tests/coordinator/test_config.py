from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig
from privacy.errors import ConfigurationError
from protos.config import read_config

HEAD = 'state = "state"\n\n[deadlines]\n'


def read(folder: Path, text: str) -> CoordinatorConfig:
    path = folder / "coordinator.toml"
    path.write_text(HEAD + text)
    return read_config(path, CoordinatorConfig)


def test_how_long_members_are_waited_for_is_the_operators(tmp_path: Path) -> None:
    assert read(tmp_path, "assemble_s = 600.0\n").deadlines.assemble_s == 600.0


@pytest.mark.parametrize("name", ["round_s", "keys_s", "propose_s", "reconnect_grace_s"])
def test_deadlines_of_phases_are_sent_to_the_terms(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}: members sign .* terms' deadlines"):
        read(tmp_path, f"assemble_s = 600.0\n{name} = 30.0\n")
