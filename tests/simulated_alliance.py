"""Run by test_simulation in a process of its own: 20 members under Flower's simulation engine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.simulation import run_simulation

from client_sdk.app import RecordJournal, make_client_app
from client_sdk.dataset import DataSource, load
from client_sdk.node import Node
from client_sdk.policy import Policy
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from coordinator.app import make_server_app
from coordinator.config import Deadlines
from coordinator.monitor import JsonLines, Monitor
from coordinator.strategy import PrivateSumStrategy
from privacy.terms import Terms
from tests.conftest import make_contract, make_terms

MEMBERS, CONSUMERS, ROUNDS = 20, 40, 3
SETTINGS = {"model": "logistic", "learning_rate": 1.0}


def terms() -> Terms:
    size = dimension(make_contract(), PropensitySettings.model_validate(SETTINGS))
    return make_terms(
        members=MEMBERS, declared=CONSUMERS, dimension=size, settings=SETTINGS, rounds=ROUNDS,
        max_attempts=ROUNDS, noise_multiplier=3.0, sampling_probability=0.5, colluders=2,
    )  # fmt: skip


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for member in range(MEMBERS):
        lines = ["household,responded,spend,trips,kind"]
        for consumer in range(CONSUMERS):
            spend = rng.uniform(0, 1000)
            response = int(spend > 500)
            lines.append(f"h{consumer},{response},{spend:.2f},{rng.integers(0, 50)},A")
        (folder / f"{member}.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    study = terms()
    folder = Path(tempfile.mkdtemp())
    write_data(folder)

    def node_of(context: Context) -> Node:
        place = int(context.node_config["partition-id"])
        return Node(
            study.roster[place],
            Policy(most_epsilon=100.0, most_epsilon_local=100.0),
            study.contract,
            load(DataSource(path=folder / f"{place}.csv"), study.contract),
            RecordJournal(context.state),
            lambda terms, parameters: (folder / f"kept-{place}").write_bytes(parameters),
        )

    def publish(parameters: np.ndarray, round_number: int, last: bool) -> str:
        return str(folder)

    strategy = PrivateSumStrategy(
        study,
        monitor=Monitor(JsonLines(sys.stdout)),
        publish=publish,
        deadlines=Deadlines(),
        transport="Flower simulation: no network, no masks",
    )
    run_simulation(
        make_server_app(lambda _: strategy),
        make_client_app(node_of),
        num_supernodes=MEMBERS,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    kept = len(list(folder.glob("kept-*")))
    print(f'{{"event": "Kept", "models": {kept}}}')


if __name__ == "__main__":
    main()
