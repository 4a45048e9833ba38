from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from pydantic import ValidationError

from client_sdk.hours import Hours, within
from client_sdk.policy import Policy

MONDAY = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


def at(day: int, clock: str, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    hour, minute = map(int, clock.split(":"))
    return (MONDAY + dt.timedelta(days=day, hours=hour, minutes=minute)).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("window", "day", "clock", "is_open"),
    [
        ("08:00-18:00", 0, "08:00", True), ("08:00-18:00", 0, "17:59", True),
        ("08:00-18:00", 0, "18:00", False), ("08:00-18:00", 0, "07:59", False),
        ("22:00-06:00", 0, "23:00", True), ("22:00-06:00", 0, "05:59", True),
        ("22:00-06:00", 0, "06:00", False), ("22:00-06:00", 0, "21:59", False),
        ("00:00-24:00", 3, "12:00", True), ("18:30-24:00", 6, "23:59", True),
        ("mon-fri 18:30-24:00", 5, "19:00", False), ("mon-fri 18:30-24:00", 4, "19:00", True),
        ("fri 22:00-06:00", 5, "05:00", True), ("fri 22:00-06:00", 4, "05:00", False),
        ("sat-sun 00:00-24:00", 0, "00:00", False), ("Sat-Sun 00:00-24:00", 6, "00:00", True),
        ("sat-mon 10:00-12:00", 0, "11:00", True), ("sat-mon 10:00-12:00", 1, "11:00", False),
    ],
)  # fmt: skip
def test_windows_of_the_day_and_week(window: str, day: int, clock: str, is_open: bool) -> None:
    assert Policy(hours=(window,)).windows.open_at(at(day, clock)) is is_open


def test_hours_follow_the_named_zone_and_any_window_is_enough() -> None:
    hours = Hours.of(("09:00-10:00", "20:00-21:00"), "Asia/Shanghai")
    assert hours.open_at(at(0, "01:30"))
    assert hours.open_at(at(0, "12:30"))
    assert not hours.open_at(at(0, "09:30"))
    assert Hours.of((), "UTC").open_at(at(0, "03:00"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hours": ("8-18",)}, "'8-18' is no window; write 22:00-06:00 or mon-fri 18:30-24:00"),
        ({"hours": ("25:00-26:00",)}, "hours go from 00:00 to 24:00"),
        ({"hours": ("10:60-11:00",)}, "hours go from 00:00 to 24:00"),
        ({"hours": ("day-mon 10:00-11:00",)}, "is no window"),
        ({"zone": "Asia/Shanghi"}, "is no time zone; write one like Asia/Shanghai"),
        ({"zone": "../../etc/passwd"}, "is no time zone"),
    ],
)
def test_what_is_no_window_or_zone_is_said_with_what_to_write(
    values: dict[str, tuple[str, ...] | str], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Policy.model_validate(values)


def test_a_node_is_there_within_its_hours_alone_and_again_in_the_next_window() -> None:
    moment, runs, ended = at(0, "21:00"), [], []

    async def run() -> None:
        runs.append(moment)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(moment)

    async def day() -> None:
        nonlocal moment
        hours = Hours.of(("22:00-06:00",), "UTC")
        task = asyncio.create_task(within(hours, run, now=lambda: moment, look_s=0.001))
        for _ in range(48):
            moment += dt.timedelta(hours=1)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(day())
    assert [one.hour for one in runs] == [22, 22]
    assert [one.hour for one in ended] == [6, 6]


def test_what_ends_a_node_in_its_hours_ends_it() -> None:
    async def run() -> None:
        raise RuntimeError("refused for good")

    hours = Hours.of(("00:00-24:00",), "UTC")
    with pytest.raises(RuntimeError, match="for good"):
        asyncio.run(within(hours, run))
