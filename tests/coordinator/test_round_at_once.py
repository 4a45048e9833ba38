"""What members reveal along with their contributions, where nobody may drop."""

from __future__ import annotations

import pytest

from coordinator.round import Round
from privacy.errors import MemberFault
from privacy.secagg import Signed, Unmasking
from tests.conftest import make_terms
from tests.privacy.secagg.alliance import Alliance, Sum, vector_of


@pytest.mark.parametrize("dropouts", [0, 1])
def test_a_fault_in_what_comes_along_does_not_undo_the_contribution(dropouts: int) -> None:
    alliance = Alliance(make_terms(members=5, dimension=8, dropouts=dropouts))
    one = Sum(alliance, alliance.cohort())
    round_ = Round(
        alliance.terms, round_number=3, attempt=1, cohort=tuple(one.here),
        unmasking=Unmasking(one.unmasking.cohort, one.attempt),
    )  # fmt: skip
    faults = []
    for place, name in enumerate(one.here):
        vector = vector_of(alliance.terms, name)
        signature = alliance.members[name].mask(one.attempt, vector)
        said = Signed(b"\0\0\0\0", bytes(64))
        if dropouts == 0 and place:
            said = alliance.members[name].unmask_at_once(one.attempt)
        round_.announce(name, vector.dtype.name, vector.shape, signature, said)
        assert round_.cleared() == [name]
        assert round_.add(name, 0, vector.tobytes()) is not None
        try:
            round_.reveal(name)
        except MemberFault:
            faults.append(name)
    assert faults == (one.here[:1] if dropouts == 0 else one.here)
    assert list(round_.contributions) == one.here
    round_.close()
    assert round_.unmasking is not None
    assert round_.unmasking.is_revealed is (dropouts == 0)
    if dropouts == 0:
        round_.unmasking.close()
        assert round_.release().contributors == tuple(one.here)
