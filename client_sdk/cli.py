"""The command `alliance-node`."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from client_sdk.joining_cli import add_commands
from client_sdk.leaving_cli import add_commands as add_leaving_commands
from client_sdk.study_cli import study
from privacy.errors import AllianceError
from protos.logs import LogFormat, LogLevel, configure, end

__all__ = ["app", "main"]

app = typer.Typer(
    help="A member's node: answers private sums on data that stays here.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(help="node.toml")]


@app.callback()
def _root() -> None:
    """A member's node."""


@app.command()
def run(
    config: ConfigFile,
    log_format: Annotated[LogFormat, typer.Option(help="of the error stream")] = "text",
    log_level: Annotated[LogLevel, typer.Option(help="the least that is logged")] = "info",
) -> None:
    """Checks the data, connects to the coordinator, and answers until stopped."""
    from client_sdk.process import forbid_core_dumps, open_node, serve

    forbid_core_dumps()
    configure(sys.stderr, style=log_format, level=log_level)
    asyncio.run(serve(*open_node(config, spending=True)))


@app.command()
def identity(
    file: Annotated[Path, typer.Argument(help="where the private key is written; never replaced")],
) -> None:
    """Makes this member's identity key; prints the public half, which goes into the roster."""
    from client_sdk.process import make_identity

    typer.echo(make_identity(file))


@app.command()
def check(config: ConfigFile) -> None:
    """Checks configuration, contract and data, and connects to nobody."""
    from client_sdk.process import open_node

    settings, node = open_node(config)
    typer.echo(
        f"{settings.member}: {len(node.dataset.consumer_ids)} consumers fit the contract "
        f"{node.contract.name} version {node.contract.version}"
    )


@app.command()
def budget(
    config: ConfigFile,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Says what all studies together may cost, have cost and will cost; connects to nobody."""
    from client_sdk.budget_report import budget_report, budget_text, read_budget

    member, account = read_budget(config)
    report = budget_report(member, account)
    typer.echo(json.dumps(report) if as_json else budget_text(report))


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="a published model, or an adapted one")],
    config: ConfigFile,
    output: Annotated[Path, typer.Option(help="CSV: consumer, row, probability")],
) -> None:
    """Scores this member's own rows with a model; nothing leaves."""
    from client_sdk.process import open_node
    from client_sdk.scoring import score_rows

    settings, node = open_node(config)
    count = score_rows(model, settings.data, node.dataset, output)
    typer.echo(f"{settings.member}: {count} rows scored into {output}")


@app.command()
def adapt(
    model: Annotated[Path, typer.Argument(help="a published model")],
    config: ConfigFile,
    output: Annotated[Path, typer.Option(help="the adapted model, for `alliance-node score`")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Adapts a published model to this member's own consumers, and says what that is worth here.

    Boosted trees of this member's own are weighed with the model, by what they say of consumers
    they were grown without; nothing leaves, and no budget is spent.
    """
    from client_sdk.process import open_node
    from client_sdk.scoring import adapt_model, assessment_text

    settings, node = open_node(config)
    found = adapt_model(
        model, settings.data, node.dataset, output, lambda what: typer.echo(what, err=True)
    )
    if as_json:
        typer.echo(json.dumps({"member": settings.member, **asdict(found)}))
    else:
        typer.echo(assessment_text(settings.member, found, output))


add_commands(app)
add_leaving_commands(app)
app.add_typer(study, name="study")


def main() -> None:
    """Entry point: errors of ours end in one sentence and exit code 1."""
    configure(sys.stderr)
    try:
        app()
    except AllianceError as error:
        end("alliance-node", str(error))
        sys.exit(1)
    except ModuleNotFoundError as error:
        end("alliance-node", f"{error.name} is not installed; run: pip install 'alliance[node]'")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
