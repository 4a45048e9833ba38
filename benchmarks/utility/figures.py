"""What is reported: rows with targets, the tables of a terminal and of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from benchmarks.report import Row
from benchmarks.utility.campaign import (
    EBM,
    EQUAL_EPSILON,
    EQUAL_NOISE,
    INSTITUTION,
    LOCAL,
    PRODUCT,
)
from benchmarks.utility.results import ADAPTED, FIGURES, Figure, Mean, Results

__all__ = ["cell_rows", "equality_rows", "member_rows", "target_rows", "terminal", "to_markdown"]

POOLED: Final = "pooled logistic regression"
TREES: Final = "pooled boosted trees"
ORDER: Final = (
    "alliance", PRODUCT, EQUAL_NOISE, EQUAL_EPSILON, LOCAL, INSTITUTION, EBM, POOLED, TREES,
)  # fmt: skip
SMALL: Final = 500
"""Consumers below which a member counts as small."""

TENTHS: Final = 10
"""Members from which on c = D = 10 % can be; three members' c is a third of them."""

Bound = tuple[float, Literal["most", "least"]] | None


def cell_rows(results: Results) -> Iterator[Row]:
    """Every mean of a table as one row; its standard error stands in the note."""
    for model, epsilon in sorted(results.scores, key=lambda key: (key[0], key[1] or 0)):
        for figure, called in FIGURES:
            mean = results.mean(model, epsilon, figure)
            at = f", epsilon {epsilon:g}" if epsilon else ""
            yield Row(
                name=f"{results.name}: {called}, {model}{at}",
                unit="",
                ours=mean.value,
                trials=mean.count,
                note=f"standard error {mean.error:.4f}",
            )


def _row(name: str, mean: Mean, bound: Bound, note: str = "") -> Row:
    return Row(
        name=name,
        unit="",
        ours=mean.value,
        trials=mean.count,
        target=bound[0] if bound else None,
        at=bound[1] if bound else None,
        note=f"standard error {mean.error:.2g}" + (f"; {note}" if note else ""),
    )


def equality_rows(results: Results, epsilon: float) -> Iterator[Row]:
    """How far the alliance is from a trusted curator, in AUC."""
    if (PRODUCT, epsilon) in results.scores:
        gap = results.difference(EQUAL_NOISE, PRODUCT, epsilon, "auc")
        yield _row(
            f"{results.name}: AUC of a curator with equal noise less the alliance's, absolute, "
            f"epsilon {epsilon:g}",
            Mean(abs(gap.value), gap.error, gap.count),
            (0.001, "most"),
            "every step of members and coordinator; same samples, same noise",
        )
        gap = results.difference(PRODUCT, "alliance", epsilon, "auc")
        yield _row(
            f"{results.name}: AUC of the alliance's every step less the quick simulation's, "
            f"absolute, epsilon {epsilon:g}",
            Mean(abs(gap.value), gap.error, gap.count),
            None,
            "noise drawn apart",
        )
    for at in results.epsilons:
        gap = results.difference(EQUAL_EPSILON, "alliance", at, "auc")
        yield _row(
            f"{results.name}: AUC of a curator at equal epsilon less the alliance's, "
            f"epsilon {at:g}",
            gap,
            (0.003, "most") if len(results.members) >= TENTHS else None,
            results.settings[at],
        )


def target_rows(
    results: Results, epsilon: float, *, ratio: float | None = None, gap: float | None = None
) -> Iterator[Row]:
    """The alliance beside pooled logistic regression and pooled boosted trees.

    Args:
        results: of one data set.
        epsilon: at which the target stands.
        ratio: the least that the alliance's figure may be of logistic regression's.
        gap: the most that its AUC may be below.
    """
    for figure, called in FIGURES:
        ours = results.mean("alliance", epsilon, figure)
        for peer in (POOLED, TREES):
            theirs = results.mean(peer, None, figure)
            target = ratio if peer == POOLED else None
            yield Row(
                name=f"{results.name}: {called} of the alliance, epsilon {epsilon:g}",
                unit="",
                ours=ours.value,
                peer_name=f"{peer}, not private",
                peer=theirs.value,
                ratio=ours.value / theirs.value,
                target=target,
                at=None if target is None else "least",
                bounds="ours" if target is None else "ratio",
                trials=ours.count,
                note=f"standard errors {ours.error:.4f} and {theirs.error:.4f}",
            )
    if gap is not None:
        difference = results.difference(POOLED, "alliance", epsilon, "auc")
        name = f"{results.name}: AUC of {POOLED} less the alliance's, epsilon {epsilon:g}"
        yield _row(name, difference, (gap, "most"))


def member_rows(results: Results, epsilon: float, *, targets: bool) -> Iterator[Row]:
    """What members gain over the better of their own models: each of them, and means.

    First by the alliance's model as it is published, then as each member adapts it to its own
    consumers, where that was done.
    """
    shared = dict.fromkeys(results.members, "alliance")
    yield from _gains(results, epsilon, shared, "as published", targets=targets)
    adapted = {name: f"{ADAPTED}{name}" for name in results.members}
    if all((model, epsilon) in results.scores for model in adapted.values()):
        yield from _gains(results, epsilon, adapted, "adapted", targets=targets)


def _gains(
    results: Results,
    epsilon: float,
    models: Mapping[str, str],
    way: str,
    *,
    targets: bool,
) -> Iterator[Row]:
    """Gains of each member by its model.

    That everybody gains or stays is a target of adapted models: who loses less than the standard
    error of the loss, stays.
    """
    gains: dict[Figure, dict[str, Mean]] = {}
    at = f"{way}, epsilon {epsilon:g}"
    for figure, called in FIGURES:
        gains[figure] = {
            name: results.gain(name, epsilon, figure, model) for name, model in models.items()
        }
        for name, gain in gains[figure].items():
            alone = results.mean(f"alone: {name}", None, figure)
            trees = results.choices[name].count("boosted trees")
            yield _row(
                f"{results.name}: gain in {called} of {name} ({results.members[name]} consumers), "
                f"{at}",
                gain,
                None,
                f"alone {alone.text()}, boosted trees in {trees} of {len(results.choices[name])}",
            )
        least = min(gains[figure].values(), key=lambda gain: gain.value + gain.error)
        yield _row(
            f"{results.name}: gain in {called} of the member that fares worst, {at}",
            least,
            (-least.error, "least") if targets and way == "adapted" else None,
        )
    precision = gains["precision_at_10pct"]
    small = {name for name in precision if results.members[name] < SMALL}
    for who, names, target in (
        ("all members", set(precision), 0.25),
        (f"members below {SMALL} consumers", small, 0.40),
    ):
        if names:
            yield _row(
                f"{results.name}: mean gain in precision among the top 10 % over {who}, {at}",
                _together(results, {name: models[name] for name in names}, epsilon),
                (target, "least") if targets else None,
            )


def _together(results: Results, models: Mapping[str, str], epsilon: float) -> Mean:
    """The mean of members' gains; its error is over seeds."""
    figure: Figure = "precision_at_10pct"
    of_each = []
    for name, model in models.items():
        alone = results.values(f"alone: {name}", None, figure)
        together = results.values(model, epsilon, figure)
        base = Mean.of(alone).value
        of_each.append([(one - own) / base for one, own in zip(together, alone, strict=True)])
    return Mean.of([sum(of_seed) / len(of_seed) for of_seed in zip(*of_each, strict=True)])


def _table(results: Results, figure: Figure) -> list[list[str]]:
    """Header and lines: models down, epsilons across."""
    epsilons = results.epsilons
    lines = [["", *(f"epsilon {epsilon:g}" for epsilon in epsilons)]]
    for model in ORDER:
        if (model, None) in results.scores:
            lines.append([model, *[results.mean(model, None, figure).text()] * len(epsilons)])
        elif any((model, epsilon) in results.scores for epsilon in epsilons):
            lines.append([model, *_cells(results, model, figure)])
    for member, consumers in results.members.items():
        if (f"alone: {member}", None) in results.scores:
            alone = results.mean(f"alone: {member}", None, figure).text()
            lines.append([f"alone: {member}, {consumers:,} consumers", *[alone] * len(epsilons)])
        model = f"{ADAPTED}{member}"
        if any((model, epsilon) in results.scores for epsilon in epsilons):
            cells = _cells(results, model, figure)
            lines.append([f"{model}, {consumers:,} consumers", *cells])
    return lines


def _cells(results: Results, model: str, figure: Figure) -> list[str]:
    """Means across epsilons; empty where the model was not trained."""
    return [
        results.mean(model, epsilon, figure).text() if (model, epsilon) in results.scores else ""
        for epsilon in results.epsilons
    ]


def terminal(results: Results) -> str:
    """Both tables of a data set, in columns."""
    parts = []
    for figure, called in FIGURES:
        lines = _table(results, figure)
        widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
        text = "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        parts.append(f"{results.name}: {called}, mean ± standard error\n{text}\n")
    return "\n".join(parts)


def to_markdown(every: Sequence[Results], rows: Sequence[Row]) -> str:
    """The tables, and the rows that have a target, as benchmarks/README.md has them."""
    parts = []
    for results in every:
        for figure, called in FIGURES:
            header, *lines = _table(results, figure)
            parts.append(f"{results.name}: {called}, mean ± standard error over seeds\n")
            parts.append("| " + " | ".join(["model", *header[1:]]) + " |")
            parts.append("|---" * len(header) + "|")
            parts.extend("| " + " | ".join(line) + " |" for line in lines)
            parts.append("")
    parts.append("| row | ours | peer | ratio | target | holds | trials |")
    parts.append("|---|---|---|---|---|---|---|")
    parts.extend(_markdown_row(row.document()) for row in rows)
    return "\n".join(parts) + "\n"


def _markdown_row(row: Mapping[str, object]) -> str:
    note = f"; {row['note']}" if "note" in row else ""
    peer = f"{row['peer']:.4g} ({row['peer_name']})" if "peer" in row else ""
    ratio = f"{row['ratio']:.4g}" if "ratio" in row else ""
    target, holds = "", ""
    if "target" in row:
        sign = "≤" if row["at"] == "most" else "≥"
        target = f"{sign} {row['target']:g}" + (" (ratio)" if "bounds" in row else "")
        holds = "yes" if row["holds"] else "**no**"
    cells = (f"{row['name']}{note}", f"{row['ours']:.4g}", peer, ratio, target, holds)
    return "| " + " | ".join([*cells, str(row["trials"])]) + " |"
