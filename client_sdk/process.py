"""The node's process: configuration to a running session."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import resource
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from client_sdk.canaries import read_canaries
from client_sdk.config import NodeConfig
from client_sdk.credentials import Credentials
from client_sdk.dataset import load
from client_sdk.hours import within
from client_sdk.node import Node
from client_sdk.proposals import Proposals
from client_sdk.recipes.catalogue import contribute_of
from client_sdk.recipes.model_file import find_model, save_model
from client_sdk.session import Session
from client_sdk.sqlite_journal import SqliteJournal
from client_sdk.witnessing import Witnessing
from privacy.contract_table import ContractFile
from privacy.documents import first_problem
from privacy.errors import (
    AllianceError,
    BudgetRefusal,
    ConfigurationError,
    DataError,
    LinkError,
)
from privacy.fixedpoint import SHARE_SCALE
from privacy.identity import Identity, IdentityKey
from privacy.noise import DiscreteGaussian
from privacy.sampling import enrolment_cap
from privacy.terms import LONGEST_PHASE_S, PHASES, DataContract, RosterEntry, Terms
from protos.codec import TaskKey
from protos.config import (
    make_key,
    read_config,
    read_config_or_explain,
    read_or_make_key,
    read_secret,
)
from protos.logs import log
from protos.memory import settle

__all__ = [
    "forbid_core_dumps",
    "ledger_path",
    "make_identity",
    "open_journal",
    "open_node",
    "own_entry",
    "read_contract",
    "serve",
]

LEFT_LOOK_S: Final = 2.0
"""How often a running node looks whether its member left."""


def read_contract(path: Path) -> DataContract:
    """A data contract from a JSON file, or from a study's TOML file.

    Raises:
        ConfigurationError: if the file cannot be read or holds no contract.
    """
    if path.suffix == ".toml":
        file = read_config_or_explain(path, ContractFile)
        return file.contract.contract(file.study)
    try:
        return DataContract.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {first_problem(error)}") from error


def own_entry(config: NodeConfig, identity: Identity) -> RosterEntry:
    """The member as it declares itself.

    Raises:
        ConfigurationError: if the declared count is not rounded to one digit.
    """
    try:
        return RosterEntry(
            name=config.member,
            identity=identity.public,
            declared_consumers=config.declared_consumers,
        )
    except ValidationError as error:
        raise ConfigurationError(f"node.toml: {first_problem(error)}") from error


def forbid_core_dumps() -> None:
    """Keeps round secrets out of core dumps; call before anything secret is read.

    The kernel takes a limit of one byte for "no dump, not even to a program that collects them".
    """
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    least = 1 if hard != 0 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))


def make_identity(path: Path) -> IdentityKey:
    """Makes an identity and writes its private half where only its owner may read it.

    Returns:
        The public half, as the roster names it.

    Raises:
        ConfigurationError: if the file is there already or cannot be written.
    """
    return make_key(path).public


def ledger_path(config: NodeConfig) -> Path:
    """Where this member's ledger is."""
    return config.state / "ledger.sqlite"


def open_journal(config: NodeConfig) -> SqliteJournal:
    """This member's ledger, which is made if there is none, with a key of its own.

    Raises:
        ConfigurationError: if the state folder is not usable.
        LedgerError: if the ledger may not be written.
    """
    before = config.state / "journal.sqlite"
    try:
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{config.state}: cannot be made ({error.strerror}); name another state folder"
        ) from error
    if before.exists():
        raise ConfigurationError(
            f"{before}: holds spend from before there were ledgers, which no ledger knows of; "
            "begin in a state folder of its own, with a budget that leaves room for it"
        )
    return SqliteJournal(
        ledger_path(config),
        origin=config.origin,
        key=read_or_make_key(config.state / "ledger.pem"),
        software=_software(),
    )


