"""The commands of ``alliance-audit empirical``: make canaries, measure a run."""

from __future__ import annotations

import json
import os
import secrets as random_bits
from pathlib import Path
from typing import Annotated, Final

import typer

from privacy.accounting import Accountant
from privacy.empirical.canaries import CanarySecret, enrol_canaries, open_secret
from privacy.empirical.measurement import Measurement, measure
from privacy.empirical.releases import Released, open_releases
from privacy.errors import AllianceError, ConfigurationError, EvidenceError
from privacy.identity import Identity
from privacy.keystream import KEY_BYTES
from privacy.ledger.entry import canonical
from privacy.terms import Terms

__all__ = ["app"]

SOUND: Final = 0
FINDINGS: Final = 1
UNREADABLE: Final = 2

app = typer.Typer(
    help="Lower bounds on epsilon, and faults, from one run with an auditor's canaries.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TermsFile = Annotated[Path, typer.Argument(help="the study's terms, as JSON")]


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="where the private key is written; never replaced")],
) -> None:
    """Makes an auditor's key; prints the public half, for a member's auditor_keys."""
    with _Exits():
        identity = Identity.generate()
        _write(file, identity.pem())
        typer.echo(identity.public)


@app.command()
def enrol(
    terms: TermsFile,
    member: Annotated[str, typer.Option(help="where the canaries are enrolled")],
    count: Annotated[int, typer.Option(help="canaries; about half of them take part")],
    key: Annotated[Path, typer.Option(help="the auditor's private key")],
    secret: Annotated[Path, typer.Option(help="written for the auditor, to be kept secret")],
    output: Annotated[Path, typer.Option(help="written for the member")],
    scale: Annotated[
        float, typer.Option(help="norm before clipping, in units of C; above 1 tests the clipping")
    ] = 1.0,
) -> None:
    """Tosses the coins: writes the auditor's secret and the member's file."""
    with _Exits():
        kept, given = enrol_canaries(
            _terms(terms),
            member=member,
            count=count,
            scale=scale,
            auditor=Identity.from_pem(_read(key)),
            key=random_bits.token_bytes(KEY_BYTES),
        )
        _write(secret, canonical(kept.model_dump(mode="json")))
        _write(output, given.document())
        typer.echo(
            f"{secret}: keep it secret until the last release\n{output}: for member {member}, "
            f"{len(given.seeds)} of {count} canaries take part"
        )


@app.command(name="measure")
def measure_command(
    terms: TermsFile,
    releases: Annotated[Path, typer.Argument(help="folder with releases.jsonl")],
    secrets: Annotated[list[Path], typer.Argument(help="the auditor's secrets, one a member")],
    epsilon: Annotated[
        float | None,
        typer.Option(help="what is claimed for these releases; the accountant's own otherwise"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="figures as JSON")] = False,
) -> None:
    """Measures a run. Exit code 0: sound; 1: findings; 2: something could not be read."""
    with _Exits():
        study = _terms(terms)
        kept = [open_secret(_read(path), study, where=str(path)) for path in secrets]
        measured = _measured(study, kept, open_releases(releases, study), epsilon)
        if as_json:
            typer.echo(json.dumps(measured.document(), indent=1, allow_nan=False))
        else:
            typer.echo("\n".join(measured.words()))
        raise typer.Exit(SOUND if measured.sound else FINDINGS)


def _measured(
    terms: Terms, secrets: list[CanarySecret], releases: list[Released], epsilon: float | None
) -> Measurement:
    if len(releases) > terms.privacy.max_attempts:
        raise EvidenceError(
            f"{len(releases)} releases, the terms allow {terms.privacy.max_attempts} attempts"
        )
    claimed = Accountant(terms).epsilon(attempts=len(releases)) if epsilon is None else epsilon
    return measure(terms, secrets, releases, claimed=claimed)


class _Exits:
    """Turns errors of ours into one sentence and the exit code for what cannot be read."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AllianceError):
            typer.echo(f"alliance-audit: {error}", err=True)
            raise typer.Exit(UNREADABLE) from error


def _terms(path: Path) -> Terms:
    return Terms.from_json(_read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    """Writes a new file that only its owner may read."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; nothing was replaced") from error
