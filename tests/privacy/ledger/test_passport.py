"""Passports: they verify alone, and no word in them can be changed."""

from __future__ import annotations

import json

import pytest

from benchmarks.ledger_campaign.small_alliance import key_of
from privacy.errors import ConfigurationError, EvidenceError
from privacy.ledger.bundle import hash_file
from privacy.ledger.entry import canonical
from privacy.ledger.passport import (
    CONTEXT,
    Quality,
    make_passport,
    open_passport,
    passport_words,
)
from privacy.ledger.software import code_hash

OTHER = "ab" * 32


@pytest.fixture(scope="module")
def data(bundle):
    return (bundle / "models/coupons.passport.json").read_bytes()


def signed(document, key) -> bytes:
    rest = {name: value for name, value in document.items() if name != "signature"}
    return canonical(rest | {"signature": key.sign(CONTEXT, canonical(rest)).hex()})


def test_a_passport_verifies_alone(data, bundle, alliance):
    model = hash_file(bundle / "models/coupons.safetensors").sha256
    passport = open_passport(data, model=model, key=alliance.key.public)
    assert passport.rounds == 2
    assert passport.epsilon.attempts == 3
    assert all(
        a < b
        for a, b in zip(passport.epsilon.spent_micro, passport.epsilon.most_micro, strict=True)
    )
    words = "\n".join(passport_words(passport, model=True))
    assert "it is this one" in words
    assert "No quality was measured privately." in words
    assert "accepted by 5 members" in words
    assert passport.code == code_hash()


def test_it_is_of_one_model_and_one_key(data):
    with pytest.raises(EvidenceError, match="is not the one"):
        open_passport(data, model=OTHER)
    with pytest.raises(EvidenceError, match="is signed by key"):
        open_passport(data, key=OTHER)


def test_flipped_bytes_are_found(data):
    for place in range(0, len(data), 97):
        bad = bytearray(data)
        bad[place] ^= 1
        with pytest.raises(EvidenceError):
            open_passport(bytes(bad))


def test_bytes_that_are_no_passport_are_named(data):
    document = json.loads(data)
    for bad, why in [
        (b"", "canonical JSON"),
        (b"[]", "version"),
        (data + b"\n", "canonical"),
        (canonical(document | {"version": True}), "version"),
        (canonical(document | {"more": 1}), "more"),
        (canonical({k: v for k, v in document.items() if k != "quality"}), "field is missing"),
        (canonical(document | {"signature": "00" * 64}), "signature"),
        (canonical(document | {"key": OTHER}), "signature"),
    ]:
        with pytest.raises(EvidenceError, match=why):
            open_passport(bad)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda it: it.update(study="other"), "what its terms say"),
        (lambda it: it.update(terms_hash=OTHER), "have hash"),
        (lambda it: it["terms"].update(purpose="another"), "have hash"),
        (lambda it: it["members"].reverse(), "not in order"),
        (lambda it: it["members"][0].update(ledger_key=OTHER), "acceptance of member-0"),
        (lambda it: it.update(members=it["members"][:3]), "3 members cosigned"),
        (lambda it: it.update(model=OTHER), "publishes another model"),
        (lambda it: it.update(parameters=OTHER), "publishes another model"),
        (lambda it: it.update(rounds=1), "publishes another model"),
        (lambda it: it["publication"].update(index=3), "proof"),
        (lambda it: it["publication"]["proof"].pop(), "proof"),
        (lambda it: it["epsilon"].update(attempts=2), "after 2 attempts"),
        (lambda it: it["epsilon"].update(most_attempts=9), "those of its terms"),
        (lambda it: it["epsilon"]["spent_micro"].__setitem__(0, 5), "after 3 attempts"),
        (lambda it: it["epsilon"]["most_micro"].__setitem__(4, 5), "after 4 attempts"),
    ],
)
def test_a_coordinator_that_signs_a_lie_is_found(data, alliance, change, why):
    document = json.loads(data)
    change(document)
    with pytest.raises(EvidenceError, match=why):
        open_passport(signed(document, alliance.key))


def test_a_stranger_may_sign_no_passport_for_this_log(data):
    document = json.loads(data)
    stranger = key_of("stranger")
    with pytest.raises(EvidenceError, match="not signed by small/coordinator"):
        open_passport(signed(document | {"key": stranger.public}, stranger))


def test_quality_is_shown_with_its_cost(alliance):
    quality = Quality(
        name="AUC", value_millionths=701_000, low_millionths=690_000, high_millionths=712_000,
        epsilon_micro=50_000,
    )  # fmt: skip
    last = alliance.store.size - 1
    made = make_passport(alliance.store, alliance.key, publication=last, quality=(quality,))
    words = passport_words(open_passport(made), model=False)
    assert "AUC: 0.701, between 0.69 and 0.712; its evaluation cost epsilon 0.05" in words


def test_only_publications_get_one(alliance):
    for index in (0, 10_000):
        with pytest.raises(ConfigurationError, match="publishes nothing"):
            make_passport(alliance.store, alliance.key, publication=index)
