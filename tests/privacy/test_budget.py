from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.budget import StudySpend
from privacy.errors import BudgetRefusal
from tests.conftest import make_terms

TERMS = make_terms(rounds=5, max_attempts=7)


def test_rounds_and_attempts_are_reserved_in_order() -> None:
    spend = StudySpend()
    for round_number, attempt in [(1, 1), (1, 2), (2, 1), (4, 1)]:
        spend = spend.reserve(TERMS, round_number=round_number, attempt=attempt)
    assert spend == StudySpend(attempts=4, last_round=4, last_attempt=1)


@pytest.mark.parametrize(("round_number", "attempt"), [(3, 2), (3, 1), (2, 9)])
def test_nothing_is_reserved_twice_or_backwards(round_number: int, attempt: int) -> None:
    with pytest.raises(BudgetRefusal, match="open a new attempt"):
        StudySpend(3, 3, 2).reserve(TERMS, round_number=round_number, attempt=attempt)


@pytest.mark.parametrize(("round_number", "attempt"), [(0, 1), (6, 1), (-1, 1), (1, 0)])
def test_rounds_outside_the_terms_are_refused(round_number: int, attempt: int) -> None:
    with pytest.raises(BudgetRefusal, match="the terms have rounds 1 to 5"):
        StudySpend().reserve(TERMS, round_number=round_number, attempt=attempt)


def test_the_last_attempt_is_the_last() -> None:
    spend = StudySpend()
    for attempt in range(1, 8):
        spend = spend.reserve(TERMS, round_number=1, attempt=attempt)
    with pytest.raises(BudgetRefusal, match="all 7 attempts of the terms are spent"):
        spend.reserve(TERMS, round_number=1, attempt=8)


@given(st.lists(st.tuples(st.integers(-1, 7), st.integers(-1, 9)), max_size=60))
def test_spend_never_falls_and_never_passes_the_terms(keys: list[tuple[int, int]]) -> None:
    spend, granted = StudySpend(), []
    for round_number, attempt in keys:
        try:
            after = spend.reserve(TERMS, round_number=round_number, attempt=attempt)
        except BudgetRefusal:
            continue
        assert after.attempts == spend.attempts + 1 <= TERMS.privacy.max_attempts
        granted.append((round_number, attempt))
        spend = after
    assert granted == sorted(set(granted))
    assert spend.attempts == len(granted)
