"""Adapted models on disk: whole, private to their owner, and taken for nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from client_sdk.recipes.model_file import ADAPTED, is_adapted, load_model, save_model
from client_sdk.recipes.propensity.adaptation import Adaptation
from client_sdk.recipes.propensity.adapted_file import AdaptedModel, load_adapted, save_adapted
from privacy.errors import RecipeError
from tests.conftest import make_terms

TERMS = make_terms()
PARAMETERS = np.arange(TERMS.dimension, dtype=np.float32)
MODEL = AdaptedModel(TERMS, PARAMETERS, 7, Adaptation(-1.25, 0.75, 0.5, "tree\nversion=v4\n"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "adapted.safetensors"
    save_adapted(file, MODEL)
    return file


def test_an_adapted_model_comes_back(path: Path) -> None:
    found = load_adapted(path)
    assert (found.terms, found.round_number, found.adaptation) == (TERMS, 7, MODEL.adaptation)
    np.testing.assert_array_equal(found.parameters, PARAMETERS)
    assert is_adapted(path)


def test_it_knows_consumers_so_its_owner_alone_may_read_it(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_readable_file_left_over_does_not_make_it_readable(tmp_path: Path) -> None:
    (tmp_path / "adapted.partial").write_bytes(b"left by a write that was killed")
    (tmp_path / "adapted.partial").chmod(0o644)
    save_adapted(tmp_path / "adapted.safetensors", MODEL)
    assert (tmp_path / "adapted.safetensors").stat().st_mode & 0o777 == 0o600


def test_trees_that_are_none_are_refused_when_they_are_asked(path: Path) -> None:
    adaptation = load_adapted(path).adaptation
    with pytest.raises(RecipeError, match="adapt the model again"):
        adaptation.logits(np.zeros((3, 2), np.float32), np.zeros(3))


def test_nothing_that_publishes_takes_it(path: Path) -> None:
    with pytest.raises(RecipeError, match="adapted to one member; it stays there"):
        load_model(path)


def test_a_published_model_is_none(tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    save_model(path, TERMS, PARAMETERS, round_number=1)
    assert not is_adapted(path)
    with pytest.raises(RecipeError, match="a published model, not an adapted one"):
        load_adapted(path)


def test_damaged_trees_are_not_read(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"version=v4", b"version=v5"))
    with pytest.raises(RecipeError, match="its trees are damaged; adapt the model again"):
        load_adapted(path)


@pytest.mark.parametrize(
    "changes",
    [{"weights": [1.0]}, {"weights": None}, {"weights": 1}, {"intercept": 1e999}, {"round": "x"}],
)
def test_papers_that_are_none_are_refused(path: Path, changes: dict[str, object]) -> None:
    with safe_open(path, framework="numpy") as file:
        papers = json.loads(file.metadata()[ADAPTED])
        arrays = {name: file.get_tensor(name) for name in ("parameters", "trees")}
    path.write_bytes(save(arrays, {ADAPTED: json.dumps(papers | changes)}))
    with pytest.raises(RecipeError, match="papers are not readable"):
        load_adapted(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert not is_adapted(tmp_path / "nothing")
    with pytest.raises(RecipeError, match="not a readable model"):
        load_adapted(tmp_path / "nothing")
