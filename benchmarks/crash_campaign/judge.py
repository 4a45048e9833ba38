"""The judge: from what ledgers, releases and the harness's own notes hold, what went wrong.

Checks, numbered as in the code; none takes the alliance's word for it:
 (1) releases are numbered from 1 without gap or repetition, and no (round, attempt) ended twice;
 (2) every release that the coordinator told of is in its log, with that attempt and those members;
 (3) every sum is the one whose hash the log holds, and in it exactly the release's contributors
     are counted, each once: a coordinate is 0 or 1 once the noise is rounded away;
 (4) every contribution in the log is in its member's ledger, with the same attempt and hash, and
     none is in two attempts;
 (5) whatever was handed to a link stands in that member's ledger, once, and a member has reserved
     no fewer attempts than it handed over, recorded, or is recorded with;
 (6) no model file is published twice, each is that of its round's release, and the study ends once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.crash_campaign.steps import Left
from benchmarks.crash_campaign.study import MEMBERS, multiplicities
from privacy.fixedpoint import Grid
from privacy.ledger.entry import Contribution, Failure, Publication, Release, Reservation
from privacy.terms import Terms

__all__ = ["Evidence", "Problem", "judge"]

Kind = Literal["round", "spend", "model", "audit", "stuck", "log"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not happen.

    Args:
        kind: ``round``: lost or counted otherwise than once; ``spend``: under-counted; ``model``:
            published twice or wrong; ``audit``: an auditor's finding; ``stuck``: no release came;
            ``log``: an entry that was there is gone.
        what: in words.
    """

    kind: Kind
    what: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is judged.

    Args:
        terms: of the study.
        log: entries of the coordinator's log, in order.
        members: by name, entries of the members' ledgers.
        sums: by round, the released ring sum.
        closed: `RoundClosed` events, in order.
        left: by member, what its node handed to the link.
    """

    terms: Terms
    log: tuple[Any, ...]
    members: Mapping[str, tuple[Any, ...]]
    sums: Mapping[int, bytes]
    closed: tuple[Mapping[str, Any], ...]
    left: Mapping[str, tuple[Left, ...]]

    @property
    def releases(self) -> list[Release]:
        """The releases of the log."""
        return [entry for entry in self.log if isinstance(entry, Release)]


def judge(evidence: Evidence) -> list[Problem]:
    """All that is wrong; nothing if all is well."""
    problems = [Problem("round", what) for what in _rounds(evidence)]
    problems += [Problem("round", what) for what in _sums(evidence)]
    problems += [Problem("round", what) for what in _contributions(evidence)]
    problems += [Problem("spend", what) for what in _spend(evidence)]
    return problems + [Problem("model", what) for what in _models(evidence)]


def _rounds(evidence: Evidence) -> Iterator[str]:
    numbers = [release.round for release in evidence.releases]
    if numbers != list(range(1, len(numbers) + 1)):  # (1)
        wrong = next(at for at, number in enumerate(numbers, start=1) if at != number)
        yield f"release {wrong} of the log is of round {numbers[wrong - 1]}"
    ended = Counter(
        (entry.round, entry.attempt)
        for entry in evidence.log
        if isinstance(entry, (Release, Failure))
    )
    yield from (f"round {r} attempt {a} ended {n} times" for (r, a), n in ended.items() if n > 1)
    known = {
        (release.round, release.attempt): {one.member for one in release.contributions}
        for release in evidence.releases
    }
    for event in evidence.closed:  # (2)
        here = (event["round"], event["attempt"])
        if known.get(here) != set(event["contributors"]):
            yield f"round {here[0]} attempt {here[1]} was told and is not so in the log"
    told = Counter(event["round"] for event in evidence.closed)
    yield from (
        f"round {number} was told {count} times" for number, count in told.items() if count > 1
    )


def _sums(evidence: Evidence) -> Iterator[str]:
    grid = Grid.of(evidence.terms)
    for release in evidence.releases:  # (3)
        ring = evidence.sums.get(release.round)
        if ring is None:
            yield f"round {release.round}: its sum is not on the disk"
            continue
        if hashlib.sha256(ring).hexdigest() != release.sum:
            yield f"round {release.round}: its sum is not the one in the log"
            continue
        there = {one.member for one in release.contributions}
        expected = [*(float(name in there) for name in MEMBERS), 0.0, float(len(there))]
        counts = np.rint(multiplicities(grid, ring))
        if counts.tolist() != expected:
            yield f"round {release.round}: the sum counts {counts.tolist()}, not {expected}"


def _contributions(evidence: Evidence) -> Iterator[str]:
    made = {
        name: {
            (entry.round, entry.attempt): entry.sha256
            for entry in entries
            if isinstance(entry, Contribution)
        }
        for name, entries in evidence.members.items()
    }
    seen: dict[str, tuple[int, int]] = {}
    for entry in evidence.log:  # (4)
        if not isinstance(entry, (Release, Failure)):
            continue
        here = (entry.round, entry.attempt)
        for one in entry.contributions:
            if one.member in made and made[one.member].get(here) != one.sha256:
                yield f"round {here[0]} attempt {here[1]}: {one.member} did not make what is added"
            if seen.setdefault(one.sha256, here) != here:
                yield f"round {here[0]}: {one.member}'s contribution is that of another attempt"


def _spend(evidence: Evidence) -> Iterator[str]:
    recorded = Counter(
        one.member
        for entry in evidence.log
        if isinstance(entry, (Release, Failure))
        for one in entry.contributions
    )
    for name, entries in evidence.members.items():  # (5)
        reserved = sum(entry.count for entry in entries if isinstance(entry, Reservation))
        made = [entry for entry in entries if isinstance(entry, Contribution)]
        attempts = {(entry.round, entry.attempt): entry.sha256 for entry in made}
        handed = {(one.round, one.attempt): one.sha256 for one in evidence.left.get(name, ())}
        for here, sha256 in handed.items():
            if attempts.get(here) != sha256:
                yield f"{name}: round {here[0]} attempt {here[1]} left and is not in its ledger"
        if len(handed) != len(evidence.left.get(name, ())) or len(attempts) != len(made):
            yield f"{name}: an attempt was answered twice"
        needed = max(len(handed), len(made), recorded[name])
        if reserved < needed:
            yield f"{name}: {needed} attempts may have left, its ledger counts {reserved} as spent"


def _models(evidence: Evidence) -> Iterator[str]:
    led_to = {release.round: release.next_model for release in evidence.releases}
    published = [entry for entry in evidence.log if isinstance(entry, Publication)]
    for (digest, last), count in Counter((one.file, one.last) for one in published).items():
        if count > 1:  # (6)
            yield f"model file {digest[:12]} (last: {last}) was published {count} times"
    for one in published:
        if led_to.get(one.round) != one.model:
            yield f"the model published after round {one.round} is not that of its release"
    models = {(one.round, one.model) for one in published}
    if len(models) != len({one.round for one in published}):
        yield "two models were published for one round"
    if sum(one.last for one in published) > 1:
        yield "the study was ended twice"
