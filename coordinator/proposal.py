"""Asking members to accept terms, and recording what they signed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from coordinator.config import Deadlines
from coordinator.grid import LinkGrid
from coordinator.monitor import MemberFaulted, MemberRefused, Monitor
from coordinator.witnessing import Ledgers
from privacy.acceptance import verify_acceptance
from privacy.errors import BadSignature, RoundFailed
from privacy.identity import IdentityKey
from privacy.terms import Terms

__all__ = ["propose"]


def propose(
    terms: Terms,
    grid: Grid,
    monitor: Monitor,
    deadlines: Deadlines,
    *,
    ledgers: Ledgers | None = None,
    admissions: bytes = b"",
) -> dict[int, str]:
    """Asks every member that is present to accept terms; where enough did before, nobody is asked.

    Args:
        terms: exactly these; any change is another proposal.
        grid: the link, or Flower's simulation.
        monitor: is told who refuses.
        deadlines: how long members are waited for.
        ledgers: where acceptances are recorded; None under simulation.
        admissions: members' vouches for each other, `privacy.admission.Admissions`.

    Returns:
        By node id, the names of members that accepted.

    Raises:
        RoundFailed: if fewer than N - D did.
    """
    if ledgers is not None:
        accepted = _accepted_before(terms, grid, ledgers)
        if len(accepted) >= terms.privacy.least_survivors:
            return accepted
        ledgers.evidence.proposed(terms)
    everybody = [entry.name for entry in terms.roster]
    _assemble(grid, everybody, timeout_s=deadlines.assemble_s)
    content = RecordDict(
        {
            "task": ConfigRecord({"study": terms.label, "round": 0, "attempt": 1}),
            "terms": ConfigRecord({"document": terms.model_dump_json()}),
            "admissions": ConfigRecord({"vouches": admissions}),
        }
    )
    messages = [
        grid.create_message(content, "train.propose", node_id, "0")
        for node_id in grid.get_node_ids()
    ]
    names: dict[int, str] = {}
    for message, reply in _paired(
        messages, grid.send_and_receive(messages, timeout=terms.deadlines.propose_s)
    ):
        node_id = message.metadata.dst_node_id
        if reply.has_error():
            if not isinstance(grid, LinkGrid):  # the link's service has reported it
                reason = reply.error.reason or f"error {reply.error.code}"
                monitor.emit(MemberRefused(str(node_id), "propose", reason))
            continue
        record = reply.content.get("acceptance")
        try:
            if not isinstance(record, ConfigRecord) or record.get("terms_hash") != terms.hash:
                raise BadSignature("it is not one of these terms")
            name = str(record.get("member"))
            if isinstance(grid, LinkGrid):
                name = grid.member(node_id)
            if ledgers is not None:
                _record(terms, name, record, ledgers)
        except BadSignature as error:
            monitor.emit(MemberFaulted(str(node_id), f"its acceptance is not its own: {error}"))
            continue
        names[node_id] = name
    least = terms.privacy.least_survivors
    if len(names) < least:
        raise RoundFailed(
            f"study {terms.study}: {len(names)} members accepted the terms, "
            f"{least} are needed; the events above say who came and who refused"
        )
    return names


def _accepted_before(terms: Terms, grid: Grid, ledgers: Ledgers) -> dict[int, str]:
    """Who signed exactly these terms before this coordinator started, as its log says."""
    if not isinstance(grid, LinkGrid):
        return {}
    names = {}
    for name, (ledger_key, signature) in ledgers.evidence.told(terms).acceptances.items():
        ledgers.mirror.open(name, ledger_key, signature)
        names[grid.node_id(name)] = name
    return names


def _record(terms: Terms, name: str, acceptance: ConfigRecord, ledgers: Ledgers) -> None:
    """Records a signed acceptance and opens the ledger it names.

    Raises:
        BadSignature: if it is not signed by the member's identity.
    """
    ledger_key, signature = acceptance.get("ledger_key"), acceptance.get("signature")
    if not isinstance(ledger_key, str) or not isinstance(signature, bytes):
        raise BadSignature("it is not signed")
    verify_acceptance(terms, member=name, ledger_key=ledger_key, signature=signature)
    ledgers.evidence.accepted(terms, name, ledger_key, signature)
    ledgers.mirror.open(name, IdentityKey(ledger_key), signature)


def _assemble(grid: Grid, members: list[str], *, timeout_s: float) -> None:
    """Waits until all members are there or the time is up."""
    if isinstance(grid, LinkGrid):
        grid.assemble(members, least=len(members), timeout_s=timeout_s)
        return
    until_s = time.monotonic() + timeout_s
    while len(list(grid.get_node_ids())) < len(members) and time.monotonic() < until_s:
        time.sleep(0.05)


def _paired(
    messages: list[Message], replies: Iterable[Message]
) -> Iterable[tuple[Message, Message]]:
    """Each reply with the message it answers."""
    sent = {message.metadata.message_id: message for message in messages}
    for reply in replies:
        yield sent[reply.metadata.reply_to_message_id], reply
