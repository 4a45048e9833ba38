"""The commands of `alliance-coordinator` about members: authority, invite, admit, revoke, left."""

from __future__ import annotations

import asyncio
import datetime as dt
import json as jsonlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from privacy.errors import BadSignature, ConfigurationError, MalformedBody
from protos.logs import LogFormat, LogLevel, configure, line_of

if TYPE_CHECKING:
    from coordinator.authority import EnrolmentConfig

__all__ = ["add_commands"]

ConfigOption = Annotated[Path, typer.Option("--config", help="coordinator.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object")]
Read = TypeVar("Read")
NameArgument = Annotated[str, typer.Argument(help="the member's name")]


def add_commands(app: typer.Typer) -> None:
    """Adds these commands to `alliance-coordinator`."""
    authority = typer.Typer(help="The alliance's certificate authority.", no_args_is_help=True)
    authority.command("init")(authority_init)
    app.add_typer(authority, name="authority")
    for command in (invite, admit, countersign, revoke, left, members, enrolment):
        app.command()(command)


def authority_init(
    folder: Annotated[Path, typer.Argument(help="made if it is not there; guard it well")],
    alliance: Annotated[str, typer.Option(help="the alliance's name, as in every study's terms")],
    years: Annotated[int, typer.Option(min=1, max=30, help="how long it is valid")] = 10,
    json: JsonOption = False,
) -> None:
    """Makes the authority that issues everybody's certificates; its key is kept."""
    from coordinator.authority import init_authority, utc_now
    from privacy.certificates import certificate_facts

    authority = init_authority(folder, alliance, years=years, now=utc_now())
    facts = certificate_facts(authority.certificate)
    if json:
        typer.echo(jsonlib.dumps({"alliance": alliance, "fingerprint": facts.fingerprint}))
    else:
        typer.echo(
            f"{folder}: the authority of {alliance}, valid until {facts.not_after:%Y-%m-%d}; keep "
            f"a copy of it off this machine\nfingerprint {facts.fingerprint}"
        )


def invite(
    name: NameArgument,
    config: ConfigOption = Path("coordinator.toml"),
    hours: Annotated[int, typer.Option(min=1, max=720, help="how long it counts")] = 24,
    replace: Annotated[bool, typer.Option(help="in the place of a present member")] = False,
    json: JsonOption = False,
) -> None:
    """Prints an invitation: one line, for one use, to give to one future member in confidence."""
    from coordinator.authority import open_authority, utc_now
    from coordinator.registry import Registry
    from privacy.certificates import certificate_facts
    from privacy.membership import Invitation

    settings = _enrolment(config)
    now = utc_now()
    authority = open_authority(settings.authority, now=now)
    expires = (now + dt.timedelta(hours=hours)).replace(microsecond=0)
    secret = Registry(settings.registry).invite(name, expires=expires, replace=replace)
    line = str(
        Invitation(
            name,
            settings.address,
            expires,
            secret,
            certificate_facts(authority.certificate).fingerprint,
        )
    )
    if json:
        typer.echo(jsonlib.dumps({"invitation": line, "expires": expires.isoformat()}))
    else:
        typer.echo(line)


def admit(
    request: Annotated[Path, typer.Argument(help="the request.json a future member made")],
    out: Annotated[Path, typer.Option(help="where its certificate and the authority's go")],
    fingerprint: Annotated[str, typer.Option(help="of its identity, as it read it out")] = "",
    config: ConfigOption = Path("coordinator.toml"),
    replace: Annotated[bool, typer.Option(help="in the place of a present member")] = False,
    json: JsonOption = False,
) -> None:
    """Admits a member by its request, where it cannot reach the enrolment service."""
    from coordinator.authority import alliance_of, open_authority, utc_now
    from coordinator.registry import Registry
    from privacy.admission import fingerprint as fingerprint_of
    from privacy.certificates import certificate_facts
    from privacy.membership import open_request

    settings = _enrolment(config)
    now = utc_now()
    authority = open_authority(settings.authority, now=now)
    signed = _read(request)
    asked = _checked(request, open_request, signed)
    alliance = alliance_of(authority)
    if asked.alliance != alliance:
        raise ConfigurationError(f"{request}: is for {asked.alliance}, this alliance is {alliance}")
    shown = fingerprint_of(alliance=alliance, member=asked.member, identity=asked.identity)
    if fingerprint.split() != shown.split():
        raise ConfigurationError(
            f"the fingerprint of {asked.member} in {request} is {shown}; compare it with that "
            "member over the telephone, then give it with --fingerprint"
        )
    Registry(settings.registry).admit(asked, signed, now=now, replace=replace)
    certificate = authority.certify_member(
        asked.member, asked.signing_request.encode(), now=now, lifetime=settings.lifetime
    )
    try:
        out.write_bytes(certificate + authority.certificate)
    except OSError as error:
        raise ConfigurationError(f"{out}: {error.strerror}") from error
    pin = certificate_facts(authority.certificate).fingerprint
    if json:
        typer.echo(jsonlib.dumps({"member": asked.member, "authority": pin}))
    else:
        typer.echo(
            f"{asked.member} is admitted; give it {out}, and the authority's fingerprint over "
            f"another channel:\n{pin}"
        )


