from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition
from hypothesis.stateful import rule as step

from privacy.budget import Account, attempt_costs, failure_atto
from privacy.errors import BudgetRefusal
from privacy.ledger.entry import Conflict, Failure, Refusal, Started
from privacy.terms import Terms
from tests.conftest import make_terms
from tests.privacy.budget.entries import (
    DAY_MS,
    ORIGIN,
    START_MS,
    account,
    consent,
    contribution,
    finished,
    left,
    opened,
    renewal,
    reservation,
    rule,
)

TERMS = make_terms(rounds=10, max_attempts=12)
COST = attempt_costs(TERMS, (3500,))
DATED = {"renewal_days": 30, "renewal_column": "seen"}


def with_exact_room(terms: Terms, studies: int) -> int:
    """The least epsilon, in millionths, under which so many attempts of one study fit."""
    low, high = 4_000_000, 30_000_000
    while low < high:
        middle = (low + high) // 2
        if account(epsilon_micro=middle).rooms[1].left_nano >= COST[1].rdp_nano * studies:
            high = middle
        else:
            low = middle + 1
    return low


def test_a_study_is_earmarked_whole_and_spent_as_it_is_reserved() -> None:
    made = account(consent(TERMS))
    assert [room.earmarked_nano for room in made.rooms] == [12 * cost.rdp_nano for cost in COST]
    assert [room.spent_nano for room in made.rooms] == [0, 0]
    assert made.epsilon_micro(5) == 0
    left = [room.left_nano for room in made.rooms]
    made.apply(reservation(TERMS, 1, 5))
    assert [room.spent_nano for room in made.rooms] == [5 * cost.rdp_nano for cost in COST]
    assert [room.left_nano for room in made.rooms] == left
    assert 0 < made.epsilon_micro(1) < made.epsilon_micro(5) == made.lifetime_epsilon_micro(5)
    assert list(made.usable(TERMS.hash)) == [1, 2, 3, 4, 5]
    made.apply(contribution(TERMS, 1))
    assert list(made.usable(TERMS.hash)) == [2, 3, 4, 5]


def test_a_finished_study_frees_what_it_never_reserved() -> None:
    made = account(consent(TERMS), reservation(TERMS, 1, 5), finished(TERMS))
    assert [room.earmarked_nano for room in made.rooms] == [0, 0]
    assert [room.spent_nano for room in made.rooms] == [5 * cost.rdp_nano for cost in COST]
    for entry in (reservation(TERMS, 6), contribution(TERMS, 1), finished(TERMS)):
        with pytest.raises(BudgetRefusal, match="the study is over"):
            made.apply(entry)
    with pytest.raises(BudgetRefusal, match="accepted before"):
        made.apply(consent(TERMS))


def test_nothing_is_allowed_after_leaving_but_to_say_so() -> None:
    made = account(consent(TERMS), reservation(TERMS, 1, 5), contribution(TERMS, 1), left())
    assert made.left == left()
    assert [room.earmarked_nano for room in made.rooms] == [0, 0]
    assert [room.spent_nano for room in made.rooms] == [5 * cost.rdp_nano for cost in COST]
    other = make_terms(rounds=10, max_attempts=13)
    for entry in (
        consent(other), reservation(TERMS, 6), contribution(TERMS, 2), finished(TERMS), left(),
        rule(), renewal(2, START_MS + DAY_MS),
        Started(at_ms=START_MS, software="test", nonce="0" * 32),
    ):  # fmt: skip
        with pytest.raises(BudgetRefusal, match="this member has left the alliance"):
            made.apply(entry)
    made.apply(Refusal(at_ms=START_MS, terms=TERMS.hash, task="train.reserve", sentence="left"))
    made.apply(Conflict(at_ms=START_MS, origin="test/coordinator", held="", shown=""))


def test_a_second_study_is_weighed_against_what_the_first_one_earmarked() -> None:
    other = make_terms(rounds=10, max_attempts=13)
    exact = with_exact_room(TERMS, 12 + 13)
    made = account(consent(TERMS), epsilon_micro=exact)
    assert made.projection(other).fits
    made.apply(consent(other))
    short = account(consent(TERMS), epsilon_micro=exact - 1)
    cost = short.projection(other)
    assert not cost.fits
    assert "its 13 attempts would take" in cost.shortage
    assert "for a consumer known to 5 members" in cost.shortage
    with pytest.raises(BudgetRefusal, match="budget over all studies does not cover them"):
        short.apply(consent(other))
    short.apply(finished(TERMS))  # nothing was reserved: all of it is free again
    short.apply(consent(other))


