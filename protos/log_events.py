"""The one table of event names that both sides' logs use: its level, and its sentence.

Those without a sentence are the coordinator's own events (`coordinator.monitor`), which go through
the same lines; the others are what a process says of itself. Fields are names, numbers and
sentences: never update values, keys, rows or consumers (`protos.logs` refuses other types).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["EVENTS", "LoggedEvent"]


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One kind of event.

    Args:
        level: of `logging`.
        sentence: with the names of its fields in braces; empty for the coordinator's own events.
    """

    level: int
    sentence: str = ""


def _debug(sentence: str = "") -> LoggedEvent:
    return LoggedEvent(logging.DEBUG, sentence)


def _info(sentence: str = "") -> LoggedEvent:
    return LoggedEvent(logging.INFO, sentence)


def _warning(sentence: str = "") -> LoggedEvent:
    return LoggedEvent(logging.WARNING, sentence)


def _error(sentence: str = "") -> LoggedEvent:
    return LoggedEvent(logging.ERROR, sentence)


EVENTS: Final[Mapping[str, LoggedEvent]] = MappingProxyType(
    {
        # The coordinator's own: members and studies.
        "AttemptFailed": _warning(),
        "KeysFailed": _warning(),
        "Listening": _info(),
        "MemberDeparted": _warning(),
        "MemberFaulted": _error(),
        "MemberJoined": _info(),
        "MemberLeft": _info(),
        "MemberRefused": _warning(),
        "MemberRests": _warning(),
        "MemberWaits": _info(),
        "RoundClosed": _info(),
        "StudyFinished": _info(),
        "StudyOpened": _info(),
        "StudyPaused": _info(),
        "StudyStopped": _warning(),
        "StudyWaits": _warning(),
        # Either side's process.
        "ProcessFailed": _error("{sentence}"),
        "OtherSoftware": _warning("{logger}: {template}"),
        # The coordinator's process.
        "EventUnwritten": _error("an event could not be written"),
        "RoundUnkept": _warning("{file}: this round is not kept ({reason})"),
        "EvaluationUnbegun": _error("the evaluation planned for {study} was not begun"),
        "StateUnkept": _error("the state after round {round} is not kept"),
        "StudyUnproposed": _error("study {study} could not be proposed"),
        "StudyUntold": _error("study {study}: members could not be told that it is over"),
        "StudiesUnread": _error("studies could not be looked at"),
        # Enrolment.
        "DepartureTaken": _info("{member} left the alliance"),
        "EnrolmentListening": _info("enrolment listening on {address}"),
        "MemberAdmitted": _info("{member} joined with identity {identity}"),
        "RegistryUnread": _error("the registry cannot be read"),
        "RequestDeclined": _warning("declined {peer}: {sentence}"),
        "RequestUnanswered": _error("could not answer {peer}"),
        "TlsKeyChanged": _info("{member} has a new TLS key"),
        # A member's link.
        "LinkLost": _warning("{target}: {sentence}"),
        "LinkUp": _info("connected to {target} as {member}"),
        "TaskAnswered": _debug("{task}: answered, {size_bytes} array bytes"),
        "TaskRejected": _warning("{task}: {sentence}"),
        "TaskTaken": _debug("{task}: taken, {size_bytes} array bytes"),
        # A member's answers.
        "ContributionEmpty": _error("the contribution is noise alone"),
        "RefusalUnrecorded": _error("the refusal is not in the ledger"),
        "TaskRefused": _warning("refused {task}: {sentence}"),
        "TaskUnanswered": _error("could not answer {task}"),
        # A member's ledger, and others'.
        "HeadBehind": _info("{sentence}"),
        "HeadForked": _error("{sentence}"),
        "HeadUncosigned": _warning("{origin}: {sentence}"),
        "LedgerBehind": _error("the coordinator holds {held} entries, this ledger has {size}"),
        "LedgerDisputed": _error("{sentence}"),
        "LedgerUnread": _error("the ledger cannot be read"),
        # A member's process.
        "CertificateRenewed": _info("renewed the certificate; it is valid until {until}"),
        "HoursBegun": _info("within its hours, this node answers"),
        "HoursOver": _info("outside its hours, this node is absent"),
        "ModelKept": _info("kept the model of study {study}"),
        "NodeLeft": _info("this member left the alliance; its node ends"),
        "NodeStopped": _info("stopped"),
        "RenewalFailed": _warning("the certificate could not be renewed: {sentence}"),
        "RowsLeftOut": _info("left out {rows} rows that are not of the budget's period"),
        "TlsFilesUnusable": _warning("the TLS files are not usable: {sentence}"),
    }
)
