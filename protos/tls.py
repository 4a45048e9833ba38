"""The TLS files of one side of the link."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from privacy.documents import StrictModel
from privacy.errors import ConfigurationError
from protos.config import read_secret

__all__ = ["TlsFiles", "TlsMaterial"]


class TlsMaterial(NamedTuple):
    """PEM bytes of one side: its key, its certificate and the authority it trusts."""

    key: bytes
    certificate: bytes
    authority: bytes


class TlsFiles(StrictModel):
    """Where one side keeps its TLS material."""

    key: Path
    certificate: Path
    authority: Path

    def relative_to(self, folder: Path) -> TlsFiles:
        """The same files with paths resolved against ``folder``."""
        return TlsFiles(
            key=folder / self.key,
            certificate=folder / self.certificate,
            authority=folder / self.authority,
        )

    def read(self) -> TlsMaterial:
        """Reads the three files.

        Raises:
            ConfigurationError: if one is missing or unreadable, or the key is open to others.
        """
        for path in (self.key, self.certificate, self.authority):
            if not path.is_file():
                raise ConfigurationError(f"{path}: no such file; name the TLS files in the config")
        try:
            return TlsMaterial(
                read_secret(self.key), self.certificate.read_bytes(), self.authority.read_bytes()
            )
        except OSError as error:
            raise ConfigurationError(f"{error.filename}: {error.strerror}") from error
