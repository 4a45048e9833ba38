from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from client_sdk.recipes.model_file import FORMAT, load_model, save_model
from privacy.errors import ConfigurationError, RecipeError
from tests.conftest import make_terms

TERMS = make_terms()
PARAMETERS = np.arange(TERMS.dimension, dtype=np.float32)


def test_a_model_comes_back_with_its_papers(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, TERMS, PARAMETERS, round_number=7)
    terms, parameters, round_number = load_model(path)
    assert (terms, round_number) == (TERMS, 7)
    np.testing.assert_array_equal(parameters, PARAMETERS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", save({"parameters": PARAMETERS}), save({"other": PARAMETERS})],
    ids=["empty", "garbage", "no papers", "no parameters"],
)
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"model\.safetensors"):
        load_model(path)


@pytest.mark.parametrize("papers", ['{"round": 1e999, "terms": {}}', '{"round": 1}', "[]", "1"])
def test_papers_that_are_none_are_refused(tmp_path: Path, papers: str) -> None:
    path = tmp_path / "model.safetensors"
    terms = TERMS.model_dump_json()
    data = save({"parameters": PARAMETERS}, {FORMAT: papers.replace("{}", terms)})
    path.write_bytes(data)
    with pytest.raises(RecipeError, match="papers are not readable"):
        load_model(path)


def test_parameters_that_do_not_fit_their_terms_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, TERMS, PARAMETERS[:-1], round_number=1)
    with pytest.raises(RecipeError, match="do not fit"):
        load_model(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a readable model"):
        load_model(tmp_path / "nothing")


def test_a_full_disk_is_said_and_the_older_model_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, TERMS, PARAMETERS, round_number=1)
    path.with_suffix(".partial").symlink_to("/dev/full")
    with pytest.raises(ConfigurationError, match=r"No space left on device\); make room"):
        save_model(path, TERMS, PARAMETERS, round_number=2)
    assert load_model(path)[2] == 1
    save_model(path, TERMS, PARAMETERS, round_number=2)
    assert load_model(path)[2] == 2
