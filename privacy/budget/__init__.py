"""What a member may spend and has spent, on one study and over all of them."""

from privacy.budget.account import Account
from privacy.budget.limits import (
    DEFAULT_DELTA,
    DEFAULT_EPSILON,
    Limits,
    default_order,
    epsilon_micro,
    limits_of,
)
from privacy.budget.rdp import (
    LARGEST_EPSILON,
    LARGEST_ORDER,
    attempt_costs,
    failure_atto,
    mixture_rdp,
)
from privacy.budget.room import MEMBERS, Room, StudyAccount, StudyCost
from privacy.budget.study import StudySpend

__all__ = [
    "DEFAULT_DELTA",
    "DEFAULT_EPSILON",
    "LARGEST_EPSILON",
    "LARGEST_ORDER",
    "MEMBERS",
    "Account",
    "Limits",
    "Room",
    "StudyAccount",
    "StudyCost",
    "StudySpend",
    "attempt_costs",
    "default_order",
    "epsilon_micro",
    "failure_atto",
    "limits_of",
    "mixture_rdp",
]
