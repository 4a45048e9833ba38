"""Terms that would take the protection away: A3, A4 and A10, refused before anything is sent."""

from __future__ import annotations

import functools
import json
import math
import random
from typing import Any

import numpy as np

from benchmarks.secagg_campaign.protocol import Finding, refused
from benchmarks.secagg_campaign.studies import Case, contract, study
from client_sdk.policy import Policy
from privacy.errors import TermsError
from privacy.fixedpoint import Grid
from privacy.noise import DiscreteGaussian
from privacy.terms import Terms

__all__ = ["huge_clip_no_noise", "low_threshold", "tiny_ring"]


def _document() -> dict[str, Any]:
    """Good terms as JSON, which an attack then changes."""
    return dict(json.loads(_good()))


@functools.cache
def _good() -> str:
    terms = study(Case(5, 1, 1)).terms
    _accepted(terms)  # or else every refusal below would be worth nothing
    return terms.model_dump_json()


def _accepted(terms: Terms) -> None:
    """What a member does with proposed terms before it signs."""
    own = terms.entry("member-1")
    policy = Policy()
    policy.check_terms(terms, own_entry=own)
    policy.check_contract(terms, contract())
    policy.check_rules(terms)
    Grid.of(terms)


def _must_refuse(document: dict[str, Any], what: str) -> None:
    if not refused(lambda: _accepted(Terms.from_json(json.dumps(document)))):
        raise Finding(f"accepted {what}")


def low_threshold(rng: random.Random) -> None:
    """A3: a threshold of somebody's choosing, or so many colluders that t does not bind."""
    document = _document()
    privacy = document["privacy"]
    what = rng.choice(("threshold", "share_threshold", "colluders", "dropouts", "both", "none"))
    if what in {"threshold", "share_threshold"}:
        privacy[what] = rng.randint(-1, 3)
    elif what == "colluders":
        privacy["colluders"] = rng.choice((0, -1, rng.randint(3, 9)))
    elif what == "dropouts":
        privacy["dropouts"] = rng.choice((-1, rng.randint(2, 9)))
    elif what == "both":
        privacy["dropouts"], privacy["colluders"] = rng.choice(((2, 1), (1, 3), (2, 2)))
    else:
        privacy["cohort_size"] = rng.choice((0, 1, 2, 3))
    _must_refuse(document, f"{what} in {privacy}")


def tiny_ring(rng: random.Random) -> None:
    """A4: a modulus of 2, a narrow ring, or updates that would wrap around it."""
    document = _document()
    if rng.random() < 0.5:
        bits = rng.choice((0, 1, 2, 8, 16, 31, 33, 63, 128, -32, rng.randint(-9, 31)))
        document["privacy"]["ring_bits"] = bits
        _must_refuse(document, f"a ring of {bits} bits")
        return
    document["privacy"]["noise_multiplier"] = 10 ** rng.uniform(-3, 0)
    document["privacy"]["noise_multiplier"] = round(document["privacy"]["noise_multiplier"], 6)
    digit = rng.randint(1, 9)
    for entry in document["roster"]:
        entry["declared_consumers"] = digit * 10 ** rng.randint(2, 7)
    try:
        terms = Terms.from_json(json.dumps(document))
        grid = Grid.of(terms)
    except TermsError:
        return
    reach = sum(sorted(grid.limits.values())[-5:]) + 5 * DiscreteGaussian(2**14).bound
    if reach >= 2 ** (grid.ring_bits - 1):
        raise Finding(f"a sum may reach {reach} and the grid was accepted")
    worst = np.full(4, reach, dtype=np.int64)
    worst[1::2] *= -1
    if not np.array_equal(worst.astype(grid.dtype).view(f"<i{grid.ring_bits // 8}"), worst):
        raise Finding("the largest sum wraps around")


def huge_clip_no_noise(rng: random.Random) -> None:
    """A10: a clipping norm without bound, noise of nothing, not a number, or next to nothing."""
    document = _document()
    if rng.random() < 0.5:
        value = rng.choice((1e9, 1e6 + 1, 0.0, -1.0, math.nan, math.inf, rng.uniform(10.1, 1e6)))
        document["privacy"]["clipping_norm"] = round(value, 3) if math.isfinite(value) else value
        _must_refuse(document, f"a clipping norm of {value}")
        return
    value = rng.choice((0.0, -1.0, math.nan, math.inf, -math.inf, 1e9, rng.uniform(1e-6, 0.29)))
    document["privacy"]["noise_multiplier"] = round(value, 6) if math.isfinite(value) else value
    _must_refuse(document, f"a noise multiplier of {value}")
