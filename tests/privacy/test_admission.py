from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.admission import Admissions, Vouch, check_admissions, fingerprint, vouch
from privacy.errors import BadSignature, MalformedBody, PolicyRefusal
from privacy.identity import Identity
from privacy.terms import Terms
from tests.conftest import identity, make_terms

TERMS = make_terms(members=5)  # c = 1
OWN = identity("member-0")
KNOWN = {f"member-{n}": identity(f"member-{n}").public for n in (1, 2)}


def word(by: Identity, member: str, key: str | None = None, alliance: str = "test") -> Vouch:
    about = key or identity(member).public
    return vouch(by, alliance=alliance, member=member, identity=about)


def check(*vouches: Vouch, terms: Terms = TERMS, known: dict[str, str] | None = None) -> None:
    check_admissions(
        terms,
        Admissions.of(terms, vouches).canonical(),
        own=OWN.public,
        known=KNOWN if known is None else known,
    )


def vouches_of(*names: str, about: tuple[str, ...] = ("member-3", "member-4")) -> list[Vouch]:
    return [word(identity(name), member) for name in names for member in about]


def test_a_roster_is_accepted_once_more_than_c_known_members_vouch_for_the_others() -> None:
    check(*vouches_of("member-1", "member-2"))


def test_this_member_s_own_vouch_counts_as_one() -> None:
    check(*vouches_of("member-0", "member-1"))


def test_whom_this_member_knows_itself_needs_no_vouch() -> None:
    everybody = {entry.name: entry.identity for entry in TERMS.roster[1:]}
    check(known=everybody)
    check_admissions(TERMS, b"", own=OWN.public, known=everybody)


@pytest.mark.parametrize(
    "vouches",
    [
        [],
        vouches_of("member-1"),  # c is 1: one may be a colluder's
        vouches_of("member-1", "member-1"),
        vouches_of("member-1", "member-3", "member-4"),  # those are strangers themselves
        vouches_of("member-1", "member-2", about=("member-3",)),
    ],
)
def test_a_coordinator_cannot_make_members_up(vouches: list[Vouch]) -> None:
    with pytest.raises(PolicyRefusal, match=r"member-[34] with identity .* countersignatures"):
        check(*vouches)


def test_a_vouch_for_another_key_alliance_or_name_does_not_count() -> None:
    by, about = identity("member-2"), identity("member-3").public
    right = vouches_of("member-1", "member-2", about=("member-4",)) + vouches_of(
        "member-1", about=("member-3",)
    )
    check(*right, word(by, "member-3"))
    wrongs = [
        word(by, "member-3", identity("somebody").public),
        word(by, "member-3", alliance="other"),
        word(by, "member-4", about),
    ]
    for wrong in wrongs:
        forged = Admissions.of(TERMS, right).model_dump(mode="json")
        forged["vouches"]["member-3"][by.public] = wrong.signature
        with pytest.raises(PolicyRefusal, match=r"member-3 .* has 1 countersignatures"):
            check_admissions(
                TERMS,
                Admissions.model_validate(forged).canonical(),
                own=OWN.public,
                known=KNOWN,
            )


def test_a_known_name_with_another_key_is_refused_however_many_vouch() -> None:
    known = KNOWN | {"member-3": identity("the real one").public}
    with pytest.raises(PolicyRefusal, match=r"member-3 .* known_members say"):
        check(*vouches_of("member-0", "member-1", "member-2"), known=known)
    known = KNOWN | {"old-name": identity("member-3").public}
    with pytest.raises(PolicyRefusal, match=r"member-3 .* known_members say"):
        check(*vouches_of("member-0", "member-1", "member-2"), known=known)


@pytest.mark.parametrize("admissions", [b"{}", b"[]", b"\xff", b'{"version":2,"vouches":{}}'])
def test_malformed_admissions_are_refused(admissions: bytes) -> None:
    with pytest.raises(PolicyRefusal, match="not admissions"):
        check_admissions(TERMS, admissions, own=OWN.public, known=KNOWN)


def test_a_vouch_survives_its_file_and_a_changed_one_does_not() -> None:
    good = word(OWN, "member-3")
    assert Vouch.from_json(good.canonical()) == good
    changed = good.model_copy(update={"member": "member-4"})
    with pytest.raises(BadSignature):
        Vouch.from_json(changed.canonical())
    with pytest.raises(MalformedBody):
        Vouch.from_json(good.canonical()[:-1])


@given(st.binary(max_size=300))
def test_bytes_are_a_vouch_or_are_refused(data: bytes) -> None:
    with pytest.raises((MalformedBody, BadSignature)):
        Vouch.from_json(data)


@given(*(st.text("abc-1", min_size=1, max_size=8) for _ in range(2)))
def test_fingerprints_tell_alliance_and_member_apart(alliance: str, member: str) -> None:
    key = OWN.public
    here = fingerprint(alliance=alliance, member=member, identity=key)
    assert len(here.split()) == 8
    assert here != fingerprint(alliance=alliance + "x", member=member, identity=key)
    assert here != fingerprint(alliance=alliance, member="x" + member, identity=key)


@pytest.mark.parametrize("field", ['"%d_":0', '"":{}', '"m%d":{"":0}'])
def test_admissions_of_nothing_but_odd_fields_are_refused_before_each_is_described(
    field: str,
) -> None:
    fields = ",".join(field.replace("%d", str(number)) for number in range(20_000))
    with pytest.raises(MalformedBody, match="more fields than fit"):
        Admissions.from_json(f'{{"version":1,"vouches":{{{fields}}}}}'.encode())