def open_node(path: Path, *, spending: bool = False) -> tuple[NodeConfig, Node]:
    """Reads configuration, contract and data, and opens the journal; connects to nobody.

    Args:
        path: of the configuration.
        spending: whether this process will answer a coordinator: then the configured budget
            becomes the member's rule, and its next period begins if it is due.

    Raises:
        ConfigurationError: if a file or folder is not usable.
        DataError: if the data does not fit the contract.
        LedgerError: if the ledger may not be written.
    """
    config = read_config(path, NodeConfig).relative_to(path.parent)
    identity = Identity.from_pem(read_secret(config.identity))
    entry = own_entry(config, identity)
    contract = read_contract(config.contract)
    journal = open_journal(config)
    if spending:
        if journal.account.left is not None:
            raise ConfigurationError(
                f"{path}: {config.member} has left the alliance, so its node does not run; to come "
                "back, make a new node folder with alliance-node init, under another name"
            )
        try:
            journal.adopt(config.policy.budget.rule())
        except BudgetRefusal as error:
            raise ConfigurationError(f"{path}: policy.budget: {error}") from error
    period = journal.renew() if spending else journal.rows
    dataset = load(config.data, contract, period)
    if dataset.left_out:
        log("RowsLeftOut", rows=dataset.left_out)
    most = enrolment_cap(config.declared_consumers)
    if len(dataset.consumer_ids) > most:
        raise DataError(
            f"{path}: {len(dataset.consumer_ids)} consumers, but {config.declared_consumers} "
            f"declared cover at most {most}; declare the count rounded to one digit"
        )
    canaries = None
    if config.canaries is not None:
        canaries = read_canaries(
            config.canaries,
            policy=config.policy,
            entry=entry,
            consumers=len(dataset.consumer_ids),
        )
    models = config.state / "models"
    try:
        models.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{models}: cannot be made ({error.strerror}); name another state folder"
        ) from error

    def keep_model(terms: Terms, parameters: npt.NDArray[np.float32]) -> None:
        target = models / f"{terms.study}.safetensors"
        save_model(target, terms, parameters, round_number=terms.privacy.rounds)
        log("ModelKept", study=terms.study)

    node = Node(
        entry, config.policy, contract, dataset, journal, keep_model, identity, canaries,
        Witnessing(journal, entry.name), Proposals(journal.store),
        functools.partial(find_model, models),
    )  # fmt: skip
    for terms in journal.accepted:
        node.enrolment(terms)  # now, so that no attempt's time tells how many there are
    return config, node


async def serve(config: NodeConfig, node: Node) -> None:
    """Answers the coordinator until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: if the TLS files are not usable.
        LinkError: if the coordinator refuses this member for good.
    """
    from flwr.app import Context, RecordDict

    from client_sdk.app import answerer, make_client_app

    credentials = Credentials(
        config.tls,
        member=config.member,
        identity=Identity.from_pem(read_secret(config.identity)),
        enrolment=config.enrolment,
        proxy=config.proxy,
    )
    await asyncio.to_thread(credentials.refresh)
    if not isinstance(node.journal, SqliteJournal) or node.identity is None:
        raise ConfigurationError("a node on the link needs a journal on disk and an identity")
    journal = node.journal
    DiscreteGaussian(SHARE_SCALE)  # builds the table before the first task waits for it
    for terms in journal.accepted:
        contribute_of(terms.recipe)
    context = Context(
        run_id=1, node_id=secrets.randbits(62), node_config={}, state=RecordDict(), run_config={}
    )
    session = Session(
        config.coordinator,
        credentials.material,
        answerer(make_client_app(lambda _: node), context),
        most_task_bytes=lambda: 4 * journal.largest_dimension,
        software=_software(),
        proxy=config.proxy,
        longest_s=lambda key: _longest_s(journal, key),
    )
    settle()
    running = asyncio.ensure_future(within(config.policy.windows, session.run))
    leaving = asyncio.create_task(_end_when_left(journal, running.cancel))
    keeping = asyncio.create_task(credentials.keep(session.reconnect))
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log("NodeStopped")
    except LinkError:
        if journal.account.left is None:
            raise
        log("NodeLeft")  # the coordinator knew first, and let it in no more
    finally:
        keeping.cancel()
        leaving.cancel()


async def _end_when_left(journal: SqliteJournal, end: Callable[[], object]) -> None:
    """Ends this process once the member left, which another one records in its ledger.

    Nothing is spent meanwhile: the ledger refuses from the entry on.
    """
    while True:
        await asyncio.sleep(LEFT_LOOK_S)
        try:
            left = await asyncio.to_thread(lambda: journal.account.left)
        except AllianceError as error:
            log("LedgerUnread", error=error)
            continue
        if left is not None:
            log("NodeLeft")
            end()
            return


def _longest_s(journal: SqliteJournal, key: TaskKey) -> float:
    """What terms accepted here give a task's phase; the longest there is before any are."""
    for terms in journal.accepted:
        if terms.label == key.study and key.phase in PHASES:
            return terms.deadlines.of(key.phase)
    return LONGEST_PHASE_S


def _software() -> str:
    return f"alliance {importlib.metadata.version('alliance')}"
