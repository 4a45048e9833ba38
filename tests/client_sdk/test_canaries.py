"""Canaries at the member: who may enrol them, and how they pass through a ClientApp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from scipy.stats import norm

from client_sdk.app import RecordJournal, make_client_app
from client_sdk.canaries import Canaries, admit_canaries, read_canaries
from client_sdk.contribution import contribution
from client_sdk.dataset import DataSource, load
from client_sdk.node import Node
from client_sdk.policy import Policy
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.empirical.canaries import CanaryEnrolment, CanarySecret, enrol_canaries
from privacy.empirical.measurement import measure
from privacy.empirical.releases import Released
from privacy.errors import ConfigurationError, PolicyRefusal
from privacy.fixedpoint import Grid, add_in_place, decode
from privacy.keystream import KeyStream
from privacy.terms import Column, Terms
from protos.codec import array_to_flower, flower_to_array, message_of
from tests.conftest import identity, make_contract, make_terms

AUDITOR = identity("auditor")
KEY = bytes(range(32))
ROUNDS, CANARIES, CONSUMERS = 4, 600, 20
CONTRACT = make_contract(
    columns=(
        Column(name="spend", kind="number", low=0.0, high=1000.0),
        Column(name="shop", kind="category", values=tuple(f"v{at}" for at in range(6000))),
    ),
    rows_per_consumer=1,
)
SETTINGS = {"model": "logistic"}
OPEN = Policy(
    most_epsilon=500.0, most_epsilon_local=500.0, least_cohort=3, auditor_keys=(AUDITOR.public,)
)


def study(**changes: Any) -> Terms:
    values: dict[str, Any] = {
        "members": 3,
        "declared": 500,
        "contract": CONTRACT,
        "settings": SETTINGS,
        "dimension": dimension(CONTRACT, PropensitySettings.model_validate(SETTINGS)),
        "noise_multiplier": 1.0,
        "sampling_probability": 0.5,
        "rounds": ROUNDS,
        "max_attempts": ROUNDS,
    }
    return make_terms(**(values | changes))


def enrolled(terms: Terms, **changes: Any) -> tuple[CanarySecret, CanaryEnrolment]:
    values = {
        "member": "member-0",
        "count": CANARIES,
        "scale": 10.0,
        "auditor": AUDITOR,
        "key": KEY,
    }
    return enrol_canaries(terms, **(values | changes))


def admit(data: bytes, policy: Policy = OPEN, **changes: Any) -> Canaries:
    values = {"where": "canaries.json", "entry": study().roster[0], "consumers": CONSUMERS}
    return admit_canaries(data, policy=policy, **(values | changes))


def node_of(folder: Path, terms: Terms, index: int, canaries: Canaries | None = None) -> Node:
    path = folder / f"{index}.csv"
    rows = [f"h{at},{at % 2},{at * 10},v{at}" for at in range(CONSUMERS)]
    path.write_text("household,responded,spend,shop\n" + "\n".join(rows) + "\n")
    dataset = load(DataSource(path=path), CONTRACT)
    journal = RecordJournal(RecordDict())
    keep = lambda *_: None  # noqa: E731
    return Node(terms.roster[index], OPEN, CONTRACT, dataset, journal, keep, canaries=canaries)


def test_a_default_policy_lets_no_auditor_in() -> None:
    data = enrolled(study())[1].document()
    with pytest.raises(PolicyRefusal, match="not one that this member's policy lets in"):
        admit(data, Policy())
    with pytest.raises(PolicyRefusal, match="auditor_keys"):
        admit(data, Policy(auditor_keys=(identity("another").public,)))
    assert admit(data).enrolment.count == CANARIES


def test_a_file_that_the_auditor_did_not_sign_is_refused() -> None:
    data = enrolled(study())[1].document()
    with pytest.raises(ConfigurationError, match="did not sign it"):
        admit(data.replace(b'"count":600', b'"count":601'))
    with pytest.raises(ConfigurationError, match="canonical"):
        admit(data + b"\n")


def test_canaries_of_another_member_are_refused() -> None:
    data = enrolled(study(), member="member-1")[1].document()
    with pytest.raises(ConfigurationError, match="is for member member-1, not member-0"):
        admit(data)


def test_consumers_and_canaries_fit_the_enrolment_cap() -> None:
    data = enrolled(study())[1].document()
    admit(data, consumers=150)
    with pytest.raises(ConfigurationError, match=r"beside 151 consumers .* room for 599"):
        admit(data, consumers=151)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json: No such file"):
        read_canaries(
            tmp_path / "none.json", policy=OPEN, entry=study().roster[0], consumers=CONSUMERS
        )


def test_canaries_take_part_in_their_own_study_only(tmp_path: Path) -> None:
    terms, other = study(), study(rounds=2)
    canaries = admit(enrolled(terms)[1].document())
    assert canaries.take_part(terms)
    assert not canaries.take_part(other)


@pytest.mark.parametrize(("scale", "length"), [(10.0, 1.0), (1.0, 1.0), (0.25, 0.25)])
def test_a_canary_is_clipped_to_c(scale: float, length: float) -> None:
    terms = study(sampling_probability=1.0, clipping_norm=3.0)
    _, enrolment = enrolled(terms, count=1, scale=scale, key=bytes([3]) * 32)
    assert len(enrolment.seeds) == 1
    sums = list(Canaries(enrolment).block_sums(terms, KeyStream(KEY)))
    norms = sorted(float(np.linalg.norm(block.astype(np.float64))) for block in sums)
    assert norms[-1] == pytest.approx(3.0 * length, rel=1e-6)
    assert norms[-1] <= 3.0
    assert set(norms[:-1]) <= {0.0}


def test_the_number_of_blocks_is_public() -> None:
    """Keys with more and fewer included canaries, samples large and small: one shape."""
    terms = study()
    shapes = set()
    for number in range(6):
        _, enrolment = enrolled(terms, key=bytes([number]) * 32)
        shapes.add(
            tuple(block.shape for block in Canaries(enrolment).block_sums(terms, KeyStream.fresh()))
        )
    assert len(shapes) == 1


def test_canaries_are_sampled_with_probability_q() -> None:
    """Energy of 40 samples; deviates by six standard errors with probability below 1e-8."""
    terms = study()
    _, enrolment = enrolled(terms)
    canaries, stream = Canaries(enrolment, KEY), KeyStream(KEY)
    counts = []
    for _ in range(40):
        whole = sum(canaries.block_sums(terms, stream))
        directions = np.abs(whole).max()
        assert directions > 0
        counts.append(float((whole.astype(np.float64) ** 2).sum()))
    expected = len(enrolment.seeds) / 2
    error = np.sqrt(expected / 2 + 2 * expected**2 / terms.dimension) / np.sqrt(40)
    assert np.mean(counts) == pytest.approx(expected, abs=6 * error)


def test_a_members_consumers_are_summed_as_without_canaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all randomness fixed, two contributions differ by the canaries alone."""
    terms = study(sampling_probability=1.0, declared=600)
    canaries = Canaries(enrolled(terms, count=300)[1], KEY)
    parameters = np.zeros(terms.dimension, dtype=np.float32)
    grid, sums = Grid.of(terms), []
    for admitted in (None, canaries):
        node = node_of(tmp_path, terms, 0, admitted)
        object.__setattr__(node, "_block_key", KEY)
        monkeypatch.setattr(KeyStream, "fresh", classmethod(lambda cls: cls(KEY)))
        monkeypatch.setattr(node.noise, "take", lambda size: np.zeros(size, dtype=np.int64))
        sums.append(decode(contribution(terms, node, parameters), grid))
    added = sum(
        block.astype(np.float64) for block in canaries.block_sums(terms, KeyStream(bytes(32)))
    )
    blocks = 8  # of canaries, each rounded by less than a step
    assert np.abs(sums[1] - sums[0] - added).max() < blocks * grid.step
    assert np.abs(sums[0]).max() > 100 * grid.step


