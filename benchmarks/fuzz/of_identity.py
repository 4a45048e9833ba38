"""Parsers of terms, keys, certificates, requests, invitations, vouches and configurations."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import rfc8785
from pydantic import ValidationError

from benchmarks.fuzz.campaign import Parser
from benchmarks.fuzz.scene import NOW, Scene
from client_sdk.config import NodeConfig
from client_sdk.credentials import check_issued
from client_sdk.joining import read_request
from client_sdk.policy import Policy
from client_sdk.process import read_contract
from client_sdk.reach import host_and_port
from client_sdk.recipes.propensity.settings import check_dimension, parse
from client_sdk.recipes.statistics.settings import check
from coordinator.authority import CERTIFICATE_FILE, KEY_FILE, open_authority
from coordinator.config import CoordinatorConfig
from coordinator.status import Status, read_status
from coordinator.study_file import StudyFile, read_terms
from privacy.acceptance import verify_acceptance
from privacy.admission import Admissions, Vouch, vouch
from privacy.certificates import (
    Authority,
    certificate_facts,
    common_name,
    key_hash,
    read_signing_request,
)
from privacy.departure import Departure, depart
from privacy.empirical.canaries import (
    CONTEXT,
    CanaryEnrolment,
    CanarySecret,
    open_enrolment,
    open_secret,
)
from privacy.errors import MalformedBody
from privacy.identity import Identity
from privacy.ledger.entry import canonical, parse_canonical
from privacy.ledger.export import read_key
from privacy.membership import (
    LARGEST_REQUEST,
    Invitation,
    MembershipRequest,
    new_secret,
    open_request,
    sign_renewal,
    sign_request,
    verify_renewal,
)
from privacy.terms import Terms
from protos.config import read_config, read_config_or_explain, read_or_make_key

__all__ = ["parsers"]

COORDINATOR_TOML = """\
listen = "127.0.0.1:9443"
alliance = "small"
state = "state"
database = "sqlite:///coordinator.sqlite"

[tls]
key = "tls/key.pem"
certificate = "tls/certificate.pem"
authority = "tls/authority.pem"

[enrolment]
listen = "127.0.0.1:9444"
address = "127.0.0.1:9444"
hosts = ["127.0.0.1", "localhost"]
authority = "authority"
registry = "registry.sqlite"

[deadlines]
assemble_s = 30

[evidence]
keep_bytes = 1_000_000

[operations]
metrics = "127.0.0.1:9100"
"""

STUDY_TOML = """\
study = "coupons"
purpose = "Which household will respond to which campaign"
rounds = 40

[contract]
consumer_id = "household"
label = "responded"

[contract.columns]
spend = { high = 1000.0, scale = "log" }
kind = ["A", "B", "C"]

[privacy]
noise_multiplier = 3.5
spare_attempts = 2

[who]
cohort_size = 5
dropouts = 1