def countersign(
    vouches: Annotated[list[Path], typer.Argument(help="files that alliance-node vouch wrote")],
    config: ConfigOption = Path("coordinator.toml"),
    json: JsonOption = False,
) -> None:
    """Keeps members' vouches for each other; they travel with every study's terms."""
    from coordinator.registry import Registry
    from privacy.admission import Vouch

    registry = Registry(_enrolment(config).registry)
    counts = {}
    for path in vouches:
        vouch = _checked(path, Vouch.from_json, _read(path))
        counts[vouch.member] = registry.add_vouch(vouch)
    if json:
        typer.echo(jsonlib.dumps(counts))
    for name, count in {} if json else counts.items():
        typer.echo(f"{name}: {count} vouches")


def revoke(
    name: NameArgument,
    reason: Annotated[str, typer.Option(help="is told to the member")],
    config: ConfigOption = Path("coordinator.toml"),
    json: JsonOption = False,
) -> None:
    """Ends a membership; a running coordinator ends the member's stream within a minute."""
    from coordinator.authority import utc_now
    from coordinator.registry import Registry

    Registry(_enrolment(config).registry).revoke(name, reason, now=utc_now())
    typer.echo(
        jsonlib.dumps({"member": name, "reason": reason})
        if json
        else f"{name} is revoked; studies whose terms name it go on without it while enough remain"
    )


def left(
    departure: Annotated[Path, typer.Argument(help="departure.json, as alliance-node leave wrote")],
    config: ConfigOption = Path("coordinator.toml"),
    json: JsonOption = False,
) -> None:
    """Takes a member's signed word that it left, where it could not reach the enrolment service."""
    from coordinator.authority import alliance_of, open_authority, utc_now
    from coordinator.registry import Registry
    from privacy.departure import Departure

    settings = _enrolment(config)
    now = utc_now()
    word = _checked(departure, Departure.from_json, _read(departure))
    alliance = alliance_of(open_authority(settings.authority, now=now))
    if word.alliance != alliance:
        raise ConfigurationError(
            f"{departure}: is about {word.alliance}, this alliance is {alliance}"
        )
    Registry(settings.registry).depart(word, now=now)
    typer.echo(
        jsonlib.dumps({"member": word.member, "alliance": alliance})
        if json
        else f"{word.member} has left; studies whose terms name it go on without it while enough "
        "remain"
    )


def members(
    config: ConfigOption = Path("coordinator.toml"),
    request: Annotated[str, typer.Option(help="print this member's request, to vouch for")] = "",
    json: JsonOption = False,
) -> None:
    """Lists members with their identity keys, vouches and standing."""
    from coordinator.registry import Registry

    registry = Registry(_enrolment(config).registry)
    everybody = registry.members()
    if request:
        if request not in everybody:
            raise ConfigurationError(f"{request}: no such member")
        typer.echo(everybody[request].request, nl=False)
        return
    words = [(vouch.member, vouch.identity) for vouch in registry.vouches()]
    rows = [
        {
            "member": one.name,
            "identity": one.identity,
            "declared_consumers": one.declared_consumers,
            "vouches": words.count((one.name, one.identity)),
            "revoked": one.reason,
            "left": one.departure is not None,
        }
        for one in everybody.values()
    ]
    if json:
        typer.echo(jsonlib.dumps(rows))
        return
    for row in rows:
        standing = "member" if row["revoked"] is None else f"revoked: {row['revoked']}"
        standing = "left" if row["left"] else standing
        typer.echo(f"{row['member']:<20} {row['identity']}  {row['vouches']} vouches  {standing}")


def enrolment(
    config: Annotated[Path, typer.Argument(help="coordinator.toml")] = Path("coordinator.toml"),
    json: JsonOption = False,
    log_format: Annotated[LogFormat, typer.Option(help="json: of both streams")] = "text",
    log_level: Annotated[LogLevel, typer.Option(help="the least that is logged")] = "info",
) -> None:
    """Serves the enrolment port by itself, until stopped; `run` serves it too."""
    from coordinator.enrolment import start_enrolment

    configure(sys.stderr, style=log_format, level=log_level)
    settings = _enrolment(config)

    async def serve() -> None:
        server, address = await start_enrolment(settings)
        typer.echo(
            line_of("EnrolmentListening", {"address": address}, at_s=time.time())
            if json or log_format == "json"
            else f"enrolment listening on {address}"
        )
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await stop.wait()
        await server.stop(grace=0.5)

    asyncio.run(serve())


def _enrolment(path: Path) -> EnrolmentConfig:
    from coordinator.config import CoordinatorConfig
    from protos.config import read_config

    settings = read_config(path, CoordinatorConfig).relative_to(path.parent).enrolment
    if settings is None:
        raise ConfigurationError(f"{path}: has no [enrolment] table; add one, README.md shows it")
    return settings


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _checked(path: Path, read: Callable[[bytes], Read], data: bytes) -> Read:
    """What a file holds, its signatures checked."""
    try:
        return read(data)
    except (MalformedBody, BadSignature) as error:
        raise ConfigurationError(f"{path}: {error}; have its sender make it again") from error
