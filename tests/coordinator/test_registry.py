from __future__ import annotations

import datetime as dt
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator.enrolment_errors import DECLINES, Declined, declination
from coordinator.registry import Registry
from privacy.admission import vouch
from privacy.certificates import make_signing_request, make_tls_key
from privacy.departure import Departure, depart
from privacy.errors import ConfigurationError
from privacy.membership import MembershipRequest, sign_request
from tests.conftest import identity

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def request(name: str, seed: str = "", tls: bytes | None = None) -> tuple[MembershipRequest, bytes]:
    signer = identity(name + seed)
    made = MembershipRequest(
        alliance="test",
        member=name,
        identity=signer.public,
        ledger=identity(f"{name}{seed} ledger").public,
        declared_consumers=20,
        signing_request=make_signing_request(tls or make_tls_key(), name).decode(),
    )
    return made, sign_request(signer, made)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite")


@contextmanager
def declined(reason: str) -> Iterator[None]:
    with pytest.raises(Declined) as caught:
        yield
    assert caught.value.reason == reason


def test_an_invitation_admits_once(registry: Registry) -> None:
    secret = registry.invite("a", expires=NOW + HOUR)
    asked = request("a")
    registry.redeem(secret, *asked, now=NOW)
    registry.redeem(secret, *asked, now=NOW)  # its answer was lost on the way
    assert [*registry.members()] == ["a"]
    with declined("used_invitation"):
        registry.redeem(secret, *request("a", "thief"), now=NOW)
    again = request("a")  # same identity, another TLS key
    with declined("used_invitation"):
        registry.redeem(secret, *again, now=NOW)


@pytest.mark.parametrize(
    ("name", "at", "changed", "reason"),
    [
        ("a", NOW, True, "wrong_invitation"),
        ("a", NOW + HOUR, False, "expired_invitation"),
        ("b", NOW, False, "other_name"),
    ],
)
def test_a_bad_invitation_admits_nobody(
    registry: Registry, name: str, at: dt.datetime, changed: bool, reason: str
) -> None:
    secret = registry.invite("a", expires=NOW + HOUR)
    with declined(reason):
        registry.redeem(secret[::-1] if changed else secret, *request(name), now=at)
    assert registry.members() == {}
    registry.redeem(secret, *request("a"), now=NOW)


