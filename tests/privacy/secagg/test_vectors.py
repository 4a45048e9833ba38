"""The published test vectors: their generator, a second implementation and the shipped one."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.errors import MemberFault, RequestRefusal, RoundFailed
from privacy.fixedpoint import RingVector
from privacy.secagg import Attempt, KeyExchange, KeySets, Setup, Unmasking
from privacy.terms import Terms
from tests.vectors.secagg.generate import BAD, CASES, FOLDER, Bad, Case, write
from tests.vectors.secagg.verifier import Rejected, verify

Transcript = dict[str, Any]
REFUSALS = (RequestRefusal, MemberFault, RoundFailed)


class Refused(Exception):
    """In which section a shipped state machine refused."""

    def __init__(self, section: int) -> None:
        super().__init__(f"section {section}")
        self.section = section


@functools.cache
def transcript(name: str) -> Transcript:
    loaded: Transcript = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


def each(messages: list[dict[str, str]], key: str = "body") -> list[tuple[str, bytes, bytes]]:
    """Of every entry the member, its body (or vector) and its signature."""
    return [
        (
            one["member"],
            bytes.fromhex(one.get(key, "")),
            bytes.fromhex(one.get("signature", "")),
        )
        for one in messages
    ]


def attempt_of(document: Transcript) -> Attempt:
    values = document["attempt"]
    model = bytes.fromhex(values["model"])
    return Attempt(values["key_set"], values["round"], values["attempt"], model)


def coordinate(document: Transcript) -> bytes:
    """What the shipped coordinator makes of the members' messages: the sum.

    Raises:
        Refused: at the first message it refuses, or where it gives up.
    """
    setup = Setup.of(Terms.from_json(document["terms"]))
    assert setup.terms_hash.hex() == document["terms_hash"]
    exchange = KeyExchange(setup, KeySets(document["first"], document["count"]))
    section = 3
    try:
        for member, body, signature in each(document["advertisements"]):
            exchange.take_advertisement(member, body, signature)
        section = 4
        assert exchange.offer().hex() == document["offer"]
        for member, body, signature in each(document["shares"]):
            exchange.take_shares(member, body, signature)
        section = 5
        exchange.close()
        for member, body, _ in each(document["deliveries"]):
            assert exchange.delivery(member) == body
        for member, body, signature in each(document["ready"]):
            exchange.take_ready(member, body, signature)
        unmasking = Unmasking(exchange.finish(), attempt_of(document))
        section = 6
        total: RingVector = np.zeros(
            setup.terms.dimension, dtype=f"<u{setup.terms.privacy.ring_bits // 8}"
        )
        for member, vector, signature in each(document["contributions"], "vector"):
            unmasking.take_contribution(member, hashlib.sha256(vector).digest(), signature)
            total += np.frombuffer(vector, dtype=total.dtype)
        section = 7
        assert document["lists"] in ("", unmasking.close().hex())
        for member, _, signature in each(document["confirmations"]):
            unmasking.take_confirmation(member, signature)
        section = 8
        assert not document["lists"] or unmasking.signatures().hex() == document["signatures"]
        for member, body, signature in each(document["revealed"]):
            unmasking.take_unmask(member, body, signature)
        unmasking.unmask(total, most_threads=1)
    except REFUSALS as error:
        raise Refused(section) from error
    return total.tobytes()


def take_part(case: Case, index: int, document: Transcript) -> None:
    """Drives one honest member with what the file's coordinator sends it.

    Raises:
        Refused: where the member refuses.
    """
    name = case.setup.name(index)
    member, key_sets = case.member(index), case.key_sets
    (delivery,) = (body for to, body, _ in each(document["deliveries"]) if to == name)
    use = attempt_of(document)
    section = 3
    try:
        member.advertise(key_sets)
        section = 4
        member.share(key_sets, bytes.fromhex(document["offer"]))
        section = 5
        member.deliver(key_sets, delivery)
        section = 6
        masked = case.vector(index)
        signature = member.mask(use, masked)
        assert (name, masked.tobytes(), signature) in each(document["contributions"], "vector")
        section = 7
        if document["lists"]:
            member.confirm(use, bytes.fromhex(document["lists"]))
        section = 8
        if document["lists"]:
            member.unmask(use, bytes.fromhex(document["signatures"]))
        else:
            member.unmask_at_once(use)
    except RequestRefusal as error:
        raise Refused(section) from error


def test_the_generator_writes_exactly_the_published_files(tmp_path: Path) -> None:
    write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    published = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert written.keys() == published.keys()
    for name, content in written.items():
        assert content == published[name], f"{name}: run python -m tests.vectors.secagg.generate"


def test_at_least_a_third_is_bad_and_every_bad_one_has_a_twin() -> None:
    names = {path.stem for path in FOLDER.iterdir()}
    bad = {name for name in names if not transcript(name)["valid"]}
    assert bad == {name for name in names if "_bad_" in name} == {one.name for one in BAD}
    assert {name.partition("_bad_")[0] for name in bad} <= names - bad == set(CASES)
    assert 3 * len(bad) >= len(names)


@pytest.mark.parametrize("name", CASES)
def test_the_shipped_coordinator_gets_the_sum(name: str) -> None:
    document = transcript(name)
    assert coordinate(document).hex() == document["sum"]


@pytest.mark.parametrize("name", CASES)
def test_the_second_implementation_gets_the_sum(name: str) -> None:
    document = transcript(name)
    assert verify(document).hex() == document["sum"]
    assert document["why"] == ""


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_the_second_implementation_rejects_a_bad_one_for_what_is_bad(bad: Bad) -> None:
    document = transcript(bad.name)
    with pytest.raises(Rejected) as rejected:
        verify(document)
    assert document["why"].startswith(f"section {rejected.value.section}: ")
    without_secrets = {key: value for key, value in document.items() if key != "secrets"}
    with pytest.raises(Rejected) as rejected:
        verify(without_secrets)
    assert rejected.value.section == (bad.coordinator if bad.seen_late else bad.section)


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.coordinator], ids=lambda bad: bad.name)
def test_the_shipped_coordinator_refuses_a_bad_one(bad: Bad) -> None:
    document = transcript(bad.name)
    if bad.what == "sum_off_by_one":  # every message is good; only the published sum is not
        assert coordinate(document).hex() == transcript(bad.twin)["sum"] != document["sum"]
        return
    with pytest.raises(Refused) as refused:
        coordinate(document)
    assert refused.value.section == bad.coordinator


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.member], ids=lambda bad: bad.name)
def test_a_shipped_member_refuses_a_bad_one(bad: Bad) -> None:
    assert bad.member is not None
    case = CASES[bad.twin]
    if bad.away is None:  # the positive control; those away in the bad one are there in the twin
        with_twin = transcript(bad.twin)
        take_part(case, bad.member, with_twin)
    with pytest.raises(Refused) as refused:
        take_part(case, bad.member, transcript(bad.name))
    assert refused.value.section == (bad.member_section or bad.section)


def test_every_bad_one_is_refused_by_a_shipped_state_machine() -> None:
    assert all(bad.member or bad.coordinator for bad in BAD)
