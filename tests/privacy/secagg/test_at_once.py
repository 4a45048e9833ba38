"""One trip where nobody may drop: shares are revealed along with contributions."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.errors import MemberFault, RequestRefusal, RoundFailed
from privacy.secagg import Signed, Unmasking
from privacy.secagg.messages import Revealed
from tests.conftest import make_terms
from tests.privacy.secagg.alliance import Alliance, Sum, sum_of


def contributed(dropouts: int, members: int = 5) -> Sum:
    """An attempt whose contributions are there, nothing revealed."""
    alliance = Alliance(make_terms(members=members, dimension=8, dropouts=dropouts))
    one = Sum(alliance, alliance.cohort())
    one.contribute()
    return one


def revealed(one: Sum, name: str) -> Signed:
    return one.alliance.members[name].unmask_at_once(one.attempt)


def test_shares_that_come_with_contributions_give_the_sum() -> None:
    one = contributed(dropouts=0)
    for name in one.here:
        said = revealed(one, name)
        one.unmasking.take_unmask(name, said.body, said.signature)
    assert one.unmasking.is_revealed
    one.unmasking.unmask(one.total)
    assert (one.total == sum_of(one.alliance.terms, one.unmasking.survivors)).all()
    assert one.unmasking.survivors == one.alliance.setup.names


def test_a_member_that_may_drop_reveals_nothing_with_its_contribution() -> None:
    one = contributed(dropouts=1)
    with pytest.raises(RequestRefusal, match="members may drop"):
        revealed(one, one.here[0])
    signature = one.alliance.members[one.here[0]].confirm(one.attempt, one.sent.lists)
    assert signature  # it was not used up by that


def test_a_coordinator_takes_no_shares_early_where_members_may_drop() -> None:
    one = contributed(dropouts=1)
    with pytest.raises(MemberFault, match="not open"):
        one.unmasking.take_unmask(one.here[0], b"", bytes(64))


def test_shares_are_revealed_once_and_then_nothing_else_is_answered() -> None:
    one = contributed(dropouts=0)
    member = one.alliance.members[one.here[0]]
    revealed(one, one.here[0])
    for again in (
        lambda: member.unmask_at_once(one.attempt),
        lambda: member.confirm(one.attempt, one.sent.lists),
        lambda: member.unmask(one.attempt, bytes(4)),
        lambda: member.mask(one.attempt, np.zeros(8, dtype=np.uint32)),
    ):
        with pytest.raises(RequestRefusal):
            again()


def test_nothing_is_revealed_after_a_list_was_signed_or_before_the_contribution() -> None:
    one = contributed(dropouts=0)
    first, second = one.here[:2]
    one.alliance.members[first].confirm(one.attempt, one.sent.lists)
    with pytest.raises(RequestRefusal, match="list was signed"):
        revealed(one, first)
    fresh = Alliance(one.alliance.terms)
    other = Sum(fresh, fresh.cohort())
    with pytest.raises(RequestRefusal, match="did not contribute"):
        revealed(other, second)


def test_a_member_that_did_not_contribute_cannot_have_its_shares_taken() -> None:
    one = contributed(dropouts=0)
    said = revealed(one, one.here[0])
    fresh = Unmasking(one.unmasking.cohort, one.attempt)
    with pytest.raises(MemberFault, match="not open"):
        fresh.take_unmask(one.here[0], said.body, said.signature)


def test_one_missing_contribution_fails_the_attempt_whatever_was_revealed() -> None:
    alliance = Alliance(make_terms(members=5, dimension=8, dropouts=0))
    one = Sum(alliance, alliance.cohort())
    one.here = one.here[:4]
    with pytest.raises(RoundFailed, match="contributed"):
        one.contribute()


def test_a_false_share_is_named_and_the_good_ones_are_enough() -> None:
    one = contributed(dropouts=0)
    for place, name in enumerate(one.here):
        said = revealed(one, name)
        if place:
            one.unmasking.take_unmask(name, said.body, said.signature)
            continue
        entries = list(Revealed.decode(said.body).entries)
        entries[1] = (entries[1][0], entries[1][1], bytes(16))
        body = Revealed(tuple(entries)).encode()
        signature = one.alliance.setup.sign(
            one.alliance.members[name]._identity,
            "unmask",
            one.alliance.setup.statement(
                "unmask", 1, body, attempt=one.attempt, cohort=one.unmasking.cohort.hash
            ),
        )
        with pytest.raises(MemberFault, match="did not sign"):
            one.unmasking.take_unmask(name, body, signature)
    one.unmasking.unmask(one.total)
    assert one.is_exact()
