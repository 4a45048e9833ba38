"""The coordinator as a Flower ServerApp, and the process that runs it over the link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from client_sdk.recipes.model_file import encode_model, write_model
from coordinator.admittance import Admittance
from coordinator.agenda import Agenda, Names
from coordinator.authority import ServerCertificate
from coordinator.config import CoordinatorConfig
from coordinator.costs import kept_costs
from coordinator.enrolment import admissions_of, admittance_of, serve_enrolment
from coordinator.evaluation import begin_planned, certify_evaluated
from coordinator.evidence import Evidence
from coordinator.grid import COORDINATOR_NODE_ID, LinkGrid
from coordinator.mirror import Mirror
from coordinator.monitor import Listening, Monitor, Sink
from coordinator.proposal import Proposal
from coordinator.resumption import Resumption
from coordinator.server import serve_health, start_server
from coordinator.service import ExchangeService
from coordinator.status import StatusFile
from coordinator.store import StudyStore
from coordinator.strategy import PrivateSumStrategy
from coordinator.witnessing import Ledgers
from privacy.errors import AllianceError, ConfigurationError
from privacy.ledger.passport import make_passport
from privacy.secagg import model_hash
from privacy.terms import Terms
from protos.logs import adopt, log
from protos.memory import settle
from protos.tls import TlsMaterial

__all__ = ["TRANSPORT", "make_server_app", "run"]

TRANSPORT = (
    "gRPC, mutual TLS 1.3, secure aggregation: the coordinator sees sums over the members that "
    "contributed, and nothing of a single one"
)

DRAIN_S: Final = 10.0
"""How long SIGTERM waits for the open round."""


def make_server_app(strategy_of: Callable[[Context], PrivateSumStrategy]) -> ServerApp:
    """The ServerApp that runs one study; the same on the link and under simulation."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy_of(context).start(grid)

    return app


@dataclass(frozen=True, slots=True)
class _StudyRun:
    """One study behind Flower's ServerApp."""

    strategy: PrivateSumStrategy

    @property
    def attempts(self) -> int:
        """Spent so far."""
        return self.strategy.attempts

    def run(self, grid: Grid) -> None:
        """See `coordinator.agenda.Running`."""
        run_id = grid.run.run_id if isinstance(grid, LinkGrid) else 0
        context = Context(
            run_id=run_id, node_id=COORDINATOR_NODE_ID, node_config={}, state=RecordDict(),
            run_config={},
        )  # fmt: skip
        make_server_app(lambda _: self.strategy)(grid, context)

    def drain(self, sentence: str) -> None:
        """See `coordinator.agenda.Running`."""
        self.strategy.drain(sentence)


async def run(
    config: CoordinatorConfig, sinks: Sequence[Sink], *, until_finished: bool = False
) -> None:
    """Runs the studies of a coordinator, or goes on with them where an earlier process left them.

    SIGTERM lets the open round end; a process that is killed loses nothing that was released.

    Args:
        config: of this coordinator.
        sinks: are told what happens, besides the status file and the metrics.
        until_finished: whether to end when no study is wanted running, or one cannot go on.

    Raises:
        ConfigurationError: if TLS files, port, database or state folder are not usable.
        LedgerError: if the log may not be written.
        RoundFailed: if ``until_finished`` and a study could not go on.
    """
    tls = config.credentials()
    models = _folder(config.state / "models")
    with contextlib.ExitStack() as stack:
        studies = stack.enter_context(StudyStore(config.database_url))
        evidence = Evidence(
            config.state, config.alliance_name, keep_bytes=config.evidence.keep_bytes
        )
        stack.callback(evidence.close)
        names = Names(everybody=config.enrolment is not None)
        monitor = Monitor(
            *sinks,
            StatusFile(config.state / "status.json"),
            *_metrics(config),
            lambda event: agenda.take(event),
        )
        loop = asyncio.get_running_loop()
        admittance = admittance_of(config.enrolment)
        service = ExchangeService(names, monitor, admittance=admittance)

        def grid_of(terms: Terms) -> LinkGrid:
            places = enumerate(terms.roster, start=COORDINATOR_NODE_ID + 1)
            ids = {entry.name: place for place, entry in places}
            return LinkGrid(service, loop, ids, reconnect_s=terms.deadlines.grace_s)

        def begin(proposal: Proposal) -> _StudyRun:
            return _StudyRun(_strategy(config, proposal, evidence, studies, monitor, models))

        agenda = Agenda(
            studies,
            evidence,
            monitor,
            names=names,
            grid_of=grid_of,
            admissions=admissions_of(config.enrolment),
            begin=begin,
            assemble_s=config.deadlines.assemble_s,
        )
        await _serve(config, service, admittance, tls, agenda, monitor, until_finished)


