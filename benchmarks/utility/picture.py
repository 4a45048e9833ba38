"""A member's picture: alone against alliance over epsilon, as one SVG file that needs no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from benchmarks.utility.results import Figure, Mean, Results

__all__ = ["member_picture"]

WIDTH: Final = 520
HEIGHT: Final = 300
LEFT: Final = 56
RIGHT: Final = 20
TOP: Final = 62
BOTTOM: Final = 46
CAP: Final = 4
"""Half the width of an error bar's ends."""

STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:15px;font-weight:600}"
    ".tick{fill:#555}.grid{stroke:#ddd}.alone{stroke:#a33;fill:none}.band{fill:#a33;opacity:.12}"
    ".alliance{stroke:#175;fill:none;stroke-width:2}.dot{fill:#175}.name-alone{fill:#a33}"
    ".name-alliance{fill:#175}"
)


def member_picture(results: Results, member: str, figure: Figure, figure_name: str) -> str:
    """The picture of one member, error bars of two standard errors; text stays text.

    Args:
        results: of one data set.
        member: whose picture it is.
        figure: what is drawn.
        figure_name: what it is called.
    """
    epsilons = results.epsilons
    alone = results.mean(f"alone: {member}", None, figure)
    together = [results.mean("alliance", epsilon, figure) for epsilon in epsilons]
    everything = [alone, *together]
    low, high, ticks = _range(
        min(mean.value - 2 * mean.error for mean in everything),
        max(mean.value + 2 * mean.error for mean in everything),
    )
    span = math.log(epsilons[-1] / epsilons[0]) or 1.0

    def x(epsilon: float) -> float:
        share = math.log(epsilon / epsilons[0]) / span if len(epsilons) > 1 else 0.5
        return LEFT + 14 + share * (WIDTH - LEFT - RIGHT - 28)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    consumers = f"{results.members[member]:,} consumers"
    title = f"{results.name}: {member}, {consumers}"
    parts = [
        _opening(title),
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
        f'<text class="name-alone" x="{LEFT}" y="42">alone {alone.text()}</text>',
        f'<text class="name-alliance" x="{WIDTH // 2}" y="42">alliance, at each epsilon</text>',
        *(_tick(y(tick), f"{tick:g}") for tick in ticks),
        *(
            f'<text class="tick" x="{x(epsilon):.1f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{epsilon:g}</text>'
            for epsilon in epsilons
        ),
        _below(f"epsilon; up: {figure_name}"),
        _band(y(alone.value + 2 * alone.error), y(alone.value - 2 * alone.error)),
        _level(y(alone.value)),
        _line(
            [(x(epsilon), y(mean.value)) for epsilon, mean in zip(epsilons, together, strict=True)]
        ),
    ]
    for epsilon, mean in zip(epsilons, together, strict=True):
        parts.append(_error_bar(x(epsilon), y, mean))
    return "".join([*parts, "</svg>\n"])


def _opening(title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">'
    )


def _below(text: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(text)}</text>'


def _level(at: float) -> str:
    return f'<line class="alone" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _line(points: Sequence[tuple[float, float]]) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="alliance" d="M{path}"/>'


def _band(top: float, bottom: float) -> str:
    return (
        f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{max(bottom - top, 0):.1f}"/>'
    )


def _error_bar(x: float, y: Callable[[float], float], mean: Mean) -> str:
    top, bottom = y(mean.value + 2 * mean.error), y(mean.value - 2 * mean.error)
    return (
        f'<path class="alliance" d="M{x - CAP:.1f} {top:.1f}h{2 * CAP}M{x:.1f} {top:.1f}'
        f'V{bottom:.1f}M{x - CAP:.1f} {bottom:.1f}h{2 * CAP}"/>'
        f'<circle class="dot" cx="{x:.1f}" cy="{y(mean.value):.1f}" r="3.5"/>'
    )


def _tick(at: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _range(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round limits around two values, and three to seven round ticks."""
    raw = max(high - low, 0.01) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    ticks = [round(step * count, 10) for count in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks
