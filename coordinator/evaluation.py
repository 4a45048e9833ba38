"""What becomes of a planned evaluation: when it begins, and where what it finds is written.

When a study's last model is published, the evaluation that its file plans is proposed with that
model's hash, and runs as soon as enough members approve it: members are asked for each, and charge
both. What it finds goes into the model's passport.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client_sdk.recipes.catalogue import check_model, model_needed
from client_sdk.recipes.evaluation.measures import Figure, describe, evaluate
from client_sdk.recipes.evaluation.settings import parse
from client_sdk.recipes.model_file import find_model, load_model, write_model
from coordinator.evaluation_plan import EvaluationTable, evaluation_terms, planned, prospect
from coordinator.store import StudyRecord, StudyStore, Wanted
from privacy.errors import ConfigurationError, RecipeError
from privacy.terms import Terms

if TYPE_CHECKING:
    from coordinator.evidence import Evidence
    from privacy.ledger.passport import Quality

__all__ = [
    "begin_planned",
    "certify_evaluated",
    "check_known_model",
    "propose_evaluation",
    "report",
    "text",
]

SHOWN: Final = {
    "auc": "AUC",
    "precision": "precision among the top",
    "lift": "lift of the top",
    "base_rate": "share of positives",
    "selected": "share above the threshold",
    "calibration_ratio": "predicted over observed",
    "calibration_error": "calibration error",
}
PAPERS: Final = ("auc", "precision", "lift", "calibration_ratio", "calibration_error")
"""What a passport shows, besides gaps between groups."""


def begin_planned(state: Path, studies: StudyStore, terms: Terms) -> StudyRecord | None:
    """Proposes the evaluation that was planned for a study, once its last model is published.

    Returns:
        The proposed study; None if none was planned, or it was proposed before.

    Raises:
        ConfigurationError: if the plan or the model cannot be read.
    """
    table = planned(state, terms)
    if table is None:
        return None
    return propose_evaluation(state, studies, terms, table)


def propose_evaluation(
    state: Path, studies: StudyStore, terms: Terms, table: EvaluationTable
) -> StudyRecord | None:
    """Proposes to measure a study's published model, and has it run once members approve.

    Returns:
        The proposed study; None if it was proposed before.

    Raises:
        ConfigurationError: if the model is not published, or cannot be measured so.
    """
    path = state / "models" / f"{terms.study}.safetensors"
    try:
        data = path.read_bytes()
        learned, _, round_number = load_model(path)
    except (OSError, RecipeError) as error:
        raise ConfigurationError(
            f"{terms.label}: its model is not there ({path}); wait until it is published"
        ) from error
    if learned.hash != terms.hash or round_number < terms.privacy.rounds:
        raise ConfigurationError(
            f"{terms.label}: its last model is not published yet; "
            "alliance-coordinator study list says where it stands"
        )
    wanted = evaluation_terms(terms, hashlib.sha256(data).hexdigest(), table)
    check_known_model(state, wanted)
    if studies.study(wanted.hash) is not None:
        return None
    studies.propose(wanted, now_ms=_now_ms())
    studies.want(wanted.hash, Wanted.RUNNING, now_ms=_now_ms())
    return studies.study(wanted.hash)


def check_known_model(state: Path, terms: Terms) -> None:
    """Checks, before members are asked, that a model which terms name was published here and fits.

    Raises:
        ConfigurationError: if not, with what to do.
    """
    needed = model_needed(terms)
    if not needed:
        return
    model = find_model(state / "models", needed)
    if model is None:
        raise ConfigurationError(
            f"study {terms.study}: this coordinator has published no model {needed[:16]} that is "
            "still there; alliance-coordinator study evaluate STUDY fills the hash in"
        )
    try:
        check_model(terms, model)
    except RecipeError as error:
        raise ConfigurationError(str(error)) from error


# What was found.


def certify_evaluated(state: Path, evidence: Evidence, terms: Terms) -> None:
    """Puts what an evaluation found into the passport of the model that it measured.

    Raises:
        ConfigurationError, RecipeError: if a file cannot be read or written.
    """
    if terms.recipe != "evaluation":
        return
    models = state / "models"
    from privacy.ledger.audit_study import figures_of
    from privacy.ledger.passport import make_passport

    settings = parse(terms)
    learned = find_model(models, settings.model)
    if learned is None:
        return  # a newer version of its study has taken its place
    files = evidence.told(learned.terms).files
    index = max((at for (file, _), at in files.items() if file == settings.model), default=None)
    if index is None:
        return
    _, parameters, _ = load_model(models / f"{terms.study}.safetensors")
    epsilon = figures_of(terms).profile(evidence.told(terms).attempts)[0]
    found = evaluate(terms, parameters)
    on = "consumers held out" if found.held_out else "consumers it was trained on"
    named = [
        (f"{SHOWN[name]}{_top(name, settings.top)}", found.figures[name])
        for name in PAPERS
        if name in found.figures
    ]
    named += [
        (f"{_gap_name(one.measure)} gap by {one.of} ({one.highest} over {one.lowest})", one.figure)
        for one in found.gaps
    ]
    quality = tuple(
        _quality(f"{name}, about {found.consumers} {on}, {terms.label}", figure, epsilon)
        for name, figure in named
    )
    passport = make_passport(evidence.store, evidence.identity, publication=index, quality=quality)
    write_model(models / f"{learned.terms.study}.passport.json", passport)


def _top(name: str, top: float) -> str:
    return f" {top:.3g}" if name in ("precision", "lift") else ""


def _gap_name(measure: str) -> str:
    return "demographic parity" if measure == "selected" else "equal opportunity"


def _quality(name: str, figure: Figure, epsilon_micro: int) -> Quality:
    from privacy.ledger.passport import Quality

    def millionths(value: float) -> int:
        return round(min(max(value, -1e9), 1e9) * 1_000_000)

    return Quality(
        name=name[:200],
        value_millionths=millionths(figure.value),
        low_millionths=millionths(figure.low),
        high_millionths=millionths(figure.high),
        epsilon_micro=epsilon_micro,
    )


def report(state: Path, terms: Terms) -> dict[str, Any]:
    """What an evaluation found and what it may cost, for ``--json``.

    Raises:
        ConfigurationError: if it published nothing yet.
    """
    path = state / "models" / f"{terms.study}.safetensors"
    try:
        kept, parameters, _ = load_model(path)
        if kept.hash != terms.hash:
            raise RecipeError(f"{path}: is of {kept.label}")
        found = describe(terms, parameters)
    except RecipeError as error:
        raise ConfigurationError(
            f"{terms.label} has published nothing to show ({error}); alliance-coordinator study "
            "list says where it stands"
        ) from error
    return {"label": terms.label, "recipe": terms.recipe} | found | prospect(terms)


def text(found: dict[str, Any]) -> str:
    """A report for a person."""

    def row(name: str, one: dict[str, Any] | None) -> str:
        if one is None:
            return f"  {name:<44} too few to tell"
        sampling = "" if one["sampling"] is None else f"   sample {one['sampling']:.4f}"
        return (
            f"  {name:<44} {one['value']:>8.4f}   {one['low']:.4f} to {one['high']:.4f}   "
            f"noise {one['error']:.4f}{sampling}"
        )

    whose = f"model {found['model'][:16]} of {found['study']}"
    top = f"top {found['top']:.3g}: scores from {found['threshold']:.4f}"
    lines = [
        f"{found['label']}: {whose}",
        f"about {found['consumers']} consumers: {found['measured_on']}",
        f"{top}; epsilon(1) at most {found['epsilon']['1']:.3f}",
        "figures, with where the exact figure of these consumers lies (95 %):",
        *(
            row(SHOWN[name] + _top(name, found["top"]), one)
            for name, one in found["figures"].items()
        ),
        "calibration: rate by predicted probability",
        *(row(f"predicted {one['predicted']:.4f}", one["rate"]) for one in found["calibration"]),
    ]
    missing = [name for name in SHOWN if name not in found["figures"]]
    if missing:
        lines.append(f"too few consumers to tell: {', '.join(SHOWN[name] for name in missing)}")
    for one in found["groups"]:
        lines.append(f"{one['of']} {one['group']}:")
        lines += [
            row("share of all consumers", one["share"]),
            row("share selected", one["selected"]),
            row("share of its positives selected", one["found"]),
            row("precision among its selected", one["precision"]),
        ]
    lines += [
        row(f"{one['measure']} gap by {one['of']}", one["gap"])
        + f"   {one['highest']} over {one['lowest']}"
        for one in found["gaps"]
    ]
    if found["too_small"]:
        names = ", ".join(f"{one['of']} {one['group']}" for one in found["too_small"])
        least = found["smallest_group"]
        lines.append(f"too small to report (below about {least} consumers): {names}")
    return "\n".join(lines)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
