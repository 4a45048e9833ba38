"""Enrolment over real gRPC and real TLS, on loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_sdk.credentials import Credentials
from client_sdk.enrolment import Enrolment, pinned_authority
from client_sdk.joining import install, join, own_request, vouch_for
from client_sdk.reach import server_facts
from coordinator.authority import utc_now
from coordinator.enrolment import (
    ADDRESSES,
    REFUSALS,
    REFUSALS_S,
    Enrolling,
    Refusals,
    admissions_of,
    admittance_of,
    serve_enrolment,
)
from privacy.admission import Admissions, fingerprint, vouch
from privacy.certificates import certificate_facts, make_signing_request, make_tls_key
from privacy.errors import ConfigurationError, LinkError
from privacy.identity import Identity
from privacy.membership import Invitation, sign_renewal
from privacy.terms import RosterEntry
from tests.conftest import make_terms
from tests.enrolled import HOUR, Clock, Enrolled, enrolled, node_config

DAY = dt.timedelta(days=1)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Enrolled]:
    with enrolled(tmp_path) as port:
        yield port


def joined(here: Enrolled, name: str = "newcomer") -> Path:
    path = here.new_node(name)
    join(path, str(here.invite(name)))
    return path


def credentials(path: Path, clock: Clock | None = None) -> Credentials:
    config = node_config(path)
    return Credentials(
        config.tls,
        member=config.member,
        identity=Identity.from_pem(config.identity.read_bytes()),
        enrolment=config.enrolment,
        clock=clock or Clock(),
    )


def test_an_invitation_makes_a_member_with_a_day_s_certificate(here: Enrolled) -> None:
    path = here.new_node("newcomer")
    admitted = join(path, str(here.invite("newcomer")))
    material = node_config(path).tls.read()
    facts = certificate_facts(material.certificate)
    assert facts.name == "newcomer"
    assert facts.issued_by(here.authority.certificate)
    assert material.authority == here.authority.certificate
    assert facts.not_after == admitted.valid_until <= here.clock() + DAY
    assert here.registry.members()["newcomer"].tls_key == facts.key_hash


def test_private_keys_stay_at_the_node(here: Enrolled) -> None:
    joined(here)
    for name in ("identity.pem", "tls/key.pem", "state/ledger.pem"):
        path = here.folder / "newcomer" / name
        assert path.stat().st_mode & 0o777 == 0o600
        body = path.read_bytes().splitlines()[1]
        for kept in (here.folder / "registry.sqlite", here.folder / "newcomer" / "request.json"):
            assert body not in kept.read_bytes()


def test_a_wrong_used_or_expired_invitation_is_refused_with_the_remedy(here: Enrolled) -> None:
    path = here.new_node("newcomer")
    good = here.invite("newcomer")
    wrong = Invitation(good.member, good.address, good.expires, good.secret[::-1], good.authority)
    with pytest.raises(LinkError, match="not one of this coordinator's; copy it again"):
        join(path, str(wrong))
    with pytest.raises(LinkError, match="has expired; ask the operator for a new one"):
        join(path, str(here.invite("newcomer", hours=-1)))
    join(path, str(good))
    thief = here.new_node("newcomer", folder=here.folder / "thief")
    with pytest.raises(LinkError, match="has been used; if it was not by you tell the operator"):
        join(thief, str(good))
    assert not (here.folder / "thief" / "tls" / "certificate.pem").exists()
    with pytest.raises(ConfigurationError, match="invitation is for newcomer, this node is other"):
        join(here.new_node("other"), str(good))


def test_a_server_of_another_authority_is_told_nothing(here: Enrolled, tmp_path: Path) -> None:
    path = here.new_node("newcomer")
    good = here.invite("newcomer")
    with enrolled(tmp_path / "mallory") as mallory:
        lured = Invitation(good.member, mallory.address, good.expires, good.secret, good.authority)
        with pytest.raises(LinkError, match=r"issued by CN=test, not by the authority .*nothing"):
            join(path, str(lured))
        assert not (path.parent / "tls" / "authority.pem").exists()
    join(path, str(good))  # the secret did not leave


def test_renewal_needs_the_identity_alone_and_works_after_expiry(tmp_path: Path) -> None:
    clock = Clock()
    clock.ahead = -2 * DAY
    with enrolled(tmp_path, clock) as here:
        path = here.new_node("newcomer")
        request, signed = own_request(node_config(path), path.parent)
        here.registry.admit(request, signed, now=clock())
        csr = request.signing_request.encode()
        old = here.authority.certify_member("newcomer", csr, now=clock(), lifetime=DAY)
        install(node_config(path), here.authority.certificate, old)
        clock.ahead = dt.timedelta()  # two days pass
        mine = credentials(path)
        assert mine.is_due()
        before = mine.material()
        assert certificate_facts(before.certificate).not_after < clock()
        mine.refresh()
        after = mine.material()
        assert after.key == before.key
        assert certificate_facts(after.certificate).left(clock()) > 0.9
        assert not mine.is_due()
        clock.ahead = 17 * HOUR
        assert credentials(path, clock).is_due()


def test_a_renewal_counts_once_and_for_its_member(here: Enrolled) -> None:
    path = joined(here)
    joined(here, "other")
    config = node_config(path)
    identity = Identity.from_pem(config.identity.read_bytes())
    wish = make_signing_request(config.tls.key.read_bytes(), "newcomer")
    with Enrolment(here.address, here.authority.certificate, proxy=None) as service:
        nonce = service.greet().nonce

        def sign(nonce: bytes, *, member: str = "newcomer", by: Identity = identity) -> bytes:
            return sign_renewal(
                by, alliance="test", member=member, signing_request=wish, nonce=nonce
            )

        asked = {"signing_request": wish, "nonce": nonce, "signature": sign(nonce)}
        assert certificate_facts(service.renew("newcomer", **asked)).name == "newcomer"
        with pytest.raises(LinkError, match="nonce is not fresh"):
            service.renew("newcomer", **asked)  # a replay
        made_up = b"\x00" * len(nonce)
        with pytest.raises(LinkError, match="nonce is not fresh"):
            service.renew("newcomer", signing_request=wish, nonce=made_up, signature=sign(made_up))
        for member, by, sentence in (
            ("other", identity, "not signed by the identity"),
            ("newcomer", Identity.generate(), "not signed by the identity"),
            ("nobody", identity, "no member of this name"),
        ):
            fresh = service.greet().nonce
            with pytest.raises(LinkError, match=sentence):
                service.renew(
                    member,
                    signing_request=wish,
                    nonce=fresh,
                    signature=sign(fresh, member=member, by=by),
                )


def test_a_nonce_ages(tmp_path: Path) -> None:
    clock = Clock()
    with enrolled(tmp_path, clock) as here:
        path = joined(here)
        identity = Identity.from_pem((path.parent / "identity.pem").read_bytes())
        wish = make_signing_request(make_tls_key(), "newcomer")
        with Enrolment(here.address, here.authority.certificate, proxy=None) as service:
            nonce = service.greet().nonce
            signature = sign_renewal(
                identity, alliance="test", member="newcomer", signing_request=wish, nonce=nonce
            )
            for ahead in (dt.timedelta(seconds=61), -HOUR, 366 * DAY):
                clock.ahead = ahead
                with pytest.raises(LinkError, match="nonce is not fresh"):
                    service.renew(
                        "newcomer", signing_request=wish, nonce=nonce, signature=signature
                    )


def test_whoever_was_revoked_gets_nothing(here: Enrolled) -> None:
    path = joined(here)
    here.registry.revoke("newcomer", "its laptop was stolen", now=here.clock())
    with pytest.raises(LinkError, match=r"revoked; ask the operator why \(its laptop was stolen\)"):
        credentials(path).renew()


def test_the_tls_key_rotates_and_an_unfinished_rotation_is_undone(here: Enrolled) -> None:
    path = joined(here)
    mine, files = credentials(path), node_config(path).tls
    before = mine.material()
    mine.renew(new_key=True)
    after = mine.material()
    assert after.key != before.key
    facts = certificate_facts(after.certificate)
    assert here.registry.members()["newcomer"].tls_key == facts.key_hash
    # The service issued for a key whose certificate never arrived.
    coming = files.key.with_name("key.pem.next")
    coming.write_bytes(make_tls_key())
    coming.chmod(0o600)
    here.registry.set_tls_key("newcomer", "lost")
    assert mine.is_due()
    mine.refresh()
    assert not coming.exists()
    assert mine.material().key == after.key
    assert here.registry.members()["newcomer"].tls_key == facts.key_hash


def test_a_crash_between_certificate_and_key_is_mended(here: Enrolled) -> None:
    path = joined(here)
    mine, files = credentials(path), node_config(path).tls
    old = files.key.read_bytes()
    mine.renew(new_key=True)
    new = files.key.read_bytes()
    files.key.with_name("key.pem.next").write_bytes(new)
    files.key.with_name("key.pem.next").chmod(0o600)
    files.key.write_bytes(old)
    assert mine.material().key == new
    files.key.write_bytes(old)
    with pytest.raises(ConfigurationError, match="is not the key of"):
        mine.material()


def test_the_port_renews_its_own_certificate_while_open(tmp_path: Path) -> None:
    clock = Clock()
    with enrolled(tmp_path, clock) as here:
        first = server_facts(here.address, proxy=None, timeout_s=10).certificate
        assert server_facts(here.address, proxy=None, timeout_s=10).certificate == first
        clock.ahead = 17 * HOUR
        second = server_facts(here.address, proxy=None, timeout_s=10)
        assert second.certificate != first
        assert second.tls_version == "TLSv1.3"
        assert certificate_facts(second.certificate).issued_by(here.authority.certificate)
        clock.ahead = -HOUR  # a clock that was set back makes none that is not valid yet
        third = certificate_facts(server_facts(here.address, proxy=None, timeout_s=10).certificate)
        assert third.not_before <= clock() < third.not_after


def test_tls_1_2_finds_no_cipher_at_the_port(here: Enrolled) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = here.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:  # noqa: SIM117
        with pytest.raises(OSError):  # noqa: PT011
            context.wrap_socket(plain)


def test_a_message_beyond_the_cap_is_refused_unread(here: Enrolled) -> None:
    with Enrolment(here.address, here.authority.certificate, proxy=None) as service:
        with pytest.raises(LinkError, match="larger than max"):
            service.join(b"", bytes(1 << 20))
        assert service.greet().alliance == "test"


def test_a_request_for_another_alliance_or_of_no_form_is_refused(here: Enrolled) -> None:
    path = here.new_node("newcomer")
    _, signed = own_request(node_config(path), path.parent)
    with Enrolment(here.address, here.authority.certificate, proxy=None) as service:
        secret = here.invite("newcomer").secret
        for request, sentence in (
            (b"junk", "update the node"),
            (signed.replace(b'"test"', b'"toast"'), "signature in the request does not hold"),
        ):
            with pytest.raises(LinkError, match=sentence):
                service.join(secret, request)


def test_vouches_travel_over_the_port(here: Enrolled) -> None:
    newcomer = node_config(joined(here))
    harbour = node_config(joined(here, "harbour"))
    request, _ = own_request(newcomer, here.folder / "newcomer")
    shown = fingerprint(alliance="test", member="newcomer", identity=request.identity)
    with pytest.raises(ConfigurationError, match="do not vouch"):
        vouch_for(harbour, request, shown[:-1] + ("0" if shown[-1] != "0" else "1"))
    with pytest.raises(ConfigurationError, match="vouch for another member"):
        vouch_for(newcomer, request, shown)
    word = vouch_for(harbour, request, shown)
    stranger = vouch(
        Identity.generate(), alliance="test", member="newcomer", identity=request.identity
    )
    with Enrolment(here.address, here.authority.certificate, proxy=None) as service:
        assert service.vouch(word.canonical()) == 1
        with pytest.raises(LinkError, match="only a member's vouch"):
            service.vouch(stranger.canonical())
        with pytest.raises(LinkError, match="signature in the request does not hold"):
            service.vouch(word.canonical().replace(b"newcomer", b"oldcomer"))
    assert [one.by for one in here.registry.vouches()] == [word.by]


def test_guessing_is_slowed_down_and_counted_by_address(here: Enrolled) -> None:
    with Enrolment(here.address, here.authority.certificate, proxy=None) as service:
        for _ in range(REFUSALS):
            with pytest.raises(LinkError, match="update the node"):
                service.join(b"guess", b"")
        with pytest.raises(LinkError, match="wait a minute"):
            service.join(b"guess", b"")
    refusals = Refusals()
    for _ in range(REFUSALS):
        refusals.note("a", 1.0)
    assert refusals.exceeded("a", 2.0)
    assert not refusals.exceeded("b", 2.0)
    assert not refusals.exceeded("a", 2.0 + REFUSALS_S)
    for number in range(ADDRESSES):
        refusals.note(str(number), 3.0)
    assert not refusals.exceeded("a", 3.0)  # forgotten: memory is bounded


def test_an_invitation_s_authority_is_found_and_checked(here: Enrolled) -> None:
    assert pinned_authority(here.invite("a"), proxy=None) == here.authority.certificate


def test_a_coordinator_serves_the_port_beside_its_studies(tmp_path: Path) -> None:
    """And not where the port is a process of its own, or there is no registry."""
    here = Enrolled(tmp_path, utc_now)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        config = here.config.model_copy(update={"listen": address})
        admittance = admittance_of(config)
        enrolling = await serve_enrolment(config, admittance, lambda: None)
        here.address = address
        pinned = await asyncio.to_thread(pinned_authority, here.invite("a"), proxy=None)
        assert pinned == here.authority.certificate
        with pytest.raises(ConfigurationError, match="the port is in use"):
            await serve_enrolment(config, admittance, lambda: None)
        await enrolling.stop()
        apart = config.model_copy(update={"apart": True})
        enrolling = await serve_enrolment(apart, admittance, lambda: None)
        assert enrolling.server is None
        await enrolling.stop()
        assert await serve_enrolment(None, None, lambda: None) == Enrolling(None, None)

    asyncio.run(main())


def test_vouches_for_the_roster_go_with_a_proposal(here: Enrolled) -> None:
    config = node_config(joined(here))
    request, _ = own_request(config, here.folder / "newcomer")
    harbour = node_config(joined(here, "harbour"))
    shown = fingerprint(alliance="test", member="newcomer", identity=request.identity)
    word = vouch_for(harbour, request, shown)
    here.registry.add_vouch(word)
    roster = [*make_terms().roster]
    terms = make_terms().model_copy(
        update={
            "roster": (
                RosterEntry(name="newcomer", identity=request.identity, declared_consumers=20),
                *roster[1:],
            )
        }
    )
    admissions = Admissions.from_json(admissions_of(here.config)(terms))
    assert admissions.vouches == {"newcomer": {word.by: word.signature}}
    assert Admissions.from_json(admissions_of(here.config)(make_terms())).vouches == {}
    assert admissions_of(None)(terms) == b""
