"""The coordinator as a Flower ServerApp, and the process that runs it over the link."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from client_sdk.recipes.model_file import encode_model, write_model
from coordinator.config import CoordinatorConfig
from coordinator.evidence import Evidence
from coordinator.grid import COORDINATOR_NODE_ID, LinkGrid
from coordinator.monitor import Listening, Monitor
from coordinator.server import start_server
from coordinator.service import ExchangeService
from coordinator.strategy import PrivateSumStrategy
from privacy.errors import ConfigurationError
from privacy.secagg import model_hash
from privacy.terms import Terms
from protos.memory import settle

__all__ = ["TRANSPORT", "make_server_app", "read_terms", "run"]

TRANSPORT = (
    "gRPC, mutual TLS 1.3, secure aggregation: the coordinator sees sums over the members that "
    "contributed, and nothing of a single one"
)


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


async def run(config: CoordinatorConfig, monitor: Monitor) -> None:
    """Runs one study to its end.

    Raises:
        ConfigurationError: if terms, TLS files, port or state folder are not usable.
        RoundFailed: if the study could not go on.
    """
    terms = read_terms(config.study)
    tls = config.tls.read()
    models = _folder(config.state / "models")

    evidence = Evidence(config.state, terms.alliance, keep_bytes=config.evidence.keep_bytes)

    def publish(parameters: npt.NDArray[np.float32], round_number: int, last: bool) -> str:
        path = models / f"{terms.study}.safetensors"
        data = encode_model(terms, parameters, round_number=round_number)
        evidence.published(
            terms, round_number=round_number, model=model_hash(parameters), file=data, last=last
        )
        write_model(path, data)
        return str(path)

    strategy = PrivateSumStrategy(
        terms,
        monitor=monitor,
        publish=publish,
        deadlines=config.deadlines,
        transport=TRANSPORT,
    )
    names = [entry.name for entry in terms.roster]
    service = ExchangeService(
        frozenset(names), monitor, reconnect_grace_s=config.deadlines.reconnect_grace_s
    )
    server, address = await start_server(service, config.listen, tls)
    monitor.emit(Listening(address))
    node_ids = {name: COORDINATOR_NODE_ID + 1 + index for index, name in enumerate(names)}
    grid = LinkGrid(service, asyncio.get_running_loop(), node_ids)
    context = Context(
        run_id=grid.run.run_id, node_id=COORDINATOR_NODE_ID, node_config={}, state=RecordDict(),
        run_config={},
    )  # fmt: skip
    app = make_server_app(lambda _: strategy)
    settle()
    try:
        await asyncio.to_thread(app, grid, context)
    finally:
        service.close()
        await server.stop(grace=0.5)
        evidence.close()


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
