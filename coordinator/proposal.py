"""A study's terms before its members: who accepted exactly these, who refused, who has yet to say.

Asking spends nothing and may be repeated for as long as a study lives: members that come late, or
whose people take days to decide, join the study from the next key exchange on. What is accepted is
the terms' hash, so any change is another proposal, and nobody is asked for a contribution under
terms that it did not sign.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from coordinator.evidence import Evidence
from coordinator.grid import ABSENT_CODE, UNHEARD_CODE, Expectation, LinkGrid, task_key
from coordinator.mirror import Mirror
from coordinator.monitor import MemberFaulted, MemberRefused, MemberWaits, Monitor
from coordinator.store import Answer
from privacy.acceptance import verify_acceptance
from privacy.errors import BadSignature
from privacy.identity import IdentityKey
from privacy.terms import Terms

__all__ = ["Proposal"]

ASK_S: Final = 1.0
"""Between two questions to a member whose people have yet to decide."""
ASK_BYTES_PER_S: Final = 1 << 20
"""Such questions take no more of the link than this, however many members wait."""
REFUSED_S: Final = 300.0
"""Until a member that refused is asked again; it is as soon as it connects anew."""
GRACE_S: Final = 10.0
"""For the other members, once one has answered a question that was put to several."""

Note = Callable[[str, Answer, str], None]
"""Keeps a member's answer: name, answer, in its words."""


