"""What both halves agree on."""

from __future__ import annotations

CONSUMER, LABEL, ROWS = "household", "redeemed", 12
NUMBERS = {
    "spend": (0.0, 5000.0, True),
    "trips": (0.0, 200.0, True),
    "recency": (0.0, 90.0, False),
    "discount": (0.0, 100.0, True),
    "product_trips": (0.0, 100.0, True),
    "campaigns": (0.0, 10.0, False),
    "redemptions": (0.0, 20.0, True),
}
"""Lowest and highest value, and whether the logarithm is taken."""
CATEGORIES = {"type": ["Type A", "Type B", "Type C"]}
DIMENSION = len(NUMBERS) + sum(map(len, CATEGORIES.values())) + 1

CLIP, SIGMA, Q, DELTA = 0.5, 8.8351, 0.25, 1e-5
SPARE, COLLUDERS, DROPOUTS = 2, 1, 1
DECLARED = {"harbour": 1000, "meadow": 400, "lantern": 200, "orchard": 100, "newcomer": 50}
MEMBERS = list(DECLARED)