def ask(app: Any, context: Context, action: str, **records: Any) -> Message:
    metadata = Metadata(
        run_id=1, message_id="m", src_node_id=1, dst_node_id=5, reply_to_message_id="",
        group_id="1", created_at=0.0, ttl=60.0, message_type=f"train.{action}",
    )  # fmt: skip
    reply = app(message_of(RecordDict(records), metadata), context)
    assert not reply.has_error(), reply.error
    return reply


def test_a_simulated_study_is_measured_through_its_client_apps(tmp_path: Path) -> None:
    """Three ClientApps as Flower's simulation calls them; canaries at one of them.

    The detectors' false-alarm rate is 1e-4; the response is off by five standard errors with
    probability below 1e-6. Randomness is the members' own.
    """
    terms = study()
    secret, enrolment = enrolled(terms)
    canaries = admit(enrolment.document())
    grid, releases = Grid.of(terms), []
    parameters = array_to_flower(np.zeros(terms.dimension, dtype=np.float32))
    members = []
    for index in range(3):
        context = Context(
            run_id=1, node_id=index, node_config={}, state=RecordDict(), run_config={}
        )
        node = node_of(tmp_path, terms, index, canaries if index == 0 else None)
        node.journal = RecordJournal(context.state)
        app = make_client_app(lambda _, node=node: node)
        document = ConfigRecord({"document": terms.model_dump_json()})
        ask(app, context, "propose", terms=document)
        members.append((app, context))
    for number in range(1, ROUNDS + 1):
        total = np.zeros(terms.dimension, dtype=grid.dtype)
        task = ConfigRecord({"study": terms.label, "round": number, "attempt": 1})
        for app, context in members:
            reply = ask(
                app, context, "contribute", task=task,
                terms=ConfigRecord({"terms_hash": terms.hash}),
                model=ArrayRecord({"parameters": parameters}),
            )  # fmt: skip
            array = reply.content.array_records["contribution"]["sum"]
            add_in_place(total, flower_to_array(array))
        decoded = decode(total, grid)
        names = tuple(entry.name for entry in terms.roster)
        releases.append(Released(number, 1, names, lambda decoded=decoded: decoded))
    result = measure(terms, [secret], releases, claimed=100.0)
    assert result.sound, result.words()
    noise = np.sqrt(terms.privacy.noise_multiplier**2 * 3 / 2)
    error = 1.2 * np.sqrt((noise / 0.5) ** 2 + 1) / np.sqrt(ROUNDS * result.included)
    assert result.response == pytest.approx(1.0, abs=norm.isf(2.5e-7) * error)
    assert error < 0.1
