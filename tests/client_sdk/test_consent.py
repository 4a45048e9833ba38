"""What a node says to proposals: by rule, by a person's word, and to exactly the terms approved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from typer.testing import CliRunner

from client_sdk.app import make_client_app
from client_sdk.cli import app as cli
from client_sdk.process import open_node
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from coordinator.monitor import Monitor
from coordinator.proposal import Proposal
from privacy.acceptance import verify_acceptance
from privacy.errors import AllianceError, BadSignature
from privacy.terms import RosterEntry, Terms
from protos.codec import message_of
from tests.conftest import identity, make_contract, make_terms
from tests.test_alliance import write_csv

SETTINGS = {"model": "logistic"}
RULES = "most_epsilon = 0.05\nmost_epsilon_local = 20.0\n"


def study(**changes: Any) -> Terms:
    values: dict[str, Any] = {
        "dimension": dimension(make_contract(), PropensitySettings.model_validate(SETTINGS)),
        "settings": SETTINGS,
        "declared": 20,
        "noise_multiplier": 6.0,
    }
    return make_terms(**(values | changes))


class Node:
    """A member's folder and the node that runs on it; commands are those of `alliance-node`."""

    def __init__(self, folder: Path, policy: str = RULES) -> None:
        self.folder, self.config = folder, folder / "node.toml"
        write_csv(folder / "data.csv")
        (folder / "identity.pem").touch(mode=0o600)
        (folder / "identity.pem").write_bytes(identity("member-0").pem())
        (folder / "contract.json").write_text(make_contract().model_dump_json())
        self.configure(policy)
        self.start()

    def configure(self, policy: str) -> None:
        self.config.write_text(
            'alliance = "test"\nmember = "member-0"\nidentity = "identity.pem"\n'
            'declared_consumers = 20\ncoordinator = "localhost:1"\ncontract = "contract.json"\n'
            'state = "state"\n[data]\npath = "data.csv"\n[tls]\nkey = "k"\ncertificate = "c"\n'
            f'authority = "a"\n[policy]\n{policy}'
        )

    def start(self) -> None:
        """Again is a restart, as far as anything but its memory goes."""
        _, self.node = open_node(self.config, spending=True)
        self.app = make_client_app(lambda _: self.node)

    def ask(self, action: str, **records: Any) -> Message:
        context = Context(run_id=1, node_id=5, node_config={}, state=RecordDict(), run_config={})
        metadata = Metadata(
            run_id=1, message_id="m", src_node_id=1, dst_node_id=5, reply_to_message_id="",
            group_id="1", created_at=0.0, ttl=60.0, message_type=f"train.{action}",
        )  # fmt: skip
        return self.app(message_of(RecordDict(records), metadata), context)

    def propose(self, terms: Terms) -> Message:
        return self.ask(
            "propose",
            task=ConfigRecord({"study": terms.label, "round": 0, "attempt": 1}),
            terms=ConfigRecord({"document": terms.model_dump_json()}),
        )

    def stop(self, terms: Terms) -> Message:
        return self.ask(
            "stop",
            task=ConfigRecord({"study": terms.label, "round": 0, "attempt": 1}),
            terms=ConfigRecord({"terms_hash": terms.hash}),
        )

    def waits(self, terms: Terms) -> str:
        """Why a proposal waits for a person; empty if it does not."""
        reply = self.propose(terms)
        assert not reply.has_error(), reply.error
        record = reply.content.get("waiting")
        return str(record["sentence"]) if isinstance(record, ConfigRecord) else ""

    def refusal(self, terms: Terms) -> str:
        reply = self.propose(terms)
        assert reply.has_error()
        return reply.error.reason or ""

    def do(self, *arguments: str) -> Any:
        done = CliRunner().invoke(cli, ["study", *arguments, "--config", str(self.config)])
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def earmarked(self) -> int:
        return sum(room.earmarked_nano for room in self.node.journal.account.rooms)  # type: ignore[attr-defined]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def signed(reply: Message, terms: Terms) -> None:
    """Raises unless a reply is the member's signature over exactly these terms."""
    record = reply.content.config_records["acceptance"]
    verify_acceptance(
        terms,
        member="member-0",
        ledger_key=str(record["ledger_key"]),
        signature=bytes(record["signature"]),  # type: ignore[arg-type]
    )


