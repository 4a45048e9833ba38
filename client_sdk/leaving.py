"""Leaving the alliance: this member's own spend ends first, whoever can be reached or not.

In this order, each durable before the next: (1) `left` stands in the ledger, and from then on no
process spends from it; (2) the departure, signed by the identity, lies beside node.toml; (3) the
enrolment service is told, which ends the member's streams. What was released stays released.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client_sdk.config import NodeConfig
from client_sdk.credentials import write_durably
from client_sdk.enrolment import Enrolment
from client_sdk.own_models import OwnModel, own_models
from client_sdk.process import open_journal
from privacy.departure import depart
from privacy.errors import LinkError
from privacy.identity import Identity
from protos.config import read_secret

__all__ = ["Leaving", "contained", "leave"]

DEPARTURE_FILE: Final = "departure.json"


@dataclass(frozen=True, slots=True)
class Leaving:
    """What came of leaving.

    Args:
        at: when the ledger ended, by this member's clock; of the first call, if this is another.
        departure: the file that proves it.
        by_hand: why the coordinator was not told, and what to do; empty if it was.
        models: that contain this member.
    """

    member: str
    at: dt.datetime
    departure: Path
    by_hand: str
    models: tuple[OwnModel, ...]


def leave(config: NodeConfig, folder: Path, sentence: str) -> Leaving:
    """Stops all spend of this member for good, and tells the coordinator; again is the same.

    Args:
        config: of the node.
        folder: where the departure is written.
        sentence: why; stands in this member's own ledger alone.

    Raises:
        ConfigurationError: if identity or folder are not usable; (1) holds nevertheless.
        LedgerError: if the ledger may not be written; then nothing happened.
    """
    journal = open_journal(config)
    try:
        left = journal.leave(sentence)  # (1)
        identity = Identity.from_pem(read_secret(config.identity))
        word = depart(
            identity, alliance=config.alliance, member=config.member, ledger=journal.ledger_key
        ).canonical()
        departure = folder / DEPARTURE_FILE
        write_durably(departure, word, 0o644)  # (2)
        by_hand = ""
        try:
            _tell(config, word)  # (3)
        except LinkError as error:
            by_hand = (
                f"the coordinator was not told ({error}); send {departure} to the operator, it "
                "holds no secret: alliance-coordinator left departure.json"
            )
        models = own_models(journal, config.state / "models")
    finally:
        journal.close()
    at = dt.datetime.fromtimestamp(left.at_ms / 1000, dt.UTC)
    return Leaving(config.member, at, departure, by_hand, models)


def contained(config: NodeConfig) -> tuple[OwnModel, ...]:
    """Every model that contains this member; changes nothing.

    Raises:
        ConfigurationError: if the state folder is not usable.
        LedgerError: if the ledger cannot be read.
    """
    journal = open_journal(config)
    try:
        return own_models(journal, config.state / "models")
    finally:
        journal.close()


def _tell(config: NodeConfig, departure: bytes) -> None:
    if config.enrolment is None:
        raise LinkError("node.toml names no enrolment service")
    try:
        authority = config.tls.authority.read_bytes()
    except OSError as error:
        raise LinkError(f"{config.tls.authority}: {error.strerror}") from error
    with Enrolment(config.enrolment, authority, proxy=config.proxy) as service:
        service.leave(departure)
