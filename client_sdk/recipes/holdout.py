"""Consumers that a study trains without, so that its model can be measured on them.

Which they are follows from the study's name and the consumer's own id alone: so a consumer is on
the same side at every member that knows it and in every version of the study, removing one moves
nobody else (rule R5), and nothing about the choice is learned from data.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

__all__ = ["Holdout"]

CONTEXT: Final = b"alliance/v1/holdout\x00"


@dataclass(frozen=True, slots=True)
class Holdout:
    """The consumers that one study holds out.

    >>> held = Holdout("harbours", "coupons", 0.25)
    >>> sum(f"consumer-{number}" in held for number in range(1000))
    247

    Args:
        alliance: its name.
        study: the name of the study that trains.
        share: of all consumers, in [0, 1); 0 holds out nobody.
    """

    alliance: str
    study: str
    share: float

    def __contains__(self, consumer_id: object) -> bool:
        """Whether the first 64 bits of SHA-256(context, alliance, study, id) are below the share.

        Names of alliances and studies hold no NUL, which ends each of them.
        """
        text = f"{self.alliance}\x00{self.study}\x00{consumer_id}".encode()
        digest = hashlib.sha256(CONTEXT + text).digest()
        return int.from_bytes(digest[:8]) < int(self.share * 2**64)
