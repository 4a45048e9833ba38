"""Becoming a member: keys that are made here and stay here, a request, and what comes back for it.

Three keys, each for one thing: the identity signs what this member says in a study, the TLS key
opens connections, the ledger key signs the heads of this member's log. Only the TLS key is ever
rotated by itself; the other two are named by the terms of running studies.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from client_sdk.config import NodeConfig
from client_sdk.credentials import check_issued, write_durably
from client_sdk.enrolment import Enrolment, pinned_authority
from client_sdk.reach import host_and_port
from privacy.admission import Vouch, fingerprint, vouch
from privacy.certificates import certificate_facts, make_signing_request, make_tls_key
from privacy.documents import first_problem
from privacy.errors import BadSignature, ConfigurationError, MalformedBody
from privacy.identity import Identity
from privacy.membership import Invitation, MembershipRequest, open_request, sign_request
from protos.config import make_key, read_config, read_secret

__all__ = [
    "Admitted",
    "NewMember",
    "init",
    "install",
    "join",
    "own_request",
    "read_request",
    "vouch_for",
]

REQUEST_FILE: Final = "request.json"
ENROLMENT_PORT: Final = 9444

_TEMPLATE: Final = """\
# One member's node. Paths are relative to this file; alliance-node doctor checks all of it.
alliance = {alliance}
member = {member}
identity = "identity.pem"        # signs what this member says; the rosters name its public half
declared_consumers = {declared_consumers}   # rounded to one digit; signed in the terms
coordinator = {coordinator}      # studies: the address this node keeps a stream to
enrolment = {enrolment}          # certificates: renewed there by themselves, every day
{proxy}
contract = {contract}            # the table every member brings: a study's TOML, or JSON
state = "state"                  # ledger, its key, published models; yours alone

[data]
{data}

[policy]                         # what this node approves by itself, whatever is proposed
# otherwise = "refuse"           # all else; by default it waits for alliance-node study approve
# most_epsilon = 1.0             # epsilon(1) of one study
# most_epsilon_local = 3.0       # if secure aggregation failed
# least_cohort = 4               # members in every sum
{admission}

[tls]                            # alliance-node join fills this folder
key = "tls/key.pem"
certificate = "tls/certificate.pem"
authority = "tls/authority.pem"

[policy.known_members]           # identity keys you compared with their owners yourself
{known}
"""


@dataclass(frozen=True, slots=True)
class NewMember:
    """What somebody decides before they join.

    Args:
        data: path of a CSV or Parquet file; None leaves a line to fill in.
        known: identity keys by name that were compared over another channel.
    """

    alliance: str
    member: str
    coordinator: str
    declared_consumers: int
    contract: str
    enrolment: str | None = None
    proxy: str | None = None
    data: str | None = None
    known: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of joining."""

    alliance: str
    member: str
    valid_until: dt.datetime
    remark: str = ""


def init(folder: Path, new: NewMember) -> MembershipRequest:
    """Makes keys, a request and a configuration to start from; connects to nobody.

    Returns:
        The request, which lies in the folder as ``request.json``.

    Raises:
        ConfigurationError: if something is there already, or a value is not usable.
    """
    config = folder / "node.toml"
    for path in (config, folder / "identity.pem", folder / "tls" / "key.pem"):
        if path.exists():
            raise ConfigurationError(
                f"{path}: is there already; a key is kept, so name a folder that has none"
            )
    text = _config_text(new)
    tls_key = make_tls_key()
    identity, ledger = Identity.generate(), Identity.generate()
    request = _request(new, identity.public, ledger.public, tls_key)  # checks before it writes
    try:
        (folder / "state").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be made ({error.strerror})") from error
    identity = make_key(folder / "identity.pem")
    ledger = make_key(folder / "state" / "ledger.pem")
    write_durably(folder / "tls" / "key.pem", tls_key, 0o600)
    request = _request(new, identity.public, ledger.public, tls_key)
    write_durably(folder / REQUEST_FILE, sign_request(identity, request), 0o644)
    write_durably(config, text.encode(), 0o644)
    read_config(config, NodeConfig)
    return request


