"""A study's TOML file: defaults, and what is said to one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from client_sdk.recipes.propensity.settings import FASTEST, parse
from client_sdk.recipes.propensity.settings import plan as plan_of
from coordinator.study_file import read_study
from privacy.accounting import Accountant
from privacy.errors import ConfigurationError
from privacy.terms import RosterEntry, Terms
from tests.conftest import identity

SHORTEST = """
study = "coupons"
purpose = "Which household will respond to which campaign"
rounds = 40

[contract]
consumer_id = "household"
label = "responded"

[contract.columns]
spend = { high = 1000.0, scale = "log" }
kind = ["A", "B", "C"]
"""
EVERYBODY = tuple(
    RosterEntry(name=name, identity=identity(name).public, declared_consumers=100)
    for name in ("harbour", "meadow", "lantern", "orchard", "newcomer")
)


def read(folder: Path, text: str, members: int = 5) -> Terms:
    path = folder / "study.toml"
    path.write_text(text)
    return read_study(path, alliance="test", everybody=EVERYBODY[:members])


def test_the_shortest_study_has_cautious_defaults(tmp_path: Path) -> None:
    terms = read(tmp_path, SHORTEST)
    privacy = terms.privacy
    assert (privacy.cohort_size, privacy.colluders, privacy.dropouts) == (5, 1, 1)
    assert (privacy.rounds, privacy.max_attempts, privacy.delta) == (40, 44, 1e-5)
    assert 0.99 < Accountant(terms).epsilon() <= 1.0
    assert terms.roster == EVERYBODY
    assert (terms.contract.name, terms.contract.version) == ("coupons", 1)
    assert [column.kind for column in terms.contract.columns] == ["number", "category"]
    assert terms.dimension == 5
    assert Terms.from_json(terms.model_dump_json()) == terms


def test_what_the_file_says_is_in_the_terms(tmp_path: Path) -> None:
    more = (
        '[who]\nmembers = ["meadow", "harbour", "lantern", "orchard"]\ncohort_size = 3\n'
        "dropouts = 0\n[privacy]\nnoise_multiplier = 3.5\nspare_attempts = 0\n"
        '[recipe]\nname = "propensity"\nmodel = "mlp"\nhidden = [4]\nembedding_width = 2\n'
    )
    terms = read(tmp_path, SHORTEST + more)
    assert [entry.name for entry in terms.roster] == ["meadow", "harbour", "lantern", "orchard"]
    assert (terms.privacy.cohort_size, terms.privacy.noise_multiplier) == (3, 3.5)
    assert terms.privacy.max_attempts == 40
    assert terms.settings == {"model": "mlp", "hidden": (4,), "embedding_width": 2}
    assert terms.dimension == (1 + 2) * 4 + 4 + 4 + 1 + 3 * 2


def test_three_members_leave_no_room_for_a_dropout(tmp_path: Path) -> None:
    assert read(tmp_path, SHORTEST, members=3).privacy.dropouts == 0


def test_what_a_file_leaves_out_is_the_recipes_plan(tmp_path: Path) -> None:
    terms = read(tmp_path, SHORTEST.replace("rounds = 40", ""))
    plan = plan_of(terms.contract, parse(terms))
    privacy = terms.privacy
    assert (privacy.rounds, privacy.sampling_probability, privacy.clipping_norm) == (
        plan.rounds,
        plan.sampling_probability,
        plan.clipping_norm,
    )


def test_a_file_of_complete_terms_is_taken_as_it_is(tmp_path: Path) -> None:
    terms = read(tmp_path, SHORTEST)
    path = tmp_path / "terms.json"
    path.write_text(terms.model_dump_json())
    assert read_study(path, alliance="test", everybody=()) == terms
    with pytest.raises(ConfigurationError, match="is of the alliance test, this coordinator's is"):
        read_study(path, alliance="other", everybody=())


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ("rounds = 40", "rounds = 40\nround = 3", "round: is no setting; did you mean rounds?"),
        ("rounds = 40", "rounds = 0", "rounds: 0 is too small; write 1 or more"),
        ("rounds = 40", "rounds = 2_000_000", "too large; write 1000000 or less"),
        ("rounds = 40", 'rounds = "40"', "rounds: '40' is no whole number; write one without quo"),
        ("rounds = 40", "rounds = inf", "rounds: inf is no whole number"),
        ("rounds = 40", "rounds = 40\n[privacy]\nepsilon = nan", "epsilon: nan is no number"),
        ("rounds = 40", "rounds = 40\n[privacy]\nepsilon = -1", "epsilon: -1 is too small; write"),
        ("rounds = 40", "rounds = 40\n[privacy]\nepsilon = 1e-6", "out of reach; write "),
        (
            "rounds = 40",
            "rounds = 40\n[privacy]\nepsilon = 1\nnoise_multiplier = 3.0",
            "privacy: epsilon and noise_multiplier say the same; write only epsilon",
        ),
        ("rounds = 40", "rounds = 40\n[privacy]\nepsilom = 1.0", "did you mean epsilon?"),
        ("rounds = 40", "rounds = 40\n[who]\ndropouts = 3", "at most 1, so write that or less"),
        ("rounds = 40", "rounds = 40\n[who]\ncolluders = 4", "write at most 3"),
        ("rounds = 40", "rounds = 40\n[who]\ncohort_size = 9", "5 members; write at most 5"),
        ("rounds = 40", "rounds = 40\n[who]\nmembers = ['harbor']", "did you mean harbour?"),
        ("rounds = 40", "rounds = 40\n[who]\nmembers = ['harbour']", "until there are at least 3"),
        (
            "rounds = 40",
            "rounds = 40\n[who]\nmembers = ['harbour', 'meadow', 'harbour']",
            "names a member twice",
        ),
        ("rounds = 40", "rounds = 40\n[recipe]\nname = 'propensiti'", "did you mean propensity?"),
        ("rounds = 40", "rounds = 40\n[recipe]\nlearning_rat = 1.0", "did you mean learning_rate?"),
        ("rounds = 40", "rounds = 40\n[recipe]\nlearning_rate = 0.0", "write more than 0"),
        ("rounds = 40", "rounds = 40\n[recipe]\noptimizer = 'adm'", "write 'sgd' or 'adam'"),
        ("[contract.columns]", "[contract.column]", "columns: is missing"),
        ("high = 1000.0, ", "", "write a number as spend = { low = 0, high = 100 }"),
        ('["A", "B", "C"]', '["A"]', 'a category as kind = ["A", "B"]'),
        ('["A", "B", "C"]', "7", 'is neither { high = 100 }, a number, nor ["A", "B"], a category'),
        ('scale = "log"', 'scale = "lgo"', "write 'linear' or 'log'"),
        ('label = "responded"', 'label = "spend"', "contract: column names must be distinct"),
        ('label = "responded"', 'label = "a b"', "use letters, digits and underscores"),
        ('study = "coupons"', 'study = "Coupons"', "use lower-case letters, digits and hyphens"),
        ("[contract]", "[contract", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence_with_the_remedy(
    tmp_path: Path, line: str, instead: str, words: str
) -> None:
    assert line in SHORTEST
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, SHORTEST.replace(line, instead))
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "study.toml"))
    assert "\n" not in str(caught.value)


def test_the_ring_grows_where_a_sum_needs_it(tmp_path: Path) -> None:
    many = tuple(entry.model_copy(update={"declared_consumers": 9_000_000}) for entry in EVERYBODY)
    path = tmp_path / "study.toml"
    path.write_text(
        SHORTEST.replace("rounds = 40", "rounds = 1\n[privacy]\nnoise_multiplier = 5.0")
    )
    assert read_study(path, alliance="test", everybody=many).privacy.ring_bits == 64
    assert read_study(path, alliance="test", everybody=EVERYBODY).privacy.ring_bits == 32


def test_bins_are_of_equal_width_on_the_scale(tmp_path: Path) -> None:
    columns = (
        'age = { low = 20, high = 80, bins = 4 }\nvisits = { high = 99, scale = "log", bins = 2 }\n'
        "spent = { high = 50, edges = [1, 2.5] }\n"
    )
    contract = read(tmp_path, SHORTEST + columns).contract
    assert [column.edges for column in contract.columns] == [
        (),
        (),
        (35.0, 50.0, 65.0),
        (9.0,),
        (1.0, 2.5),
    ]


@pytest.mark.parametrize(
    "column",
    ["{ bins = 4 }", '{ bins = 4, values = ["a", "b"] }', "{ high = 9, bins = 2, edges = [1] }"],
)
def test_bins_of_no_range_are_refused(tmp_path: Path, column: str) -> None:
    with pytest.raises(
        ConfigurationError, match="bins divide the range of a number, without edges"
    ):
        read(tmp_path, SHORTEST + f"age = {column}\n")


def test_crosses_are_settings(tmp_path: Path) -> None:
    columns = "age = { low = 20, high = 80, bins = 4 }\n"
    cross = '[recipe]\ncrosses = ["kind*age"]\n'
    terms = read(tmp_path, SHORTEST + columns + cross)
    assert terms.settings["crosses"] == ("kind*age",)
    assert terms.dimension == 1 + 3 + 4 + 12 + 1
    assert Terms.from_json(terms.model_dump_json()) == terms
    with pytest.raises(ConfigurationError, match="'ages', which is no category"):
        read(tmp_path, SHORTEST + columns + cross.replace("age", "ages"))


def rate(terms: Terms) -> float:
    return parse(terms).learning_rate


def test_the_plan_is_heavy_ball_on_everybody_and_the_mean_of_the_second_half(
    tmp_path: Path,
) -> None:
    terms = read(tmp_path, SHORTEST)
    assert terms.settings == {
        "centred": True,
        "optimizer": "sgd",
        "momentum": 0.9,
        "learning_rate": rate(terms),
        "average_from": 21,
    }
    assert terms.privacy.sampling_probability == 1.0


def test_the_planned_step_follows_noise_consumers_rounds_and_columns(tmp_path: Path) -> None:
    def planned(privacy: str, rounds: int = 40, more: str = "") -> float:
        text = SHORTEST.replace("rounds = 40", f"rounds = {rounds}") + more
        return rate(read(tmp_path, f"{text}[privacy]\n{privacy}\n"))

    plain = planned("noise_multiplier = 40.0")
    half = pytest.approx(plain / 2, rel=0.1)
    assert planned("noise_multiplier = 80.0") == half
    assert planned("noise_multiplier = 40.0\nclipping_norm = 2") == half
    assert planned("noise_multiplier = 40.0\nsampling_probability = 0.5") == half
    assert planned("noise_multiplier = 40.0", rounds=160) == half
    columns = "".join(f"n{at} = {{ high = 9 }}\n" for at in range(9))
    assert planned("noise_multiplier = 40.0", more=columns) == half


def test_what_the_file_says_of_the_optimiser_stays(tmp_path: Path) -> None:
    own = "[recipe]\nlearning_rate = 0.3\naverage_from = 0\n"
    settings = parse(read(tmp_path, SHORTEST + own))
    assert (settings.learning_rate, settings.average_from, settings.momentum) == (0.3, 0, 0.9)
    assert settings.centred
    assert not parse(read(tmp_path, SHORTEST + "[recipe]\ncentred = false\n")).centred
    binned = SHORTEST.replace('"log" }', '"log", bins = 4 }')
    assert "centred" not in read(tmp_path, binned).settings  # an older node can take part
    adam = parse(read(tmp_path, SHORTEST + '[recipe]\noptimizer = "adam"\n'))
    assert (adam.optimizer, adam.learning_rate, adam.average_from) == ("adam", 0.1, 21)
    assert not adam.centred
    layered = read(tmp_path, SHORTEST + '[recipe]\nmodel = "mlp"\n').settings
    assert not {"learning_rate", "centred"} & set(layered)


def test_a_planned_step_is_never_faster_than_the_curvature_allows(tmp_path: Path) -> None:
    once = SHORTEST.replace("rounds = 40", "rounds = 1")
    terms = read(tmp_path, once + "[privacy]\nnoise_multiplier = 1.0\n")
    assert rate(terms) == pytest.approx(FASTEST / 3, rel=0.05)
