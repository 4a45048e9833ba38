"""The command `alliance-coordinator`."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.membership_cli import add_commands
from coordinator.study_cli import study
from privacy.errors import AllianceError
from protos.logs import LogFormat, LogLevel, configure, end

__all__ = ["app", "main"]

app = typer.Typer(
    help="Runs an alliance's studies: asks members for private sums and learns from those alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Runs an alliance's studies."""


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="coordinator.toml")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object per event")] = False,
    until_finished: Annotated[
        bool, typer.Option("--until-finished", help="end when no started study is left")
    ] = False,
    log_format: Annotated[LogFormat, typer.Option(help="json: of both streams")] = "text",
    log_level: Annotated[LogLevel, typer.Option(help="the least that is logged")] = "info",
) -> None:
    """Serves the members and runs studies as `study` commands ask for, until stopped."""
    from coordinator.app import run as run_studies
    from coordinator.config import CoordinatorConfig
    from coordinator.console import Lines
    from coordinator.monitor import JsonLines, Sink
    from protos.config import read_config

    configure(sys.stderr, style=log_format, level=log_level)
    settings = read_config(config, CoordinatorConfig).relative_to(config.parent)
    as_json = json or log_format == "json"
    sinks: list[Sink] = [JsonLines(sys.stdout) if as_json else Lines(sys.stdout)]
    asyncio.run(run_studies(settings, sinks, until_finished=until_finished))


@app.command()
def status(
    config: Annotated[Path, typer.Argument(help="coordinator.toml")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Shows where the coordinator of a state folder stands."""
    from rich.console import Console

    from coordinator.status import read_status
    from coordinator.watch import show

    path = _status_path(config)
    if json:
        typer.echo(read_status(path).model_dump_json())
    else:
        show(Console(), path)


@app.command()
def watch(config: Annotated[Path, typer.Argument(help="coordinator.toml")]) -> None:
    """Shows members, rounds, dropouts, epsilon, pace and last errors, live."""
    from rich.console import Console

    from coordinator.watch import watch as follow

    follow(Console(), _status_path(config))


def _status_path(config: Path) -> Path:
    from coordinator.config import CoordinatorConfig
    from protos.config import read_config

    settings = read_config(config, CoordinatorConfig).relative_to(config.parent)
    return settings.state / "status.json"


@app.command("throw-away-authority")
def throw_away_authority(
    folder: Annotated[Path, typer.Argument(help="where the certificates are written")],
    member: Annotated[list[str], typer.Option(help="a member's name; give one for each")],
    host: Annotated[list[str], typer.Option(help="a host name or address of the coordinator")],
    days: Annotated[int, typer.Option(min=1, max=30, help="how long they are valid")] = 1,
) -> None:
    """Makes certificates for a trial: an authority, a coordinator and members.

    The authority's key is not kept. For a trial only: in an alliance each member makes its own key.
    """
    from privacy.certificates import Authority

    now, lifetime = dt.datetime.now(dt.UTC), dt.timedelta(days=days)
    authority = Authority("throw-away alliance", now=now, lifetime=lifetime)
    sides = {"coordinator": authority.issue_coordinator(host, now=now, lifetime=lifetime)}
    for name in member:
        sides[name] = authority.issue_member(name, now=now, lifetime=lifetime)
    for name, issued in sides.items():
        side = folder / name
        side.mkdir(parents=True, exist_ok=True)
        (side / "authority.pem").write_bytes(authority.certificate)
        (side / "certificate.pem").write_bytes(issued.certificate)
        key = side / "key.pem"
        key.touch(mode=0o600)
        key.chmod(0o600)
        key.write_bytes(issued.key)
    typer.echo(f"{folder}: {', '.join(sides)}; valid for {days} days")


add_commands(app)
app.add_typer(study, name="study")


def main() -> None:
    """Entry point: errors of ours end in one sentence and exit code 1."""
    configure(sys.stderr)
    try:
        app()
    except AllianceError as error:
        end("alliance-coordinator", str(error))
        sys.exit(1)
    except ModuleNotFoundError as error:
        end(
            "alliance-coordinator",
            f"{error.name} is not installed; run: pip install 'alliance[coordinator]'",
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