class Proposal:
    """One study's terms, and what members say to them. Safe to use from several threads.

    Args:
        terms: exactly these.
        monitor: is told who refuses and who waits for a person.
        admissions: members' vouches for each other, `privacy.admission.Admissions`.
        evidence: where acceptances are recorded; None under simulation.
        note: keeps answers for the operator's eyes.
    """

    def __init__(
        self,
        terms: Terms,
        monitor: Monitor,
        *,
        admissions: Callable[[Terms], bytes] = lambda _: b"",
        evidence: Evidence | None = None,
        note: Note = lambda name, answer, sentence: None,
    ) -> None:
        self.terms = terms
        self._monitor = monitor
        self._admissions = admissions
        self._evidence = evidence
        self._note = note
        self._lock = threading.Lock()
        self._mirror: Mirror | None = None
        self._answers: dict[str, Answer] = {}
        self._next_s: dict[str, float] = {}
        self.nodes: dict[int, str] = {}
        """Members that accepted, by Flower node id."""
        before = evidence.told(terms).acceptances if evidence is not None else {}
        self._answers.update(dict.fromkeys(before, Answer.ACCEPTED))
        self.accepted_before = frozenset(before)
        """Who signed exactly these terms before this coordinator started, as its log says."""

    @property
    def accepted(self) -> frozenset[str]:
        """Members that accepted exactly these terms."""
        with self._lock:
            return frozenset(
                name for name, answer in self._answers.items() if answer is Answer.ACCEPTED
            )

    @property
    def heard(self) -> bool:
        """Whether every member of the roster has said something."""
        with self._lock:
            return all(entry.name in self._answers for entry in self.terms.roster)

    @property
    def enough(self) -> bool:
        """Whether as many accepted as a sum needs."""
        return len(self.accepted) >= self.terms.privacy.least_survivors

    def shortage(self) -> str:
        """Who is missing for the study to begin, in a sentence."""
        with self._lock:
            said = {
                answer: [name for name, one in self._answers.items() if one is answer]
                for answer in Answer
            }
        least = self.terms.privacy.least_survivors
        accepted = len(said[Answer.ACCEPTED])
        parts = [f"{accepted} members accepted the terms, {least} are needed"]
        if said[Answer.WAITING]:
            parts.append(f"people have yet to decide at {', '.join(sorted(said[Answer.WAITING]))}")
        if said[Answer.REFUSED]:
            parts.append(f"refused by {', '.join(sorted(said[Answer.REFUSED]))}")
        silent = [one.name for one in self.terms.roster if one.name not in self._answers]
        if silent:
            parts.append(f"not heard of: {', '.join(silent[:10])}")
        return "; ".join(parts)

    def open_logs(self, mirror: Mirror) -> None:
        """From now on the logs of all that accepted, or will, are open in ``mirror``."""
        with self._lock:
            self._mirror = mirror
        if self._evidence is not None:
            for name, (key, signature) in dict(self._evidence.told(self.terms).acceptances).items():
                mirror.open(name, key, signature)

    def came(self, member: str) -> None:
        """A member connected anew: it is asked again, unless it accepted."""
        with self._lock:
            self._next_s.pop(member, None)

    def due(self, grid: Grid, now_s: float) -> list[int]:
        """Node ids of those present that are to be asked now.

        Args:
            grid: the link, or Flower's simulation.
            now_s: of a clock that never goes back.
        """
        found = []
        with self._lock:
            for node_id in grid.get_node_ids():
                name = grid.member(node_id) if isinstance(grid, LinkGrid) else str(node_id)
                done = self._answers.get(name) is Answer.ACCEPTED or node_id in self.nodes
                if not done and self._next_s.get(name, now_s) <= now_s:
                    found.append(node_id)
        return found

    def gather(self, grid: Grid, timeout_s: float) -> None:
        """Under simulation: waits for all members or until the time is up, and asks them."""
        until_s = time.monotonic() + timeout_s
        size = len(self.terms.roster)
        while len(list(grid.get_node_ids())) < size and time.monotonic() < until_s:
            time.sleep(0.05)
        self.ask(grid, list(grid.get_node_ids()))

    def ask(self, grid: Grid, node_ids: Iterable[int]) -> None:
        """Asks members to accept the terms, and records who does."""
        if self._evidence is not None:
            self._evidence.proposed(self.terms)
        document = self.terms.model_dump_json()
        content = RecordDict(
            {
                # A number that no member answers from what it kept of another question.
                "task": ConfigRecord(
                    {"study": self.terms.label, "round": 0, "attempt": secrets.randbits(31)}
                ),
                "terms": ConfigRecord({"document": document}),
                "admissions": ConfigRecord({"vouches": self._admissions(self.terms)}),
            }
        )
        messages = [
            grid.create_message(content, "train.propose", node_id, "0") for node_id in node_ids
        ]
        if isinstance(grid, LinkGrid) and messages:
            grid.expect(task_key(messages[0]), Expectation(least=1, patience_s=GRACE_S))
        replies = grid.send_and_receive(messages, timeout=self.terms.deadlines.propose_s)
        sent = {message.metadata.message_id: message for message in messages}
        wait_s = max(ASK_S, len(messages) * len(document) / ASK_BYTES_PER_S)
        for reply in replies:
            message = sent[reply.metadata.reply_to_message_id]
            self._take(grid, message.metadata.dst_node_id, reply, wait_s)

    def _take(self, grid: Grid, node_id: int, reply: Message, wait_s: float) -> None:
        """One member's answer."""
        linked = isinstance(grid, LinkGrid)
        name = grid.member(node_id) if isinstance(grid, LinkGrid) else str(node_id)
        if reply.has_error():
            absent = reply.error.code in (ABSENT_CODE, UNHEARD_CODE)
            reason = reply.error.reason or f"error {reply.error.code}"
            if not linked:  # the link's service has reported it
                self._monitor.emit(MemberRefused(name, "propose", reason))
            if not absent:
                self._set(name, Answer.REFUSED, reason)
            self._ask_in(name, wait_s if absent else REFUSED_S)
            return
        waiting = reply.content.get("waiting")
        if isinstance(waiting, ConfigRecord):
            self._set(name, Answer.WAITING, str(waiting.get("sentence", "")))
            self._ask_in(name, wait_s)
            return
        acceptance = reply.content.get("acceptance")
        try:
            if not isinstance(acceptance, ConfigRecord) or (
                acceptance.get("terms_hash") != self.terms.hash
            ):
                raise BadSignature("it is not one of these terms")
            if not linked:
                name = str(acceptance.get("member"))
            if self._evidence is not None:
                self._record(self._evidence, name, acceptance)
        except BadSignature as error:
            self._monitor.emit(MemberFaulted(name, f"its acceptance is not its own: {error}"))
            self._ask_in(name, REFUSED_S)
            return
        self.nodes[node_id] = name
        self._set(name, Answer.ACCEPTED, "")

    def _record(self, evidence: Evidence, name: str, acceptance: ConfigRecord) -> None:
        """Records a signed acceptance and opens the ledger it names.

        Raises:
            BadSignature: if it is not signed by the member's identity.
        """
        ledger_key, signature = acceptance.get("ledger_key"), acceptance.get("signature")
        if not isinstance(ledger_key, str) or not isinstance(signature, bytes):
            raise BadSignature("it is not signed")
        verify_acceptance(self.terms, member=name, ledger_key=ledger_key, signature=signature)
        evidence.accepted(self.terms, name, ledger_key, signature)
        if self._mirror is not None:
            self._mirror.open(name, IdentityKey(ledger_key), signature)

    def _set(self, name: str, answer: Answer, sentence: str) -> None:
        with self._lock:
            changed = self._answers.get(name) is not answer
            self._answers[name] = answer
        if changed:
            self._note(name, answer, sentence)
            if answer is Answer.WAITING:
                self._monitor.emit(MemberWaits(name, self.terms.label, sentence))

    def _ask_in(self, name: str, wait_s: float) -> None:
        with self._lock:
            self._next_s[name] = time.monotonic() + wait_s
