"""The commands `alliance-coordinator study`: what an operator does with studies, and reads."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig
    from coordinator.projection import Projected
    from coordinator.rehearsal import Believed
    from coordinator.statistics_desk import Result
    from coordinator.store import StudyRecord
    from coordinator.study_desk import StudyDesk
    from privacy.terms import Terms

__all__ = ["study"]

study = typer.Typer(
    help="Proposes studies to members, and starts, pauses and stops them.", no_args_is_help=True
)

ConfigOption = Annotated[Path, typer.Option("--config", help="coordinator.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object")]
NameArgument = Annotated[str, typer.Argument(help="its name, or name@hash for one version of it")]
DEFAULT_CONFIG = Path("coordinator.toml")


@study.command()
def propose(
    file: Annotated[Path, typer.Argument(help="the study, as TOML; or complete terms, as JSON")],
    config: ConfigOption = DEFAULT_CONFIG,
    roster: Annotated[
        Path | None, typer.Option(help="members as members --json lists them; else the registry's")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="start it in the same go")] = False,
    json: JsonOption = False,
) -> None:
    """Offers a study to its members; nothing runs before it is started and enough approved."""
    with _desk(config) as desk:
        record = desk.propose(file, roster=roster)
        if start:
            record = desk.start(record.terms.label)
        report = _report(desk, record)
        planned = desk.prospect(record)
    if planned is not None:
        report["evaluation"] = planned
    if json:
        typer.echo(jsonlib.dumps(report))
        return
    epsilon = report["epsilon"]["1"]
    typer.echo(
        f"{report['label']}: version {report['version']} is offered to {len(report['members'])} "
        f"members; {report['needed']} of them must approve\n"
        f"terms {report['terms_hash']}\n"
        f"epsilon(1) {epsilon:.3f} at delta {report['delta']:g}, noise multiplier "
        f"{report['noise_multiplier']:g}, {report['rounds']} rounds, at most "
        f"{report['attempts']} attempts"
        + (_planned(planned) if planned is not None else "")
        + ("" if start else f"\nnext: alliance-coordinator study start {report['study']}")
    )


@study.command()
def project(
    file: Annotated[Path, typer.Argument(help="the study, as TOML; or complete terms, as JSON")],
    config: ConfigOption = DEFAULT_CONFIG,
    roster: Annotated[
        Path | None, typer.Option(help="members as members --json lists them; else the registry's")
    ] = None,
    declared: Annotated[
        str, typer.Option(help="instead of members: their numbers of consumers, as 9000,400,60")
    ] = "",
    auc: Annotated[
        tuple[float, float],
        typer.Option(help="what the AUC would be if all rows were in one place, low and high"),
    ] = (0.6, 0.95),
    label_share: Annotated[
        tuple[float, float], typer.Option(help="the share of rows with label 1, low and high")
    ] = (0.05, 0.5),
    json: JsonOption = False,
) -> None:
    """Says what a study would cost and give, before anybody approves it; proposes nothing."""
    from coordinator.config import CoordinatorConfig
    from coordinator.evaluation_plan import UNKNOWN, evaluation_terms, prospect
    from coordinator.projection import project as projected
    from coordinator.rehearsal import RUNS, Believed
    from coordinator.study_desk import everybody, imagined
    from coordinator.study_file import read_evaluation, read_study
    from protos.config import read_config

    settings = read_config(config, CoordinatorConfig).relative_to(config.parent)
    if declared:
        members = imagined(declared)
    else:
        members = [] if file.suffix == ".json" else everybody(settings, roster)
    terms = read_study(file, alliance=settings.alliance_name, everybody=members)
    table = read_evaluation(file)
    planned = None if table is None else prospect(evaluation_terms(terms, UNKNOWN, table))
    believed = Believed(auc, label_share)
    with typer.progressbar(length=RUNS, label="rehearsing", file=sys.stderr) as bar:
        found = projected(terms, believed, done=lambda _: bar.update(1))
    if json:
        extra = {} if planned is None else {"evaluation": planned}
        typer.echo(jsonlib.dumps(found.document() | extra))
    else:
        typer.echo(
            _projected(terms, believed, found) + ("" if planned is None else _planned(planned))
        )


@study.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Lists all studies, in the order in which they were proposed."""
    with _desk(config) as desk:
        reports = [_brief(desk, record) for record in desk.store.studies()]
    if json:
        typer.echo(jsonlib.dumps(reports))
        return
    for one in reports:
        approved = sum(member["answer"] == "accepted" for member in one["members"])
        typer.echo(
            f"{one['label']:<40} version {one['version']:<3} {one['standing']:<9} "
            f"{approved} of {one['needed']} needed approved  {one['sentence']}".rstrip()
        )
    if not reports:
        typer.echo("no study was proposed yet; alliance-coordinator study propose FILE")


