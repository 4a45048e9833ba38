from __future__ import annotations

from coordinator.standing import (
    FIRST_REST_S,
    LONGEST_REST_S,
    MISSES,
    STRIKES,
    WINDOW,
    Rest,
    Standing,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def struck(standing: Standing, times: int = STRIKES) -> None:
    for _ in range(times):
        standing.strike("member-0")


def test_three_strikes_in_a_row_begin_a_rest() -> None:
    standing = Standing(Clock())
    struck(standing, STRIKES - 1)
    standing.good("member-0")
    struck(standing, STRIKES - 1)
    assert standing.may("member-0")
    standing.strike("member-0")
    assert not standing.may("member-0")
    assert standing.may("member-1")


def test_rests_grow_to_a_limit() -> None:
    clock = Clock()
    standing = Standing(clock)
    rests = []
    for _ in range(10):
        struck(standing)
        begun_s = clock.now_s
        while not standing.may("member-0"):
            clock.now_s += 1.0
        rests.append(clock.now_s - begun_s)
    assert rests[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert rests[-1] == LONGEST_REST_S


def test_a_cheat_is_never_asked_again() -> None:
    clock = Clock()
    standing = Standing(clock)
    standing.leave_out("member-0")
    standing.good("member-0")
    clock.now_s += 1e9
    assert not standing.may("member-0")
    assert standing.cheated("member-0")
    assert not standing.cheated("member-1")


def test_a_member_that_is_gone_is_struck_once_until_it_is_back() -> None:
    standing = Standing(lambda: 0.0)
    for _ in range(10):
        standing.silent("a", connected=False)
    assert standing.may("a")
    for _ in range(STRIKES - 1):  # silence on an open stream counts every time
        standing.silent("a", connected=True)
    assert not standing.may("a")


def test_a_member_that_flaps_rests() -> None:
    standing = Standing(lambda: 0.0)
    for _ in range(STRIKES):
        standing.silent("a", connected=False)
        standing.silent("a", connected=True)
    assert not standing.may("a")


def missing_every_second(standing: Standing, tasks: int) -> int:
    """How many tasks a member that misses every second one is given before it rests."""
    for task in range(tasks):
        if not standing.may("a"):
            return task
        if task % 2:
            standing.strike("a")
        else:
            standing.good("a")
    return tasks


def test_a_member_that_misses_every_second_task_rests() -> None:
    rests: list[Rest] = []
    standing = Standing(Clock(), rests.append)
    assert missing_every_second(standing, 100) == 2 * MISSES
    assert rests == [Rest("a", FIRST_REST_S, f"missed {MISSES} of its last {2 * MISSES} tasks")]


def test_a_member_that_misses_a_few_does_not_rest() -> None:
    standing = Standing(Clock())
    for task in range(1000):
        if task % 5:
            standing.good("a")
        else:
            standing.strike("a")
    assert standing.may("a")


def test_rests_are_told_with_what_everybody_saw() -> None:
    rests: list[Rest] = []
    standing = Standing(Clock(), rests.append)
    struck(standing)
    assert rests == [Rest("member-0", FIRST_REST_S, "missed 3 tasks in a row")]


def test_a_member_that_does_well_again_is_forgiven() -> None:
    clock, rests = Clock(), list[Rest]()
    standing = Standing(clock, rests.append)
    for _ in range(4):
        struck(standing)
        clock.now_s += LONGEST_REST_S
    assert rests[-1].seconds == 8 * FIRST_REST_S
    for _ in range(2 * WINDOW):
        standing.good("member-0")
    struck(standing)
    assert rests[-1].seconds == 2 * FIRST_REST_S


def test_members_that_rest_are_asked_where_too_few_are_there_without_them() -> None:
    standing = Standing(Clock())
    everybody = [f"member-{index}" for index in range(5)]
    struck(standing)
    standing.leave_out("member-4")
    able = set(everybody[:4])
    assert standing.askable(everybody, present=everybody, least=3) == able - {"member-0"}
    assert standing.askable(everybody, present=everybody, least=4) == able
    assert standing.askable(everybody, present=everybody[:3], least=3) == able
