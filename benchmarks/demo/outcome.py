"""What the demo leaves behind: a table, a picture and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from benchmarks.demo.comparison import Scores

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run's figures.

    Args:
        members: consumers in training, by retailer.
        known_to: households by how many retailers know them.
        opened: the coordinator's StudyOpened event.
        rounds: releases made.
        alone: scores by retailer.
    """

    members: Mapping[str, int]
    known_to: Mapping[int, int]
    opened: Mapping[str, Any]
    rounds: int
    alliance: Scores
    curator: Scores
    pooled: Scores
    alone: Mapping[str, Scores]
    seconds: float
    peak_memory_bytes: int

    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``."""

        def figure(name: str) -> dict[str, Any]:
            return {
                "alliance": getattr(self.alliance, name),
                "curator": getattr(self.curator, name),
                "pooled": getattr(self.pooled, name),
                "alone": {member: getattr(found, name) for member, found in self.alone.items()},
            }

        return {
            "members": [{"name": name, "consumers": count} for name, count in self.members.items()],
            "households_known_to": {str(count): many for count, many in self.known_to.items()},
            "rounds": self.rounds,
            "epsilon_profile": dict(self.opened["epsilon_profile"]),
            "epsilon_local": self.opened["epsilon_local"],
            "delta": self.opened["delta"],
            "auc": figure("auc"),
            "precision_at_10pct": figure("precision_at_10pct"),
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "transport": self.opened["transport"],
        }

    def show(self, console: Console) -> None:
        """Prints the comparison, what each retailer gained, and the guarantee."""
        table = Table(title="Ranking held-out households", title_justify="left")
        for name, side in (
            ("model", "left"), ("consumers", "right"), ("AUC", "right"),
            ("precision, top 10 %", "right"), ("AUC gained by joining", "right"),
        ):  # fmt: skip
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        for name, found in self.alone.items():
            gain = self.alliance.auc - found.auc
            row = (f"{name} alone, not private", str(self.members[name]))
            table.add_row(*row, *_figures(found), f"{gain:+.3f}" if gain > 0 else "none")
        table.add_section()
        table.add_row("[bold]the alliance[/bold]", "", *_figures(self.alliance), "")
        table.add_row("trusted curator, same epsilon", "", *_figures(self.curator), "")
        table.add_row("all data pooled, not private", "", *_figures(self.pooled), "")
        console.print(table)
        profile = "   ".join(
            f"{members}: {epsilon:.2f}"
            for members, epsilon in self.opened["epsilon_profile"].items()
        )
        known = ", ".join(f"{many} at {count}" for count, many in self.known_to.items() if many)
        console.print(
            f"Guarantee: epsilon at delta {self.opened['delta']:g}, for a household known to so "
            f"many retailers:  {profile}\n"
            f"  (training households by retailers that know them: {known})\n"
            f"Until secure aggregation is there, the coordinator sees each member's noised sum; "
            f"against it holds epsilon_local = {self.opened['epsilon_local']:.2f}.\n"
            "The comparison needs all data on one machine; only this demo can make it. Settings of "
            "the model were chosen on other splits of this data, which epsilon does not cover.",
            highlight=False,
        )

    def draw(self, path: Path) -> None:
        """Draws the AUCs: retailers alone as bars, the shared models as lines."""
        names = list(self.alone)
        figure, axes = plt.subplots(figsize=(7.5, 4.2), dpi=150, layout="constrained")
        bars = axes.bar(
            [f"{name}\n{self.members[name]:,} consumers" for name in names],
            [self.alone[name].auc for name in names],
            color="#b8c4ce",
            width=0.6,
            label="alone, not private",
        )
        axes.bar_label(bars, fmt="%.3f", padding=3, color="#4a5560")
        for label, found, colour, style in (
            ("all data pooled, not private", self.pooled, "#4a5560", ":"),
            ("trusted curator, same epsilon", self.curator, "#8a6d3b", "--"),
            (f"the alliance, epsilon(1) = {self._epsilon:.2f}", self.alliance, "#b3261e", "-"),
        ):
            text = f"{label}: {found.auc:.3f}"
            axes.axhline(found.auc, color=colour, linestyle=style, linewidth=1.6, label=text)
        axes.set_ylim(0.5, 0.9)
        axes.set_ylabel("AUC on held-out households")
        axes.set_title("Which household will redeem which campaign's coupon", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper right", frameon=False, fontsize=8)
        figure.savefig(path)
        plt.close(figure)

    @property
    def _epsilon(self) -> float:
        return float(self.opened["epsilon_profile"]["1"])


def _figures(found: Scores) -> tuple[str, str]:
    return f"{found.auc:.3f}", f"{found.precision_at_10pct:.3f}"
