"""The alliance's certificate authority as the operator keeps it, and the certificates it issues.

The authority's key lies in a folder of its own. Whoever holds it can let anybody connect as any
member; it cannot speak as one in a study, since identity keys sign what members say there.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import Field

from privacy.certificates import Authority, Issued, certificate_facts
from privacy.documents import StrictModel
from privacy.errors import ConfigurationError
from privacy.terms import Name
from protos.config import read_secret

__all__ = [
    "Clock",
    "EnrolmentConfig",
    "ServerCertificate",
    "alliance_of",
    "init_authority",
    "open_authority",
    "utc_now",
]

KEY_FILE: Final = "authority.key.pem"
CERTIFICATE_FILE: Final = "authority.pem"
RENEW_AT: Final = 1 / 3
"""A certificate is renewed when this share of its life is left."""
YEAR: Final = dt.timedelta(days=365)

Clock = Callable[[], dt.datetime]


class EnrolmentConfig(StrictModel):
    """The table ``[enrolment]`` of coordinator.toml."""

    listen: str = Field(default="127.0.0.1:9444", pattern=r"^.+:\d{1,5}$")
    """Address and port of the enrolment service; port 0 takes a free one and says which."""
    address: str = Field(pattern=r"^.+:\d{1,5}$")
    """Where future members reach it, as invitations say it: host and port."""
    hosts: tuple[str, ...] = Field(min_length=1)
    """Host names and addresses of this coordinator; its own certificates name them."""
    authority: Path = Path("authority")
    """Folder that `alliance-coordinator authority init` made."""
    registry: Path = Path("registry.sqlite")
    """Members, invitations and vouches."""
    apart: bool = False
    """Whether `alliance-coordinator enrolment` serves the port, and `run` does not."""
    certificate_hours: int = Field(default=24, ge=1, le=24)

    def relative_to(self, folder: Path) -> EnrolmentConfig:
        """The same with its paths resolved against ``folder``."""
        return self.model_copy(
            update={"authority": folder / self.authority, "registry": folder / self.registry}
        )

    @property
    def lifetime(self) -> dt.timedelta:
        """How long a certificate is valid."""
        return dt.timedelta(hours=self.certificate_hours)


class _AllianceName(StrictModel):
    name: Name


def utc_now() -> dt.datetime:
    """The present, by this machine's clock."""
    return dt.datetime.now(dt.UTC)


def init_authority(folder: Path, alliance: str, *, years: int, now: dt.datetime) -> Authority:
    """Makes an authority and keeps it: its key where only its owner may read it.

    Raises:
        ConfigurationError: if there is one already, or the folder cannot be written.
    """
    try:
        _AllianceName(name=alliance)
    except ValueError as error:
        raise ConfigurationError(
            f"{alliance!r:.80} is no name; use lower-case letters, digits and hyphens"
        ) from error
    authority = Authority(alliance, now=now, lifetime=years * YEAR)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(folder / KEY_FILE, authority.key, 0o600)
        _write_new(folder / CERTIFICATE_FILE, authority.certificate, 0o644)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{error.filename}: is there already; an authority is kept, name another folder"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder}: {error.strerror}") from error
    return authority


def open_authority(folder: Path, *, now: dt.datetime) -> Authority:
    """The authority in a folder.

    Raises:
        ConfigurationError: if it is missing, damaged or expired, or others may read its key.
    """
    path = folder / CERTIFICATE_FILE
    try:
        certificate = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; alliance-coordinator authority init makes an authority"
        ) from error
    authority = Authority.from_pem(read_secret(folder / KEY_FILE), certificate)
    if not certificate_facts(certificate).not_after > now:
        raise ConfigurationError(
            f"{path}: the authority expired or this clock is wrong; make a new one and admit anew"
        )
    return authority


def alliance_of(authority: Authority) -> str:
    """The alliance's name, which is the authority's common name."""
    return certificate_facts(authority.certificate).name


class ServerCertificate:
    """The coordinator's own certificate: made at start, renewed in time, never on disk.

    Safe to ask from any thread: gRPC asks from its own, at each handshake.

    Args:
        authority: issues it.
        hosts: names and addresses it is valid for.
        lifetime: of each certificate.
        clock: tells the present.
    """

    def __init__(
        self,
        authority: Authority,
        hosts: tuple[str, ...],
        *,
        lifetime: dt.timedelta,
        clock: Clock = utc_now,
    ) -> None:
        self._authority = authority
        self._hosts = list(hosts)
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._issued = self._issue()

    @classmethod
    def of(cls, config: EnrolmentConfig, *, clock: Clock = utc_now) -> ServerCertificate:
        """The one of a configured authority.

        Raises:
            ConfigurationError: if the authority cannot be opened.
        """
        authority = open_authority(config.authority, now=clock())
        return cls(authority, config.hosts, lifetime=config.lifetime, clock=clock)

    @property
    def authority(self) -> bytes:
        """The authority's certificate, PEM: who may issue members' certificates."""
        return self._authority.certificate

    def current(self) -> Issued:
        """The present key and certificate, new ones if the last are near their end."""
        with self._lock:
            now = self._clock()
            facts = certificate_facts(self._issued.certificate)
            if not RENEW_AT < facts.left(now) <= 1:
                self._issued = self._issue()
            return self._issued

    def _issue(self) -> Issued:
        return self._authority.issue_coordinator(
            self._hosts, now=self._clock(), lifetime=self._lifetime
        )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
