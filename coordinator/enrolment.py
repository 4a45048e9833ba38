"""The enrolment service: how members come by certificates, over a port without client certificates.

Checks, numbered as in the code:
 (1) TLS 1.3, and not too many refused requests from that address lately;
 (2) a request to join is well-formed, signed by its identity, and for this alliance;
 (3) its invitation is one of ours, unused, unexpired and for that name (`Registry.redeem`);
 (4) a renewal carries a nonce of ours, fresh and unused, and the signature of the identity that
     the member was admitted with; whether its present certificate still holds does not matter;
 (5) whoever was revoked gets nothing;
 (6) a vouch is signed by a member and about another member's present identity;
 (7) a departure is signed by the identity, and names the ledger, that the member was admitted with.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import importlib.metadata
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from coordinator.admittance import Admittance
from coordinator.authority import (
    Clock,
    EnrolmentConfig,
    ServerCertificate,
    alliance_of,
    open_authority,
    utc_now,
)
from coordinator.enrolment_errors import Declined, declination
from coordinator.registry import MemberRecord, Registry
from coordinator.server_credentials import renewing_credentials
from privacy.admission import Admissions, Vouch
from privacy.certificates import Authority, read_signing_request
from privacy.departure import Departure
from privacy.errors import AllianceError, BadSignature, ConfigurationError, MalformedBody
from privacy.membership import open_request, verify_renewal
from privacy.terms import Terms
from protos.alliance.v1 import membership_pb2 as wire
from protos.alliance.v1 import membership_pb2_grpc
from protos.limits import LIMITS, PROTOCOL
from protos.logs import log

__all__ = [
    "Enrolling",
    "EnrolmentService",
    "Refusals",
    "admissions_of",
    "admittance_of",
    "serve_enrolment",
    "start_enrolment",
]

MESSAGE_BYTES: Final = 64 << 10
MOST_CALLS: Final = 512
"""At once; strangers whose requests never end hold theirs for a minute, and newcomers find room."""
NONCE_S: Final = 60.0
NONCE_BYTES: Final = 8 + 16 + 32
REFUSALS: Final = 20
"""Refused requests from one address within `REFUSALS_S`, after which it has to wait."""
REFUSALS_S: Final = 60.0
ADDRESSES: Final = 4096
"""Addresses remembered; more is somebody with many, whom counting does not stop."""

Reply = TypeVar("Reply")


class Refusals:
    """How often each address was refused lately."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def exceeded(self, address: str, now_s: float) -> bool:
        """Whether that address has to wait."""
        since_s, count = self._counts.get(address, (now_s, 0))
        return count >= REFUSALS and 0 <= now_s - since_s < REFUSALS_S

    def note(self, address: str, now_s: float) -> None:
        """Counts one more refusal."""
        since_s, count = self._counts.pop(address, (now_s, 0))
        if not 0 <= now_s - since_s < REFUSALS_S:
            since_s, count = now_s, 0
        self._counts[address] = (since_s, count + 1)
        while len(self._counts) > ADDRESSES:
            self._counts.popitem(last=False)