def test_one_invitation_raced_by_many_admits_one(registry: Registry) -> None:
    secret = registry.invite("a", expires=NOW + HOUR)
    won, lost = [], []

    def race(seed: str) -> None:
        try:
            registry.redeem(secret, *request("a", seed), now=NOW)
            won.append(seed)
        except Declined as error:
            lost.append(error.reason)

    threads = [threading.Thread(target=race, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == ["used_invitation"] * 7
    assert registry.members()["a"].identity == identity("a" + won[0]).public


def test_a_member_s_name_is_not_taken_by_another_unless_the_operator_says_so(
    registry: Registry,
) -> None:
    registry.admit(*request("a"), now=NOW)
    with declined("taken_name"):
        registry.admit(*request("a", "new"), now=NOW)
    with pytest.raises(ConfigurationError, match="--replace"):
        registry.invite("a", expires=NOW + HOUR)
    secret = registry.invite("a", expires=NOW + HOUR, replace=True)
    registry.redeem(secret, *request("a", "new"), now=NOW)
    assert registry.members()["a"].identity == identity("anew").public


def test_two_members_share_no_key(registry: Registry) -> None:
    tls = make_tls_key()
    registry.admit(*request("a", tls=tls), now=NOW)
    for other in (
        request("b", tls=tls),
        (request("b")[0].model_copy(update={"identity": identity("a").public}), b""),
        (request("b")[0].model_copy(update={"ledger": identity("a").public}), b""),
        (request("b")[0].model_copy(update={"ledger": identity("a ledger").public}), b""),
    ):
        with declined("taken_key"):
            registry.admit(*other, now=NOW)


def test_a_revoked_member_is_back_only_with_a_new_invitation(registry: Registry) -> None:
    secret = registry.invite("a", expires=NOW + HOUR)
    spare = registry.invite("a", expires=NOW + HOUR)
    asked = request("a")
    registry.redeem(secret, *asked, now=NOW)
    registry.revoke("a", "its key was stolen", now=NOW)
    assert registry.members()["a"].reason == "its key was stolen"
    for old, reason in ((secret, "used_invitation"), (spare, "wrong_invitation")):
        with declined(reason):
            registry.redeem(old, *asked, now=NOW)
    registry.redeem(registry.invite("a", expires=NOW + HOUR), *request("a", "2"), now=NOW)
    assert registry.members()["a"].reason is None
    with pytest.raises(ConfigurationError, match="no such member"):
        registry.revoke("b", "", now=NOW)


def test_members_vouch_for_each_other_s_present_identity_only(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        registry.admit(*request(name), now=NOW)
    about = {"alliance": "test", "member": "a", "identity": identity("a").public}
    assert registry.add_vouch(vouch(identity("b"), **about)) == 1
    assert registry.add_vouch(vouch(identity("b"), **about)) == 1
    assert registry.add_vouch(vouch(identity("c"), **about)) == 2
    assert {one.by for one in registry.vouches()} == {identity("b").public, identity("c").public}
    for wrong in (
        vouch(identity("stranger"), **about),
        vouch(identity("a"), **about),
        vouch(identity("b"), **(about | {"identity": identity("other").public})),
        vouch(identity("b"), **(about | {"member": "c"})),
    ):
        with declined("not_a_voucher"):
            registry.add_vouch(wrong)
    registry.revoke("b", "left", now=NOW)
    with declined("not_a_voucher"):
        registry.add_vouch(vouch(identity("b"), **about))


def departure(name: str, seed: str = "", ledger: str | None = None) -> Departure:
    key = identity(ledger or f"{name}{seed} ledger").public
    return depart(identity(name + seed), alliance="test", member=name, ledger=key)


def test_a_member_leaves_by_its_own_word(registry: Registry) -> None:
    registry.admit(*request("a"), now=NOW)
    registry.admit(*request("b"), now=NOW)
    registry.invite("a", expires=NOW + HOUR, replace=True)
    word = departure("a")
    registry.depart(word, now=NOW)
    registry.depart(word, now=NOW + HOUR)  # its first answer was lost on the way
    left = registry.members()["a"]
    assert left.reason == "it left the alliance"
    assert left.departure is not None
    assert Departure.from_json(left.departure) == word
    assert registry.members()["b"].departure is None
    with declined("not_a_member"):
        registry.depart(departure("c"), now=NOW)
    with declined("not_its_ledger"):
        registry.depart(departure("b", ledger="another"), now=NOW)
    with declined("not_its_ledger"):
        registry.depart(departure("b", "stranger"), now=NOW)


def test_who_left_is_admitted_anew_and_the_old_word_does_not_touch_it(registry: Registry) -> None:
    registry.admit(*request("a"), now=NOW)
    word = departure("a")
    registry.depart(word, now=NOW)
    registry.admit(*request("a", "again"), now=NOW)
    assert registry.members()["a"].departure is None
    with declined("not_its_ledger"):
        registry.depart(word, now=NOW)  # a replay
    assert registry.members()["a"].reason is None


def test_leaving_after_a_revocation_keeps_its_reason(registry: Registry) -> None:
    registry.admit(*request("a"), now=NOW)
    registry.revoke("a", "its laptop was stolen", now=NOW)
    registry.depart(departure("a"), now=NOW)
    assert registry.members()["a"].reason == "its laptop was stolen"
    assert registry.members()["a"].departure is not None


def test_a_registry_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    registry = Registry(path)
    registry.admit(*request("a"), now=NOW)
    with closing(sqlite3.connect(path)) as rows:
        rows.execute("ALTER TABLE member DROP COLUMN departure")
        rows.execute("PRAGMA user_version = 1")
        rows.commit()
    registry = Registry(path)
    assert registry.members()["a"].departure is None
    registry.depart(departure("a"), now=NOW)
    assert Registry(path).members()["a"].departure is not None


def test_the_registry_holds_no_secret_and_is_its_owner_s(
    registry: Registry, tmp_path: Path
) -> None:
    secret = registry.invite("a", expires=NOW + HOUR)
    for path in tmp_path.iterdir():
        assert secret not in path.read_bytes()
    assert stat.S_IMODE((tmp_path / "registry.sqlite").stat().st_mode) == 0o600


def test_a_damaged_registry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigurationError, match=r"registry\.sqlite: cannot be used"):
        Registry(path)


@pytest.mark.parametrize("reason", DECLINES)
def test_every_reason_has_a_status_and_one_sentence(reason: str) -> None:
    status, sentence = declination(Declined(reason))  # type: ignore[arg-type]
    assert status.name != "OK"
    assert 10 < len(sentence) < 300
