"""What keeps a node from taking part, found step by step; each finding says what to do.

Looks at, in this order: the configuration, the keys, the state folder, the certificate, the data
contract, the ways to both of the coordinator's ports, this machine's clock, the protocol, and
whether the alliance still takes this member for one. It changes nothing, here or there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from client_sdk.config import NodeConfig
from client_sdk.dataset import load
from client_sdk.enrolment import Enrolment, Greeting
from client_sdk.process import read_contract
from client_sdk.reach import Unreachable, host_and_port, proxy_for, server_facts
from privacy.certificates import (
    CertificateFacts,
    certificate_facts,
    key_hash,
    make_signing_request,
)
from privacy.errors import AllianceError, ConfigurationError, LinkError, MalformedBody
from privacy.identity import Identity
from privacy.membership import sign_renewal
from privacy.sampling import enrolment_cap
from protos.config import read_config, read_secret
from protos.limits import PROTOCOL

__all__ = ["Finding", "examine"]

LEAST_FREE_BYTES: Final = 256 << 20
"""Room that the ledger and published models need for a good while."""
MOST_CLOCK_OFF: Final = dt.timedelta(minutes=5)
"""Certificates are made to be valid from that long ago."""
TIMEOUT_S: Final = 10.0

Outcome = Literal["good", "wrong", "unsure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        check: what.
        outcome: ``unsure`` where it could not be told, or is allowed and yet unwise.
        sentence: what was found; where it is wrong, what to do.
    """

    check: str
    outcome: Outcome
    sentence: str


def examine(
    path: Path, *, clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
) -> list[Finding]:
    """Everything that can be found out about a node from where it stands.

    Args:
        path: of its node.toml.
        clock: tells the present, as this machine has it.
    """
    try:
        config = read_config(path, NodeConfig).relative_to(path.parent)
    except ConfigurationError as error:
        return [Finding("config", "wrong", str(error))]
    findings = [Finding("config", "good", f"{path} is well-formed"), *_at_home(config, clock())]
    try:
        authority = config.tls.authority.read_bytes()
        certificate_facts(authority)
    except (OSError, MalformedBody):
        authority = b""
    for check, address in (("coordinator", config.coordinator), ("enrolment", config.enrolment)):
        if address is not None:
            findings += _way_to(check, address, config.proxy, authority, clock())
    if any(one.check == "clock" for one in findings):
        return findings  # no connection is possible before it is set
    blocked = any(f.outcome == "wrong" and f.check.startswith("enrolment") for f in findings)
    if config.enrolment is None or not authority or blocked:
        unsure = "cannot be compared without the enrolment service"
        return [*findings, Finding("clock", "unsure", unsure)]
    return [*findings, *_with_the_service(config, config.enrolment, authority, clock)]


def _at_home(config: NodeConfig, now: dt.datetime) -> Iterator[Finding]:
    """What needs no network."""
    yield _tried("identity", "is readable by its owner alone", lambda: _identity(config))
    yield _tried("state", "can be written, and the disk has room", lambda: _room(config.state))
    yield _tried("certificate", "is this member's and valid", lambda: _certificate(config, now))
    yield _tried("data", "fits the contract", lambda: _data(config))
    if not config.policy.known_members:
        yield Finding(
            "admission",
            "unsure",
            "the policy names no known_members, so a coordinator could make members up; compare "
            "identity keys with two or more members and name them",
        )


def _tried(check: str, good: str, look: Callable[[], None]) -> Finding:
    try:
        look()
    except AllianceError as error:
        return Finding(check, "wrong", str(error))
    return Finding(check, "good", good)


def _identity(config: NodeConfig) -> None:
    Identity.from_pem(read_secret(config.identity))


