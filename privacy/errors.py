"""Every error the alliance raises, in families by whose fault it is.

AllianceError
├── ConfigurationError      the person running this process: a file, an option, a missing extra
│   └── TermsError          terms that break a rule of the house (R1-R11)
├── DataError               the member's own file; shown to that member only
├── RefusalError            a member declines a request before touching data
│   ├── PolicyRefusal       the terms exceed the member's policy
│   ├── BudgetRefusal       the attempt is not covered by what was approved, or was already spent
│   └── RequestRefusal      the request itself is malformed, late or not the agreed one
├── MemberFault             a member's message broke the protocol; names the member
├── RoundFailed             too few members answered; nothing was released
├── BadSignature            bytes were not signed by whom they name
├── MalformedBody           bytes are not the message they should be
├── EvidenceError           bytes that an auditor or a witness cannot accept; says where
├── LedgerError             a ledger that may not be written: older than its heads, forked, in use
│   ├── Rollback            a head is not the newest that is held; carries the one held
│   └── Fork                a head and the one held cannot both be true; carries the one held
├── LinkError               the connection to the other side failed
└── RecipeError             a model or state that the recipe cannot use

Messages read ``round 7: member ab12: what happened, and what to do``.
"""

from __future__ import annotations

__all__ = [
    "AllianceError",
    "BadSignature",
    "BudgetRefusal",
    "ConfigurationError",
    "DataError",
    "EvidenceError",
    "Fork",
    "LedgerError",
    "LinkError",
    "MalformedBody",
    "MemberFault",
    "PolicyRefusal",
    "RecipeError",
    "RefusalError",
    "RequestRefusal",
    "Rollback",
    "RoundFailed",
    "TermsError",
]


class AllianceError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigurationError(AllianceError):
    """The person who runs this process can mend it: a file, an option, a missing extra."""


class TermsError(ConfigurationError):
    """Terms break a rule of the house, so nobody may sign them."""


class DataError(AllianceError):
    """A member's data does not fit the data contract. Shown to the member only (rule R4)."""


class RefusalError(AllianceError):
    """A member declines a request. What it says depends on public inputs only (rule R4)."""


class PolicyRefusal(RefusalError):
    """The terms exceed what the member's policy allows."""


class BudgetRefusal(RefusalError):
    """The attempt is not covered by the approved projection, or has been spent already."""


class RequestRefusal(RefusalError):
    """The request is malformed, late, or not the one that was agreed."""


class MemberFault(AllianceError):
    """A member broke the protocol; the message names the member."""

    def __init__(self, member: str, what: str) -> None:
        super().__init__(f"member {member}: {what}")
        self.member = member
        self.what = what


class RoundFailed(AllianceError):
    """Fewer members answered a phase than the terms demand; nothing was released.

    Args:
        message: what is missing, and what to do.
        members: names of members at fault, where somebody is.
    """

    def __init__(self, message: str, *, members: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.members = members


class BadSignature(AllianceError):
    """Bytes were not signed by whom they name. Whoever checks turns it into a fault or refusal."""


class MalformedBody(AllianceError):
    """Bytes are not the message they should be. Whoever reads turns it into a fault or refusal."""


class EvidenceError(AllianceError):
    """Evidence that does not hold: named by file and entry, for an auditor or a witness."""


class LedgerError(AllianceError):
    """A ledger that may not be written: older than its heads, forked, damaged, in use."""


class Rollback(LedgerError):
    """A head is not the newest: older than the one held, or sent with a proof from elsewhere.

    Args:
        message: which log, and what is held.
        held: the note held, as its log signed it; empty if there is none.
    """

    def __init__(self, message: str, *, held: bytes = b"") -> None:
        super().__init__(message)
        self.held = held


class Fork(LedgerError):
    """A head contradicts the one held. The key that signed both is never cosigned again.

    Args:
        message: which log, and what is held.
        held: the note held, as its log signed it.
    """

    def __init__(self, message: str, *, held: bytes) -> None:
        super().__init__(message)
        self.held = held


class LinkError(AllianceError):
    """The connection to the other side failed or was refused."""


class RecipeError(AllianceError):
    """A model or public state that the recipe cannot use."""
