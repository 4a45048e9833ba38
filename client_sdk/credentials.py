"""This node's TLS key and certificate: kept on disk, renewed in time, rotated on demand.

A new key is on the disk before a certificate is asked for, and a certificate is in place before its
key is; what a crash leaves in between is finished when the files are next read. A rotation whose
answer got lost is undone by the next renewal, for the key that is in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from client_sdk.enrolment import Enrolment
from privacy.certificates import (
    certificate_facts,
    key_hash,
    make_signing_request,
    make_tls_key,
)
from privacy.errors import AllianceError, ConfigurationError, LinkError, MalformedBody
from privacy.identity import Identity
from privacy.membership import sign_renewal
from protos.config import read_secret
from protos.logs import log
from protos.tls import TlsFiles, TlsMaterial

__all__ = ["Credentials", "check_issued", "write_durably"]

RENEW_AT: Final = 1 / 3
"""A certificate is renewed when this share of its life is left: a day's has eight hours to try."""
LOOK_S: Final = 3.0
"""How often the files are looked at, for what another process renewed or rotated."""
RETRY_S: Final = 60.0


class Credentials:
    """What this node shows the coordinator.

    Args:
        files: where key, certificate and authority are.
        member: the name its certificates carry.
        identity: signs renewals; the present certificate need not be valid any more.
        enrolment: host and port of the enrolment service; None if certificates are renewed by hand.
        proxy: as in `Enrolment`.
        clock: tells the present.
    """

    def __init__(
        self,
        files: TlsFiles,
        *,
        member: str,
        identity: Identity,
        enrolment: str | None,
        proxy: str | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._files = files
        self._member = member
        self._identity = identity
        self._enrolment = enrolment
        self._proxy = proxy
        self._clock = clock

    def material(self) -> TlsMaterial:
        """The present files, after finishing a rotation that a crash interrupted.

        Raises:
            ConfigurationError: if one is missing, unreadable or open to others, or if key and
                certificate do not belong together.
        """
        material = self._files.read()
        try:
            wanted = certificate_facts(material.certificate).key_hash
        except MalformedBody as error:
            raise ConfigurationError(
                f"{self._files.certificate}: {error}; alliance-node join gets another"
            ) from error
        if key_hash(material.key) == wanted:
            return material
        # Another process may be finishing the same rotation: then the next file is gone already.
        with contextlib.suppress(ConfigurationError, FileNotFoundError):
            if key_hash(read_secret(self._coming_key)) == wanted:
                self._coming_key.replace(self._files.key)
        material = self._files.read()
        if key_hash(material.key) == wanted:
            return material
        raise ConfigurationError(
            f"{self._files.key} is not the key of {self._files.certificate}; put the files that "
            "belong together back, or ask for a new invitation"
        )

    def is_due(self) -> bool:
        """Whether the present certificate should be renewed now, expired or not."""
        left = certificate_facts(self.material().certificate).left(self._clock())
        return left <= RENEW_AT or self._coming_key.exists()

    def renew(self, *, new_key: bool = False) -> dt.datetime:
        """Gets another certificate, for a new TLS key if asked; until when it is valid.

        Raises:
            ConfigurationError: if there is no enrolment service, or the files cannot be written.
            LinkError: if the service cannot be reached or declines.
        """
        with self._alone():
            return self._renew(new_key=new_key)

    def _renew(self, *, new_key: bool) -> dt.datetime:
        material = self.material()
        if self._enrolment is None:
            raise ConfigurationError(
                'node.toml names no enrolment service; add enrolment = "HOST:PORT", or have the '
                "operator run alliance-coordinator admit again"
            )
        key = make_tls_key() if new_key else material.key
        if new_key:
            write_durably(self._coming_key, key, 0o600)
        with Enrolment(self._enrolment, material.authority, proxy=self._proxy) as service:
            greeting = service.greet()
            wish = make_signing_request(key, self._member)
            signature = sign_renewal(
                self._identity,
                alliance=certificate_facts(material.authority).name,
                member=self._member,
                signing_request=wish,
                nonce=greeting.nonce,
            )
            certificate = service.renew(
                self._member, signing_request=wish, nonce=greeting.nonce, signature=signature
            )
        check_issued(certificate, material.authority, key=key, member=self._member)
        write_durably(self._files.certificate, certificate, 0o644)
        self.material()  # puts a new key in its place
        self._coming_key.unlink(missing_ok=True)
        return certificate_facts(certificate).not_after

    def refresh(self) -> None:
        """Renews the certificate if it is due and the service lets it; else the log says why not.

        Raises:
            ConfigurationError: if the files are not usable.
        """
        if not self.is_due() or self._enrolment is None:
            return
        with self._alone():
            if not self.is_due():  # another process was faster
                return
            try:
                until = self._renew(new_key=False)
                log("CertificateRenewed", until=until.isoformat())
            except LinkError as error:
                log("RenewalFailed", sentence=str(error))

    async def keep(self, changed: Callable[[], None]) -> None:
        """Renews in time until cancelled, and calls back whenever the certificate is another one.

        Args:
            changed: called on the event loop; also when another process wrote the files.
        """
        shown = self.material().certificate
        while True:
            try:
                await asyncio.to_thread(self.refresh)
                present = self.material().certificate
                if present != shown:
                    shown = present
                    changed()
                pause_s = RETRY_S if self.is_due() else LOOK_S
            except AllianceError as error:
                log("TlsFilesUnusable", sentence=str(error))
                pause_s = RETRY_S
            await asyncio.sleep(pause_s * (0.5 + secrets.randbelow(1000) / 1000))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps two processes from changing the files at once."""
        path = self._files.key.with_name(".lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @property
    def _coming_key(self) -> Path:
        return self._files.key.with_name(self._files.key.name + ".next")


def check_issued(certificate: bytes, authority: bytes, *, key: bytes, member: str) -> None:
    """Checks a certificate that just came, before it takes the place of another.

    Raises:
        LinkError: if it is not this authority's, for this member and this key.
    """
    try:
        facts = certificate_facts(certificate)
    except MalformedBody as error:
        raise LinkError("the enrolment service sent no certificate; tell the operator") from error
    if not facts.issued_by(authority) or facts.name != member or facts.key_hash != key_hash(key):
        raise LinkError(
            "the enrolment service sent a certificate for another key, name or authority; nothing "
            "was changed, tell the operator"
        )


def write_durably(path: Path, data: bytes, mode: int) -> None:
    """Writes a file so that after a crash it is there whole, as before or as now.

    Raises:
        ConfigurationError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from error
