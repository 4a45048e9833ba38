"""Sums of clipped per-consumer gradients. Imports nothing: `network` needs no torch."""