class EnrolmentService(membership_pb2_grpc.EnrolmentServicer):
    """Admits, renews, collects vouches, and lets members go.

    Args:
        authority: issues members' certificates.
        registry: who is a member.
        lifetime: of a member's certificate.
        clock: tells the present.
    """

    def __init__(
        self,
        authority: Authority,
        registry: Registry,
        *,
        lifetime: dt.timedelta,
        clock: Clock = utc_now,
    ) -> None:
        self._authority = authority
        self._alliance = alliance_of(authority)
        self._registry = registry
        self._lifetime = lifetime
        self._clock = clock
        self._nonce_key = secrets.token_bytes(32)
        self._used: OrderedDict[bytes, None] = OrderedDict()
        self._refusals = Refusals()
        self._software = f"alliance {importlib.metadata.version('alliance')}"

    async def Greet(  # noqa: N802  (the name in the .proto)
        self, request: wire.GreetRequest, context: Any
    ) -> wire.Greeting:
        """Says who this is, what time it is, and gives a nonce."""

        async def work() -> wire.Greeting:
            return wire.Greeting(
                protocol=PROTOCOL,
                software=self._software,
                alliance=self._alliance,
                authority=self._authority.certificate,
                now_ms=int(self._clock().timestamp() * 1000),
                nonce=self._nonce(),
            )

        return await self._answer(context, work)

    async def Join(  # noqa: N802
        self, request: wire.JoinRequest, context: Any
    ) -> wire.Certificate:
        """Admits whoever brings a valid invitation."""

        async def work() -> wire.Certificate:
            try:  # (2)
                asked = open_request(request.request)
            except MalformedBody as error:
                raise Declined("malformed", str(error)) from error
            except BadSignature as error:
                raise Declined("unsigned", str(error)) from error
            if asked.alliance != self._alliance:
                raise Declined("other_alliance", self._alliance)
            await asyncio.to_thread(  # (3)
                self._registry.redeem, request.secret, asked, request.request, now=self._clock()
            )
            log("MemberAdmitted", member=asked.member, identity=asked.identity[:16])
            return self._certify(asked.member, asked.signing_request.encode())

        return await self._answer(context, work)

    async def Renew(  # noqa: N802
        self, request: wire.RenewRequest, context: Any
    ) -> wire.Certificate:
        """Gives a member another certificate, for the same TLS key or a new one."""

        async def work() -> wire.Certificate:
            member = await asyncio.to_thread(self._check_renewal, request)
            try:
                name, tls_key = read_signing_request(request.signing_request)
            except MalformedBody as error:
                raise Declined("malformed", str(error)) from error
            if name != member.name:
                raise Declined("bad_renewal", "the signing request names another member")
            if tls_key != member.tls_key:
                await asyncio.to_thread(self._registry.set_tls_key, member.name, tls_key)
                log("TlsKeyChanged", member=member.name)
            return self._certify(member.name, request.signing_request)

        return await self._answer(context, work)

    async def Vouch(  # noqa: N802
        self, request: wire.VouchRequest, context: Any
    ) -> wire.VouchReply:
        """Keeps one member's word for another."""

        async def work() -> wire.VouchReply:
            try:  # (6)
                vouch = Vouch.from_json(request.vouch)
            except MalformedBody as error:
                raise Declined("malformed", str(error)) from error
            except BadSignature as error:
                raise Declined("unsigned", str(error)) from error
            if vouch.alliance != self._alliance:
                raise Declined("other_alliance", self._alliance)
            return wire.VouchReply(vouches=await asyncio.to_thread(self._registry.add_vouch, vouch))

        return await self._answer(context, work)

    async def Leave(  # noqa: N802
        self, request: wire.LeaveRequest, context: Any
    ) -> wire.LeaveReply:
        """Ends a membership by the member's own word."""

        async def work() -> wire.LeaveReply:
            try:  # (7)
                departure = Departure.from_json(request.departure)
            except MalformedBody as error:
                raise Declined("malformed", str(error)) from error
            except BadSignature as error:
                raise Declined("unsigned", str(error)) from error
            if departure.alliance != self._alliance:
                raise Declined("other_alliance", self._alliance)
            await asyncio.to_thread(self._registry.depart, departure, now=self._clock())
            log("DepartureTaken", member=departure.member)
            return wire.LeaveReply()

        return await self._answer(context, work)

    def _check_renewal(self, request: wire.RenewRequest) -> MemberRecord:
        """Whose renewal this is, if it may have one.

        Raises:
            Declined: if not.
        """
        self._take_nonce(request.nonce)  # (4)
        member = self._registry.members().get(request.member)
        if member is None:
            raise Declined("not_a_member")
        try:
            verify_renewal(
                member.identity,
                request.signature,
                alliance=self._alliance,
                member=member.name,
                signing_request=request.signing_request,
                nonce=request.nonce,
            )
        except BadSignature as error:
            raise Declined("bad_renewal") from error
        if member.departure is not None:  # (5)
            raise Declined("left")
        if member.reason is not None:
            raise Declined("revoked", member.reason)
        return member

    def _certify(self, member: str, signing_request: bytes) -> wire.Certificate:
        certificate = self._authority.certify_member(
            member, signing_request, now=self._clock(), lifetime=self._lifetime
        )
        return wire.Certificate(certificate=certificate)

    def _nonce(self) -> bytes:
        """Eight bytes of time, sixteen of randomness, and a tag: nothing is kept until it comes."""
        body = int(self._clock().timestamp()).to_bytes(8, "big") + secrets.token_bytes(16)
        return body + self._tag(body)

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._nonce_key, body, hashlib.sha256)

    def _take_nonce(self, nonce: bytes) -> None:
        body = nonce[:24]
        age_s = self._clock().timestamp() - int.from_bytes(nonce[:8], "big")
        if (
            len(nonce) != NONCE_BYTES
            or not hmac.compare_digest(nonce[24:], self._tag(body))
            or not 0 <= age_s <= NONCE_S
            or body in self._used
        ):
            raise Declined("stale_nonce")
        self._used[body] = None
        oldest_s = self._clock().timestamp() - NONCE_S
        while int.from_bytes(next(iter(self._used))[:8], "big") < oldest_s:
            self._used.popitem(last=False)

    async def _answer(self, context: Any, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """Does the work, or refuses with a sentence of the table."""
        address = context.peer().rpartition(":")[0]
        now_s = asyncio.get_running_loop().time()
        try:
            if self._refusals.exceeded(address, now_s):  # (1)
                raise Declined("too_many")
            version = next(iter(context.auth_context().get("ssl_tls_version", ())), b"")
            if version != b"TLSv1.3":
                raise Declined("not_tls_1_3")
            return await work()
        except Declined as error:
            if error.reason != "too_many":
                self._refusals.note(address, now_s)
                log("RequestDeclined", peer=context.peer(), sentence=str(error))
            status, sentence = declination(error)
        except AllianceError as error:
            log("RequestUnanswered", error=error, peer=context.peer())
            status, sentence = declination(Declined("unusable"))
        await context.abort(status, sentence[: LIMITS.sentence])
        raise Declined("unusable")  # abort raises; this is never reached


async def start_enrolment(
    config: EnrolmentConfig, *, clock: Clock = utc_now
) -> tuple[grpc.aio.Server, str]:
    """Opens the enrolment port; the server and its address.

    Raises:
        ConfigurationError: if authority, registry or port are not usable.
    """
    authority = open_authority(config.authority, now=clock())
    registry = await asyncio.to_thread(Registry, config.registry)
    service = EnrolmentService(authority, registry, lifetime=config.lifetime, clock=clock)
    certificate = ServerCertificate(authority, config.hosts, lifetime=config.lifetime, clock=clock)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", 4),
            ("grpc.max_connection_age_ms", 60_000),
            ("grpc.max_connection_age_grace_ms", 5_000),  # or a body that never ends keeps it
            ("grpc.experimental.tcp_max_read_chunk_size", MESSAGE_BYTES),  # by default 4 MiB
            ("grpc.max_connection_idle_ms", 10_000),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", round(LIMITS.hello_timeout_s * 1000)),
        ],
        maximum_concurrent_rpcs=MOST_CALLS,
    )
    membership_pb2_grpc.add_EnrolmentServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    try:
        port = server.add_secure_port(
            config.listen, renewing_credentials(certificate, members_only=False)
        )
    except RuntimeError as error:
        raise ConfigurationError(
            f"cannot listen on {config.listen}: the port is in use or not allowed; choose another"
        ) from error
    await server.start()
    return server, f"{config.listen.rpartition(':')[0]}:{port}"


