from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from privacy.empirical.canaries import (
    CanaryEnrolment,
    CanarySecret,
    enrol_canaries,
    open_enrolment,
    open_secret,
    signs,
)
from privacy.errors import ConfigurationError, EvidenceError
from privacy.ledger.entry import canonical
from privacy.terms import Terms
from tests.conftest import identity, make_terms

AUDITOR = identity("auditor")
KEY = bytes(range(32))


def study(**changes: object) -> Terms:
    return make_terms(**({"dimension": 10_000, "declared": 1000} | changes))


def enrolled(terms: Terms | None = None, **changes: object) -> tuple[CanarySecret, CanaryEnrolment]:
    values = {"member": "member-0", "count": 1000, "scale": 1.0, "auditor": AUDITOR, "key": KEY}
    return enrol_canaries(terms or study(), **(values | changes))


def test_the_member_gets_the_seeds_of_the_canaries_that_take_part_and_no_others() -> None:
    secret, enrolment = enrolled()
    everybody = [seed.hex() for seed in secret.seeds(0, secret.count)]
    assert list(enrolment.seeds) == [everybody[at] for at in np.flatnonzero(secret.included)]
    assert len(set(everybody)) == secret.count
    assert secret.key not in enrolment.document().decode()


def test_coins_are_fair() -> None:
    """100 keys of 1000 coins; outside this range with probability below 1e-6."""
    heads = sum(int(enrolled(key=bytes([number]) * 32)[0].included.sum()) for number in range(100))
    low, high = binom.ppf(5e-7, 100_000, 0.5), binom.isf(5e-7, 100_000, 0.5)
    assert low < heads < high


def test_coins_and_seeds_follow_from_the_key_to_which_the_enrolment_commits() -> None:
    secret, enrolment = enrolled()
    again, _ = enrolled()
    other, _ = enrolled(key=bytes(32))
    assert again == secret
    assert enrolment.commitment == secret.commitment != other.commitment
    assert (again.included == secret.included).all()
    assert (other.included != secret.included).any()
    moved = secret.model_copy(update={"member": "member-1"})
    assert moved.commitment != secret.commitment


def test_secrets_are_not_shown() -> None:
    secret, enrolment = enrolled()
    assert secret.key not in repr(secret)
    assert enrolment.seeds[0] not in repr(enrolment)


def test_an_enrolment_survives_its_file() -> None:
    _, enrolment = enrolled(scale=10.0)
    assert open_enrolment(enrolment.document(), where="x") == enrolment
    assert enrolment.scale == 10.0


@pytest.mark.parametrize(
    "change",
    [
        {"member": "member-1"},
        {"terms": "0" * 64},
        {"count": 999},
        {"scale_thousandths": 500},
        {"commitment": "0" * 64},
        {"seeds": ["0" * 64]},
        {"auditor": identity("somebody else").public},
        {"auditor": "f" * 64},
        {"signature": "0" * 128},
    ],
)
def test_a_changed_enrolment_is_refused(change: dict[str, object]) -> None:
    document = json.loads(enrolled()[1].document()) | change
    with pytest.raises(EvidenceError, match="file: its auditor did not sign it"):
        open_enrolment(canonical(document), where="file")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not canonical JSON"),
        (b"{}", "Field required"),
        (b'{"version": 1}', "canonical form"),
        (b"[1.5]", "not canonical JSON"),
    ],
)
def test_what_is_no_enrolment_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(EvidenceError, match=f"file: .*{words}"):
        open_enrolment(data, where="file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": ["0" * 64] * 2}, "a seed comes twice"),
        ({"count": 1}, "more seeds than canaries"),
        ({"version": 2}, "version"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str) -> None:
    document = json.loads(enrolled()[1].document()) | change
    with pytest.raises(EvidenceError, match=words):
        open_enrolment(canonical(document), where="file")


def test_a_secret_is_of_one_study() -> None:
    secret, _ = enrolled()
    data = canonical(secret.model_dump(mode="json"))
    assert open_secret(data, study(), where="s") == secret
    with pytest.raises(EvidenceError, match="s: is for terms"):
        open_secret(data, study(rounds=11), where="s")
    stranger = secret.model_copy(update={"member": "nobody"})
    with pytest.raises(EvidenceError, match="nobody: not in the roster"):
        open_secret(canonical(stranger.model_dump(mode="json")), study(), where="s")


def test_more_canaries_than_the_dimension_tells_apart_are_refused_with_the_remedy() -> None:
    enrolled(study(dimension=1000))
    with pytest.raises(ConfigurationError, match="enrol at most 999 canaries in all"):
        enrolled(study(dimension=999))


def test_more_canaries_than_the_member_has_room_for_are_refused() -> None:
    enrolled(study(declared=700))
    with pytest.raises(ConfigurationError, match="leaves room for 900"):
        enrolled(study(declared=600))


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"scale": 1e9}, {"count": 0}])
def test_wrong_numbers_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="canaries: "):
        enrolled(**change)


def test_directions_are_signs_and_nearly_orthogonal() -> None:
    """The largest of 4950 cosines, of deviation 0.01, is above 0.06 with probability 1e-5."""
    directions = signs(enrolled()[0].seeds(0, 100), 10_001)
    assert directions.shape == (100, 10_001)
    assert directions.dtype == np.float32
    assert (np.abs(directions) == 1).all()
    cosines = directions @ directions.T / 10_001
    np.fill_diagonal(cosines, 0)
    assert np.abs(cosines).max() < 0.06


def test_a_direction_does_not_depend_on_its_companions() -> None:
    seeds = enrolled()[0].seeds(0, 5)
    assert (signs(seeds, 77)[3] == signs(seeds[3:4], 77)[0]).all()
    assert (signs(seeds, 77)[:, :70] == signs(seeds, 70)).all()
