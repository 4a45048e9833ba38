"""The demo's live view: rounds, members, epsilon, and the AUC on the demo's own hold-out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["follow"]

LINES = 10
"""Without a terminal, one line in this many rounds."""

FINISHED = "study finished"

HoldOut = Callable[[], float | None]
"""AUC of the newest published model on the demo's hold-out; None before there is one."""


def follow(
    events: Iterable[dict[str, Any]], members: list[str], *, console: Console, hold_out: HoldOut
) -> Iterator[dict[str, Any]]:
    """Shows events as they pass and hands them on."""
    with _View(members, console) as view:
        for event in events:
            kind = event["event"]
            if kind == "RoundClosed" and event["round"] % LINES in (0, 1):
                view.auc = hold_out()
            view.show(event)
            yield event


class _View:
    """A table and a bar on a terminal; lines elsewhere."""

    def __init__(self, members: list[str], console: Console) -> None:
        self.auc: float | None = None
        self._console = console
        self._states = dict.fromkeys(members, "starting")
        self._epsilon = 0.0
        self._bar = Progress(
            TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console,
        )  # fmt: skip
        self._rounds = self._bar.add_task("rounds", total=None)
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Takes one event into the view."""
        said = self._take(event)
        if self._live is not None:
            self._live.update(self._table())
        if said and (self._live is None or event["event"] not in ("RoundClosed", "MemberJoined")):
            self._console.print(said, highlight=False)

    def _take(self, event: dict[str, Any]) -> str:
        """Updates the state; what is worth a line, or nothing."""
        match event["event"]:
            case "MemberJoined":
                self._states[event["member"]] = "connected"
                return f"{event['member']} connected"
            case "MemberLeft":
                if self._states[event["member"]] != FINISHED:
                    self._states[event["member"]] = "left"
                return ""
            case "StudyFinished":
                self._states = dict.fromkeys(self._states, FINISHED)
                return ""
            case "MemberRefused" | "MemberFaulted":
                self._states[event["member"]] = "refused"
                return f"{event['member']}: {event['sentence']}"
            case "StudyOpened":
                self._bar.update(self._rounds, total=event["rounds"])
                return f"{len(event['members'])} members accepted the terms"
            case "RoundClosed":
                self._epsilon = event["epsilon"]
                self._bar.update(self._rounds, completed=event["round"])
                for member in self._states:
                    there = member in event["contributors"]
                    self._states[member] = "contributed" if there else "missing"
                if event["round"] % LINES:
                    return ""
                auc = "" if self.auc is None else f", hold-out AUC {self.auc:.3f}"
                return (
                    f"round {event['round']}: {len(event['contributors'])} members, "
                    f"epsilon(1) {self._epsilon:.3f}{auc}"
                )
            case "AttemptFailed" | "KeysFailed":
                return str(event["sentence"])
        return ""

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2))
        for member, state in self._states.items():
            table.add_row(member, state)
        table.add_row("epsilon(1) so far", f"{self._epsilon:.3f}")
        table.add_row("hold-out AUC", "-" if self.auc is None else f"{self.auc:.3f}")
        whole = Table.grid()
        whole.add_row(self._bar)
        whole.add_row(table)
        return whole
