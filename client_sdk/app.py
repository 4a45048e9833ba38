"""The node as a Flower ClientApp; the same app runs on the link and under simulation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from client_sdk.contribution import contribution
from client_sdk.guard import (
    SILENT,
    accepted_terms,
    attempt_of,
    body_of,
    guard,
    key_sets_of,
    parameters,
    round_of,
)
from client_sdk.journal import too_many_studies, unknown_terms
from client_sdk.node import Node
from client_sdk.recipes.catalogue import contribute_of
from client_sdk.session import Answer, Answerer
from client_sdk.witnessing import Witnessing
from privacy.budget import StudySpend
from privacy.errors import RequestRefusal
from privacy.identity import IdentityKey
from privacy.secagg import MaskingMember, Signed
from privacy.terms import Terms, TermsHash
from protos.alliance.v1 import exchange_pb2 as wire
from protos.codec import (
    ArraySpec,
    TaskKey,
    array_bytes,
    array_to_flower,
    decode,
    encode,
    message_of,
)
from protos.logs import adopt, log

__all__ = ["RecordJournal", "answerer", "make_client_app"]


def make_client_app(node_of: Callable[[Context], Node]) -> ClientApp:
    """The ClientApp of the nodes that ``node_of`` finds.

    Every message passes the guard first: what the handlers below see was agreed to and reserved.
    """
    app = ClientApp(mods=[])
    stand_guard = guard(node_of)

    @app.train("propose", mods=[stand_guard])
    def propose(message: Message, context: Context) -> Message:
        """Accepts terms that the guard found approved; says so if a person has to decide."""
        node = node_of(context)
        waits = message.content.config_records["waits"]
        if waits["sentence"]:
            return Message(RecordDict({"waiting": waits}), reply_to=message)
        terms = Terms.from_json(str(message.content.config_records["terms"]["document"]))
        acceptance = ConfigRecord({"member": node.entry.name, "terms_hash": terms.hash})
        ledger_key, signature = node.consents.accept(terms)
        if ledger_key is not None:
            acceptance["ledger_key"], acceptance["signature"] = ledger_key, signature
        node.enrolment(terms)  # now, so that no attempt's time tells how many there are
        contribute_of(terms.recipe)  # now, because loading what it needs takes seconds
        node.model(terms)
        return Message(RecordDict({"acceptance": acceptance}), reply_to=message)

    @app.train("contribute", mods=[stand_guard])
    def contribute(message: Message, context: Context) -> Message:
        """One private sum over this member's consumers."""
        node = node_of(context)
        terms = accepted_terms(node, message)
        vector = contribution(terms, node, parameters(message, terms))
        content = RecordDict()
        signature, key_set = b"", 0
        if node.identity is None:
            sha256 = hashlib.sha256(vector.data).digest()
        else:
            _expect_time(message, terms.deadlines.contribute_s)
            asked, masking = attempt_of(message), node.masking(terms)
            signature, key_set = masking.mask(asked, vector), asked.key_set
            sha256 = masking.masked_hash(asked)
            content["signed"] = ConfigRecord({"signature": signature})
        number, attempt = round_of(message)
        node.journal.use(
            terms,
            round_number=number,
            attempt=attempt,
            key_set=key_set,
            sha256=sha256.hex(),
            signature=signature,
        )
        if node.identity is not None and terms.privacy.dropouts == 0:
            revealed = node.masking(terms).unmask_at_once(attempt_of(message))
            content["revealed"] = _record(revealed)
            node.noise.prepare(terms.dimension)
        content["contribution"] = ArrayRecord({"sum": array_to_flower(vector)})
        return Message(content, reply_to=message)

    @app.train("advertise", mods=[stand_guard])
    def advertise(message: Message, context: Context) -> Message:
        """Makes keys for coming attempts."""
        return _signed(message, _masking(message, context).advertise(key_sets_of(message)))

    @app.train("share", mods=[stand_guard])
    def share(message: Message, context: Context) -> Message:
        """Deals shares of their secrets."""
        masking = _masking(message, context)
        return _signed(message, masking.share(key_sets_of(message), body_of(message)))

    @app.train("deliver", mods=[stand_guard])
    def deliver(message: Message, context: Context) -> Message:
        """Takes the cohort and the shares that others dealt."""
        masking = _masking(message, context)
        return _signed(message, masking.deliver(key_sets_of(message), body_of(message)))

    @app.train("reserve", mods=[stand_guard])
    def reserve(message: Message, context: Context) -> Message:
        """Reserves coming attempts and shows this member's head."""
        return _witnessed(message, context, Witnessing.reserve)

    @app.train("witness", mods=[stand_guard])
    def witness(message: Message, context: Context) -> Message:
        """Cosigns others' heads."""
        return _witnessed(message, context, Witnessing.witness)

    @app.train("grant", mods=[stand_guard])
    def grant(message: Message, context: Context) -> Message:
        """Takes the cosigned head that lets reserved attempts be spent, and receipts."""
        return _witnessed(message, context, Witnessing.grant)

    def _witnessed(
        message: Message, context: Context, answer: Callable[[Witnessing, Terms, bytes], bytes]
    ) -> Message:
        node = node_of(context)
        if node.witnessing is None:
            raise RequestRefusal("this node keeps no ledger that others could witness")
        body = answer(node.witnessing, accepted_terms(node, message), body_of(message))
        return _signed(message, Signed(body, b""))

    @app.train("confirm", mods=[stand_guard])
    def confirm(message: Message, context: Context) -> Message:
        """Signs who is in the sum."""
        masking = _masking(message, context)
        signature = masking.confirm(masking.contributed(attempt_of(message)), body_of(message))
        return _signed(message, Signed(b"", signature))

    @app.train("unmask", mods=[stand_guard])
    def unmask(message: Message, context: Context) -> Message:
        """Reveals what removes the masks from the sum."""
        node = node_of(context)
        terms = accepted_terms(node, message)
        masking = node.masking(terms)
        attempt = masking.contributed(attempt_of(message))
        answer = _signed(message, masking.unmask(attempt, body_of(message)))
        node.noise.prepare(terms.dimension)  # while the coordinator works on the sum
        return answer

    def _masking(message: Message, context: Context) -> MaskingMember:
        node = node_of(context)
        return node.masking(accepted_terms(node, message))

    @app.train("publish", mods=[stand_guard])
    def publish(message: Message, context: Context) -> Message:
        """Keeps a published model for local scoring."""
        node = node_of(context)
        terms = accepted_terms(node, message)
        node.keep_model(terms, parameters(message, terms))
        node.forget(terms)
        node.journal.finish(terms, "its model was published")
        return Message(RecordDict({"kept": ConfigRecord({"kept": True})}), reply_to=message)

    @app.train("stop", mods=[stand_guard])
    def stop(message: Message, context: Context) -> Message:
        """Ends a study here: what was earmarked for it and never reserved is free again."""
        node = node_of(context)
        terms_hash = TermsHash(str(message.content.config_records["terms"]["terms_hash"]))
        if node.proposals is not None:
            node.proposals.forget(terms_hash)
        try:
            terms = accepted_terms(node, message)
        except RequestRefusal:  # it was never accepted here
            return Message(RecordDict({"over": ConfigRecord({"over": False})}), reply_to=message)
        node.forget(terms)
        node.journal.finish(terms, "its operator stopped it")
        return Message(RecordDict({"over": ConfigRecord({"over": True})}), reply_to=message)

    return app