def read_request(path: Path) -> MembershipRequest:
    """A request from a file, its signatures checked.

    Raises:
        ConfigurationError: if it cannot be read or does not hold.
    """
    try:
        return open_request(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (MalformedBody, BadSignature) as error:
        raise ConfigurationError(f"{path}: {error}; have its sender make it again") from error


def own_request(config: NodeConfig, folder: Path) -> tuple[MembershipRequest, bytes]:
    """This node's own request, and its bytes.

    Raises:
        ConfigurationError: if there is none, or it is not of this configuration's keys.
    """
    path = folder / REQUEST_FILE
    request = read_request(path)
    identity = Identity.from_pem(read_secret(config.identity))
    if (request.member, request.identity) != (config.member, identity.public):
        raise ConfigurationError(
            f"{path}: is of {request.member} and not of this node's identity; run alliance-node "
            "init in a folder of its own"
        )
    return request, path.read_bytes()


def join(path: Path, line: str) -> Admitted:
    """Uses an invitation: learns the authority, has the request admitted, keeps the certificate.

    Args:
        path: of node.toml, beside ``request.json``.
        line: the invitation.

    Raises:
        ConfigurationError: if invitation and node do not go together, or files are not usable.
        LinkError: if the service cannot be reached, is not who the invitation says, or declines.
    """
    invitation = Invitation.parse(line)
    config = read_config(path, NodeConfig).relative_to(path.parent)
    request, signed = own_request(config, path.parent)
    if invitation.member != request.member:
        raise ConfigurationError(
            f"this invitation is for {invitation.member}, this node is {request.member}; ask for "
            "one of its own"
        )
    authority = pinned_authority(invitation, proxy=config.proxy)
    with Enrolment(invitation.address, authority, proxy=config.proxy) as service:
        certificate = service.join(invitation.secret, signed)
    remark = ""
    if config.enrolment != invitation.address:
        remark = f'write enrolment = "{invitation.address}" into {path}: this service renews'
    return install(config, authority, certificate, remark=remark)


def install(
    config: NodeConfig, authority: bytes, certificate: bytes, *, remark: str = ""
) -> Admitted:
    """Puts an authority's and this node's certificates in their places.

    Raises:
        ConfigurationError: if another authority is in place, or files are not usable.
        LinkError: if the certificate is not for this node.
    """
    check_issued(certificate, authority, key=read_secret(config.tls.key), member=config.member)
    alliance = certificate_facts(authority).name
    if alliance != config.alliance:
        raise ConfigurationError(
            f"this authority is of the alliance {alliance}, node.toml names {config.alliance}"
        )
    kept = config.tls.authority
    if kept.exists() and kept.read_bytes() != authority:
        raise ConfigurationError(
            f"{kept}: is another authority's; if the alliance has a new one, compare fingerprints "
            "with the operator, then remove this file"
        )
    write_durably(kept, authority, 0o644)
    write_durably(config.tls.certificate, certificate, 0o644)
    return Admitted(alliance, config.member, certificate_facts(certificate).not_after, remark)


def vouch_for(config: NodeConfig, request: MembershipRequest, compared: str) -> Vouch:
    """This member's word for another one's identity key.

    Args:
        config: this node's.
        request: the other member's.
        compared: the fingerprint as that member read it out.

    Raises:
        ConfigurationError: if the fingerprint is another one, or this is about itself.
    """
    identity = Identity.from_pem(read_secret(config.identity))
    about = {
        "alliance": request.alliance, "member": request.member, "identity": request.identity
    }  # fmt: skip
    if request.alliance != config.alliance or request.identity == identity.public:
        raise ConfigurationError(
            f"this request is of {request.member} of {request.alliance}; vouch for another member "
            f"of {config.alliance}"
        )
    if compared.split() != fingerprint(**about).split():
        raise ConfigurationError(
            f"the request of {request.member} has another fingerprint than the one read out; do "
            "not vouch: this is not the key that member has"
        )
    return vouch(identity, **about)


def _request(new: NewMember, identity: str, ledger: str, tls_key: bytes) -> MembershipRequest:
    try:
        return MembershipRequest(
            alliance=new.alliance,
            member=new.member,
            identity=identity,
            ledger=ledger,
            declared_consumers=new.declared_consumers,
            signing_request=make_signing_request(tls_key, new.member).decode(),
        )
    except ValidationError as error:
        raise ConfigurationError(first_problem(error)) from error


def _config_text(new: NewMember) -> str:
    host, _ = host_and_port(new.coordinator)
    host = f"[{host}]" if ":" in host else host
    enrolment = new.enrolment or f"{host}:{ENROLMENT_PORT}"
    host_and_port(enrolment)
    quote = json.dumps
    return _TEMPLATE.format(
        alliance=quote(new.alliance),
        member=quote(new.member),
        declared_consumers=new.declared_consumers,
        coordinator=quote(new.coordinator),
        enrolment=quote(enrolment),
        proxy=f"proxy = {quote(new.proxy)}"
        if new.proxy
        else '# proxy = "http://proxy.example:3128"   # if the only way out is an HTTP proxy',
        contract=quote(new.contract),
        data=f"path = {quote(new.data)}"
        if new.data
        else 'path = "data.csv"                # CSV or Parquet; or query = "SELECT ...", '
        'database = "warehouse.duckdb"',
        admission='admission = "countersigned"      # accept nobody whom those below do not know'
        if new.known
        else '# admission = "countersigned"    # fill in known_members first: then a coordinator '
        "cannot make members up",
        known="\n".join(f"{name} = {quote(key)}" for name, key in (new.known or {}).items())
        or '# name = "64 hexadecimal digits"',
    )