def test_one_unit_of_the_fifth_member_too_much_is_refused() -> None:
    """L8: the limit holds to the last 1e-9."""
    made = account()
    room = made.rooms[1].left_nano
    costs = (COST[0], COST[1].model_copy(update={"rdp_nano": room // 12 + 1}))
    with pytest.raises(BudgetRefusal, match="known to 5 members"):
        made.apply(consent(TERMS, costs=costs))
    costs = (COST[0], COST[1].model_copy(update={"rdp_nano": room // 12}))
    made.apply(consent(TERMS, costs=costs))
    assert 0 <= made.rooms[1].left_nano < 12


def test_failures_have_a_limit_of_their_own() -> None:
    made = account()
    with pytest.raises(BudgetRefusal, match="of delta for failures"):
        made.apply(consent(TERMS, failure_atto=made.failure_left_atto // 12 + 1))
    made.apply(consent(TERMS, failure_atto=made.failure_left_atto // 12))
    assert made.failure_left_atto < 12


def test_every_order_of_a_rule_must_hold() -> None:
    orders = (3500, 64_000)
    both = account(orders_thousandths=orders)
    terms = make_terms(noise_multiplier=4.0)
    assert account().projection(terms).shortage == ""
    with pytest.raises(BudgetRefusal, match="at order 64 for a consumer known to"):
        both.apply(consent(terms, orders))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attempts": 11}, "not of its attempts and orders"),
        ({"costs": COST[:1]}, "not of its attempts and orders"),
        ({"costs": COST[::-1]}, "not of its attempts and orders"),
        ({"costs": attempt_costs(TERMS, (4000,))}, "not of its attempts and orders"),
        ({"costs": (COST[0], COST[1].model_copy(update={"rdp_nano": COST[1].rdp_nano - 1}))},
         "its costs are not those of its terms"),
        ({"costs": (COST[0], COST[1].model_copy(update={"rdp_nano": COST[1].rdp_nano + 1}))},
         "its costs are not those of its terms"),
        ({"failure_atto": failure_atto(TERMS) - 1}, "its costs are not those of its terms"),
        ({"hash": "0" * 64}, "its terms have another hash"),
        ({"terms": {}}, "consent to"),
    ],
)  # fmt: skip
def test_a_consent_that_is_not_what_its_terms_say_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    made = account()
    with pytest.raises(BudgetRefusal, match=words):
        made.apply(consent(TERMS, **changes), recompute=True)
    assert made.studies == ()


@pytest.mark.parametrize("value", ["1e308", "-1", "0", "NaN"])
def test_terms_with_numbers_out_of_range_never_become_a_consent(value: str) -> None:
    document = json.loads(TERMS.canonical())
    document["privacy"]["noise_multiplier_billionths"] = value
    with pytest.raises(BudgetRefusal):
        account().apply(consent(TERMS, terms=document), recompute=True)


def test_terms_of_another_alliance_or_roster_are_refused_with_what_to_set() -> None:
    other = TERMS.model_copy(update={"alliance": "elsewhere"})
    with pytest.raises(BudgetRefusal, match='set alliance = "elsewhere"'):
        account().apply(consent(other))
    made = Account()
    for entry in (opened("test/member/stranger"), rule()):
        made.apply(entry)
    with pytest.raises(BudgetRefusal, match="its roster does not name stranger"):
        made.apply(consent(TERMS))


def test_entries_out_of_place_are_refused() -> None:
    started = Started(at_ms=START_MS, software="test", nonce="0" * 32)
    empty = Account()
    with pytest.raises(BudgetRefusal, match="one `opened` entry"):
        empty.apply(started)
    with pytest.raises(BudgetRefusal, match="is not a member's log"):
        empty.apply(opened("test/coordinator"))
    empty.apply(opened())
    with pytest.raises(BudgetRefusal, match="one `opened` entry"):
        empty.apply(opened())
    empty.apply(started)
    for entry in (consent(TERMS), renewal(2, START_MS + 30 * DAY_MS)):
        with pytest.raises(BudgetRefusal, match="no rule limits"):
            empty.apply(entry)
    empty.apply(rule())
    for entry in (reservation(TERMS, 1), contribution(TERMS, 1), finished(TERMS)):
        with pytest.raises(BudgetRefusal, match="were not accepted here"):
            empty.apply(entry)
    empty.apply(Refusal(at_ms=START_MS, terms="", task="train.x", sentence="no"))
    empty.apply(Conflict(at_ms=START_MS, origin=ORIGIN, held="a", shown="b"))
    with pytest.raises(BudgetRefusal, match="holds no 'failure' entry"):
        empty.apply(
            Failure(
                at_ms=START_MS, terms=TERMS.hash, round=1, attempt=1, key_set=1, cohort="0" * 64,
                members=(), model="0" * 64, contributions=(), sentence="no",
            )
        )  # fmt: skip


def test_a_lower_rule_lowers_nothing_that_is_spent_and_stops_everything() -> None:
    made = account(consent(TERMS), reservation(TERMS, 1, 5))
    spent = [room.spent_nano for room in made.rooms]
    exact = with_exact_room(TERMS, 7)
    made.apply(rule(epsilon_micro=exact))
    assert [room.spent_nano for room in made.rooms] == spent
    assert made.rooms[1].left_nano < 0
    made.apply(reservation(TERMS, 6, 2))  # what is left below the new limit
    for lower in (exact, 3_830_000):
        made.apply(rule(epsilon_micro=lower))
        for entry in (reservation(TERMS, 8), consent(make_terms(max_attempts=30))):
            with pytest.raises(BudgetRefusal, match=r"smaller than when it accepted|not cover"):
                made.apply(entry)
    made.apply(contribution(TERMS, 1))  # what is spent may be used


def test_orders_are_fixed_while_anything_is_spent_or_earmarked() -> None:
    other = rule(orders_thousandths=(4000,))
    account().apply(other)
    with pytest.raises(BudgetRefusal, match="orders are fixed"):
        account(consent(TERMS)).apply(other)
    over = account(consent(TERMS), finished(TERMS))
    over.apply(other)  # nothing was spent
    spent = account(consent(TERMS), reservation(TERMS, 1), finished(TERMS), **DATED)
    changed = rule(orders_thousandths=(4000,), **DATED)
    with pytest.raises(BudgetRefusal, match="orders are fixed"):
        spent.apply(changed)
    before = spent.lifetime_epsilon_micro(5)
    spent.apply(renewal(2, START_MS + 30 * DAY_MS))
    spent.apply(changed)
    assert spent.lifetime_epsilon_micro(5) == before > 0
    assert spent.lifetime_delta_billionths == 10_000
    third = make_terms(max_attempts=14)
    spent.apply(consent(third, (4000,)))
    spent.apply(reservation(third, 1))
    assert spent.lifetime_epsilon_micro(5) == before + spent.epsilon_micro(5)
    assert spent.lifetime_delta_billionths == 20_000


def test_the_renewal_column_is_fixed_once_anything_was_spent() -> None:
    account().apply(rule(**DATED))
    made = account(consent(TERMS), reservation(TERMS, 1))
    with pytest.raises(BudgetRefusal, match="told from newer ones by no column"):
        made.apply(rule(**DATED))


def test_a_new_period_starts_at_zero_and_lifetime_sums_go_on() -> None:
    made = account(consent(TERMS), reservation(TERMS, 1, 5), **DATED)
    made.apply(contribution(TERMS, 1))
    lifetime = made.lifetime_epsilon_micro(5)
    made.apply(renewal(2, START_MS + 30 * DAY_MS))
    assert (made.period, made.epsilon_micro(5)) == (2, 0)
    assert made.lifetime_epsilon_micro(5) == lifetime
    assert list(made.usable(TERMS.hash)) == []  # they were paid by the old rows' budget
    with pytest.raises(BudgetRefusal, match="is not reserved or was used"):
        made.apply(contribution(TERMS, 2))
    made.apply(reservation(TERMS, 6, 2))
    made.apply(contribution(TERMS, 6))
    assert made.rooms[1].spent_nano == 2 * COST[1].rdp_nano
    assert made.lifetime_epsilon_micro(5) > lifetime


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (renewal(2, START_MS + 30 * DAY_MS - 1), "it is due at"),
        (renewal(2, 0), "it is due at"),
        (renewal(2, START_MS - 1), "it is due at"),
        (renewal(3, START_MS + 30 * DAY_MS), "the next one is 2"),
        (renewal(2, START_MS + 31 * DAY_MS, at_ms=START_MS + 30 * DAY_MS), "may not begin"),
    ],
)
def test_a_period_begins_when_the_rule_says_and_not_in_the_future(entry: Any, words: str) -> None:
    with pytest.raises(BudgetRefusal, match=words):
        account(**DATED).apply(entry)


def test_a_clock_set_back_begins_no_earlier_period() -> None:
    made = account(**DATED)
    late = START_MS + 90 * DAY_MS
    made.apply(Started(at_ms=late, software="test", nonce="0" * 32))
    with pytest.raises(BudgetRefusal, match="the newest entry is of"):
        made.apply(renewal(2, START_MS + 40 * DAY_MS))
    made.apply(renewal(2, late))
    with pytest.raises(BudgetRefusal, match="may not begin"):
        made.apply(renewal(3, late + DAY_MS))


def test_without_such_a_rule_nothing_renews() -> None:
    with pytest.raises(BudgetRefusal, match="does not renew"):
        account().apply(renewal(2, START_MS + 3000 * DAY_MS))


STUDIES = tuple(make_terms(rounds=6, max_attempts=6 + extra) for extra in (0, 1, 2))


class AnyOrder(RuleBasedStateMachine):
    """Entries in any order: whatever is taken in, the sums keep to what was allowed."""

    @initialize(epsilon=st.integers(5_000_000, 16_000_000))
    def begin(self, epsilon: int) -> None:
        self.now = START_MS
        self.account = account(epsilon_micro=epsilon, **DATED)
        self.taken: dict[str, list[int]] = {}
        self.spent = [0, 0]
        self.lifetime = 0
        self.used: set[tuple[str, int]] = set()
        self.void: dict[str, int] = {}
        self.period = 1

    def offer(self, entry: Any, then: Callable[[], None] = lambda: None) -> None:
        before = (self.account.rooms, self.account.studies, self.account.rule)
        try:
            self.account.apply(entry)
        except BudgetRefusal:
            assert before == (self.account.rooms, self.account.studies, self.account.rule)
            return
        then()

    @step(terms=st.sampled_from(STUDIES))
    def accept(self, terms: Terms) -> None:
        def then() -> None:
            assert terms.hash not in self.taken
            self.taken[terms.hash] = []
            assert all(room.left_nano >= 0 for room in self.account.rooms)

        self.offer(consent(terms, at_ms=self.now), then)

    @step(terms=st.sampled_from(STUDIES), ahead=st.integers(0, 2), count=st.integers(1, 4))
    def reserve(self, terms: Terms, ahead: int, count: int) -> None:
        first = len(self.taken.get(terms.hash, ())) + 1 + (ahead == 2)

        def then() -> None:
            self.taken[terms.hash] += range(first, first + count)
            assert self.taken[terms.hash] == list(range(1, len(self.taken[terms.hash]) + 1))
            assert len(self.taken[terms.hash]) <= terms.privacy.max_attempts
            costs = attempt_costs(terms, (3500,))
            self.spent = [
                was + count * cost.rdp_nano for was, cost in zip(self.spent, costs, strict=True)
            ]
            for room in self.account.rooms:
                assert room.spent_nano <= room.limit_nano

        self.offer(reservation(terms, first, count, at_ms=self.now), then)

    @step(terms=st.sampled_from(STUDIES), number=st.integers(1, 8), attempt=st.integers(1, 2))
    def contribute(self, terms: Terms, number: int, attempt: int) -> None:
        def then() -> None:
            assert number in self.taken[terms.hash][self.void.get(terms.hash, 0) :]
            assert (terms.hash, number) not in self.used
            self.used.add((terms.hash, number))

        self.offer(contribution(terms, number, min(number, 6), attempt), then)

    @step(terms=st.sampled_from(STUDIES))
    def finish(self, terms: Terms) -> None:
        self.offer(finished(terms))

    @step(epsilon=st.integers(4_000_000, 16_000_000))
    def change_the_rule(self, epsilon: int) -> None:
        self.offer(rule(epsilon_micro=epsilon, **DATED))

    @step(days=st.integers(-40, 40))
    def renew(self, days: int) -> None:
        at = self.now + days * DAY_MS

        def then() -> None:
            assert at >= self.account.period_from_ms
            self.now, self.spent, self.period = at, [0, 0], self.period + 1
            self.void = {terms: len(numbers) for terms, numbers in self.taken.items()}

        self.offer(renewal(self.period + 1, at), then)

    @precondition(lambda self: hasattr(self, "account"))
    @invariant()
    def sums_are_what_was_reserved_and_never_fall(self) -> None:
        assert [room.spent_nano for room in self.account.rooms] == self.spent
        lifetime = self.account.lifetime_epsilon_micro(5)
        assert lifetime >= max(self.lifetime, self.account.epsilon_micro(5))
        self.lifetime = lifetime


TestAnyOrder = AnyOrder.TestCase