def _signed(message: Message, signed: Signed) -> Message:
    return Message(RecordDict({"signed": _record(signed)}), reply_to=message)


def _record(signed: Signed) -> ConfigRecord:
    return ConfigRecord({"body": signed.body, "signature": signed.signature})


def _expect_time(message: Message, longest_s: float) -> None:
    """Called before anything is used up: what nobody waits for is not masked, nor recorded as made.

    How long the work took says nothing of the data: batches have a public shape (rule R4).

    Raises:
        RequestRefusal: if the message's time is over.
    """
    metadata = message.metadata
    if time.time() > metadata.created_at + min(metadata.ttl, longest_s):
        raise RequestRefusal("the attempt's time was over before this member was ready")


def answerer(app: ClientApp, context: Context) -> Answerer:
    """Answers tasks of the link with a ClientApp, its node's state in ``context``."""

    def answer(key: TaskKey, task: wire.Task, arrays: list[tuple[ArraySpec, bytes]]) -> Answer:
        metadata = Metadata(
            run_id=context.run_id,
            message_id=str(key),
            src_node_id=1,
            dst_node_id=context.node_id,
            reply_to_message_id="",
            group_id=str(key.round),
            created_at=time.time(),
            ttl=task.deadline_ms / 1000,
            message_type=f"train.{key.phase}",
        )
        try:
            message = message_of(decode(task.content, arrays), metadata)
            reply = app(message, context)
            if not reply.has_error():
                return Answer(encode(reply.content), array_bytes(reply.content))
            refusal = (reply.error.code, reply.error.reason or SILENT[1])
        except Exception as error:
            log("TaskUnanswered", error=error, task=str(key))
            refusal = SILENT
        return Answer(wire.Content(), [], refusal)

    return answer


