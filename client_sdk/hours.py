"""When a node answers: windows of the day that its member names.

Outside them the node has no stream, and counts as an absent member like any other. Whether it is
there depends on the clock and on its configuration alone (rule R4).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import zoneinfo
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Self

from protos.logs import log

__all__ = ["Hours", "Window", "within"]

LOOK_S: Final = 1.0

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(
    rf"(?:({'|'.join(DAYS)})(?:-({'|'.join(DAYS)}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)"
)
DAY_MIN: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """One window, such as ``22:00-06:00`` or ``mon-fri 18:30-24:00``.

    Args:
        days: on which it begins, Monday is 0.
        from_min: in minutes from midnight.
        to_min: the same; at or before ``from_min`` it is on the next day.
    """

    days: frozenset[int]
    from_min: int
    to_min: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The window behind a text.

        Raises:
            ValueError: if it is none, with how to write one.
        """
        match = _WINDOW.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError(f"{text!r:.40} is no window; write 22:00-06:00 or mon-fri 18:30-24:00")
        first, last, *clock = match.groups()
        hour, minute, to_hour, to_minute = map(int, clock)
        from_min, to_min = hour * 60 + minute, to_hour * 60 + to_minute
        if max(minute, to_minute) > 59 or from_min >= DAY_MIN or to_min > DAY_MIN:
            raise ValueError(f"{text!r:.40}: hours go from 00:00 to 24:00")
        if first is None:
            return cls(frozenset(range(7)), from_min, to_min)
        start = DAYS.index(first)
        length = (DAYS.index(last or first) - start) % 7 + 1
        return cls(frozenset((start + day) % 7 for day in range(length)), from_min, to_min)

    def holds(self, moment: dt.datetime) -> bool:
        """Whether a moment lies in it, by its own clock."""
        minute, day = moment.hour * 60 + moment.minute, moment.weekday()
        if self.from_min < self.to_min:
            return day in self.days and self.from_min <= minute < self.to_min
        tonight = day in self.days and minute >= self.from_min
        return tonight or ((day - 1) % 7 in self.days and minute < self.to_min)


@dataclass(frozen=True, slots=True)
class Hours:
    """Windows by the clock of one time zone; without any, always."""

    windows: tuple[Window, ...]
    zone: dt.tzinfo

    @classmethod
    def of(cls, windows: tuple[str, ...], zone: str) -> Self:
        """The hours behind texts.

        Raises:
            ValueError: if a window or the zone is none, with what to write.
        """
        try:
            clock = dt.UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                f"{zone!r:.40} is no time zone; write one like Asia/Shanghai"
            ) from error
        return cls(tuple(map(Window.parse, windows)), clock)

    def open_at(self, moment: dt.datetime) -> bool:
        """Whether the node answers at a moment, which has a time zone."""
        here = moment.astimezone(self.zone)
        return not self.windows or any(window.holds(here) for window in self.windows)


async def within(
    hours: Hours,
    run: Callable[[], Coroutine[Any, Any, None]],
    *,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    look_s: float = LOOK_S,
) -> None:
    """Runs something while the hours are open, and again in the next window, until cancelled.

    Args:
        hours: when.
        run: begins it anew; what it raises ends this.
        now: tells the present.
        look_s: between two looks at the clock.
    """
    if not hours.windows:
        await run()
        return
    while True:
        if not hours.open_at(now()):
            log("HoursOver")
        while not hours.open_at(now()):
            await asyncio.sleep(look_s)
        log("HoursBegun")
        running = asyncio.ensure_future(run())
        try:
            while hours.open_at(now()) and not running.done():
                await asyncio.wait({running}, timeout=look_s)
        finally:
            running.cancel()
            outcome = (await asyncio.gather(running, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            raise outcome
