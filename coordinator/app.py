"""The coordinator as a Flower ServerApp, and the process that runs it over the link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from client_sdk.recipes.model_file import encode_model, write_model
from coordinator.authority import ServerCertificate
from coordinator.config import CoordinatorConfig
from coordinator.enrolment import admissions_of, admittance_of, serve_enrolment
from coordinator.evidence import Evidence
from coordinator.grid import COORDINATOR_NODE_ID, LinkGrid
from coordinator.mirror import Mirror
from coordinator.monitor import Listening, Monitor, Sink
from coordinator.resumption import Resumption
from coordinator.server import serve_health, start_server
from coordinator.service import ExchangeService
from coordinator.status import StatusFile
from coordinator.store import StudyStore
from coordinator.strategy import PrivateSumStrategy
from coordinator.witnessing import Ledgers
from privacy.errors import ConfigurationError
from privacy.ledger.passport import make_passport
from privacy.secagg import model_hash
from privacy.terms import Terms
from protos.memory import settle
from protos.tls import TlsMaterial

__all__ = ["TRANSPORT", "make_server_app", "read_terms", "run"]

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


def read_terms(path: Path) -> Terms:
    """Terms from a JSON file.

    Raises:
        ConfigurationError: if the file cannot be read, or its terms break a rule.
    """
    try:
        return Terms.from_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


async def run(config: CoordinatorConfig, sinks: Sequence[Sink]) -> None:
    """Runs one study to its end, or goes on with it where an earlier process left it.

    SIGTERM lets the open round end; a process that is killed loses nothing that was released.

    Args:
        config: of this coordinator.
        sinks: are told what happens, besides the status file and the metrics.

    Raises:
        ConfigurationError: if terms, TLS files, port, database or state folder are not usable.
        LedgerError: if the log may not be written.
        RoundFailed: if the study could not go on.
    """
    terms = read_terms(config.study)
    tls = config.credentials()
    models = _folder(config.state / "models")
    with contextlib.ExitStack() as stack:
        studies = stack.enter_context(StudyStore(config.database_url))
        monitor = Monitor(*sinks, StatusFile(config.state / "status.json"), *_metrics(config))
        evidence = Evidence(config.state, terms.alliance, keep_bytes=config.evidence.keep_bytes)
        stack.callback(evidence.close)
        resumption = Resumption(terms, evidence, studies)
        stack.callback(resumption.close)
        studies.propose(terms, now_ms=time.time_ns() // 1_000_000)

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

        strategy = PrivateSumStrategy(
            terms,
            monitor=monitor,
            publish=publish,
            deadlines=config.deadlines,
            transport=TRANSPORT,
            certify=certify,
            ledgers=Ledgers(evidence, Mirror(evidence.store, terms.alliance)),
            resumption=resumption,
            admissions=admissions_of(config.enrolment),
        )
        await _serve(config, terms, tls, strategy, monitor)


async def _serve(
    config: CoordinatorConfig,
    terms: Terms,
    tls: TlsMaterial | ServerCertificate,
    strategy: PrivateSumStrategy,
    monitor: Monitor,
) -> None:
    """Opens the port and runs the strategy as Flower's ServerApp."""
    names = [entry.name for entry in terms.roster]
    admittance = admittance_of(config.enrolment)
    service = ExchangeService(
        frozenset(names),
        monitor,
        reconnect_grace_s=terms.deadlines.grace_s,
        admittance=admittance,
    )
    enrolling = await serve_enrolment(config.enrolment, admittance, service.expel)
    server, address = await start_server(service, config.listen, tls)
    health = await serve_health(config.operations.health)
    monitor.emit(Listening(address))
    loop = asyncio.get_running_loop()
    node_ids = {name: COORDINATOR_NODE_ID + 1 + index for index, name in enumerate(names)}
    grid = LinkGrid(service, loop, node_ids)
    context = Context(
        run_id=grid.run.run_id, node_id=COORDINATOR_NODE_ID, node_config={}, state=RecordDict(),
        run_config={},
    )  # fmt: skip
    app = make_server_app(lambda _: strategy)
    settle()

    def drain() -> None:
        strategy.drain()
        # Whatever does not end by itself is ended: everything that counts is on the disk.
        loop.call_later(DRAIN_S, os._exit, 128 + signal.SIGTERM)

    loop.add_signal_handler(signal.SIGTERM, drain)
    try:
        await asyncio.to_thread(app, grid, context)
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


logging.getLogger("flwr").setLevel(logging.WARNING)
