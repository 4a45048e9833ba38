"""The commands of `alliance-node` that make a member: init, join, vouch, rotate, doctor."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from privacy.errors import ConfigurationError

if TYPE_CHECKING:
    from client_sdk.config import NodeConfig

__all__ = ["add_commands"]

ConfigOption = Annotated[Path, typer.Option("--config", help="node.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object")]

ROTATION = {
    "identity": "the identity key is named by the terms of every study this member is in, so it is "
    "not rotated by itself: make a new node folder with alliance-node init, have it admitted in "
    "this one's place (alliance-coordinator invite {member} --replace), have members vouch for the "
    "new key, and sign the new version of each study's terms that names it; nothing was changed",
    "ledger": "the ledger key is named by this member's acceptance of every study's terms, so it "
    "is not rotated by itself: pause, restart the ledger under a new key with the spent budget "
    "carried over, and accept a new version of each study's terms; nothing was changed",
}


def add_commands(app: typer.Typer) -> None:
    """Adds these commands to `alliance-node`."""
    for command in (init, join, vouch, rotate):
        app.command()(command)
    app.command("doctor")(doctor)


def init(
    folder: Annotated[Path, typer.Argument(help="made if it is not there; keys stay in it")],
    alliance: Annotated[str, typer.Option(help="the alliance's name, from its operator")],
    member: Annotated[str, typer.Option(help="this member's name")],
    coordinator: Annotated[str, typer.Option(help="HOST:PORT of the coordinator")],
    consumers: Annotated[int, typer.Option(min=1, help="about how many; is rounded")],
    contract: Annotated[str, typer.Option(help="the data contract, JSON")] = "contract.json",
    data: Annotated[str | None, typer.Option(help="a CSV or Parquet file")] = None,
    enrolment: Annotated[str | None, typer.Option(help="HOST:PORT; by default port 9444")] = None,
    proxy: Annotated[str | None, typer.Option(help="http://HOST:PORT, if needed")] = None,
    known: Annotated[
        list[str] | None, typer.Option(help="NAME=IDENTITY of a member whose key you compared")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Makes keys that never leave this machine, a request to join, and a node.toml."""
    from client_sdk.joining import NewMember
    from client_sdk.joining import init as make
    from privacy.terms import one_digit

    pairs = [pair.partition("=") for pair in known or []]
    if not all(name and key for name, _, key in pairs):
        raise ConfigurationError("--known is NAME=IDENTITY, once for each member")
    request = make(
        folder,
        NewMember(
            alliance=alliance, member=member, coordinator=coordinator,
            declared_consumers=one_digit(consumers), contract=contract, enrolment=enrolment,
            proxy=proxy, data=data, known={name: key for name, _, key in pairs},
        ),
    )  # fmt: skip
    shown = _fingerprint(request.alliance, request.member, request.identity)
    if json:
        typer.echo(
            jsonlib.dumps(
                {
                    "member": request.member, "identity": request.identity,
                    "ledger": request.ledger, "fingerprint": shown,
                }
            )
        )  # fmt: skip
        return
    typer.echo(
        f"{folder / 'node.toml'}: look through it\n"
        f"{folder / 'request.json'}: holds no secret; give it to the operator, or use an "
        "invitation\n"
        f"identity {request.identity}\nfingerprint {shown}\n"
        "Read the fingerprint to members who vouch for you, over the telephone."
    )


