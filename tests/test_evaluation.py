"""Real processes learn a model and then measure it, as their study's file planned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.local_alliance import LocalAlliance, LocalMember
from client_sdk.recipes.evaluation.measures import evaluate
from client_sdk.recipes.holdout import Holdout
from client_sdk.recipes.model_file import find_model, load_model
from client_sdk.recipes.propensity.model import score
from coordinator.config import CoordinatorConfig
from coordinator.evaluation import text
from coordinator.study_desk import StudyDesk
from privacy.ledger.passport import file_sha256, open_passport
from privacy.terms import one_digit
from protos.config import read_config
from tests.conftest import identity

MEMBERS, CONSUMERS = 4, 3000
STUDY = """
study = "coupons"
purpose = "Which household will respond to which campaign"
rounds = 3
[recipe]
learning_rate = 4.0
[privacy]
epsilon = 0.5
sampling_probability = 0.5
spare_attempts = 3
[who]
dropouts = 0
[evaluation]
epsilon = 1.0
holdout = 0.5
by = "kind"
[contract]
consumer_id = "household"
label = "responded"
rows_per_consumer = 1
[contract.columns]
spend = { high = 1000.0 }
kind = ["A", "B"]
"""


def write_members(folder: Path) -> list[LocalMember]:
    rng = np.random.default_rng(3)
    policy = {
        "recipes": ["propensity", "evaluation"], "most_epsilon": 50.0, "most_epsilon_local": 99.0,
        "least_noise_multiplier": 0.1,
    }  # fmt: skip
    members = []
    for place in range(MEMBERS):
        lines = ["household,responded,spend,kind"]
        for number in range(CONSUMERS):
            spend = rng.uniform(0, 1000)
            responded = int(rng.random() < spend / 1500)
            lines.append(f"m{place}-h{number},{responded},{spend:.3f},{'AB'[number % 2]}")
        data = folder / f"member-{place}.csv"
        data.write_text("\n".join(lines) + "\n")
        name = f"member-{place}"
        members.append(
            LocalMember(name, identity(name), one_digit(CONSUMERS), {"path": str(data)}, policy)
        )
    return members


def held_out(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spend scaled as members do, codes and labels of the consumers that were held out."""
    held, rows = Holdout("test", "coupons", 0.5), []
    for place in range(MEMBERS):
        lines = (folder / f"member-{place}.csv").read_text().splitlines()[1:]
        rows += [row for line in lines if (row := line.split(","))[0] in held]
    spend = np.array([[float(row[2]) / 1000] for row in rows], dtype=np.float32)
    codes = np.array([["AB".index(row[3])] for row in rows], dtype=np.int64)
    return spend, codes, np.array([int(row[1]) for row in rows])


def test_a_planned_evaluation_follows_its_study_and_is_in_the_passport(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    alliance = LocalAlliance(
        tmp_path / "alliance",
        study,
        write_members(tmp_path),
        alliance="test",
        forked=True,
        deadlines={"assemble_s": 900.0},
    )
    with alliance:
        events = list(alliance.events())
    finished = [one["study"] for one in events if one["event"] == "StudyFinished"]
    assert finished == ["coupons", "coupons-evaluation"]
    config = read_config(alliance.folder / "coordinator.toml", CoordinatorConfig)
    with StudyDesk(config.relative_to(alliance.folder)) as desk:
        terms = desk.find("coupons-evaluation").terms
        found = desk.measured("coupons-evaluation")
        assert desk.measured("coupons") is None
    models = alliance.folder / "coordinator-state" / "models"
    model = find_model(models, str(terms.settings["model"]))
    assert model is not None

    spend, codes, labels = held_out(tmp_path)
    scores = score(model.terms, model.parameters, spend, codes)
    _, parameters, _ = load_model(models / "coupons-evaluation.safetensors")
    measured = evaluate(terms, parameters)
    assert abs(measured.consumers / len(labels) - 1) < 0.15
    true = {"base_rate": labels.mean(), "auc": area(scores, labels)}
    for name, value in true.items():  # five standard errors: a false alarm in two million
        figure = measured.figures[name]
        assert abs(figure.value - value) < 5 * figure.error
    assert [(one.of, one.name) for one in measured.groups] == [("kind", "A"), ("kind", "B")]
    assert found is not None
    assert "held out from training" in text(found)
    assert json.dumps(found)

    passport = open_passport(
        (models / "coupons.passport.json").read_bytes(),
        model=file_sha256((models / "coupons.safetensors").read_bytes()),
    )
    names = [one.name for one in passport.quality]
    assert names[0].startswith("AUC, about ")
    assert any("demographic parity gap by kind" in name for name in names)
    assert {one.epsilon_micro for one in passport.quality} == {passport.quality[0].epsilon_micro}
    assert 980_000 < passport.quality[0].epsilon_micro <= 1_000_000


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUC by ranks."""
    order = np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1
    positives = labels.sum()
    pairs = positives * (len(labels) - positives)
    return float((order[labels == 1].sum() - positives * (positives + 1) / 2) / pairs)
