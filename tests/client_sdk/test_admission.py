"""What a node's policy demands of whom a roster names, at the guard."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message

from client_sdk.guard import REFUSALS
from client_sdk.policy import Policy
from privacy.admission import Admissions, Vouch, vouch
from privacy.errors import PolicyRefusal
from privacy.terms import Terms
from tests.client_sdk.test_guard import Member, refusal, study, task
from tests.conftest import identity

KNOWN = {name: identity(name).public for name in ("member-1", "member-2")}
LIMITS = {"most_epsilon": 5.0, "most_epsilon_local": 20.0}


def propose(member: Member, terms: Terms, *vouches: Vouch, named: bool = True) -> Message:
    records = {"terms": ConfigRecord({"document": terms.model_dump_json()})}
    if named:
        admissions = Admissions.of(terms, vouches).canonical()
        records["admissions"] = ConfigRecord({"vouches": admissions})
    return member.ask("propose", task=task(terms, 0), **records)


def words(*names: str) -> list[Vouch]:
    return [
        vouch(identity(name), alliance="test", member=about, identity=identity(about).public)
        for name in names
        for about in ("member-3", "member-4")
    ]


def test_a_countersigned_roster_is_accepted(tmp_path: Path) -> None:
    policy = Policy(admission="countersigned", known_members=KNOWN, **LIMITS)
    reply = propose(Member(tmp_path, policy=policy), study(), *words("member-1", "member-2"))
    assert not reply.has_error()


@pytest.mark.parametrize("named", [True, False])
def test_strangers_are_refused_before_anything_is_projected(
    tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_sdk.consent.project", None)
    policy = Policy(admission="countersigned", known_members=KNOWN, **LIMITS)
    code, sentence = refusal(
        propose(Member(tmp_path, policy=policy), study(), *words("member-1"), named=named)
    )
    assert code == REFUSALS[PolicyRefusal]
    assert "member-3" in sentence
    assert "it needs more than 1" in sentence


def test_pinned_means_everybody_even_where_nobody_is_known(tmp_path: Path) -> None:
    everybody = {entry.name: entry.identity for entry in study().roster[1:]}
    for known, accepted in ((everybody, True), ({}, False), (KNOWN, False)):
        policy = Policy(admission="pinned", known_members=known, **LIMITS)
        reply = propose(Member(tmp_path, policy=policy), study(), *words("member-1", "member-2"))
        assert reply.has_error() != accepted


def test_a_vouch_record_of_another_kind_is_none(tmp_path: Path) -> None:
    policy = Policy(admission="countersigned", known_members=KNOWN, **LIMITS)
    terms = study()
    reply = Member(tmp_path, policy=policy).ask(
        "propose",
        task=task(terms, 0),
        terms=ConfigRecord({"document": terms.model_dump_json()}),
        admissions=ConfigRecord({"vouches": "text"}),
    )
    assert "member-3" in refusal(reply)[1]