def join(
    invitation: Annotated[str, typer.Argument(help="the line, or the file that admit wrote")],
    config: ConfigOption = Path("node.toml"),
    fingerprint: Annotated[
        str, typer.Option(help="of the authority, as the operator reads it out; for a file")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Uses an invitation, or takes what `alliance-coordinator admit` wrote."""
    from client_sdk.joining import install
    from client_sdk.joining import join as use
    from privacy.certificates import certificate_facts

    if invitation.startswith("alliance-invitation"):
        admitted = use(config, invitation)
    else:
        certificate, authority = _admission_file(Path(invitation))
        shown = certificate_facts(authority).fingerprint
        if "".join(fingerprint.split()) != shown:
            raise ConfigurationError(
                f"the authority in {invitation} has the fingerprint {shown}; compare it with the "
                "operator over another channel, then give it with --fingerprint"
            )
        admitted = install(_read(config), authority, certificate)
    if json:
        typer.echo(
            jsonlib.dumps(
                {
                    "alliance": admitted.alliance, "member": admitted.member,
                    "valid_until": admitted.valid_until.isoformat(), "remark": admitted.remark,
                }
            )
        )  # fmt: skip
        return
    typer.echo(
        f"{admitted.member} is a member of {admitted.alliance}; the certificate is valid until "
        f"{admitted.valid_until:%Y-%m-%d %H:%M} UTC and renews itself while the node runs"
    )
    if admitted.remark:
        typer.echo(admitted.remark)


def vouch(
    request: Annotated[Path, typer.Argument(help="the other member's request.json")],
    config: ConfigOption = Path("node.toml"),
    fingerprint: Annotated[str, typer.Option(help="as that member read it out to you")] = "",
    output: Annotated[Path | None, typer.Option(help="write it; do not send it")] = None,
    json: JsonOption = False,
) -> None:
    """Signs that an identity key is another member's, once you have compared fingerprints."""
    from client_sdk.enrolment import Enrolment
    from client_sdk.joining import read_request, vouch_for

    settings, about = _read(config), read_request(request)
    if not fingerprint and sys.stdin.isatty():
        typer.echo(f"Have {about.member} read its fingerprint to you, and type what you hear.")
        fingerprint = typer.prompt("fingerprint")
    if not fingerprint:
        raise ConfigurationError(
            f"give --fingerprint as {about.member} reads it out over the telephone; what stands in "
            "the request proves nothing"
        )
    word = vouch_for(settings, about, fingerprint)
    if output is not None:
        output.write_bytes(word.canonical())
        said = f"{output}: the vouch for {about.member}; give it to the operator"
        count = None
    else:
        if settings.enrolment is None:
            raise ConfigurationError("node.toml names no enrolment service; use --output FILE")
        authority = settings.tls.read().authority
        with Enrolment(settings.enrolment, authority, proxy=settings.proxy) as service:
            count = service.vouch(word.canonical())
        said = f"vouched for {about.member}; the coordinator holds {count} vouches for that key"
    typer.echo(jsonlib.dumps({"member": about.member, "vouches": count}) if json else said)


def rotate(
    key: Annotated[Literal["tls", "identity", "ledger"], typer.Argument(help="which key")],
    config: ConfigOption = Path("node.toml"),
    json: JsonOption = False,
) -> None:
    """Replaces the TLS key at any time; says what replacing another one takes."""
    from client_sdk.credentials import Credentials
    from privacy.identity import Identity
    from protos.config import read_secret

    settings = _read(config)
    if key != "tls":
        raise ConfigurationError(ROTATION[key].format(member=settings.member))
    until = Credentials(
        settings.tls,
        member=settings.member,
        identity=Identity.from_pem(read_secret(settings.identity)),
        enrolment=settings.enrolment,
        proxy=settings.proxy,
    ).renew(new_key=True)
    if json:
        typer.echo(jsonlib.dumps({"key": key, "valid_until": until.isoformat()}))
    else:
        typer.echo(
            f"{settings.member} has a new TLS key; the old one is refused within a minute, a "
            "running node takes the new one by itself"
        )


def doctor(
    config: Annotated[Path, typer.Argument(help="node.toml")] = Path("node.toml"),
    json: JsonOption = False,
) -> None:
    """Finds what keeps this node from taking part, and says what to do; exit code 1 if anything."""
    from client_sdk.doctor import examine

    findings = examine(config)
    if json:
        typer.echo(
            jsonlib.dumps(
                [{"check": f.check, "outcome": f.outcome, "sentence": f.sentence} for f in findings]
            )
        )
    else:
        for finding in findings:
            typer.echo(f"{finding.outcome:<7} {finding.check:<12} {finding.sentence}")
    if any(finding.outcome == "wrong" for finding in findings):
        raise typer.Exit(1)


def _read(path: Path) -> NodeConfig:
    from client_sdk.config import NodeConfig
    from protos.config import read_config

    return read_config(path, NodeConfig).relative_to(path.parent)


def _admission_file(path: Path) -> tuple[bytes, bytes]:
    """The member's certificate and the authority's, in this order, from one PEM file."""
    try:
        parts = path.read_bytes().split(b"-----END CERTIFICATE-----")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; give the invitation's line or the file that admit wrote"
        ) from error
    if len(parts) != 3:
        raise ConfigurationError(f"{path}: holds not two certificates; ask the operator again")
    end = b"-----END CERTIFICATE-----\n"
    return parts[0].lstrip() + end, parts[1].lstrip() + end


def _fingerprint(alliance: str, member: str, identity: str) -> str:
    from privacy.admission import fingerprint

    return fingerprint(alliance=alliance, member=member, identity=identity)
