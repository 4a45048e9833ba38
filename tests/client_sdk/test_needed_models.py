"""A study that needs a published model: members without it say so before anything is spent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from client_sdk.node import Node as Member
from client_sdk.recipes.evaluation import fold as evaluation
from client_sdk.recipes.holdout import Holdout
from client_sdk.recipes.model_file import encode_model
from privacy.errors import ConfigurationError
from privacy.sampling import EMPTY_SLOT, enrolment_cap
from privacy.terms import Terms
from tests.client_sdk.test_consent import Node, study
from tests.conftest import make_terms
from tests.coordinator.test_study_desk import Operator, operator

__all__ = ["operator"]

RULES = (
    'recipes = ["propensity", "evaluation"]\nmost_epsilon = 90.0\nmost_epsilon_local = 900.0\n'
    "[policy.budget]\nepsilon = 30.0\n"
)
PLAN = '\n[evaluation]\nepsilon = 8.0\nholdout = 0.5\nby = "kind"\n'


def model_file(**settings: float) -> bytes:
    terms = study(settings={"model": "logistic"} | settings)
    return encode_model(terms, np.ones(terms.dimension, dtype=np.float32), round_number=10)


def measuring(model: bytes, **settings: float) -> Terms:
    wanted = {"model": hashlib.sha256(model).hexdigest(), "study": "coupons", "least": 3.0}
    wanted |= settings
    terms = make_terms(
        declared=20, settings=wanted, noise_multiplier=4.0, rounds=2, max_attempts=2,
        sampling_probability=1.0,
    )  # fmt: skip
    size = evaluation.dimension(terms.contract, evaluation.Settings.model_validate(wanted))
    return terms.model_copy(
        update={"recipe": "evaluation", "study": "measuring", "dimension": size}
    )


def test_a_member_without_the_model_refuses_and_says_where_it_goes(tmp_path: Path) -> None:
    node, model = Node(tmp_path, RULES), model_file()
    terms = measuring(model)
    reply = node.propose(terms)
    assert reply.has_error()
    assert reply.error.reason == (
        f"study measuring: this member does not have the model {terms.settings['model']}; put its "
        "file, which the operator has, into the folder models in the node's state folder"
    )
    models = tmp_path / "state" / "models"
    (models / "coupons.safetensors").write_bytes(model)
    assert node.waits(terms) == ""
    held = node.node.model(terms)
    assert held is not None
    assert held.terms.study == "coupons"


def test_a_model_that_does_not_fit_is_refused_with_the_remedy(tmp_path: Path) -> None:
    node, model = Node(tmp_path, RULES), model_file()
    (tmp_path / "state" / "models" / "any-name.safetensors").write_bytes(model)
    reply = node.propose(measuring(model, holdout=0.8))
    assert "was trained with holdout 0; write 0" in reply.error.reason


def test_consumers_that_are_held_out_are_not_enrolled(tmp_path: Path) -> None:
    member: Member = Node(tmp_path, RULES).node
    held = Holdout("test", "coupons", 0.5)
    ids = member.dataset.consumer_ids
    for terms, inside in (
        (study(settings={"model": "logistic", "holdout": 0.5}), False),
        (measuring(model_file(holdout=0.5), holdout=0.5), True),
    ):
        rows = member.enrolment(terms).rows
        assert len(rows) == enrolment_cap(20)
        there = {ids[row] for row in rows if row != EMPTY_SLOT}
        assert there == {one for one in ids if (one in held) == inside}
        assert there


def test_a_plan_is_checked_shown_and_kept_with_the_study(operator: Operator) -> None:
    path = operator.folder / "study.toml"
    path.write_text(path.read_text() + PLAN)
    proposed = operator.propose()
    assert proposed["settings"]["holdout"] == 0.5
    assert 7.9 < proposed["evaluation"]["epsilon"]["1"] <= 8.0
    assert proposed["evaluation"]["holdout"] == 0.5
    assert 0 < proposed["evaluation"]["smallest_group"] < 125
    plans = list((operator.folder / "state" / "evaluations").iterdir())
    assert [one.stem for one in plans] == [proposed["terms_hash"]]
    with pytest.raises(ConfigurationError, match="its model is not there"):
        operator.do("evaluate", "coupons")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epsilon = 8.0", "epsilon = 0.05", r"a group is reported from \d+ consumers on"),
        ('by = "kind"', 'by = "region"', "region is no column of the contract"),
        ('by = "kind"', 'by = "spend"', "spend is a number and needs rising edges"),
        ("[evaluation]", "[recipe]\nholdout = 0.1\n[evaluation]", "write it in .evaluation. alone"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_is_proposed(
    operator: Operator, old: str, new: str, words: str
) -> None:
    path = operator.folder / "study.toml"
    path.write_text(path.read_text() + PLAN.replace(old, new))
    with pytest.raises(ConfigurationError, match=words):
        operator.propose()
    assert operator.do("list") == []


def test_a_model_that_nobody_published_is_not_offered(operator: Operator) -> None:
    path = operator.folder / "study.toml"
    recipe = f'\n[recipe]\nname = "evaluation"\nmodel = "{"ab" * 32}"\nstudy = "coupons"\n'
    text = path.read_text().replace("rounds = 40\n", "").replace('"coupons"', '"measuring"', 1)
    path.write_text(text + recipe + "[privacy]\nepsilon = 8.0\n")
    with pytest.raises(ConfigurationError, match="has published no model abababababababab"):
        operator.propose()