def test_what_the_rules_approve_is_signed_at_once(tmp_path: Path) -> None:
    node, terms = Node(tmp_path, "most_epsilon = 5.0\nmost_epsilon_local = 20.0\n"), study()
    signed(node.propose(terms), terms)
    assert [one["standing"] for one in node.do("list", "--json")] == ["accepted"]
    signed(node.propose(terms), terms)  # a coordinator that forgot asks again


def test_what_they_do_not_approve_waits_for_a_person_over_a_restart(node: Node) -> None:
    terms = study()
    assert "this member's policy allows at most 0.05" in node.waits(terms)
    node.start()
    (row,) = node.do("list", "--json")
    assert (row["standing"], row["terms_hash"]) == ("waiting", terms.hash)
    assert "at most 0.05" in row["sentence"]
    assert node.earmarked() == 0
    assert node.do("approve", "coupons", "--json")["terms_hash"] == terms.hash
    signed(node.propose(terms), terms)  # the node that runs, at the next question
    assert node.earmarked() > 0
    assert [one["standing"] for one in node.do("list", "--json")] == ["accepted"]


def test_a_person_is_shown_columns_and_cost_beside_what_is_left(node: Node) -> None:
    terms = study()
    node.waits(terms)
    shown = node.do("show", "coupons")
    assert "purpose  Which household will respond to which campaign" in shown
    assert "spend from 0 to 1000; trips from 0 to 50; kind, one of 3 values" in shown
    assert "the label responded; a consumer is a household, of which at most 3 rows" in shown
    assert "% of what is left for all studies" in shown
    assert terms.hash in shown
    said = node.do("show", "coupons", "--json")
    assert said["budget"]["fits"]
    assert 0 < said["budget"]["takes_of_left"] < 1
    assert said["budget"]["left_after"] == pytest.approx(1 - said["budget"]["takes_of_left"])
    assert set(said["epsilon"]) == {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "Which household is in debt"},
        {"settings": {"model": "logistic", "learning_rate": 0.25}},
        {"contract": make_contract(rows_per_consumer=2)},
        {"study": "coupons-2"},
        {"declared": 30},
        {"noise_multiplier": 6.5},
        {"rounds": 11},
    ],
)
def test_any_change_is_to_be_approved_anew_and_the_old_signature_does_not_fit(
    node: Node, changes: dict[str, Any]
) -> None:
    terms = study()
    node.waits(terms)
    node.do("approve", "coupons")
    agreed = node.propose(terms)
    privacy = {key: changes[key] for key in changes.keys() & {"noise_multiplier", "rounds"}}
    if "declared" in changes:  # of another member: its own entry must be as it declared itself
        other = RosterEntry(
            name="member-1", identity=identity("member-1").public, declared_consumers=30
        )
        changed = terms.model_copy(update={"roster": (terms.roster[0], other, *terms.roster[2:])})
    elif privacy:
        changed = terms.model_copy(update={"privacy": terms.privacy.model_copy(update=privacy)})
    else:
        changed = terms.model_copy(update=changes)
    assert changed.hash != terms.hash
    with pytest.raises(BadSignature):
        signed(agreed, changed)
    if "contract" in changes:
        assert "uses 2 rows of a consumer" in node.refusal(changed)
    else:
        assert node.waits(changed)
    reply = node.ask(
        "contribute",
        task=ConfigRecord({"study": changed.label, "round": 1, "attempt": 1}),
        terms=ConfigRecord({"terms_hash": changed.hash}),
    )
    assert "were not accepted here" in (reply.error.reason or "")


def test_a_coordinator_takes_no_acceptance_of_other_terms(node: Node) -> None:
    """What it records as accepted is a signature over the proposal's own hash, and nothing else."""
    terms, other = study(), study(rounds=9, max_attempts=12)
    node.waits(other)
    node.do("approve", "coupons")
    reply = node.propose(other)
    faults: list[Any] = []
    proposal = Proposal(terms, Monitor(faults.append))
    proposal._take(None, 5, reply, 1.0)  # type: ignore[arg-type]
    assert proposal.accepted == frozenset()
    assert "not one of these terms" in faults[0].sentence


def test_the_hash_that_was_shown_must_be_the_one_that_is_signed(node: Node) -> None:
    terms = study()
    node.waits(terms)
    for wrong in ("0" * 64, terms.hash[:4]):
        with pytest.raises(AllianceError, match="look at them again"):
            node.do("approve", "coupons", "--terms", wrong)
    assert node.waits(terms)
    node.do("approve", "coupons", "--terms", terms.hash)
    assert node.waits(terms) == ""


