"""What the operator configures: where to listen, which study, where to keep things."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import Field, field_validator, model_validator

from coordinator.authority import (
    EnrolmentConfig,
    ServerCertificate,
    alliance_of,
    open_authority,
    utc_now,
)
from privacy.documents import StrictModel
from privacy.errors import ConfigurationError
from privacy.terms import Name, PhaseDeadlines
from protos.tls import TlsFiles, TlsMaterial

__all__ = ["CoordinatorConfig", "Deadlines", "EvidenceConfig", "Operations"]


MOVED: Final = frozenset({"propose_s", "round_s", "keys_s", "reconnect_grace_s"})
"""Deadlines that operators used to choose."""
LOOPBACK: Final = r"^(127\.0\.0\.1|localhost|\[::1\]):\d{1,5}$"


class Deadlines(StrictModel):
    """How long the operator waits for members to come; phases have their deadlines in the terms."""

    assemble_s: float = Field(default=60.0, gt=0)
    """For members to connect before the study, and before a round that lacks too many."""

    @model_validator(mode="before")
    @classmethod
    def _in_the_terms(cls, table: Any) -> Any:
        moved = sorted(MOVED & table.keys()) if isinstance(table, dict) else []
        if moved:
            raise ValueError(
                f"{', '.join(moved)}: members sign how long a phase may take; put it into the "
                f"terms' deadlines ({', '.join(PhaseDeadlines.model_fields)})"
            )
        return table


class EvidenceConfig(StrictModel):
    """What is kept for an auditor besides the log; none of it changes a guarantee."""

    keep_bytes: int = Field(default=256 << 20, ge=0)
    """Of masked contributions and sums, so that an auditor can add rounds of its choice again; the
    oldest rounds are let go beyond it. 0 keeps none."""


class Operations(StrictModel):
    """Ports for an operator's tools, for this machine only; none is open unless named."""

    metrics: str | None = Field(default=None, pattern=LOOPBACK)
    """Address and port of Prometheus metrics."""
    health: str | None = Field(default=None, pattern=LOOPBACK)
    """Address and port of gRPC health checks, without TLS."""


class CoordinatorConfig(StrictModel):
    """One coordinator. Paths are relative to the configuration file."""

    listen: str = Field(default="127.0.0.1:9443", pattern=r"^.+:\d{1,5}$")
    """Address and port; port 0 takes a free one and says which."""
    alliance: Name | None = None
    """As studies' terms name it; not needed where the authority kept here says it."""
    study: Any = Field(default=None, exclude=True)
    """Once named the terms' file here; only there to say what to do instead."""
    state: Path
    """Folder for the log, its key, published models and rounds kept for an auditor."""
    tls: TlsFiles | None = None
    """Certificates made elsewhere; not needed where this coordinator has an authority."""
    enrolment: EnrolmentConfig | None = None
    """The authority kept here, and the port where members join and renew."""
    deadlines: Deadlines = Deadlines()
    evidence: EvidenceConfig = EvidenceConfig()
    operations: Operations = Operations()
    database: str | None = None
    """An SQLAlchemy URL of PostgreSQL or SQLite; a file in the state folder if not given."""

    @field_validator("study")
    @classmethod
    def _studies_are_proposed(cls, value: Any) -> Any:
        raise ValueError(
            "studies are not configured but proposed: leave the line out and run "
            "alliance-coordinator study propose FILE, then study start NAME"
        )

    @property
    def alliance_name(self) -> str:
        """The alliance's name.

        Raises:
            ConfigurationError: if nothing says it.
        """
        if self.enrolment is not None:
            name = alliance_of(open_authority(self.enrolment.authority, now=utc_now()))
            if self.alliance not in (None, name):
                raise ConfigurationError(
                    f"coordinator.toml says alliance {self.alliance}, its authority is of {name}; "
                    "leave the line out"
                )
            return name
        if self.alliance is None:
            raise ConfigurationError(
                'coordinator.toml names no alliance; write a line alliance = "NAME"'
            )
        return self.alliance

    @property
    def database_url(self) -> str:
        """Where studies are kept."""
        return self.database or f"sqlite:///{(self.state / 'coordinator.sqlite').absolute()}"

    def credentials(self) -> TlsMaterial | ServerCertificate:
        """What the port shows members: one that renews itself, or what files hold.

        Raises:
            ConfigurationError: if there is neither, or the files are not usable.
        """
        if self.enrolment is not None:
            return ServerCertificate.of(self.enrolment)
        if self.tls is None:
            raise ConfigurationError(
                "coordinator.toml has neither [enrolment] nor [tls]; a coordinator without TLS "
                "does not start"
            )
        return self.tls.read()

    def relative_to(self, folder: Path) -> CoordinatorConfig:
        """The same with its paths resolved against ``folder``."""
        return self.model_copy(
            update={
                "state": folder / self.state,
                "tls": self.tls.relative_to(folder) if self.tls else None,
                "enrolment": self.enrolment.relative_to(folder) if self.enrolment else None,
            }
        )
