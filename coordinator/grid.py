"""Flower's Grid over the alliance link: Messages on one side, tasks on streams on the other."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from flwr.app import ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from coordinator.exchange import Absent, Answered, Check, Outcome, Outgoing
from coordinator.round import Contribution, Round
from coordinator.service import ExchangeService
from privacy.errors import LinkError
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import TaskKey, array_bytes, decode, encode, message_of
from protos.limits import LIMITS

__all__ = [
    "ABSENT_CODE",
    "COORDINATOR_NODE_ID",
    "UNHEARD_CODE",
    "Expectation",
    "LinkGrid",
    "task_key",
]

COORDINATOR_NODE_ID: Final = 1
ABSENT_CODE: Final = 404
"""Flower error code of a member that did not answer in time."""
UNHEARD_CODE: Final = 409
"""Of one that was not given its time: its turn had not come, or the task was over without it."""
DEFAULT_TIMEOUT_S: Final = 3600.0


def task_key(message: Message) -> TaskKey:
    """The task a message is, from its ``task`` record and its type.

    Raises:
        LinkError: if the message has no such record.
    """
    record = message.content.get("task")
    if not isinstance(record, ConfigRecord):
        raise LinkError("a message for the link needs a config record named task")
    study, round_number, attempt = record["study"], record["round"], record["attempt"]
    if not (isinstance(study, str) and isinstance(round_number, int) and isinstance(attempt, int)):
        raise LinkError("the task record names study (text), round and attempt (integers)")
    return TaskKey(study, round_number, attempt, message.metadata.message_type.partition(".")[2])


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the answers to one task are, and how long they are waited for.

    Args:
        least: answers that are enough.
        round: where contributions go as their chunks arrive; None for answers without arrays.
        patience_s: how long the others are waited for then; None if nobody is hurried.
        needed: whether fewer are of no use.
        check: is given each answer without arrays as it arrives, on the service's loop.
    """

    least: int = 0
    round: Round | None = None
    patience_s: float | None = None
    needed: bool = False
    check: Check | None = None


class LinkGrid(Grid):
    """Carries a ServerApp's messages over the link.

    Called from the ServerApp's thread; everything that touches streams or rounds is handed to the
    service's event loop.

    Args:
        service: keeps the members' streams.
        loop: the event loop the service runs on.
        node_ids: Flower node id by member name.
        reconnect_s: how long a member whose stream broke is waited for, as the terms say.
    """

    def __init__(
        self,
        service: ExchangeService,
        loop: asyncio.AbstractEventLoop,
        node_ids: Mapping[str, int],
        *,
        reconnect_s: float | None = None,
    ) -> None:
        self._service = service
        self._reconnect_s = reconnect_s
        self._loop = loop
        self._names = {node_id: name for name, node_id in node_ids.items()}
        self._run = Run.create_empty(run_id=secrets.randbits(63))
        self._expected: dict[TaskKey, Expectation] = {}
        self._pushed: dict[str, tuple[Message, Future[dict[str, Outcome]]]] = {}

    def expect(self, key: TaskKey, expectation: Expectation) -> None:
        """Says what the answers to ``key`` will be, before its messages are sent."""
        self._expected[key] = expectation

    def set_run(self, run: Run) -> None:
        """Sets the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message from the coordinator to one member."""
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id=secrets.token_hex(16),
            src_node_id=COORDINATOR_NODE_ID,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=time.time(),
            ttl=DEFAULT_TIMEOUT_S if ttl is None else ttl,
            message_type=message_type,
        )
        return message_of(content, metadata)

    def get_node_ids(self) -> list[int]:
        """Node ids of the members whose stream is up."""
        connected = set(self._service.connected)
        return [node_id for node_id, name in self._names.items() if name in connected]

    def member(self, node_id: int) -> str:
        """The member behind a node id.

        Raises:
            LinkError: if there is none.
        """
        if node_id not in self._names:
            raise LinkError(f"node {node_id} is not a member of this alliance")
        return self._names[node_id]

    def node_id(self, member: str) -> int:
        """The node id of a member.

        Raises:
            LinkError: if there is none.
        """
        for node_id, name in self._names.items():
            if name == member:
                return node_id
        raise LinkError(f"{member} is not a member of this alliance")

    def assemble(self, members: Collection[str], *, least: int, timeout_s: float) -> list[str]:
        """Waits until ``least`` of ``members`` are connected or the time is up; who is."""
        waiting = self._service.assemble(members, least=least, timeout_s=timeout_s)
        return asyncio.run_coroutine_threadsafe(waiting, self._loop).result()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Sends messages and waits for the replies; who does not answer yields an error reply."""
        sent = list(messages)
        pending = self._push(sent, DEFAULT_TIMEOUT_S if timeout is None else timeout)
        return [self._reply(message, future.result()) for message, future in pending]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages; `pull_messages` has the replies once their task is over."""
        pushed = {
            message.metadata.message_id: (message, future)
            for message, future in self._push(list(messages), DEFAULT_TIMEOUT_S)
        }
        self._pushed |= pushed
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there; each is handed out once."""
        done = [
            name for name in message_ids if name in self._pushed and self._pushed[name][1].done()
        ]
        replies = []
        for name in done:
            message, future = self._pushed.pop(name)
            replies.append(self._reply(message, future.result()))
        return replies

    def _push(
        self, messages: list[Message], timeout_s: float
    ) -> list[tuple[Message, Future[dict[str, Outcome]]]]:
        """Opens one exchange per task; equal contents are encoded once."""
        tasks: dict[TaskKey, dict[str, Outgoing]] = {}
        encoded: dict[int, Outgoing] = {}
        for message in messages:
            member = self.member(message.metadata.dst_node_id)
            outgoing = encoded.get(id(message.content))
            if outgoing is None:
                outgoing = Outgoing(encode(message.content), array_bytes(message.content))
                if outgoing.content.ByteSize() > LIMITS.chunk_bytes:
                    raise LinkError(
                        f"{task_key(message)}: {outgoing.content.ByteSize()} bytes do not fit a "
                        "frame; shorten the contract or the roster"
                    )
                encoded[id(message.content)] = outgoing
            tasks.setdefault(task_key(message), {})[member] = outgoing
        exchanges = {
            key: asyncio.run_coroutine_threadsafe(
                self._service.exchange(
                    key,
                    group,
                    timeout_s=timeout_s,
                    round_=(expected := self._expected.pop(key, Expectation())).round,
                    least=expected.least,
                    patience_s=expected.patience_s,
                    needed=expected.needed,
                    reconnect_s=self._reconnect_s,
                    check=expected.check,
                ),
                self._loop,
            )
            for key, group in tasks.items()
        }
        return [(message, exchanges[task_key(message)]) for message in messages]

    def _reply(self, message: Message, outcomes: Mapping[str, Outcome]) -> Message:
        member = self.member(message.metadata.dst_node_id)
        outcome = outcomes[member]
        if isinstance(outcome, Answered):
            return Message(_content(outcome.content), reply_to=message)
        if isinstance(outcome, Absent):
            code = ABSENT_CODE if outcome.late else UNHEARD_CODE
            return Message(Error(code, f"{member} did not answer in time"), reply_to=message)
        return Message(Error(outcome.code, outcome.sentence), reply_to=message)


def _content(answer: wire.Content | Contribution) -> RecordDict:
    """An answer for the strategy; a contribution has been added, its receipt is what is left."""
    if isinstance(answer, Contribution):
        receipt = ConfigRecord({"size_bytes": answer.size_bytes, "sha256": answer.sha256})
        return RecordDict({"receipt": receipt})
    return decode(answer)
