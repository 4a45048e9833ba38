"""What the demo leaves behind: a table, a picture and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib as mpl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.demo.comparison import Scores

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["Outcome"]

COLUMNS: Final[tuple[tuple[str, Literal["left", "right"]], ...]] = (
    ("model", "left"),
    ("consumers", "right"),
    ("AUC", "right"),
    ("top 10 %", "right"),
    ("joining gains", "right"),
)

GREY, PALE, OCHRE, RED = "#4a5560", "#dde3e8", "#8a6d3b", "#b3261e"


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
            "epsilon_local_profile": dict(self.opened["epsilon_local_profile"]),
            "delta": self.opened["delta"],
            "auc": figure("auc"),
            "precision_at_10pct": figure("precision_at_10pct"),
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": self.peak_memory_bytes,
            "transport": self.opened["transport"],
        }

    def show(self, console: Console) -> None:
        """Prints the comparison, what each retailer gained, and the guarantee."""
        table = Table(box=SIMPLE_HEAD, title="Ranking held-out households", title_justify="left")
        for name, side in COLUMNS:
            table.add_column(name, justify=side)
        for name, found in self.alone.items():
            gain = self.alliance.auc - found.auc
            table.add_row(
                f"{name} alone",
                f"{self.members[name]:,}",
                *_figures(found),
                f"{gain:+.3f}" if gain > 0 else "none",
            )
        table.add_section()
        table.add_row("[bold]the alliance[/bold]", "", *_figures(self.alliance), "")
        table.add_row("trusted curator, same epsilon", "", *_figures(self.curator), "")
        table.add_row("all data pooled", "", *_figures(self.pooled), "")
        console.print(table)
        known = ", ".join(f"{many} at {count}" for count, many in self.known_to.items() if many)
        console.print(
            "A retailer alone and pooled data are not private. top 10 %: responders among the "
            "tenth that ranks highest. joining gains: AUC.\n\n"
            f"Guarantee at delta {self.opened['delta']:g}, by how many retailers know a household "
            f"(here {known}):\n"
            f"  epsilon        {_profile(self.opened['epsilon_profile'])}\n"
            f"  epsilon_local  {_profile(self.opened['epsilon_local_profile'])}\n"
            "The coordinator sees sums over the retailers only; epsilon_local is what would hold "
            "if it saw the messages behind them. Settings of the model were chosen on other "
            "splits of this data, which epsilon does not cover. The comparison needs all data on "
            "one machine; only this demo can make it.",
            highlight=False,
        )

    def draw(self, path: Path) -> None:
        """Draws both figures: a dot for each retailer alone, lines for the shared models."""
        names = list(self.alone)
        places = range(len(names) - 1, -1, -1)
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), dpi=150, sharey=True)
        shared = (
            ("all data pooled, not private", self.pooled, GREY, ":"),
            ("trusted curator, same epsilon", self.curator, OCHRE, "--"),
            (f"the alliance, epsilon(1) = {self._epsilon:.2f}", self.alliance, RED, "-"),
        )
        for axes, name, title in zip(
            panels,
            ("auc", "precision_at_10pct"),
            ("AUC", "Precision among the top 10 %"),
            strict=True,
        ):
            goal = getattr(self.alliance, name)
            alone = [getattr(self.alone[member], name) for member in names]
            axes.hlines(places, alone, goal, color=PALE, linewidth=5, zorder=1)
            for label, found, colour, style in shared:
                axes.axvline(
                    getattr(found, name), color=colour, linestyle=style, linewidth=1.5, label=label
                )
            axes.plot(alone, places, "o", color=GREY, markersize=8, label="alone, not private")
            for place, value in zip(places, alone, strict=True):
                axes.annotate(
                    f"{value:.3f}", (value, place), (0, 9), textcoords="offset points",
                    ha="center", fontsize=8, color=GREY,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                )  # fmt: skip
            axes.set_title(f"{title}: alliance {goal:.3f}", loc="left", fontsize=10)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.margins(x=0.12)
        panels[0].set_yticks(
            list(places), [f"{name}\n{self.members[name]:,} consumers" for name in names]
        )
        panels[0].set_ylim(-0.6, len(names) - 0.3)
        figure.suptitle(
            "Which household will redeem which campaign's coupon (held-out households)",
            x=0.02, ha="left", fontsize=11,
        )  # fmt: skip
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=8)
        figure.subplots_adjust(left=0.15, right=0.98, top=0.84, bottom=0.17, wspace=0.08)
        figure.savefig(path)
        plt.close(figure)

    @property
    def _epsilon(self) -> float:
        return float(self.opened["epsilon_profile"]["1"])


def _figures(found: Scores) -> tuple[str, str]:
    return f"{found.auc:.3f}", f"{found.precision_at_10pct:.3f}"


def _profile(epsilons: Mapping[str, float]) -> str:
    return "   ".join(f"{members}: {epsilon:.2f}" for members, epsilon in epsilons.items())
