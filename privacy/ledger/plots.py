"""Plots as inline SVG: step lines over time. Text stays text, so that any script shows."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Line", "step_plot"]

WIDTH: Final = 460
HEIGHT: Final = 190
LEFT: Final = 46
RIGHT: Final = 14
TOP: Final = 12
BOTTOM: Final = 26


@dataclass(frozen=True, slots=True)
class Line:
    """A step line.

    Args:
        style: its class in the style sheet.
        points: time in milliseconds and value, in order of time.
    """

    style: str
    points: Sequence[tuple[int, float]]


def step_plot(lines: Sequence[Line], *, title: str, limit: float | None = None) -> str:
    """An SVG element: lines that hold their value until it changes, and a limit.

    Args:
        lines: one or more; empty ones are left out.
        title: read to those who do not see it.
        limit: a dashed horizontal line.

    Returns:
        Markup; empty if there is no point at all.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    times = [at for line in drawn for at, _ in line.points]
    first, last = min(times), max(times)
    span = max(last - first, 1)
    top = max([value for line in drawn for _, value in line.points] + [limit or 0.0])
    ticks = _ticks(top)
    high = ticks[-1] or 1.0

    def x(at: float) -> float:
        return LEFT + (at - first) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / high * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_grid_line(y(tick), f"{tick:g}") for tick in ticks),
        *_dates(first, last, x(first), x(last)),
    ]
    if limit is not None:
        at = y(limit)
        parts.append(
            f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
    parts.extend(
        f'<path class="line {line.style}" d="{_path([(x(at), y(v)) for at, v in line.points])}"/>'
        for line in drawn
    )
    return "".join([*parts, "</svg>"])


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Steps from the floor to the right edge."""
    (x, y), floor, edge = points[0], HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f"M{x:.1f} {floor}V{y:.1f}"]
    parts.extend(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
    return "".join([*parts, f"H{edge}"])


def _grid_line(at: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>'
    )


def _dates(first: int, last: int, left: float, right: float) -> list[str]:
    """The beginning and the end of the time axis, as precise as they differ."""
    form = "%Y-%m-%d" if last - first > 5 * 86_400_000 else "%Y-%m-%d %H:%M:%S"
    at = HEIGHT - 8
    labels = [f'<text class="tick" x="{left:.1f}" y="{at}">{_date(first, form)}</text>']
    if last > first:
        labels.append(
            f'<text class="tick" x="{right:.1f}" y="{at}" text-anchor="end">{_date(last, form)}'
            "</text>"
        )
    return labels


def _date(at_ms: int, form: str) -> str:
    try:
        return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"  # a clock may claim anything


def _ticks(top: float) -> list[float]:
    """Four to six round values from 0 to ``top`` or above."""
    if not 0 < top < math.inf:
        return [0.0, 1.0]
    raw = top / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    return [step * count for count in range(math.ceil(top / step - 1e-9) + 1)]
