from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.budget import StudySpend
from privacy.errors import BudgetRefusal

STUDY = StudySpend(rounds=5, attempts=7)


def test_numbers_are_reserved_and_used_in_order() -> None:
    spend = STUDY.reserve(1, 4)
    for number, (round_number, attempt) in enumerate([(1, 1), (1, 2), (2, 1), (4, 1)], start=1):
        spend = spend.use(round_number=round_number, attempt=attempt, number=number)
    assert spend == StudySpend(
        5, 7, reserved=4, used=4, contributions=4, last_round=4, last_attempt=1
    )


@pytest.mark.parametrize(("first", "count"), [(2, 1), (0, 1), (1, 0), (1, -1), (-1, 3)])
def test_numbers_with_a_gap_or_twice_are_refused(first: int, count: int) -> None:
    with pytest.raises(BudgetRefusal, match="number 1 is the next"):
        STUDY.reserve(first, count)


def test_the_last_attempt_is_the_last() -> None:
    spend = STUDY.reserve(1, 7)
    with pytest.raises(BudgetRefusal, match="all 7 attempts of the terms are spent"):
        spend.reserve(8, 1)
    with pytest.raises(BudgetRefusal, match="all 7 attempts of the terms are spent"):
        STUDY.reserve(1, 8)


@pytest.mark.parametrize(("round_number", "attempt"), [(3, 2), (3, 1), (2, 9)])
def test_no_attempt_is_made_twice_or_backwards(round_number: int, attempt: int) -> None:
    spend = StudySpend(5, 7, reserved=4, used=3, last_round=3, last_attempt=2)
    with pytest.raises(BudgetRefusal, match="open a new attempt"):
        spend.use(round_number=round_number, attempt=attempt, number=4)


@pytest.mark.parametrize(("round_number", "attempt"), [(0, 1), (6, 1), (-1, 1), (1, 0)])
def test_rounds_outside_the_terms_are_refused(round_number: int, attempt: int) -> None:
    with pytest.raises(BudgetRefusal, match="the terms have rounds 1 to 5"):
        STUDY.reserve(1, 1).use(round_number=round_number, attempt=attempt, number=1)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_number_that_is_used_or_not_reserved_is_refused(number: int) -> None:
    spend = STUDY.reserve(1, 2).use(round_number=1, attempt=1, number=1)
    with pytest.raises(BudgetRefusal, match="not reserved or was used; 2 to 2 are there"):
        spend.use(round_number=2, attempt=1, number=number)


def test_nothing_reserved_in_one_period_is_used_in_the_next() -> None:
    spend = STUDY.reserve(1, 2).renewed()
    with pytest.raises(BudgetRefusal, match="is not reserved or was used"):
        spend.use(round_number=1, attempt=1, number=1)
    assert spend.reserve(3, 1).use(round_number=1, attempt=1, number=3).reserved == 3


def test_a_finished_study_takes_nothing_more() -> None:
    over = STUDY.reserve(1, 2).finish()
    assert over.unreserved == 0
    for step in (
        lambda: over.reserve(3, 1),
        lambda: over.use(round_number=1, attempt=1, number=1),
        over.finish,
    ):
        with pytest.raises(BudgetRefusal, match="the study is over"):
            step()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("reserve"), st.integers(-1, 9), st.integers(-1, 4)),
            st.tuples(st.just("use"), st.integers(-1, 7), st.integers(-1, 9)),
        ),
        max_size=60,
    )
)
def test_spend_never_falls_and_never_passes_the_terms(steps: list[tuple[str, int, int]]) -> None:
    spend, made = STUDY, []
    for kind, one, other in steps:
        try:
            if kind == "reserve":
                after = spend.reserve(one, other)
                assert after.reserved > spend.reserved
            else:
                after = spend.use(round_number=one, attempt=other, number=spend.used + 1)
                made.append((one, other))
        except BudgetRefusal:
            continue
        assert spend.reserved <= after.reserved <= 7
        assert after.used <= after.reserved
        spend = after
    assert made == sorted(set(made))
    assert spend.contributions == len(made) == spend.used
