"""The commands of `alliance-node` about leaving: leave, models."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privacy.errors import ConfigurationError

if TYPE_CHECKING:
    from client_sdk.config import NodeConfig
    from client_sdk.own_models import OwnModel

__all__ = ["add_commands"]

ConfigArgument = Annotated[Path, typer.Argument(help="node.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object")]

STAYS = (
    "What was released stays released: leaving takes nothing out of a model, and epsilon bounds "
    "what it tells of any consumer."
)


def add_commands(app: typer.Typer) -> None:
    """Adds these commands to `alliance-node`."""
    for command in (leave, models):
        app.command()(command)


def leave(
    config: ConfigArgument = Path("node.toml"),
    reason: Annotated[str, typer.Option(help="for your own ledger; is told to nobody")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask whether it is meant")] = False,
    json: JsonOption = False,
) -> None:
    """Leaves the alliance for good: no spend from now on, whoever can be reached or not."""
    from client_sdk.leaving import leave as leave_now

    settings = _read(config)
    if not yes:
        if json:
            raise ConfigurationError("with --json nobody is asked; give --yes as well")
        typer.confirm(
            f"{settings.member} leaves {settings.alliance} for good, and its ledger spends nothing "
            "any more; is that meant?",
            abort=True,
        )
    done = leave_now(settings, config.parent, reason)
    if json:
        said = {
            "member": done.member, "left": done.at.isoformat(), "departure": str(done.departure),
            "told": not done.by_hand, "by_hand": done.by_hand,
            "models": [one.document() for one in done.models],
        }  # fmt: skip
        typer.echo(jsonlib.dumps(said))
        return
    typer.echo(
        f"{done.member} left on {done.at:%Y-%m-%d %H:%M} UTC: its ledger spends nothing any more, "
        "a running node ends by itself"
    )
    typer.echo(done.by_hand or "the coordinator was told and ends this member's streams")
    typer.echo(_listed(done.models))


def models(config: ConfigArgument = Path("node.toml"), json: JsonOption = False) -> None:
    """Lists every model that contains this member, from its own ledger; connects to nobody."""
    from client_sdk.leaving import contained

    settings = _read(config)
    found = contained(settings)
    if json:
        said = {"member": settings.member, "models": [one.document() for one in found]}
        typer.echo(jsonlib.dumps(said))
    else:
        typer.echo(_listed(found))


def _listed(found: tuple[OwnModel, ...]) -> str:
    if not found:
        return "no model contains this member: nothing ever left it"
    return "\n".join(
        ["models that contain this member:", *(one.sentence() for one in found), STAYS]
    )


def _read(path: Path) -> NodeConfig:
    from client_sdk.config import NodeConfig
    from protos.config import read_config

    return read_config(path, NodeConfig).relative_to(path.parent)