[recipe]
name = "propensity"
model = "mlp"
hidden = [4]
embedding_width = 2
"""


def parsers(here: Scene) -> Iterator[Parser]:
    """All of them."""
    yield from _terms(here)
    yield from _keys(here)
    yield from _requests(here)
    yield from _configurations(here)
    yield from _canaries(here)


def _terms(here: Scene) -> Iterator[Parser]:
    terms = here.terms
    document = terms.model_dump_json().encode()

    def settings(data: bytes) -> None:
        read = Terms.from_json(data)
        check_dimension(read, parse(read))

    def canonical_terms(data: bytes) -> None:
        read = parse_canonical(data, where="terms")  # as whoever reads the entry around them does
        if not isinstance(read, dict):
            raise MalformedBody("callers hand objects on")
        Terms.from_canonical(read)

    def acceptance(data: bytes) -> None:
        verify_acceptance(
            terms,
            member=data[:8].decode("latin-1"),
            ledger_key=data[8:72].decode("latin-1"),
            signature=data[72:],
        )

    yield Parser(
        "terms, and the recipe's settings in them",
        (
            "privacy.terms:Terms.from_json",
            "client_sdk.recipes.propensity.settings:parse",
        ),
        (document,), settings, form="json", longest=1 << 19,
    )  # fmt: skip
    yield Parser(
        "terms of statistics, and whether they can tell anything",
        ("client_sdk.recipes.statistics.settings:parse",),
        (here.statistics().model_dump_json().encode(),),
        lambda data: check(Terms.from_json(data)), form="json", longest=1 << 19,
    )  # fmt: skip
    yield Parser(
        "canonical terms",
        ("privacy.terms:Terms.from_canonical", "privacy.ledger.audit_study:read_terms"),
        (terms.canonical(),), canonical_terms, form="json", longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "acceptances",
        ("privacy.acceptance:verify_acceptance",),
        tuple(
            f"member-{index}".encode()
            + here.ledger(index).public.encode()
            + here.acceptance(index)
            for index in range(3)
        ),
        acceptance,
    )  # fmt: skip


def _keys(here: Scene) -> Iterator[Parser]:
    authority = here.authority

    def authority_files(data: bytes) -> None:
        key, mark, certificate = data.partition(b"-----BEGIN CERT")
        Authority.from_pem(key, mark + certificate)
        opened(data)

    def facts(data: bytes) -> None:
        read = certificate_facts(data)
        read.issued_by(authority.certificate)
        read.is_for("127.0.0.1")
        read.left(NOW)
        common_name(data)

    def certificates(data: bytes) -> None:
        facts(data)
        check_issued(data, authority.certificate, key=here.member_key, member="member-0")

    folder = here.folder / "opened-authority"
    folder.mkdir()

    def opened(data: bytes) -> None:
        key, mark, certificate = data.partition(b"-----BEGIN CERT")
        for name, part in ((KEY_FILE, key), (CERTIFICATE_FILE, mark + certificate)):
            path = folder / name
            path.touch(0o600)
            path.write_bytes(part)
        open_authority(folder, now=NOW)

    def secret(data: bytes) -> None:
        path = here.folder / "secret.pem"
        path.touch(0o600)
        path.write_bytes(data)
        read_or_make_key(path)
        read_key(path)

    identity = here.identity(0).pem()
    yield Parser(
        "identity and ledger keys",
        (
            "privacy.identity:Identity.from_pem",
            "protos.config:read_or_make_key",
            "privacy.ledger.export:read_key",
        ),
        (identity, here.member_key), secret, form="text",
    )  # fmt: skip
    yield Parser(
        "TLS keys", ("privacy.certificates:key_hash",),
        (here.member_key, identity), key_hash, form="text",
    )  # fmt: skip
    both = authority.key + authority.certificate
    yield Parser(
        "an authority's files",
        ("privacy.certificates:Authority.from_pem", "coordinator.authority:open_authority"),
        (both,), authority_files, form="text",
    )  # fmt: skip
    yield Parser(
        "certificates",
        (
            "privacy.certificates:certificate_facts",
            "privacy.certificates:common_name",
            "client_sdk.credentials:check_issued",
        ),
        (here.member_certificate, authority.certificate),
        certificates,
        form="text",
    )  # fmt: skip
    yield Parser(
        "certificates, their DER",
        ("privacy.certificates:CertificateFacts.issued_by",),
        (_der(here.member_certificate), _der(authority.certificate)),
        lambda data: facts(_pem(data, "CERTIFICATE")),
    )
    yield Parser(
        "signing requests, their DER", ("privacy.certificates:read_signing_request",),
        (_der(here.signing_request),),
        lambda data: read_signing_request(_pem(data, "CERTIFICATE REQUEST")),
    )  # fmt: skip


def _requests(here: Scene) -> Iterator[Parser]:
    identity = Identity.from_pem((here.folder / "newcomer" / "identity.pem").read_bytes())
    nonce = bytes(56)

    def signed_anew(data: bytes) -> None:
        try:
            request = MembershipRequest.model_validate_json(data)
        except ValidationError as error:
            raise MalformedBody("the form is fuzzed by another parser") from error
        try:
            signed = sign_request(
                identity, request.model_copy(update={"identity": identity.public})
            )
        except rfc8785.CanonicalizationError as error:
            raise MalformedBody("nobody can sign that") from error
        open_request(signed)

    def from_file(data: bytes) -> None:
        open_request(data)
        read_request(here.file("request.json", data))

    def renewal(data: bytes) -> None:
        verify_renewal(
            here.identity(0).public, data[:64], alliance="small", member="member-0",
            signing_request=data[64:], nonce=nonce,
        )  # fmt: skip

    good = vouch(here.identity(0), alliance="small", member="a", identity="0" * 64)
    other = vouch(here.identity(1), alliance="small", member="a", identity="0" * 64)
    gathered = Admissions(
        vouches={"a": {good.by: good.signature, other.by: other.signature}, "b": {}}
    )
    line = Invitation("newcomer", "127.0.0.1:9444", NOW, new_secret(), "0" * 64)
    yield Parser(
        "membership requests",
        ("privacy.membership:open_request", "client_sdk.joining:read_request"),
        (here.request,), from_file, form="json", longest=LARGEST_REQUEST + 100,
    )  # fmt: skip
    yield Parser(
        "membership requests, signed anew",
        ("privacy.certificates:read_signing_request",),
        (canonical(json.loads(here.request)["request"]),), signed_anew, form="json",
        longest=LARGEST_REQUEST,
    )  # fmt: skip
    yield Parser(
        "renewals", ("privacy.membership:verify_renewal", "privacy.identity:verify"),
        (_renewal(here, nonce) + here.signing_request,), renewal,
    )  # fmt: skip
    yield Parser(
        "invitations", ("privacy.membership:Invitation.parse",),
        (str(line).encode(),), lambda data: Invitation.parse(data.decode("latin-1")), form="text",
    )  # fmt: skip
    yield Parser(
        "vouches", ("privacy.admission:Vouch.from_json",),
        (good.canonical(), other.canonical()), Vouch.from_json, form="json",
    )  # fmt: skip
    left = depart(here.identity(0), alliance="small", member="a", ledger=here.ledger(0).public)
    yield Parser(
        "departures", ("privacy.departure:Departure.from_json",),
        (left.canonical(),), Departure.from_json, form="json",
    )  # fmt: skip
    yield Parser(
        "admissions", ("privacy.admission:Admissions.from_json",),
        (gathered.canonical(),), Admissions.from_json, form="json", longest=1 << 19,
    )  # fmt: skip


def _renewal(here: Scene, nonce: bytes) -> bytes:
    return sign_renewal(
        here.identity(0), alliance="small", member="member-0",
        signing_request=here.signing_request, nonce=nonce,
    )  # fmt: skip


def _configurations(here: Scene) -> Iterator[Parser]:
    node = (here.folder / "newcomer" / "node.toml").read_bytes()
    policy = Policy(known_members={"a": "0" * 64}).model_dump_json(exclude_none=True)
    status = Status(process=1, started_ms=1)

    def config(data: bytes) -> None:
        path = here.file("config.toml", data)
        read_config(path, NodeConfig).relative_to(path.parent)

    def coordinator(data: bytes) -> None:
        path = here.file("coordinator.toml", data)
        read_config(path, CoordinatorConfig).relative_to(path.parent)

    def policy_toml(data: bytes) -> None:
        read_config(here.file("policy.toml", data), Policy)

    def study(data: bytes) -> None:
        read = read_config_or_explain(here.file("study.toml", data), StudyFile)
        if read.privacy.noise_multiplier is not None:  # otherwise it is worked out, in a second
            read.terms(alliance="small", everybody=here.terms.roster)

    yield Parser("node.toml", ("protos.config:read_config",), (node,), config, form="text")
    yield Parser(
        "study files",
        ("coordinator.study_file:read_study", "protos.config:read_config_or_explain"),
        (STUDY_TOML.encode(),), study, form="text",
    )  # fmt: skip
    yield Parser("coordinator.toml", (), (COORDINATOR_TOML.encode(),), coordinator, form="text")
    yield Parser(
        "a policy as TOML", (), (_toml(json.loads(policy)).encode(),), policy_toml, form="text"
    )
    yield Parser(
        "data contracts", ("client_sdk.process:read_contract",),
        (here.terms.contract.model_dump_json().encode(),),
        lambda data: read_contract(here.file("contract.json", data)), form="json",
    )  # fmt: skip
    yield Parser(
        "terms from a file", ("coordinator.study_file:read_terms",),
        (here.terms.model_dump_json().encode(),),
        lambda data: read_terms(here.file("terms.json", data)), form="json",
    )  # fmt: skip
    yield Parser(
        "the status file", ("coordinator.status:read_status",),
        (status.model_dump_json().encode(),),
        lambda data: read_status(here.file("status.json", data)), form="json",
    )  # fmt: skip
    yield Parser(
        "addresses", ("client_sdk.reach:host_and_port",),
        (b"127.0.0.1:9443", b"[::1]:1", b"harbour.example:65535"),
        lambda data: host_and_port(data.decode("latin-1")), form="text",
    )  # fmt: skip


def _canaries(here: Scene) -> Iterator[Parser]:
    auditor = here.identity(4)
    secret = CanarySecret(
        terms=here.terms.hash, member="member-0", count=4, scale_thousandths=1000, key="0" * 64
    )
    unsigned = CanaryEnrolment(
        **secret.model_dump(exclude={"key"}),
        auditor=auditor.public,
        commitment=secret.commitment,
        seeds=tuple(seed.hex() for seed in secret.seeds(0, 2)),
        signature="0" * 128,
    )
    signature = auditor.sign(CONTEXT, unsigned.statement()).hex()
    enrolment = unsigned.model_copy(update={"signature": signature})
    kept = canonical(secret.model_dump(mode="json"))
    yield Parser(
        "canary enrolments", ("privacy.empirical.canaries:open_enrolment",),
        (enrolment.document(),), lambda data: open_enrolment(data, where="it"), form="json",
    )  # fmt: skip
    yield Parser(
        "an auditor's secret of canaries", ("privacy.empirical.canaries:open_secret",),
        (kept,), lambda data: open_secret(data, here.terms, where="it"), form="json",
    )  # fmt: skip


def _der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.strip().splitlines()[1:-1]))


def _pem(der: bytes, label: str) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def _toml(document: dict[str, Any]) -> str:
    """Plain keys first, tables after them."""
    plain = "".join(
        f"{key} = {json.dumps(value)}\n"
        for key, value in document.items()
        if not isinstance(value, dict)
    )
    tables = "".join(
        f"\n[{key}]\n{_toml(value)}" for key, value in document.items() if isinstance(value, dict)
    )
    return plain + tables
