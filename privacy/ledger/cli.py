"""The command `alliance-audit`: exports bundles, audits them, compares them, reads passports."""

from __future__ import annotations

import importlib
import importlib.util
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from privacy.errors import AllianceError, ConfigurationError, EvidenceError

if TYPE_CHECKING:
    from privacy.ledger.audit_result import Audit

__all__ = ["app", "main"]

SOUND: Final = 0
FINDINGS: Final = 1
UNREADABLE: Final = 2

app = typer.Typer(
    help="Audits an alliance from exported bytes alone, offline. Exit code 0: sound; 1: findings; "
    "2: something could not be read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

BundleFolder = Annotated[Path, typer.Argument(help="folder of a bundle, as `export` makes it")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output")]
Draw = Annotated[int, typer.Option(min=0, help="how many kept rounds are added again")]
Seed = Annotated[
    str, typer.Option(help="draws rounds and samples again as before; a new one if not given")
]
Sample = Annotated[
    int | None,
    typer.Option(min=0, help="check so many signatures of contributions; all if not given"),
]
CoordinatorKey = Annotated[
    str | None, typer.Option(help="the coordinator's ledger key as you know it, in hexadecimal")
]
KnownTerms = Annotated[
    list[str] | None, typer.Option("--terms", help="hash of terms that you know; give each")
]


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="a new folder for the bundle")],
    key: Annotated[Path, typer.Option(help="your ledger.pem, which signs the manifest")],
    coordinator: Annotated[Path | None, typer.Option(help="the coordinator's state folder")] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: a member's state folder; give each")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes a bundle from state folders; logs may be written to meanwhile."""
    from privacy.ledger.export import export_bundle, read_key

    with _progress() as told:
        count = export_bundle(
            out,
            coordinator=coordinator,
            members=_named(member or ()),
            key=read_key(key),
            told=lambda what: told(f"writing {what}", 0, 0),
        )
    if as_json:
        _print_json({"bundle": str(out), "files": count})
    else:
        typer.echo(f"{out}: {count} files and a signed manifest")


@app.command()
def verify(
    bundle: BundleFolder,
    draw: Draw = 3,
    seed: Seed = "",
    sample: Sample = None,
    key: CoordinatorKey = None,
    terms: KnownTerms = None,
    as_json: AsJson = False,
) -> None:
    """Checks a bundle: signatures, trees, order, budgets, epsilon, sums. Says what it cannot."""
    audit = _audit(bundle, draw=draw, seed=seed, sample=sample, key=key, terms=terms or ())
    if as_json:
        _print_json(audit.document())
    else:
        typer.echo("\n".join(_words(audit)))
    raise typer.Exit(SOUND if audit.sound else FINDINGS)


@app.command()
def report(
    bundle: BundleFolder,
    output: Annotated[Path, typer.Option(help="the HTML file that is written")],
    draw: Draw = 3,
    seed: Seed = "",
    sample: Sample = None,
    key: CoordinatorKey = None,
    terms: KnownTerms = None,
    as_json: AsJson = False,
) -> None:
    """Checks a bundle and writes a report for people: one HTML file, in English and Chinese."""
    from privacy.ledger.report import render_report

    audit = _audit(bundle, draw=draw, seed=seed, sample=sample, key=key, terms=terms or ())
    try:
        output.write_text(render_report(audit), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output}: {error.strerror}") from error
    if as_json:
        _print_json({"report": str(output), **audit.document()})
    else:
        typer.echo(f"{output}: {_verdict(audit)}")
    raise typer.Exit(SOUND if audit.sound else FINDINGS)


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="the earlier bundle")],
    after: Annotated[Path, typer.Argument(help="the later bundle")],
    as_json: AsJson = False,
) -> None:
    """Says what the later of two bundles adds, and whether it keeps all of the earlier."""
    from privacy.ledger.diff import compare_bundles

    difference = compare_bundles(before, after)
    if as_json:
        _print_json(difference.document())
    else:
        lines = [finding.sentence() for finding in difference.findings]
        lines += difference.added or ("nothing was added",)
        lines.append(
            f"{after} keeps everything of {before}"
            if difference.extends
            else f"{after} does not keep everything of {before}"
        )
        typer.echo("\n".join(lines))
    raise typer.Exit(SOUND if difference.extends else FINDINGS)


