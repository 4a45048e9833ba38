"""Configuration files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from client_sdk.policy import Policy
from coordinator.study_file import StudyFile
from privacy.errors import ConfigurationError
from protos.config import read_config, read_config_or_explain
from tests.coordinator.test_study_file import EVERYBODY


@pytest.mark.parametrize(
    "text",
    [
        b"most_epsilon = " + b"9" * 5000,
        b"most_epsilon = 0x" + b"f" * 5000,
        b"recipes = " + b"[" * 5000,
        b"most_epsilon = \xff",
        b"most_epsilon",
        b"most_epsilon = nan",
    ],
)
def test_what_is_no_configuration_is_said_in_one_sentence(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(text)
    for read in (read_config, read_config_or_explain):
        with pytest.raises(ConfigurationError, match=r"node\.toml: "):
            read(path, Policy)


def test_settings_that_contradict_each_other_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'study = "a"\npurpose = "b"\nrounds = 1\n[contract]\nconsumer_id = "c"\nlabel = "l"\n'
        '[contract.columns]\nkind = ["A", "B"]\n[recipe]\nmodel = "mlp"\nhidden = []\n'
    )
    read = read_config_or_explain(path, StudyFile)
    with pytest.raises(ConfigurationError, match=r"study a: recipe\.an mlp needs"):
        read.terms(alliance="test", everybody=EVERYBODY)
