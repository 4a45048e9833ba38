from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.certificates import key_hash, make_signing_request, make_tls_key, read_signing_request
from privacy.errors import AllianceError, BadSignature, ConfigurationError, MalformedBody
from privacy.membership import (
    LARGEST_REQUEST,
    Invitation,
    MembershipRequest,
    new_secret,
    open_request,
    secret_hash,
    sign_renewal,
    sign_request,
    verify_renewal,
)
from tests.conftest import identity

KEY = make_tls_key()
IDENTITY = identity("newcomer")
CSR = make_signing_request(KEY, "newcomer").decode()


def request(**changes: Any) -> MembershipRequest:
    values = {
        "alliance": "test",
        "member": "newcomer",
        "identity": IDENTITY.public,
        "ledger": identity("newcomer's ledger").public,
        "declared_consumers": 60,
        "signing_request": CSR,
    }
    return MembershipRequest(**(values | changes))


SIGNED = sign_request(IDENTITY, request())


def test_a_request_is_read_as_it_was_signed() -> None:
    assert open_request(SIGNED) == request()
    assert read_signing_request(CSR.encode()) == ("newcomer", key_hash(KEY))


def test_a_request_holds_no_private_key() -> None:
    assert b"PRIVATE" not in SIGNED
    assert IDENTITY.pem().splitlines()[1] not in SIGNED


def test_a_request_for_another_s_identity_is_refused() -> None:
    with pytest.raises(BadSignature):
        open_request(sign_request(identity("thief"), request()))


def test_a_signing_request_for_another_name_is_refused() -> None:
    other = make_signing_request(KEY, "harbour").decode()
    with pytest.raises(BadSignature, match="'harbour', not for newcomer"):
        open_request(sign_request(IDENTITY, request(signing_request=other)))


def test_a_signing_request_that_its_key_did_not_sign_is_refused() -> None:
    ours, theirs = CSR.splitlines(), make_signing_request(make_tls_key(), "newcomer").decode()
    mixed = "\n".join(theirs.splitlines()[:3] + ours[3:])
    with pytest.raises(MalformedBody, match="signing request"):
        open_request(sign_request(IDENTITY, request(signing_request=mixed)))


@pytest.mark.parametrize(
    "changes",
    [
        {"declared_consumers": 57},
        {"ledger": IDENTITY.public},
        {"member": "New Comer"},
        {"version": 2},
        {"identity": "00"},
    ],
)
def test_a_request_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    document = request().model_dump(mode="json") | changes
    signature = IDENTITY.sign("alliance/v1/membership-request", rfc8785.dumps(document)).hex()
    with pytest.raises(MalformedBody):
        open_request(rfc8785.dumps({"request": document, "signature": signature}))


def test_only_the_canonical_form_is_read() -> None:
    parts = json.loads(SIGNED)
    for document in (
        json.dumps(parts, indent=1).encode(),
        SIGNED + b"\n",
        rfc8785.dumps(parts | {"more": 1}),
        rfc8785.dumps({"signature": parts["signature"]}),
        b"[" * 100_000,
        b" " * (LARGEST_REQUEST + 1),
    ):
        with pytest.raises(MalformedBody):
            open_request(document)


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(place: int, mask: int) -> None:
    changed = bytearray(SIGNED)
    changed[place] ^= mask
    with pytest.raises(AllianceError):
        open_request(bytes(changed))


def test_a_renewal_counts_for_what_was_signed_only() -> None:
    right = {
        "alliance": "test", "member": "newcomer", "signing_request": CSR.encode(),
        "nonce": b"n" * 56,
    }  # fmt: skip
    signature = sign_renewal(IDENTITY, **right)
    verify_renewal(IDENTITY.public, signature, **right)
    for name, value in (
        ("alliance", "other"), ("member", "harbour"), ("signing_request", b""), ("nonce", b"m" * 56)
    ):  # fmt: skip
        with pytest.raises(BadSignature):
            verify_renewal(IDENTITY.public, signature, **(right | {name: value}))
    with pytest.raises(BadSignature):
        verify_renewal(identity("thief").public, signature, **right)


INVITATION = Invitation(
    "newcomer",
    "alliance.example:9444",
    dt.datetime(2026, 11, 27, tzinfo=dt.UTC),
    new_secret(),
    "0123456789abcdef" * 4,
)


@pytest.mark.parametrize("address", ["alliance.example:9444", "[::1]:9444", "10.0.0.1:1"])
def test_an_invitation_is_one_line(address: str) -> None:
    invitation = Invitation(
        "newcomer", address, INVITATION.expires, INVITATION.secret, INVITATION.authority
    )
    assert len(str(invitation).split()) == 1
    assert Invitation.parse(f"  {invitation}\n") == invitation


def test_an_invitation_keeps_its_secret_out_of_logs() -> None:
    assert str(INVITATION).split("/")[4] not in repr(INVITATION)
    assert len(INVITATION.secret) * 8 >= 128
    assert secret_hash(INVITATION.secret) != secret_hash(new_secret())


@pytest.mark.parametrize(
    "line",
    ["", "alliance-invitation-1", str(INVITATION)[:-1], str(INVITATION) + "0",
     str(INVITATION).replace("-1/", "-2/"), str(INVITATION).replace("9444", "")],
)  # fmt: skip
def test_half_an_invitation_is_refused_with_the_remedy(line: str) -> None:
    with pytest.raises(ConfigurationError, match="copy the one line"):
        Invitation.parse(line)