class RecordJournal:
    """A journal in Flower's ``context.state``, where a simulated member's state lives.

    It has no ledger: nobody vouches for it, and it knows no budget over several studies.

    Args:
        state: the node's state; survives between its messages, dies with the simulation.
    """

    ledger_key: IdentityKey | None = None

    def __init__(self, state: RecordDict) -> None:
        self._state = state

    def approve(
        self, terms: Terms, *, profile: Mapping[int, float], most_studies: int, signature: bytes
    ) -> None:
        """See `Journal.approve`."""
        if terms.hash not in self._state:
            accepted = sum(isinstance(item, ConfigRecord) for item in self._state.values())
            if accepted >= most_studies:
                raise too_many_studies(accepted)
            self._state[terms.hash] = ConfigRecord({"document": terms.model_dump_json()})
            self._keep(StudySpend(terms.privacy.rounds, terms.privacy.max_attempts), terms)

    def consented(self, terms: Terms) -> bool:
        """See `Journal.consented`."""
        if terms.hash not in self._state:
            return False
        self._spend(terms).expect_open()
        return True

    def terms(self, terms_hash: TermsHash) -> Terms:
        """See `Journal.terms`."""
        return Terms.from_json(str(self._record(terms_hash)["document"]))

    def reserve(self, terms: Terms, *, ahead: int) -> int:
        """See `Journal.reserve`."""
        spend = self._spend(terms)
        unused = spend.reserved - spend.used
        wanted = min(ahead - unused, spend.unreserved)
        if wanted > 0 or unused == 0 or spend.finished:
            self._keep(spend.reserve(spend.reserved + 1, max(wanted, 1)), terms)
        return 0

    def grant(self, terms: Terms, *, size: int) -> None:
        """See `Journal.grant`."""

    def check(self, terms: Terms, *, round_number: int, attempt: int) -> None:
        """See `Journal.check`."""
        spend = self._spend(terms)
        spend.use(round_number=round_number, attempt=attempt, number=spend.used + 1)

    def use(
        self,
        terms: Terms,
        *,
        round_number: int,
        attempt: int,
        key_set: int,
        sha256: str,
        signature: bytes,
    ) -> None:
        """See `Journal.use`."""
        spend = self._spend(terms)
        self._keep(
            spend.use(round_number=round_number, attempt=attempt, number=spend.used + 1), terms
        )

    def finish(self, terms: Terms, sentence: str) -> None:
        """See `Journal.finish`."""
        spend = self._spend(terms)
        if not spend.finished:
            self._keep(spend.finish(), terms)

    def refuse(self, terms_hash: str, task: str, sentence: str) -> None:
        """See `Journal.refuse`: there is no log."""

    def _record(self, terms_hash: str) -> ConfigRecord:
        record = self._state.get(terms_hash)
        if not isinstance(record, ConfigRecord):
            raise unknown_terms(terms_hash)
        return record

    def _spend(self, terms: Terms) -> StudySpend:
        numbers = self._record(terms.hash)["spend"]
        if not isinstance(numbers, list):
            raise unknown_terms(terms.hash)
        rounds, attempts, reserved, used, made, last_round, last_attempt, over = map(int, numbers)
        return StudySpend(
            rounds, attempts, reserved, used, made, last_round, last_attempt, bool(over)
        )

    def _keep(self, spend: StudySpend, terms: Terms) -> None:
        self._record(terms.hash)["spend"] = [int(number) for number in astuple(spend)]


adopt("flwr")
