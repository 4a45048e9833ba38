"""The guard and the ClientApp behind it, called as Flower calls them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict

from client_sdk.app import RecordJournal, make_client_app
from client_sdk.dataset import DataSource, load
from client_sdk.guard import REFUSALS, SILENT
from client_sdk.node import Node
from client_sdk.policy import Policy
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy import errors
from privacy.fixedpoint import SHARE_SCALE, Grid
from privacy.terms import Terms
from protos.codec import array_to_flower, flower_to_array, message_of
from tests.conftest import make_contract, make_terms

SETTINGS = {"model": "logistic"}
DIMENSION = dimension(make_contract(), PropensitySettings.model_validate(SETTINGS))


def study(**changes: Any) -> Terms:
    values: dict[str, Any] = {
        "dimension": DIMENSION,
        "settings": SETTINGS,
        "noise_multiplier": 4.0,
        "declared": 10,
    }
    return make_terms(**(values | changes))


class Member:
    """A node whose dataset notices when it is touched."""

    def __init__(self, folder: Path, *, policy: Policy | None = None, rows: str = "") -> None:
        path = folder / "rows.csv"
        lines = [f"h{index},{index % 2},{index * 50},{index},A" for index in range(10)]
        path.write_text("household,responded,spend,trips,kind\n" + "\n".join(lines) + rows + "\n")
        self.context = Context(
            run_id=1, node_id=5, node_config={}, state=RecordDict(), run_config={}
        )
        self.kept: list[np.ndarray] = []
        self.touched = 0
        dataset = load(DataSource(path=path), make_contract())
        member = self

        class Watched(type(dataset)):  # type: ignore[misc]
            def gather(self, slots: Any) -> Any:
                member.touched += 1
                return super().gather(slots)

        watched = Watched(**{name: getattr(dataset, name) for name in dataset.__dataclass_fields__})
        self.node = Node(
            study().roster[0],
            policy or Policy(most_epsilon=5.0, most_epsilon_local=20.0),
            make_contract(),
            watched,
            RecordJournal(self.context.state),
            lambda terms, parameters: self.kept.append(parameters),
        )
        self.app = make_client_app(lambda _: self.node)

    def ask(self, action: str, **records: Any) -> Message:
        metadata = Metadata(
            run_id=1, message_id="m", src_node_id=1, dst_node_id=5, reply_to_message_id="",
            group_id="1", created_at=0.0, ttl=60.0, message_type=f"train.{action}",
        )  # fmt: skip
        return self.app(message_of(RecordDict(records), metadata), self.context)

    def propose(self, terms: Terms) -> Message:
        document = ConfigRecord({"document": terms.model_dump_json()})
        return self.ask("propose", task=task(terms, 0), terms=document)

    def contribute(self, agreed: Terms, round_number: int = 1, **records: Any) -> Message:
        values: dict[str, Any] = {
            "task": task(agreed, round_number),
            "terms": ConfigRecord({"terms_hash": agreed.hash}),
            "model": model(np.zeros(DIMENSION, np.float32)),
        }
        return self.ask("contribute", **(values | records))


def task(terms: Terms, round_number: int, attempt: int = 1) -> ConfigRecord:
    return ConfigRecord({"study": terms.label, "round": round_number, "attempt": attempt})


def model(parameters: np.ndarray, name: str = "parameters") -> ArrayRecord:
    return ArrayRecord({name: array_to_flower(parameters)})


def refusal(reply: Message) -> tuple[int, str]:
    assert reply.has_error()
    return reply.error.code, reply.error.reason or ""


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


def test_an_accepted_study_yields_one_noised_ring_vector(member: Member) -> None:
    terms = study()
    reply = member.propose(terms)
    assert reply.content.config_records["acceptance"]["terms_hash"] == terms.hash
    reply = member.contribute(terms)
    vector = flower_to_array(reply.content.array_records["contribution"]["sum"])
    assert vector.dtype == np.uint32
    assert vector.shape == (DIMENSION,)
    steps = np.abs(vector.view(np.int32).astype(np.int64))
    reach = Grid.of(terms).limit(member.node.entry.name) + 12 * SHARE_SCALE
    assert (steps <= reach).all()
    assert steps.max() > SHARE_SCALE / 100  # all-zero noise would be far below


def test_equal_requests_in_two_lives_give_different_noise(tmp_path: Path) -> None:
    vectors = []
    for name in "ab":
        (tmp_path / name).mkdir()
        other = Member(tmp_path / name)
        other.propose(study())
        reply = other.contribute(study())
        vectors.append(flower_to_array(reply.content.array_records["contribution"]["sum"]))
    assert (vectors[0] != vectors[1]).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_multiplier": 0.4}, "epsilon(1)"),
        ({"clipping_norm": 1e6}, "clipping norm"),
        ({"delta": 1e-3}, "delta"),
        ({"declared": 500}, "not the one this member declared"),
        ({"contract": make_contract(version=3)}, "data contract"),
    ],
)
def test_terms_beyond_the_policy_are_refused_before_data_is_touched(
    member: Member, changes: dict[str, Any], words: str
) -> None:
    terms = study(**changes)
    code, sentence = refusal(member.propose(terms))
    assert code == REFUSALS[errors.PolicyRefusal]
    assert words in sentence
    code, sentence = refusal(member.contribute(terms))
    assert code == REFUSALS[errors.RequestRefusal]
    assert member.touched == 0


def test_a_cohort_below_the_members_floor_is_refused(tmp_path: Path) -> None:
    member = Member(
        tmp_path, policy=Policy(most_epsilon=5.0, most_epsilon_local=20.0, least_cohort=6)
    )
    assert "cohort size is 5" in refusal(member.propose(study()))[1]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"terms": ConfigRecord({"terms_hash": "0" * 64})}, "were not accepted here"),
        ({"terms": ConfigRecord({})}, "names no terms hash"),
        ({"task": ConfigRecord({"study": study().label})}, "names no round and attempt"),
        ({"task": ConfigRecord({"study": "other", "round": 1, "attempt": 1})}, "are of coupons@"),
        ({"model": model(np.zeros(DIMENSION + 1, np.float32))}, "the terms say float32"),
        ({"model": model(np.zeros(DIMENSION, np.uint32))}, "the terms say float32"),
        ({"model": model(np.zeros((DIMENSION, 1), np.float32))}, "the terms say float32"),
        ({"model": model(np.zeros(DIMENSION, np.float32), "weights")}, "exactly one array"),
        ({"model": ConfigRecord({})}, "exactly one array"),
    ],
)
def test_requests_that_are_not_the_agreed_one_are_refused_unspent(
    member: Member, records: dict[str, Any], words: str
) -> None:
    terms = study()
    member.propose(terms)
    assert words in refusal(member.contribute(terms, **records))[1]
    assert member.touched == 0
    assert not member.contribute(terms).has_error()


def test_an_attempt_is_reserved_before_data_and_never_twice(member: Member) -> None:
    terms = study(rounds=3, max_attempts=4)
    member.propose(terms)
    for round_number in (1, 2, 3):
        assert not member.contribute(terms, round_number).has_error()
    touched = member.touched
    code, sentence = refusal(member.contribute(terms, 3))
    assert code == REFUSALS[errors.BudgetRefusal]
    assert "open a new attempt" in sentence
    assert member.touched == touched
    assert not member.contribute(terms, task=task(terms, 3, attempt=2)).has_error()
    again = task(terms, 3, attempt=3)
    assert "attempts of the terms are spent" in refusal(member.contribute(terms, task=again))[1]
    assert member.touched == touched + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_is_refused_unspent(member: Member, value: float) -> None:
    terms = study()
    member.propose(terms)
    crafted = np.zeros(DIMENSION, np.float32)
    crafted[2] = value
    assert "not finite" in refusal(member.contribute(terms, model=model(crafted)))[1]
    assert member.touched == 0
    assert not member.contribute(terms).has_error()


@pytest.mark.parametrize("value", [3e38, -3e38, 1e-45])
def test_a_crafted_model_gets_noise_and_no_special_answer(member: Member, value: float) -> None:
    terms = study()
    member.propose(terms)
    crafted = np.full(DIMENSION, value, np.float32)
    reply = member.contribute(terms, model=model(crafted))
    vector = flower_to_array(reply.content.array_records["contribution"]["sum"])
    steps = np.abs(vector.view(np.int32).astype(np.int64))
    assert (steps <= Grid.of(terms).limit("member-0") + 12 * SHARE_SCALE).all()


def test_a_published_model_is_kept(member: Member) -> None:
    terms = study()
    member.propose(terms)
    parameters = np.arange(DIMENSION, dtype=np.float32)
    names = {"task": task(terms, 1), "terms": ConfigRecord({"terms_hash": terms.hash})}
    assert not member.ask("publish", model=model(parameters), **names).has_error()
    np.testing.assert_array_equal(member.kept[0], parameters)


def test_errors_that_may_tell_of_data_leave_in_one_fixed_sentence(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise errors.DataError("household h7 spent 350 at row 7")

    monkeypatch.setattr("client_sdk.app.contribution", fail)
    terms = study()
    member.propose(terms)
    assert refusal(member.contribute(terms)) == SILENT


def test_code_that_a_coordinator_names_is_never_run(member: Member) -> None:
    with pytest.raises(ValueError, match="No train function registered"):
        member.ask("exfiltrate")


def test_the_table_of_refusals_covers_exactly_what_may_leave() -> None:
    assert len(set(REFUSALS.values())) == len(REFUSALS)
    may_leave = {
        errors.PolicyRefusal, errors.BudgetRefusal, errors.RequestRefusal, errors.TermsError,
        errors.LinkError, errors.RecipeError,
    }  # fmt: skip
    assert set(REFUSALS) == may_leave
    leaf_refusals = {
        kind for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.RefusalError)
        and not kind.__subclasses__()
    }  # fmt: skip
    assert leaf_refusals <= may_leave
    assert SILENT[0] not in REFUSALS.values()
