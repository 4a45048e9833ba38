"""What a study would cost and give: bytes against messages, the rehearsal against its words."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from coordinator import rehearsal
from coordinator.projection import project, traffic
from coordinator.rehearsal import Believed, auc, rehearse
from coordinator.study_desk import imagined
from privacy.accounting import Accountant
from privacy.errors import ConfigurationError, RecipeError
from privacy.secagg import KeySets
from privacy.terms import Column, DataContract, Terms
from tests.conftest import make_terms
from tests.privacy.secagg.alliance import Alliance, Sum, terms_of

CONTRACT = DataContract(
    name="offers",
    version=1,
    consumer_id="household",
    label="responded",
    columns=(
        *(Column(name=f"number_{i}", kind="number", low=0.0, high=1.0) for i in range(4)),
        Column(name="kind", kind="category", values=tuple("ABCDE")),
        Column(name="region", kind="category", values=tuple("NSWE")),
    ),
    rows_per_consumer=1,
)
BELIEVED = Believed((0.75, 0.8), (0.2, 0.3))


def study(
    *, declared: int = 900, settings: dict[str, object] | None = None, **privacy: object
) -> Terms:
    chosen = settings or {"model": "logistic"}
    values = {
        "noise_multiplier": 6.0,
        "sampling_probability": 0.5,
        "rounds": 40,
        "max_attempts": 44,
    }
    return make_terms(
        declared=declared,
        contract=CONTRACT,
        settings=chosen,
        dimension=dimension(CONTRACT, PropensitySettings.model_validate(chosen)),
        **(values | privacy),
    )


@pytest.mark.parametrize("members", [4, 9])
def test_the_bytes_foretold_are_those_of_the_messages(members: int) -> None:
    terms = terms_of(members=members, dropouts=1)
    alliance = Alliance(terms, KeySets(1, 1))
    said = Sum(alliance, alliance.cohort())
    said.run()
    sent = alliance.sent
    name = terms.roster[1].name
    left = sum(
        len(by_name[name].body) * (phase != "confirm") + len(by_name[name].signature)
        for phase, by_name in sent.said.items()
    )
    came = sum(map(len, (sent.offer, sent.deliveries[name], sent.lists, sent.signatures)))
    foretold = traffic(terms)
    assert foretold.sent == pytest.approx(left, rel=0.1)
    assert foretold.received - 4 * terms.dimension == pytest.approx(came, rel=0.1)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.random(500) < 0.3, rng.integers(0, 20, 500).astype(float)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_generated_consumers_are_as_believed() -> None:
    terms = study()
    found = [
        rehearsal._generate(terms, Believed((0.7, 0.7), (0.2, 0.2)), 20_000, rng)
        for rng in map(np.random.default_rng, range(4))
    ]
    assert np.mean([data.best_auc for data in found]) == pytest.approx(0.7, abs=0.01)
    assert np.mean([data.labels.mean() for data in found]) == pytest.approx(0.2, abs=0.01)
    for data in found:
        assert data.rows.shape == (20_000, terms.dimension)
        dense = data.rows[:200].toarray()
        assert (dense >= 0).all()
        assert (dense <= 1).all()
        assert (dense[:, -1] == 1).all()
        assert (dense[:, :5].sum(1) == 1).all()
        assert (dense[:, 5:9].sum(1) == 1).all()


def test_generated_numbers_are_centred_where_the_study_centres_them() -> None:
    plain, centred = study(), study(settings={"model": "logistic", "centred": True})
    rows, moved = (
        rehearsal._rows(terms, 50, np.random.default_rng(3))[0].toarray()
        for terms in (plain, centred)
    )
    expected = rows.copy()
    expected[:, 9:13] = 2 * rows[:, 9:13] - 1
    assert np.array_equal(moved, expected)
    truths = [
        rehearsal._generate(terms, BELIEVED, 2000, np.random.default_rng(4))
        for terms in (plain, centred)
    ]
    assert np.array_equal(truths[0].labels, truths[1].labels)  # what is true is not the model's say
    assert truths[0].best_auc == pytest.approx(truths[1].best_auc, abs=1e-9)


def test_a_rehearsal_repeats_and_knows_what_helps() -> None:
    terms = study()
    few = rehearse(terms, BELIEVED, runs=8)
    assert rehearse(terms, BELIEVED, runs=8) == few
    many = rehearse(study(declared=9000), BELIEVED, runs=8)
    loud = rehearse(study(noise_multiplier=60.0), BELIEVED, runs=8)
    assert many.loss[1] < few.loss[1] < loud.loss[1]
    assert few.auc[0] < few.auc[1] < few.auc[2] < 0.85
    assert (few.consumers, many.consumers) == (4500, 20_000)


def test_what_is_believed_is_checked() -> None:
    for wrong in (
        {"pooled_auc": (0.9, 0.8)},
        {"pooled_auc": (0.5, 0.8)},
        {"label_share": (0.0, 0.5)},
        {"label_share": (0.2, 1.0)},
        {"pooled_auc": (float("nan"), 0.8)},
    ):
        with pytest.raises(ConfigurationError, match="give two numbers above"):
            replace(BELIEVED, **wrong)


def test_a_projection_says_what_the_accountant_says() -> None:
    terms = study()
    found = project(terms, BELIEVED, runs=2)
    exact = Accountant(terms).projection()
    assert (found.epsilon, found.epsilon_local) == (exact.profile, exact.epsilon_local)
    document = json.loads(json.dumps(found.document()))
    assert document["study"]["sent"] == 40 * found.traffic.sent
    assert document["rehearsal"]["runs"] == 2
    assert found.noise_s > 0
    assert found.masks_s > 0


def test_other_models_are_rehearsed_as_the_logistic_one_or_refused() -> None:
    layered = study(settings={"model": "mlp", "hidden": (8,), "embedding_width": 2})
    assert 0.5 < rehearse(layered, BELIEVED, runs=2).auc[1] < 0.85
    with pytest.raises(RecipeError, match="its shape is in its own code"):
        rehearse(study(settings={"model": "ours", "parameters": 7}), BELIEVED, runs=1)


def test_imagined_members_are_the_same_every_time() -> None:
    assert imagined("9000,412,60") == imagined("9000,412,60")
    assert [one.declared_consumers for one in imagined("9000,412,60")] == [9000, 400, 60]
    for wrong in ("", "600,x", "600,,3", "0,5,5"):
        with pytest.raises(ConfigurationError, match="write one like 9000,400,60"):
            imagined(wrong)


def test_the_command_projects_a_file_and_proposes_nothing(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text(
        'listen = "127.0.0.1:0"\nalliance = "test"\nstate = "state"\n'
        '[tls]\nkey = "k"\ncertificate = "c"\nauthority = "a"\n'
    )
    (tmp_path / "study.toml").write_text(
        'study = "coupons"\npurpose = "Who answers"\nrounds = 20\n'
        '[contract]\nconsumer_id = "household"\nlabel = "responded"\n'
        '[contract.columns]\nspend = { high = 1000.0, scale = "log" }\nkind = ["A", "B", "C"]\n'
        "[evaluation]\nepsilon = 0.5\nholdout = 0.25\n"
    )
    command = [sys.executable, "-c", "from coordinator.cli import main; main()", "study", "project"]
    said = [
        subprocess.run(
            [*command, "study.toml", "--declared", "900,500,300,60", *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        for more in ([], ["--auc", "0.75", "0.8", "--json"], ["--auc", "0.8", "0.75"])
    ]
    assert [one.returncode for one in said] == [0, 0, 1], said[0].stderr
    assert "coupons: 4 members with about 1760 consumers, 5 parameters" in said[0].stdout
    assert "rounds   20, at most 22 attempts" in said[0].stdout
    assert "with all rows in one place" in said[0].stdout
    assert "evaluation: proposed once the last model is published" in said[0].stdout
    found = json.loads(said[1].stdout)
    assert found["rehearsal"]["auc"][2] < 0.85
    assert found["evaluation"]["epsilon"]["1"] == pytest.approx(0.5, rel=0.01)
    assert found["evaluation"]["holdout"] == 0.25
    assert "give two numbers above 0.5 and below 1" in said[2].stderr
    assert not (tmp_path / "state").exists()