@study.command()
def show(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    contract: Annotated[bool, typer.Option(help="print its data contract alone, as JSON")] = False,
    json: JsonOption = False,
) -> None:
    """Shows one study: what its members sign, what it costs, and what each of them said."""
    with _desk(config) as desk:
        record = desk.find(name)
        if contract:
            typer.echo(record.terms.contract.model_dump_json(indent=1))
            return
        report = _report(desk, record)
    typer.echo(jsonlib.dumps(report) if json else _text(report))


@study.command()
def start(
    name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Runs a study as soon as enough members approved, or goes on with one that was paused."""
    with _desk(config) as desk:
        _said(desk, desk.start(name), "runs as soon as enough members approved it", json)


@study.command()
def pause(
    name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Lets the open round end and then holds, until it is started again."""
    with _desk(config) as desk:
        _said(desk, desk.pause(name), "holds after the round that is open", json)


@study.command()
def stop(
    name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Ends a study for good; members get back what they earmarked for it and did not spend."""
    with _desk(config) as desk:
        _said(desk, desk.stop(name), "is over for good after the round that is open", json)


@study.command()
def evaluate(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    epsilon: Annotated[float, typer.Option(help="what it may cost, beside the study")] = 0.5,
    by: Annotated[str, typer.Option(help='groups to compare: "region, age: 30 45 60"')] = "",
    top: Annotated[float, typer.Option(help="share of consumers that is selected")] = 0.1,
    json: JsonOption = False,
) -> None:
    """Offers to measure a study's published model; runs as soon as enough members approved."""
    from pydantic import ValidationError

    from coordinator.evaluation_plan import EvaluationTable
    from privacy.documents import first_problem
    from privacy.errors import ConfigurationError

    try:
        table = EvaluationTable(epsilon=epsilon, by=by, top=top)
    except ValidationError as error:
        raise ConfigurationError(f"--{first_problem(error)}") from error
    with _desk(config) as desk:
        _said(desk, desk.evaluate(name, table), "runs as soon as enough members approved it", json)


@study.command()
def result(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    csv: Annotated[bool, typer.Option("--csv", help="one figure a line")] = False,
    json: JsonOption = False,
) -> None:
    """Shows what a study of statistics, or an evaluation, found, with the errors of its noise."""
    from coordinator.evaluation import text
    from coordinator.statistics_desk import as_csv, as_text, report

    with _desk(config) as desk:
        measured = None if csv else desk.measured(name)
    if measured is not None:
        typer.echo(jsonlib.dumps(measured) if json else text(measured))
        return
    found = _result(config, name)
    if json:
        typer.echo(jsonlib.dumps(report(found)))
    else:
        typer.echo(as_csv(found) if csv else as_text(found))


@study.command()
def edges(
    name: NameArgument,
    bins: Annotated[int, typer.Option(min=2, help="of each number column, at most")] = 16,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Prints number columns with bins, from a study of statistics, for another study's contract."""
    from coordinator.statistics_desk import as_toml

    typer.echo(as_toml(_result(config, name), bins))


@study.command()
def words(
    name: NameArgument,
    column: Annotated[str, typer.Argument(help="a category that the contract has in buckets")],
    file: Annotated[Path, typer.Argument(help="candidates, one a line")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Looks public candidates up in a hashed vocabulary: at most how many consumers have each."""
    from coordinator.statistics_desk import look_up

    found = look_up(_result(config, name), column, file)
    if json:
        typer.echo(jsonlib.dumps(found))
        return
    for one in found:
        shown = "-" if one["value"] is None else f"{one['value']:,.0f}"
        typer.echo(f"{one['word']:<32.32} {shown:>12}")


def _projected(terms: Terms, believed: Believed, found: Projected) -> str:
    """A projection for a person."""
    profile = ", ".join(f"{m}: {value:.3f}" for m, value in found.epsilon.items())
    whole = found.document()["study"]
    consumers = sum(entry.declared_consumers for entry in terms.roster)
    text = f"""\
{terms.study}: {len(terms.roster)} members with about {consumers} consumers, {terms.dimension} \
parameters
epsilon  by how many members know a consumer: {profile}; at delta {terms.privacy.delta:g}, noise \
multiplier {terms.privacy.noise_multiplier:g}
rounds   {found.rounds}, at most {found.attempts} attempts
bytes    a member sends {_bytes(found.traffic.sent)} and receives \
{_bytes(found.traffic.received)} a round, {_bytes(whole["sent"])} and {_bytes(whole["received"])} \
in all
time     {1e3 * found.noise_s:.3g} ms a round for noise and {1e3 * found.masks_s:.3g} ms for \
masks on a machine like this one, {whole["seconds"]:.3g} s in all"""
    for what, error in found.errors.items():
        if what == "shown_above":
            text += f"\nshown    a category's values that more than {error:.0f} consumers have"
        else:
            text += f"\nerror    {what}: 95 of 100 counts within {error:.0f} consumers"
    if found.rehearsal is None:
        return text
    low, middle, high = found.rehearsal.auc
    _, usual, most = found.rehearsal.loss
    return f"""{text}
AUC      {low:.3f} to {high:.3f}, median {middle:.3f}, in {found.rehearsal.runs} rehearsals with \
{found.rehearsal.consumers} generated consumers
         of that noise takes {usual:.3f}, up to {most:.3f}
         for a model that would reach {believed.pooled_auc[0]:g} to {believed.pooled_auc[1]:g} \
with all rows in one place, {believed.label_share[0]:g} to {believed.label_share[1]:g} of their \
labels 1 (--auc and --label-share narrow that)"""


def _bytes(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000 or unit == "MB":
            break
        count //= 1000
    return f"{count} {unit}"


def _planned(planned: dict[str, Any]) -> str:
    """What a planned evaluation costs and tells, in a sentence."""
    return (
        f"\nevaluation: proposed once the last model is published; epsilon(1) "
        f"{planned['epsilon']['1']:.3f} more, on {planned['holdout']:.0%} of the consumers, which "
        f"do not train; a group is reported from about {planned['smallest_group']} consumers on"
    )


def _desk(config: Path) -> StudyDesk:
    from coordinator.study_desk import StudyDesk

    return StudyDesk(_settings(config))


def _settings(config: Path) -> CoordinatorConfig:
    from coordinator.config import CoordinatorConfig
    from protos.config import read_config

    return read_config(config, CoordinatorConfig).relative_to(config.parent)


def _result(config: Path, name: str) -> Result:
    from coordinator.statistics_desk import Result

    with _desk(config) as desk:
        terms = desk.find(name).terms
    return Result.of(terms, _settings(config).state)


def _said(desk: StudyDesk, record: StudyRecord, what: str, json: bool) -> None:
    said = f"{record.terms.label}: version {record.version} {what}"
    typer.echo(jsonlib.dumps(_brief(desk, record)) if json else said)


def _brief(desk: StudyDesk, record: StudyRecord) -> dict[str, Any]:
    """Where a study stands."""
    terms, answers = record.terms, desk.store.answers(record.terms.hash)
    members = []
    for entry in terms.roster:
        answer, sentence = answers.get(entry.name, (None, ""))
        said = answer.value if answer is not None else "not heard of"
        members.append({"member": entry.name, "answer": said, "sentence": sentence})
    return {
        "study": terms.study,
        "label": terms.label,
        "terms_hash": terms.hash,
        "version": record.version,
        "standing": record.standing,
        "wanted": record.wanted.value,
        "sentence": record.sentence,
        "needed": terms.privacy.least_survivors,
        "members": members,
    }


def _report(desk: StudyDesk, record: StudyRecord) -> dict[str, Any]:
    """The same, and what its members sign."""
    from privacy.accounting import Accountant

    terms = record.terms
    projection = Accountant(terms).projection()
    return _brief(desk, record) | {
        "purpose": terms.purpose,
        "recipe": terms.recipe,
        "settings": terms.settings,
        "columns": [column.model_dump(mode="json") for column in terms.contract.columns],
        "consumer_id": terms.contract.consumer_id,
        "label_column": terms.contract.label,
        "rounds": terms.privacy.rounds,
        "attempts": terms.privacy.max_attempts,
        "delta": terms.privacy.delta,
        "noise_multiplier": terms.privacy.noise_multiplier,
        "epsilon": {str(m): epsilon for m, epsilon in projection.profile.items()},
        "epsilon_local": projection.epsilon_local,
        "cohort_size": terms.privacy.cohort_size,
        "colluders": terms.privacy.colluders,
        "dropouts": terms.privacy.dropouts,
    }


def _text(report: dict[str, Any]) -> str:
    """A report for a person."""
    profile = ", ".join(f"{m}: {value:.3f}" for m, value in report["epsilon"].items())
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    columns = ", ".join(one["name"] for one in report["columns"])
    members = [
        f"  {one['member']:<20} {one['answer']}  {one['sentence']}".rstrip()
        for one in report["members"]
    ]
    sentence = f" ({report['sentence']})" if report["sentence"] else ""
    return f"""\
{report["label"]}, version {report["version"]}: {report["standing"]}{sentence}
terms    {report["terms_hash"]}
purpose  {report["purpose"]}
recipe   {report["recipe"]}{": " if settings else ""}{settings}
columns  {columns}; label {report["label_column"]}, a consumer is a {report["consumer_id"]}
rounds   {report["rounds"]}, at most {report["attempts"]} attempts
cohort   {report["cohort_size"]} members; {report["colluders"]} may collude, {report["dropouts"]} \
may drop out
epsilon  by how many members know a consumer: {profile}; at delta {report["delta"]:g}, noise \
multiplier {report["noise_multiplier"]:g}
members  {report["needed"]} of them must approve:
""" + "\n".join(members)
