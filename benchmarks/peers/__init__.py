"""Peers that the benchmarks compare with; each lives in an environment of its own.

No peer is a dependency of the alliance, and the alliance is installed in no peer's environment.
"""

from benchmarks.peers.environment import PeerError, environment

__all__ = ["PeerError", "environment"]