def test_two_versions_are_told_apart_by_label(node: Node) -> None:
    first, second = study(), study(rounds=9)
    node.waits(first)
    node.waits(second)
    with pytest.raises(AllianceError, match="there are several"):
        node.do("approve", "coupons")
    node.do("approve", second.label)
    assert node.waits(second) == ""
    assert node.waits(first)


def test_what_a_person_refused_stays_refused_until_that_person_approves(node: Node) -> None:
    terms = study()
    node.waits(terms)
    node.do("refuse", "coupons", "--reason", "not before the audit")
    assert "refused by a person here: not before the audit" in node.refusal(terms)
    node.configure("most_epsilon = 5.0\nmost_epsilon_local = 20.0\n")
    node.start()
    assert "not before the audit" in node.refusal(terms)  # though the rules now would
    node.do("approve", "coupons")
    signed(node.propose(terms), terms)


def test_an_accepted_study_is_ended_here_and_what_it_earmarked_is_free(node: Node) -> None:
    terms = study()
    node.waits(terms)
    node.do("approve", "coupons")
    node.do("refuse", "coupons", "--reason", "we leave it")
    assert node.earmarked() == 0
    assert "the study is over at this member" in node.refusal(terms)
    with pytest.raises(AllianceError, match="is over already"):
        node.do("approve", "coupons")


def test_a_stopped_study_frees_what_it_earmarked_and_a_withdrawn_one_waits_no_more(
    node: Node,
) -> None:
    accepted, waiting = study(), study(rounds=9)
    node.waits(accepted)
    node.do("approve", accepted.label)
    node.waits(waiting)
    assert node.earmarked() > 0
    for terms in (accepted, waiting, study(rounds=8)):  # of the last it never heard
        assert not node.stop(terms).has_error()
        assert not node.stop(terms).has_error()
    assert node.earmarked() == 0
    assert [one["standing"] for one in node.do("list", "--json")] == ["over"]


def test_a_policy_may_refuse_what_its_rules_do_not_approve(tmp_path: Path) -> None:
    node = Node(tmp_path, f'otherwise = "refuse"\n{RULES}')
    assert "allows at most 0.05" in node.refusal(study())
    assert node.do("list", "--json") == []


def test_costly_terms_wait_without_being_worked_out(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_sdk.consent.project", None)
    assert "attempts is 20000" in node.waits(study(rounds=2, max_attempts=20_000))


def test_another_contract_is_refused_with_the_remedy_which_works(node: Node) -> None:
    contract = make_contract(rows_per_consumer=2)
    terms = study(contract=contract)
    said = node.refusal(terms)
    assert "its data contract uses 2 rows of a consumer, visits version 1 as this member" in said
    assert f"alliance-node study show {terms.label} --contract" in said
    with pytest.raises(AllianceError, match="uses 2 rows"):
        node.do("approve", "coupons")
    (node.folder / "contract.json").write_text(node.do("show", terms.label, "--contract"))
    node.start()
    assert "at most 0.05" in node.waits(terms)


def test_nobody_approves_beyond_the_budget(tmp_path: Path) -> None:
    node = Node(tmp_path, f"{RULES}[policy.budget]\nepsilon = 0.2\n")
    terms = study(noise_multiplier=2.0)
    node.waits(terms)
    assert "it does not fit" in node.do("show", "coupons")
    with pytest.raises(AllianceError, match="this member's budget over all studies does not cover"):
        node.do("approve", "coupons")
    assert node.waits(terms)


def test_a_hundred_proposals_wait_and_no_more(node: Node) -> None:
    for rounds in range(1, 101):
        assert node.waits(study(rounds=rounds, max_attempts=20_000))
    refused = node.refusal(study(rounds=101, max_attempts=20_000))
    assert "100 proposals wait for a person at this member" in refused


def test_a_contract_may_be_read_from_the_study_s_file(node: Node) -> None:
    (node.folder / "study.toml").write_text(
        'study = "visits"\npurpose = "x"\n[contract]\nconsumer_id = "household"\n'
        'label = "responded"\nrows_per_consumer = 3\n[contract.columns]\n'
        'spend = { high = 1000.0, scale = "log" }\ntrips = { high = 50 }\nkind = ["A", "B", "C"]\n'
    )
    text = node.config.read_text().replace('"contract.json"', '"study.toml"')
    node.config.write_text(text)
    node.start()
    assert node.node.contract == make_contract()