def admittance_of(config: EnrolmentConfig | None) -> Admittance | None:
    """The registry's say on who may connect; None where there is no registry.

    Raises:
        ConfigurationError: if it cannot be read.
    """
    return None if config is None else Admittance(Registry(config.registry))


def admissions_of(config: EnrolmentConfig | None) -> Callable[[Terms], bytes]:
    """The vouches that go with proposed terms, as `privacy.admission.check_admissions` reads them.

    Read anew for each proposal, since members vouch at any time.
    """

    def admissions(terms: Terms) -> bytes:
        if config is None:
            return b""
        return Admissions.of(terms, Registry(config.registry).vouches()).canonical()

    return admissions


@dataclass(frozen=True, slots=True)
class Enrolling:
    """What a coordinator runs beside its studies: the enrolment port, and the look at the registry.

    Either may be absent.
    """

    server: grpc.aio.Server | None
    watching: asyncio.Task[None] | None

    async def stop(self) -> None:
        """Ends both."""
        if self.watching is not None:
            self.watching.cancel()
        if self.server is not None:
            await self.server.stop(grace=0.5)


async def serve_enrolment(
    config: EnrolmentConfig | None, admittance: Admittance | None, expel: Callable[[], None]
) -> Enrolling:
    """Starts what `Enrolling` is.

    Raises:
        ConfigurationError: if authority, registry or port are not usable.
    """
    server = None
    if config is not None and not config.apart:
        server, address = await start_enrolment(config)
        log("EnrolmentListening", address=address)
    watching = None
    if admittance is not None:
        watching = asyncio.create_task(admittance.watch(expel))
    return Enrolling(server, watching)
