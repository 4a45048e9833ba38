"""What Flower's own SecAgg+ costs a member and the server, and whether its sums are right."""

from benchmarks.peers.flower_secagg.protocol import (
    PEER_NAME,
    ClientCost,
    ServerCost,
    StageCost,
    measure_client,
    measure_server,
)

__all__ = [
    "PEER_NAME",
    "ClientCost",
    "ServerCost",
    "StageCost",
    "measure_client",
    "measure_server",
]
