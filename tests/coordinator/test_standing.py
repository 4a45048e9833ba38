from __future__ import annotations

from coordinator.standing import FIRST_REST_S, LONGEST_REST_S, STRIKES, Standing


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
