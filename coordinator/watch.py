"""A live view of a coordinator for an operator's terminal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from coordinator.status import SILENT_S, Status, read_status

__all__ = ["show", "view", "watch"]

EVERY_S: Final = 0.5
SHOWN_NOTICES: Final = 6


def view(status: Status, *, now_s: float, alive: bool) -> RenderableType:
    """One look at a status."""
    age_s = now_s - status.at_ms / 1000
    head = Table.grid(padding=(0, 3))
    head.add_row("coordinator", _standing(status, age_s, alive))
    head.add_row("study", f"{status.study or 'none yet'}  {status.terms_hash[:16]}")
    head.add_row(
        "round",
        f"{status.round} of {status.rounds}, {status.attempts} attempts, "
        f"{status.failed_attempts} of them failed",
    )
    head.add_row(
        "pace", f"{status.round_s * 1000:.1f} ms a round, {status.rounds_per_s:.1f} rounds a second"
    )
    profile = ", ".join(f"{m}: {value:.3f}" for m, value in status.epsilon_profile.items())
    head.add_row(
        "epsilon(1)", f"{status.epsilon:.3f} so far at delta {status.delta:g}; whole study, by "
        f"how many members know a consumer: {profile or '-'}",
    )  # fmt: skip
    members = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    for name, justify in (("member", "left"), ("stream", "left"), ("contributions", "right"),
                          ("missed", "right"), ("faults", "right"), ("rests", "left")):  # fmt: skip
        members.add_column(name, justify="right" if justify == "right" else "left")
    for name, member in sorted(status.members.items()):
        up = Text("up", "green") if member.connected and alive else Text("down", "red")
        up = Text("left", "yellow") if member.left else up
        left_s = member.rests_until_ms / 1000 - now_s
        rests = f"{member.rests}, {left_s:.0f} s left" if left_s > 0 else str(member.rests or "")
        members.add_row(
            name, up, str(member.contributions), str(member.missed), str(member.faults), rests
        )
    notices = [
        Text(f"{time.strftime('%H:%M:%S', time.localtime(one.at_ms / 1000))}  {one.sentence}")
        for one in status.notices[-SHOWN_NOTICES:]
    ]
    parts: list[RenderableType] = [head, Text(""), members]
    if notices:
        parts += [Text(""), Text("last errors", "dim"), *notices]
    return Group(*parts)


def _standing(status: Status, age_s: float, alive: bool) -> Text:
    if status.state == "finished":
        return Text("finished", "green")
    if status.state == "stopped":
        return Text("stopped for good", "yellow")
    if status.state == "paused":
        return Text("paused; alliance-coordinator study start goes on where it was", "yellow")
    if not alive:
        return Text("not running; start it again and it goes on where it was", "red")
    if age_s > SILENT_S:
        return Text(f"{status.state}, silent for {age_s:.0f} s", "yellow")
    return Text(f"{status.state} on {status.address}", "green")


def show(console: Console, path: Path) -> Status:
    """Prints the status once.

    Raises:
        ConfigurationError: if there is none.
    """
    status = read_status(path)
    console.print(view(status, now_s=time.time(), alive=_alive(status)))
    return status


def watch(console: Console, path: Path) -> None:
    """Shows the status until interrupted, or until the study is finished.

    Raises:
        ConfigurationError: if there is none.
    """
    status = read_status(path)
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            live.update(view(status, now_s=time.time(), alive=_alive(status)), refresh=True)
            if status.state == "finished":
                return
            time.sleep(EVERY_S)
            status = read_status(path)


def _alive(status: Status) -> bool:
    """Whether the process that wrote it is there."""
    try:
        os.kill(status.process, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
