"""The commands `alliance-node study`: list, show, approve, refuse."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from privacy.errors import ConfigurationError

__all__ = ["study"]

study = typer.Typer(
    help="What was proposed to this member, and a person's word on it.", no_args_is_help=True
)

ConfigOption = Annotated[Path, typer.Option("--config", help="node.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object")]
NameArgument = Annotated[str, typer.Argument(help="its name, or name@hash for one version of it")]
DEFAULT_CONFIG = Path("node.toml")


@study.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Lists what waits for a person, what was refused, and what was accepted."""
    from client_sdk.study_desk import StudyDesk, report

    with StudyDesk(config) as desk:
        subjects = desk.studies()
        if json:
            typer.echo(jsonlib.dumps([report(one) for one in subjects]))
            return
    for one in subjects:
        typer.echo(f"{one.terms.label:<40} {one.standing:<9} {one.sentence}".rstrip())
    if not subjects:
        typer.echo("nothing was proposed to this member yet, as far as its ledger knows")


@study.command()
def show(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    contract: Annotated[bool, typer.Option(help="print its data contract alone, as JSON")] = False,
    json: JsonOption = False,
) -> None:
    """Shows what a study is for, what it reads, and what it would cost of what is left."""
    from client_sdk.study_desk import StudyDesk, report, text

    with StudyDesk(config) as desk:
        subject = desk.find(name)
    if contract:
        typer.echo(subject.terms.contract.model_dump_json(indent=1))
        return
    said = report(subject)
    typer.echo(jsonlib.dumps(said) if json else text(said, subject.terms.contract.columns))


@study.command()
def approve(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    terms: Annotated[str, typer.Option(help="the hash you were shown, to be sure")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask again")] = False,
    json: JsonOption = False,
) -> None:
    """Signs exactly these terms; any change of theirs is another version, to be approved anew."""
    from client_sdk.study_desk import StudyDesk, report, text

    with StudyDesk(config) as desk:
        subject = desk.find(name)
        if terms and (len(terms) < 8 or not subject.terms.hash.startswith(terms)):
            raise ConfigurationError(
                f"{subject.terms.label}: its terms are {subject.terms.hash}, not {terms:.64}; look "
                "at them again with alliance-node study show"
            )
        if not (yes or json) and sys.stdin.isatty():
            typer.echo(text(report(subject), subject.terms.contract.columns))
            typer.confirm("Sign these terms?", abort=True)
        desk.approve(subject)
    said = {"label": subject.terms.label, "terms_hash": subject.terms.hash, "standing": "accepted"}
    if json:
        typer.echo(jsonlib.dumps(said))
    else:
        typer.echo(f"{said['label']}: approved, signed and earmarked\nterms {said['terms_hash']}")


@study.command()
def refuse(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    reason: Annotated[str, typer.Option(help="is told to the coordinator")] = "",
    json: JsonOption = False,
) -> None:
    """Declines a study, or ends one here that was accepted; what was spent stays spent."""
    from client_sdk.study_desk import StudyDesk

    with StudyDesk(config) as desk:
        subject = desk.find(name)
        desk.refuse(subject, reason[:200])
    over = subject.standing == "accepted"
    said = {"label": subject.terms.label, "standing": "over" if over else "refused"}
    typer.echo(jsonlib.dumps(said) if json else f"{said['label']}: {said['standing']}")
