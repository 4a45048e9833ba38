"""What a retailer configures: who it is, where its data is, what it allows."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from client_sdk.dataset import DataSource
from client_sdk.policy import Policy
from client_sdk.reach import PROXY_PATTERN
from privacy.documents import StrictModel
from privacy.terms import Name
from protos.tls import TlsFiles

__all__ = ["NodeConfig"]


class NodeConfig(StrictModel):
    """One member's node. Paths are relative to the configuration file."""

    alliance: Name = "alliance"
    """As in the terms. It names this member's ledger and cannot change once that is begun."""
    member: Name
    """As in the roster and in this node's certificate."""
    identity: Path
    """This node's Ed25519 private key; `alliance-node identity` makes one."""
    declared_consumers: int = Field(ge=1)
    """About how many consumers the data has, rounded to one digit; signed in the terms."""
    coordinator: str = Field(pattern=r"^.+:\d{1,5}$")
    """Host and port; the only address this node connects to, besides `enrolment`."""
    enrolment: str | None = Field(default=None, pattern=r"^.+:\d{1,5}$")
    """Host and port where certificates are renewed; without it somebody renews them by hand."""
    proxy: str | None = Field(default=None, pattern=PROXY_PATTERN)
    """An HTTP CONNECT proxy for both; without it the environment's, as `https_proxy` names it."""
    contract: Path
    """The data contract, as JSON."""
    data: DataSource
    state: Path
    """Folder for the ledger, its key and published models; nobody else needs to read it."""
    tls: TlsFiles
    policy: Policy = Policy()
    canaries: Path | None = None
    """An auditor's file of canaries; the policy must name that auditor in ``auditor_keys``."""

    @property
    def origin(self) -> str:
        """Of this member's ledger."""
        return f"{self.alliance}/member/{self.member}"

    def relative_to(self, folder: Path) -> NodeConfig:
        """The same with its paths resolved against ``folder``."""
        return self.model_copy(
            update={
                "identity": folder / self.identity,
                "contract": folder / self.contract,
                "data": self.data.relative_to(folder),
                "state": folder / self.state,
                "tls": self.tls.relative_to(folder),
                "canaries": folder / self.canaries if self.canaries else None,
            }
        )
