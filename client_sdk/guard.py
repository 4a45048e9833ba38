"""The guard: a Flower mod that stands between every message and a member's data.

Checks, numbered as in the code; whatever fails is answered with a refusal whose words depend on
public inputs only (rule R4):
 (1) the message asks for something this node does: propose, publish, stop, or a phase of a private
     sum;
 (2) proposed terms are well-formed, fit grid and recipe, name this member as it declared itself,
     and a roster of members it knows, or that enough of those vouch for, as the policy demands; its
     rules approve them by its own projection, or a person did, or they wait for one (`consent`);
 (3) a contribution is asked for under terms accepted here, for the study they name;
 (4) the public state has the terms' shape and is finite (the guarantee holds for every such one);
 (5) the attempt has a key set that is ready and unused, so that nothing leaves unmasked;
 (6) the attempt is reserved, durably, before the handler may touch data; the handler records what
     it made before a byte leaves.

What secure aggregation itself demands of a message, `privacy.secagg.MaskingMember` checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from client_sdk.node import Node
from client_sdk.session import MALFORMED
from privacy.errors import (
    AllianceError,
    BudgetRefusal,
    LinkError,
    PolicyRefusal,
    RecipeError,
    RequestRefusal,
    TermsError,
)
from privacy.secagg import Attempt, KeySets, model_hash
from privacy.terms import PHASES_AHEAD, Terms, TermsHash
from protos.codec import flower_to_array
from protos.logs import log

__all__ = [
    "REFUSALS",
    "accepted_terms",
    "attempt_of",
    "body_of",
    "guard",
    "key_sets_of",
    "parameters",
    "round_of",
]

REFUSALS: Final[dict[type[AllianceError], int]] = {
    PolicyRefusal: 1,
    BudgetRefusal: 2,
    RequestRefusal: 3,
    TermsError: 4,
    LinkError: MALFORMED,
    RecipeError: 6,
}
"""Errors whose words depend on public inputs only and may leave, with their codes."""

AHEAD_ACTIONS: Final = tuple(f"train.{phase}" for phase in PHASES_AHEAD)

SILENT: Final = (99, "this member cannot answer; its own log says why")
"""All that is said of any other error."""


def guard(node_of: Callable[[Context], Node]) -> Mod:
    """The mod for nodes found by ``node_of``."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        node = node_of(context)
        try:
            _check(node, message)
            return call_next(message, context)
        except tuple(REFUSALS) as error:
            log("TaskRefused", task=message.metadata.message_type, sentence=str(error))
            _record(node, message, error)
            code = next(code for kind, code in REFUSALS.items() if isinstance(error, kind))
            return Message(Error(code, str(error)), reply_to=message)
        except Exception as error:
            log("TaskUnanswered", error=error, task=message.metadata.message_type)
            return Message(Error(*SILENT), reply_to=message)

    return mod


def accepted_terms(node: Node, message: Message) -> Terms:
    """The terms a message works under, as accepted by this node earlier.

    Raises:
        RequestRefusal: if it names none, or terms that were not accepted, or another study.
    """
    terms_hash = _config(message, "terms").get("terms_hash")
    if not isinstance(terms_hash, str):
        raise RequestRefusal("the message names no terms hash")
    terms = node.journal.terms(TermsHash(terms_hash))
    study = _config(message, "task").get("study")
    if study != terms.label:
        raise RequestRefusal(f"terms {terms_hash[:12]} are of {terms.label}, not {study!r:.80}")
    return terms


def parameters(message: Message, terms: Terms) -> npt.NDArray[np.float32]:
    """The public state of a message: float32, shape (dimension,).

    Raises:
        RequestRefusal: if it is missing, not finite, or of another dtype or shape.
    """
    record = message.content.get("model")
    if not isinstance(record, ArrayRecord) or list(record) != ["parameters"]:
        raise RequestRefusal("the message must carry exactly one array, model.parameters")
    array = flower_to_array(record["parameters"])
    if array.dtype != np.float32 or array.shape != (terms.dimension,):
        raise RequestRefusal(
            f"model.parameters is {array.dtype} of shape {array.shape}, the terms say float32 of "
            f"shape ({terms.dimension},)"
        )
    if not np.isfinite(array).all():
        raise RequestRefusal("model.parameters holds a value that is not finite")
    return array.astype(np.float32, copy=False)


