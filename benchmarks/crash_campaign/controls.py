"""Planted faults that the judge must see: what a broken alliance would leave behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from benchmarks.crash_campaign.judge import Evidence, Kind, judge
from benchmarks.crash_campaign.steps import Left
from benchmarks.crash_campaign.study import one_contribution
from privacy.fixedpoint import Grid
from privacy.ledger.entry import Contribution, Publication, Reservation

__all__ = ["CONTROLS", "flagged"]

Plant = Callable[[Evidence], Evidence]


def _with_sum(evidence: Evidence, change: int) -> Evidence:
    """The newest sum with one contribution more or less; its hash in the log follows."""
    release = evidence.releases[-1]
    grid = Grid.of(evidence.terms)
    ring = np.frombuffer(evidence.sums[release.round], dtype=grid.dtype)
    steps = np.rint(one_contribution(release.contributions[0].member) / grid.step).astype(np.int64)
    changed = (ring + (change * steps).astype(grid.dtype)).astype(grid.dtype).tobytes()
    return _with_release_of(replace(evidence, sums={**evidence.sums, release.round: changed}))


def _with_release_of(evidence: Evidence) -> Evidence:
    """The log's newest release with the hash of the sum that is there."""
    release = evidence.releases[-1]
    digest = hashlib.sha256(evidence.sums[release.round]).hexdigest()
    return _replaced(evidence, release, release.model_copy(update={"sum": digest}))


def _replaced(evidence: Evidence, entry: Any, *others: Any) -> Evidence:
    at = evidence.log.index(entry)
    return replace(evidence, log=(*evidence.log[:at], *others, *evidence.log[at + 1 :]))


def _counted_twice(evidence: Evidence) -> Evidence:
    return _with_sum(evidence, 1)


def _left_out(evidence: Evidence) -> Evidence:
    return _with_sum(evidence, -1)


def _without_sum(evidence: Evidence) -> Evidence:
    """The newest release is in the log, and its sum is not on the disk."""
    newest = evidence.releases[-1].round
    return replace(evidence, sums={r: ring for r, ring in evidence.sums.items() if r != newest})


def _lost(evidence: Evidence) -> Evidence:
    return _replaced(evidence, evidence.releases[len(evidence.releases) // 2])


def _lost_at_the_end(evidence: Evidence) -> Evidence:
    """The newest release is gone after it was told: only (2) can see it."""
    return _replaced(evidence, evidence.releases[-1])


def _repeated(evidence: Evidence) -> Evidence:
    release = evidence.releases[-1]
    again = release.model_copy(update={"attempt": release.attempt + 10_000})
    return replace(evidence, log=(*evidence.log, again))


def _stale(evidence: Evidence) -> Evidence:
    """The newest release adds a contribution of the one before."""
    before, release = evidence.releases[-2:]
    contributions = (before.contributions[0], *release.contributions[1:])
    return _replaced(evidence, release, release.model_copy(update={"contributions": contributions}))


def _unspent(evidence: Evidence) -> Evidence:
    """A member's reservations are gone."""
    name = evidence.releases[-1].contributions[0].member
    kept = tuple(one for one in evidence.members[name] if not isinstance(one, Reservation))
    return replace(evidence, members={**evidence.members, name: kept})


def _unrecorded(evidence: Evidence) -> Evidence:
    """A contribution left without an entry."""
    name = evidence.releases[-1].contributions[0].member
    made = [one for one in evidence.members[name] if isinstance(one, Contribution)]
    left = (*evidence.left[name], Left(made[-1].round, made[-1].attempt + 1, made[-1].sha256))
    return replace(evidence, left={**evidence.left, name: left})


def _published_twice(evidence: Evidence) -> Evidence:
    published = next(one for one in evidence.log if isinstance(one, Publication))
    return replace(evidence, log=(*evidence.log, published))


def _wrong_model(evidence: Evidence) -> Evidence:
    published = next(one for one in evidence.log if isinstance(one, Publication))
    return _replaced(evidence, published, published.model_copy(update={"model": "0" * 64}))


CONTROLS: Final[dict[str, tuple[Plant, Kind]]] = {
    "a contribution counted twice": (_counted_twice, "round"),
    "a contribution left out of its sum": (_left_out, "round"),
    "a sum that is not on the disk": (_without_sum, "round"),
    "a round lost": (_lost, "round"),
    "the newest round lost after it was told": (_lost_at_the_end, "round"),
    "a round released twice": (_repeated, "round"),
    "a contribution of another attempt": (_stale, "round"),
    "spend under-counted": (_unspent, "spend"),
    "a contribution that left unrecorded": (_unrecorded, "spend"),
    "a model published twice": (_published_twice, "model"),
    "a model that is not its round's": (_wrong_model, "model"),
}
"""By name: what is planted, and the kind of problem it is."""


def flagged(name: str, evidence: Evidence) -> bool:
    """Whether the judge sees a planted fault in evidence in which it sees nothing otherwise."""
    plant, kind = CONTROLS[name]
    return not judge(evidence) and kind in {one.kind for one in judge(plant(evidence))}