@app.command()
def passport(
    file: Annotated[Path, typer.Argument(help="a passport, STUDY.passport.json")],
    model: Annotated[Path | None, typer.Option(help="the model file it came with")] = None,
    key: CoordinatorKey = None,
    as_json: AsJson = False,
) -> None:
    """Verifies a model's passport alone and prints it in plain words."""
    from privacy.ledger.bundle import hash_file
    from privacy.ledger.passport import LONGEST, open_passport, passport_words

    sha256 = hash_file(model).sha256 if model else None
    try:
        with file.open("rb") as opened:
            data = opened.read(LONGEST + 1)
    except OSError as error:
        raise EvidenceError(f"{file}: {error.strerror}") from error
    try:
        found = open_passport(data, model=sha256, key=key)
    except EvidenceError as error:
        if as_json:
            _print_json({"sound": False, "finding": str(error)})
        else:
            typer.echo(f"{file}: {error}")
        raise typer.Exit(FINDINGS) from error
    if as_json:
        _print_json({"sound": True, "passport": found.model_dump(mode="json")})
    else:
        typer.echo("\n".join(passport_words(found, model=model is not None)))


def main() -> None:
    """Entry point: errors of ours end in one sentence and exit code 2."""
    try:
        app()
    except AllianceError as error:
        typer.echo(f"alliance-audit: {error}", err=True)
        raise SystemExit(UNREADABLE) from error


def _mount_empirical() -> None:
    """Adds the commands of `privacy.empirical`, which stand in a package of their own."""
    if importlib.util.find_spec("privacy.empirical.cli") is not None:
        empirical = importlib.import_module("privacy.empirical.cli")
        app.add_typer(empirical.app, name="empirical")


def _audit(
    bundle: Path,
    *,
    draw: int,
    seed: str,
    sample: int | None,
    key: str | None,
    terms: Sequence[str],
) -> Audit:
    from privacy.ledger.audit import audit_bundle

    with _progress() as told:
        return audit_bundle(
            bundle,
            seed=seed or secrets.token_hex(8),
            draw=draw,
            sample=sample,
            key=key,
            terms=terms,
            told=told,
        )


def _words(audit: Audit) -> list[str]:
    """An audit for the terminal."""
    from privacy.ledger.audit_result import NEVER
    from privacy.ledger.audit_study import MICRO
    from privacy.ledger.findings import CHECKS

    lines = [finding.sentence() for finding in audit.findings]
    if audit.more:
        lines.append(f"... and {audit.more} findings more")
    lines += ["", "Checked:"]
    for number, check in CHECKS.items():
        lines.append(f"{number:3}. {check.title}: {audit.checked.get(number, 0)} {check.unit}")
    for study in audit.studies:
        spent = ", ".join(f"{value / MICRO:.4g}" for value in study.spent)
        lines.append(
            f"Study {study.terms.label}: {study.attempts} attempts; epsilon for a consumer known "
            f"to 1 to 5 members {spent} at delta {study.terms.privacy.delta:g}"
        )
    for member in audit.members:
        limit = f"{member.rule.epsilon_micro / MICRO:g}" if member.rule else "none"
        lines.append(
            f"Member {member.name}: epsilon {member.spent[0] / MICRO:.4g} to "
            f"{member.spent[1] / MICRO:.4g} spent over all studies, of {limit}"
        )
    lines += ["", "Could not be checked from these bytes:"]
    lines += [f"  - {sentence}" for sentence in (*audit.unchecked, *(one for one, _ in NEVER))]
    return [*lines, "", _verdict(audit)]


def _verdict(audit: Audit) -> str:
    count = len(audit.findings) + audit.more
    found = "sound" if audit.sound else f"{count} finding{'s' if count > 1 else ''}"
    return (
        f"{audit.bundle}: {found}; {audit.entries} entries, manifest {audit.manifest[:16]}, "
        f"seed {audit.seed}"
    )


def _named(members: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for given in members:
        name, separator, folder = given.partition("=")
        if not separator or not name or not folder or name in named:
            raise ConfigurationError(f"--member {given}: write NAME=FOLDER, each name once")
        named[name] = Path(folder)
    return named


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def told(what: str, done: int, of: int) -> None:
            progress.update(task, description=what, completed=done, total=of or None)

        yield told


_mount_empirical()