def key_sets_of(message: Message) -> KeySets:
    """The run of key sets a message is about.

    Raises:
        RequestRefusal: if it names none.
    """
    return KeySets(*_integers(message, "keys", "first", "count"))


def attempt_of(message: Message) -> Attempt:
    """The attempt a message is about, with the model's hash as the guard worked it out, or empty.

    Raises:
        RequestRefusal: if it names none.
    """
    (key_set,) = _integers(message, "keys", "key_set")
    number, attempt = round_of(message)
    record = message.content.get("model_hash")
    model = record.get("sha256") if isinstance(record, ConfigRecord) else b""
    return Attempt(key_set, number, attempt, model if isinstance(model, bytes) else b"")


def round_of(message: Message) -> tuple[int, int]:
    """The round and attempt a message is about.

    Raises:
        RequestRefusal: if it names none.
    """
    number, attempt = _integers(message, "task", "round", "attempt")
    return number, attempt


def body_of(message: Message) -> bytes:
    """The body of a message of secure aggregation.

    Raises:
        RequestRefusal: if it has none.
    """
    body = _config(message, "keys").get("body")
    if not isinstance(body, bytes):
        raise RequestRefusal("the message has no body")
    return body


def _record(node: Node, message: Message, error: AllianceError) -> None:
    """Puts a refusal into the member's own log; whether that works changes no answer."""
    terms = message.content.get("terms")
    terms_hash = terms.get("terms_hash") if isinstance(terms, ConfigRecord) else None
    try:
        node.journal.refuse(
            terms_hash if isinstance(terms_hash, str) else "",
            message.metadata.message_type,
            str(error),
        )
    except AllianceError as failure:
        log("RefusalUnrecorded", error=failure)


def _check(node: Node, message: Message) -> None:
    action = message.metadata.message_type
    if action == "train.propose":
        _check_proposal(node, message)
    elif action == "train.contribute":
        terms = accepted_terms(node, message)  # (3)
        model = model_hash(parameters(message, terms))  # (4)
        message.content["model_hash"] = ConfigRecord({"sha256": model})
        if node.identity is not None:  # (5)
            node.masking(terms).check(attempt_of(message))
        number, attempt = round_of(message)
        if node.witnessing is None:  # nobody vouches for a log that does not exist
            node.journal.grant(terms, size=node.journal.reserve(terms, ahead=1))
        node.journal.check(terms, round_number=number, attempt=attempt)  # (6)
    elif action == "train.publish":
        parameters(message, accepted_terms(node, message))
    elif action == "train.stop":
        if not isinstance(_config(message, "terms").get("terms_hash"), str):
            raise RequestRefusal("the message names no terms hash")
    elif action in ("train.confirm", "train.unmask", *AHEAD_ACTIONS):
        node.masking(accepted_terms(node, message))
    else:  # (1)
        raise RequestRefusal(
            f"this node does not do {action!r:.80}; update it, if its coordinator is newer"
        )


def _check_proposal(node: Node, message: Message) -> None:
    document = _config(message, "terms").get("document")
    if not isinstance(document, str):
        raise RequestRefusal("the proposal carries no terms")
    terms = Terms.from_json(document)  # (2)
    vouches = message.content.get("admissions")
    admissions = vouches.get("vouches") if isinstance(vouches, ConfigRecord) else b""
    waits = node.consents.weigh(terms, admissions if isinstance(admissions, bytes) else b"")
    message.content["waits"] = ConfigRecord({"sentence": waits})


def _config(message: Message, name: str) -> ConfigRecord:
    record = message.content.get(name)
    if not isinstance(record, ConfigRecord):
        raise RequestRefusal(f"the message has no {name} record")
    return record


def _integers(message: Message, record: str, *names: str) -> tuple[int, ...]:
    """Non-negative integers of 32 bits from one record."""
    values = [_config(message, record).get(name) for name in names]
    numbers = tuple(
        value
        for value in values
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
    )
    if len(numbers) != len(names):
        raise RequestRefusal(f"the message names no {' and '.join(names)}")
    return numbers
