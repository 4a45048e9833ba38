from __future__ import annotations

import pytest

from coordinator.cohort import choose
from privacy.errors import RoundFailed
from privacy.terms import Terms
from tests.conftest import make_terms

TERMS = make_terms(members=7, cohort_size=5)
NAMES = [entry.name for entry in TERMS.roster]


def chosen(terms: Terms, willing: list[str], present: list[str]) -> tuple[str, ...]:
    return choose(terms, willing=set(willing), present=set(present))


def test_present_members_come_first_and_roster_order_is_kept() -> None:
    assert chosen(TERMS, NAMES, NAMES[2:]) == tuple(NAMES[2:])


def test_an_absent_member_keeps_a_place_when_too_few_are_present() -> None:
    assert chosen(TERMS, NAMES, NAMES[3:]) == (NAMES[0], *NAMES[3:])


@pytest.mark.parametrize(
    ("willing", "present"), [(NAMES[:3], NAMES), (NAMES, NAMES[:3]), ([], NAMES)]
)
def test_fewer_than_least_survivors_are_not_asked(willing: list[str], present: list[str]) -> None:
    with pytest.raises(RoundFailed, match="the terms demand 4"):
        chosen(TERMS, willing, present)
