"""Who is waited for, and how long: state machines driven by a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.patience import LATE_PART, Patience, Uploads, Waiting
from protos.limits import LIMITS

NAMES = ("a", "b", "c", "d", "e")
DEADLINE_S, GRACE_S, RECONNECT_S = 30.0, 1.0, 0.5


def waiting(
    *, late: tuple[str, ...] = (), names: tuple[str, ...] = NAMES, **changes: Any
) -> Waiting:
    values = {"least": 4, "grace_s": GRACE_S, "reconnect_s": RECONNECT_S, "needed": True}
    patience = Patience(**(values | changes))
    return Waiting(names, patience, opened_s=0.0, deadline_s=DEADLINE_S, late=late)


def answer(target: Waiting, names: str) -> None:
    for name in names:
        target.settle(name, answered=True)


def refuse(target: Waiting, names: str) -> None:
    for name in names:
        target.settle(name, answered=False)


def test_everybody_has_until_the_deadline_while_enough_are_missing() -> None:
    target = waiting()
    answer(target, "abc")
    assert target.until(29.9) == DEADLINE_S
    assert target.until(DEADLINE_S) is None
    assert target.missed(DEADLINE_S) == {"d", "e"}


def test_a_phase_is_over_as_soon_as_everybody_answered() -> None:
    target = waiting()
    answer(target, "abcde")
    assert target.until(0.01) is None
    assert target.missed(0.01) == set()


def test_once_enough_answered_the_others_have_the_grace() -> None:
    target = waiting()
    answer(target, "abcd")
    assert target.until(0.2) == 0.2 + GRACE_S
    assert target.until(1.0) == 0.2 + GRACE_S  # it does not move
    assert target.missed(1.1) == set()
    assert target.until(0.2 + GRACE_S) is None
    assert target.missed(0.2 + GRACE_S) == {"e"}


def test_where_enough_took_longer_than_the_grace_the_others_have_as_long_again() -> None:
    target = waiting()
    answer(target, "abcd")
    assert target.until(9.0) == 18.0
    answer(target, "e")
    assert target.until(17.0) is None


def test_no_grace_goes_beyond_the_deadline() -> None:
    target = waiting()
    answer(target, "abcd")
    assert target.until(29.5) == DEADLINE_S


def test_who_was_late_before_can_catch_up_in_a_part_of_the_grace() -> None:
    target = waiting(late=("e",))
    answer(target, "abc")
    assert target.until(0.1) == DEADLINE_S  # it is needed
    answer(target, "d")
    assert target.until(0.2) == pytest.approx(0.2 + GRACE_S / LATE_PART)
    assert target.until(0.2 + GRACE_S / LATE_PART) is None
    assert target.missed(1.0) == {"e"}


def test_who_waits_for_its_turn_is_not_late() -> None:
    target = waiting(late=("e",))
    answer(target, "abcd")
    assert target.until(0.2, held={"e"}) == 0.2 + GRACE_S
    assert target.missed(9.0, held={"e"}) == set()


def test_a_member_that_is_gone_has_the_reconnect_time_once() -> None:
    target = waiting(needed=False)
    answer(target, "abcd")
    target = waiting(least=5, needed=False)
    answer(target, "abcd")
    target.leave("e", 3.0)
    assert target.until(3.1) == 3.0 + RECONNECT_S
    target.join("e")
    assert target.until(3.2) == DEADLINE_S
    target.leave("e", 9.0)
    assert target.until(9.1) is None
    assert target.missed(9.1) == {"e"}


def test_a_member_that_was_late_and_is_gone_is_not_waited_for() -> None:
    target = waiting(late=("e",), least=5, needed=False)
    target.leave("e", 0.0)
    answer(target, "abcd")
    assert target.until(0.1) is None


def test_a_phase_that_cannot_succeed_any_more_is_over_and_nobody_is_late_for_it() -> None:
    target = waiting()
    refuse(target, "ab")
    assert target.until(0.3) is None
    assert target.missed(0.3) == set()
    whole = waiting(needed=False)
    refuse(whole, "ab")
    assert whole.until(0.3) == DEADLINE_S


def test_a_phase_that_lacks_members_that_are_gone_is_over_once_they_had_their_time() -> None:
    target = waiting()
    target.leave("a", 2.0)
    target.leave("b", 2.0)
    assert target.until(2.1) == 2.0 + RECONNECT_S
    assert target.until(2.0 + RECONNECT_S) is None
    assert target.missed(2.0 + RECONNECT_S) == {"a", "b"}


def test_where_nobody_is_hurried_all_have_until_the_deadline() -> None:
    target = waiting(least=0, grace_s=None, needed=False, late=("e",))
    assert target.until(0.1) == RECONNECT_S  # who was late before
    assert target.until(1.0) == DEADLINE_S


steps = st.lists(
    st.tuples(
        st.floats(0.0, 4.0),
        st.sampled_from(NAMES),
        st.sampled_from(["answer", "refuse", "leave", "join"]),
    ),
    max_size=30,
)


@given(steps, st.sets(st.sampled_from(NAMES)), st.booleans(), st.sampled_from([None, 0.0, GRACE_S]))
def test_no_order_of_events_holds_a_phase_longer_than_it_may(
    steps: list[tuple[float, str, str]], late: set[str], needed: bool, grace_s: float | None
) -> None:
    """It is looked at when it asked to be, and at every event; then it ends where the rules say."""
    target = waiting(late=tuple(late), needed=needed, grace_s=grace_s)
    now_s, answered, silent, enough_s = 0.0, 0, set(NAMES), None
    for pause_s, name, what in [*steps, (DEADLINE_S, "a", "join")]:
        at_s = now_s + pause_s
        while (until_s := target.until(now_s)) is not None and until_s <= at_s:
            assert until_s > now_s
            now_s = until_s
        if until_s is None:
            break
        now_s = at_s
        if what in ("answer", "refuse"):
            answered += what == "answer" and name in silent
            silent.discard(name)
            target.settle(name, answered=what == "answer")
            if answered >= 4 and enough_s is None:
                enough_s = now_s
                target.until(now_s)
        elif what == "leave":
            target.leave(name, now_s)
        else:
            target.join(name)
    assert target.until(now_s) is None
    assert now_s <= DEADLINE_S
    if enough_s is not None and grace_s is not None:
        assert now_s <= enough_s + max(grace_s, enough_s)
    assert target.missed(now_s) <= silent
    if not needed:
        assert target.missed(now_s) == silent  # nobody is cut off before its time


# Places.

STALL_S = LIMITS.stall_timeout_s


def test_an_upload_that_stands_still_loses_its_place() -> None:
    uploads = Uploads(share_s=100.0)
    uploads.begin("a", 0.0)
    uploads.move("a", 3.0)
    assert uploads.until(3.0, crowded=False) == 3.0 + STALL_S
    assert uploads.overdue(7.9, crowded=False) == []
    assert uploads.overdue(3.0 + STALL_S, crowded=False) == ["a"]
    uploads.end("a")
    assert uploads.until(9.0, crowded=True) is None


def test_uploads_that_drip_lose_their_places_to_those_that_wait() -> None:
    uploads = Uploads(share_s=12.0)
    uploads.begin("a", 0.0)
    uploads.begin("b", 0.0)
    for at_s in range(1, 12):
        uploads.move("a", at_s)
        uploads.move("b", at_s)
    assert uploads.until(11.5, crowded=True) == 12.0
    assert uploads.overdue(11.9, crowded=True) == []
    assert uploads.overdue(12.0, crowded=True) == ["a", "b"]
    assert uploads.overdue(12.0, crowded=False) == []  # nobody wants their places


def test_an_upload_may_be_slow_while_places_come_free_beside_it() -> None:
    uploads = Uploads(share_s=12.0)
    uploads.begin("slow", 0.0)
    for at_s in range(0, 24, 3):
        uploads.move("slow", at_s)
        uploads.begin(f"fast-{at_s}", at_s)
        uploads.end(f"fast-{at_s}")
    assert uploads.overdue(24.0, crowded=True) == []
