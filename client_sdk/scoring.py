"""What a member does with a published model by itself: score its rows, adapt it; nothing leaves."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from client_sdk.dataset import Dataset, DataSource, load
from client_sdk.recipes.model_file import is_adapted, load_model
from client_sdk.recipes.propensity.adaptation import (
    LEAST,
    Adaptation,
    Assessment,
    OwnRows,
    adapt,
    as_logits,
    unbinned,
)
from client_sdk.recipes.propensity.adapted_file import AdaptedModel, load_adapted, save_adapted
from privacy.errors import ConfigurationError, DataError, RecipeError
from privacy.terms import Terms

__all__ = ["adapt_model", "assessment_text", "score_rows"]


def score_rows(model: Path, source: DataSource, data: Dataset, output: Path) -> int:
    """Scores every row of this member's data with a published or an adapted model.

    Args:
        model: a model file.
        source: of this member's data.
        data: as it was read.
        output: CSV with consumer, row (from 1) and probability.

    Returns:
        How many rows were scored.

    Raises:
        RecipeError: if the model was learned under another data contract, or gives no probability.
        DataError: if the member's data came in another order when it was read again.
        ConfigurationError: if the output cannot be written.
    """
    adaptation = None
    if is_adapted(model):
        adapted = load_adapted(model)
        terms, parameters, adaptation = adapted.terms, adapted.parameters, adapted.adaptation
    else:
        terms, parameters, _ = load_model(model)
    whose, rows = _present(data)
    probabilities = _probabilities(model, terms, parameters, data)
    if adaptation is not None and adaptation != Adaptation():
        logits = adaptation.logits(_columns(source, data), as_logits(probabilities))
        probabilities = expit(logits).astype(np.float32)
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("consumer", "row", "probability"))
            ids = data.consumer_ids
            for consumer, row, probability in zip(whose, rows, probabilities, strict=True):
                writer.writerow((ids[consumer], row + 1, f"{probability:.6f}"))
    except OSError as error:
        raise ConfigurationError(f"{output}: {error.strerror}") from error
    return len(rows)


def adapt_model(
    model: Path, source: DataSource, data: Dataset, output: Path, progress: Callable[[str], None]
) -> Assessment:
    """Adapts a published model to this member's own consumers.

    Args:
        model: a published model's file.
        source: of this member's data.
        data: as it was read.
        output: where the adapted model goes.
        progress: is told how far it is.

    Raises:
        RecipeError: as `score_rows`.
        DataError: as `score_rows`.
        ConfigurationError: if the output cannot be written.
    """
    terms, parameters, round_number = load_model(model)
    if output.exists() and not is_adapted(output):
        raise ConfigurationError(f"{output}: is there and no adapted model; name another --output")
    if not output.parent.is_dir():
        raise ConfigurationError(f"{output}: its folder is not there; make it or name another")
    whose, _ = _present(data)
    labels = data.table.labels[0, :-1]
    rows = OwnRows(
        columns=_columns(source, data),
        categories=len(unbinned(terms.contract).categories),
        labels=labels[data.table.present[0, :-1] > 0],
        consumers=whose,
        logits=as_logits(_probabilities(model, terms, parameters, data)),
    )
    adaptation, assessment = adapt(rows, progress)
    save_adapted(output, AdaptedModel(terms, parameters, round_number, adaptation))
    return assessment


def assessment_text(member: str, found: Assessment, output: Path) -> str:
    """What `adapt_model` found, for people."""
    lines = [f"{member}: {found.consumers:,} own consumers, of whom {found.responded:,} responded"]
    if found.alone is None:
        why = f"fewer than {LEAST} who responded or than {LEAST} who did not"
        why = "neither it nor own trees tell them apart" if found.enough else why
        lines.append(f"the alliance's model is kept as it is: {why}")
        return "\n".join(lines)
    lines.append(f"{'':34}  AUC    precision among the top 10 %")
    for name, ranking in (
        ("this member alone", found.alone),
        ("the alliance's model", found.alliance),
        ("adapted", found.adapted),
    ):
        lines.append(f"{name:34}  {ranking.auc:.3f}  {ranking.precision:.3f}")
    if found.trees:
        lines.append(f"adapted: {found.trees} own trees count for {found.share:.0%}")
    else:
        lines.append("adapted: own trees count for nothing; probabilities fit this member's rate")
    lines.append("measured on own consumers by cross-validation, without privacy: for this member")
    lines.append(f"{output}: knows these consumers; keep it here")
    return "\n".join(lines)


def _present(data: Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every row there is, consumer by consumer: whose it is, and its number there."""
    whose, rows = np.nonzero(data.table.present[0, :-1])
    return whose, rows


def _probabilities(
    model: Path, terms: Terms, parameters: npt.NDArray[np.float32], data: Dataset
) -> npt.NDArray[np.float32]:
    """Of every row there is, float32, shape (rows,)."""
    from client_sdk.recipes.propensity.model import score

    if terms.contract != data.contract:
        raise RecipeError(f"{model}: was learned under another data contract than this member's")
    at = (0, *_present(data))
    return score(terms, parameters, data.table.numbers[at], data.table.categories[at])


def _same_rows(one: Dataset, other: Dataset) -> bool:
    """Whether labels, and all columns that two contracts read alike, agree."""
    was, now = one.table, other.table
    names = [column.name for column in other.contract.numbers]
    numbers = [names.index(column.name) for column in one.contract.numbers]
    names = [column.name for column in one.contract.categories]
    categories = [names.index(column.name) for column in other.contract.categories]
    return (
        np.array_equal(was.labels, now.labels)
        and np.array_equal(was.present, now.present)
        and np.array_equal(was.numbers, now.numbers[..., numbers])
        and np.array_equal(was.categories[..., categories], now.categories)
    )


def _columns(source: DataSource, data: Dataset) -> npt.NDArray[np.float32]:
    """Numbers without bins, then category codes, of every row there is."""
    contract = unbinned(data.contract)
    if contract != data.contract:
        before, data = data, load(source, contract, data.period)
        if before.consumer_ids != data.consumer_ids or not _same_rows(before, data):
            raise DataError(
                f"{source.name}: gives other rows, or another order, each time it is read; "
                "let the query end with ORDER BY"
            )
    at = (0, *_present(data))
    return np.concatenate([data.table.numbers[at], data.table.categories[at]], 1, dtype=np.float32)