def _strategy(
    config: CoordinatorConfig,
    proposal: Proposal,
    evidence: Evidence,
    studies: StudyStore,
    monitor: Monitor,
    models: Path,
) -> PrivateSumStrategy:
    """One study, ready to run from where it was left."""
    terms = proposal.terms

    def publish(parameters: npt.NDArray[np.float32], round_number: int, last: bool) -> str:
        path = models / f"{terms.study}.safetensors"
        data = encode_model(terms, parameters, round_number=round_number)
        evidence.published(
            terms, round_number=round_number, model=model_hash(parameters), file=data, last=last
        )
        write_model(path, data)
        return str(path)

    def certify() -> None:
        index = max(evidence.told(terms).files.values())
        passport = make_passport(evidence.store, evidence.identity, publication=index)
        write_model(models / f"{terms.study}.passport.json", passport)
        try:
            certify_evaluated(config.state, evidence, terms)
            begin_planned(config.state, studies, terms)
        except AllianceError as error:  # the study itself is finished all the same
            log("EvaluationUnbegun", error=error, study=terms.study)

    return PrivateSumStrategy(
        terms,
        monitor=monitor,
        publish=publish,
        deadlines=config.deadlines,
        transport=TRANSPORT,
        certify=certify,
        ledgers=Ledgers(evidence, Mirror(evidence.store, terms.alliance)),
        resumption=Resumption(terms, evidence, studies),
        proposal=proposal,
        costs=kept_costs(terms, config.state / "costs"),
    )


async def _serve(
    config: CoordinatorConfig,
    service: ExchangeService,
    admittance: Admittance | None,
    tls: TlsMaterial | ServerCertificate,
    agenda: Agenda,
    monitor: Monitor,
    until_finished: bool,
) -> None:
    """Opens the ports and works through the agenda on a thread."""
    enrolling = await serve_enrolment(config.enrolment, admittance, service.expel)
    server, address = await start_server(service, config.listen, tls)
    health = await serve_health(config.operations.health)
    monitor.emit(Listening(address))
    loop = asyncio.get_running_loop()
    settle()

    def drain() -> None:
        agenda.drain()
        # Whatever does not end by itself is ended: everything that counts is on the disk.
        loop.call_later(DRAIN_S, os._exit, 128 + signal.SIGTERM)

    loop.add_signal_handler(signal.SIGTERM, drain)
    try:
        await asyncio.to_thread(agenda.run, until_finished=until_finished)
    finally:
        service.close()
        await enrolling.stop()
        await server.stop(grace=0.5)
        if health is not None:
            await health.stop(grace=None)


def _metrics(config: CoordinatorConfig) -> list[Sink]:
    if config.operations.metrics is None:
        return []
    from coordinator.metrics import Metrics

    metrics = Metrics()
    metrics.serve(config.operations.metrics)
    return [metrics]


def _folder(path: Path) -> Path:
    """Makes a folder and checks that it can be written to."""
    probe = path / f".probe-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be written ({error.strerror}); name another state folder"
        ) from error
    return path


adopt("flwr")
