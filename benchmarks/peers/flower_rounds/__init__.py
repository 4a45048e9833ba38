"""Seconds per round of Flower's own deployment: SuperLink and SuperNodes as processes."""

from benchmarks.peers.flower_rounds.deployment import PEER_NAME, measure

__all__ = ["PEER_NAME", "measure"]
