"""Secure aggregation: the coordinator learns the survivors' sum and nothing else.

The protocol, complete enough to implement from, is in this folder's README.
"""

from privacy.secagg.binding import Attempt, KeySets, Setup, Signed, model_hash
from privacy.secagg.graph import Graph
from privacy.secagg.key_exchange import Cohort, KeyExchange
from privacy.secagg.member import MOST_KEY_SETS, MaskingMember
from privacy.secagg.unmasking import Unmasking

__all__ = [
    "MOST_KEY_SETS",
    "Attempt",
    "Cohort",
    "Graph",
    "KeyExchange",
    "KeySets",
    "MaskingMember",
    "Setup",
    "Signed",
    "Unmasking",
    "model_hash",
]