def _room(state: Path) -> None:
    probe = state / f".probe-{secrets.token_hex(4)}"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"\x00" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(state).free
    except OSError as error:
        raise ConfigurationError(
            f"{state}: cannot be written ({error.strerror}); make it this user's, or name another "
            "state folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    if free < LEAST_FREE_BYTES:
        raise ConfigurationError(
            f"{state}: its disk has {free >> 20} MiB left; free {LEAST_FREE_BYTES >> 20} MiB"
        )


def _certificate(config: NodeConfig, now: dt.datetime) -> None:
    files = config.tls
    if not files.certificate.exists() or not files.authority.exists():
        raise ConfigurationError(
            f"{files.certificate}: there is none yet; ask the operator for an invitation, then run "
            "alliance-node join"
        )
    key, certificate, authority = files.read()
    try:
        facts = certificate_facts(certificate)
    except MalformedBody as error:
        raise ConfigurationError(f"{files.certificate}: {error}; join again") from error
    remedy = "ask the operator for a new invitation, then run alliance-node join"
    if facts.key_hash != key_hash(key):
        raise ConfigurationError(
            f"{files.certificate}: is not of the key {files.key}; put the files that belong "
            f"together back, or {remedy}"
        )
    if facts.name != config.member:
        raise ConfigurationError(
            f"{files.certificate}: names {facts.name or 'nobody'}, node.toml names "
            f"{config.member}; mend node.toml, or {remedy}"
        )
    if not facts.issued_by(authority):
        raise ConfigurationError(
            f"{files.certificate}: was issued by {facts.issuer}, not by {files.authority}; {remedy}"
        )
    if now < facts.not_before:
        raise ConfigurationError(
            f"{files.certificate}: is valid from {_time(facts.not_before)} and this machine's "
            f"clock says {_time(now)}; set the clock"
        )
    if now >= facts.not_after:
        raise ConfigurationError(
            f"{files.certificate}: expired at {_time(facts.not_after)} by this machine's clock; "
            "check the clock; alliance-node run renews it, also now"
        )


def _data(config: NodeConfig) -> None:
    dataset = load(config.data, read_contract(config.contract))
    most = enrolment_cap(config.declared_consumers)
    if len(dataset.consumer_ids) > most:
        raise ConfigurationError(
            f"{len(dataset.consumer_ids)} consumers, but {config.declared_consumers} declared "
            f"cover at most {most}; declare the count rounded to one digit"
        )


def _way_to(
    check: str, address: str, proxy: str | None, authority: bytes, now: dt.datetime
) -> Iterator[Finding]:
    """DNS, proxy, port, and who answers there with which TLS."""
    try:
        through = proxy_for(address, proxy)
        shown = server_facts(address, proxy=through, timeout_s=TIMEOUT_S)
        server = certificate_facts(shown.certificate)
    except Unreachable as error:
        yield Finding(f"{check} {error.step}", "wrong", str(error))
        return
    except (ConfigurationError, MalformedBody) as error:
        yield Finding(check, "wrong", str(error))
        return
    by = f" through {through.rpartition('@')[2]}" if through else ""
    yield Finding(f"{check} port", "good", f"{address} answers{by}")
    yield _judge_server(f"{check} tls", address, server, shown.tls_version, authority, now)


def _judge_server(
    check: str,
    address: str,
    server: CertificateFacts,
    version: str,
    authority: bytes,
    now: dt.datetime,
) -> Finding:
    host, _ = host_and_port(address)
    if not authority:
        return Finding(
            check, "unsure", f"its certificate was issued by {server.issuer}; join, then look again"
        )
    if not server.issued_by(authority):
        return Finding(
            check,
            "wrong",
            f"{address} showed a certificate issued by {server.issuer}, not by this alliance's "
            "authority: something in between reads along (a TLS-inspecting firewall or proxy), or "
            "the address is wrong; have it let this connection through unopened",
        )
    if version != "TLSv1.3":
        return Finding(
            check,
            "wrong",
            f"{address} speaks {version}, TLS 1.3 is required; have the operator update it",
        )
    if not server.is_for(host):
        return Finding(
            check,
            "wrong",
            f"{address} showed the certificate of another host; use the name that the operator "
            "gives it, or have the operator add this one to [enrolment] hosts",
        )
    if not server.not_before <= now < server.not_after:
        return Finding(
            "clock",
            "wrong",
            f"the coordinator's certificate is valid from {_time(server.not_before)} to "
            f"{_time(server.not_after)}, this machine's clock says {_time(now)}; set it, with NTP "
            "if you can",
        )
    return Finding(check, "good", "TLS 1.3, with a certificate of this alliance's authority")


def _with_the_service(
    config: NodeConfig, address: str, authority: bytes, clock: Callable[[], dt.datetime]
) -> Iterator[Finding]:
    """What only the coordinator can tell."""
    with Enrolment(address, authority, proxy=config.proxy) as service:
        try:
            before = clock()
            greeting = service.greet()
            yield _judge_clock(greeting, before, clock())
        except LinkError as error:
            yield Finding("enrolment", "wrong", f"{error}; see the findings above, or try later")
            return
        if greeting.protocol != PROTOCOL:
            older = "node" if greeting.protocol > PROTOCOL else "coordinator"
            yield Finding(
                "protocol",
                "wrong",
                f"the coordinator ({greeting.software}) speaks protocol {greeting.protocol}, this "
                f"node {PROTOCOL}; update the {older}",
            )
        else:
            yield Finding("protocol", "good", f"{PROTOCOL} on both sides ({greeting.software})")
        yield _tried(
            "membership",
            "the alliance renews this member's certificate",
            lambda: _membership(config, service, greeting, authority),
        )


def _membership(
    config: NodeConfig, service: Enrolment, greeting: Greeting, authority: bytes
) -> None:
    """Asks for a certificate as a renewal would, for the present key, and drops it."""
    wish = make_signing_request(read_secret(config.tls.key), config.member)
    signature = sign_renewal(
        Identity.from_pem(read_secret(config.identity)),
        alliance=certificate_facts(authority).name,
        member=config.member,
        signing_request=wish,
        nonce=greeting.nonce,
    )
    service.renew(config.member, signing_request=wish, nonce=greeting.nonce, signature=signature)


def _judge_clock(greeting: Greeting, before: dt.datetime, after: dt.datetime) -> Finding:
    there = dt.datetime.fromtimestamp(greeting.now_ms / 1000, dt.UTC)
    off = max(before - there, there - after)
    if off > MOST_CLOCK_OFF:
        return Finding(
            "clock",
            "wrong",
            f"this machine's clock says {_time(after)}, the coordinator's {_time(there)}; set it, "
            "with NTP if you can",
        )
    return Finding("clock", "good", "agrees with the coordinator's to within five minutes")


def _time(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
