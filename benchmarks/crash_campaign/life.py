"""One alliance from its first start to the end of its study, with faults all the way."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks import local_postgres
from benchmarks.crash_campaign.alliance import COORDINATOR, CrashAlliance
from benchmarks.crash_campaign.faults import FAULTS, Deaths, Kill, can_mount, kills
from benchmarks.crash_campaign.judge import Evidence, Problem, judge
from benchmarks.crash_campaign.record import Record
from benchmarks.crash_campaign.study import MEMBERS, make_terms
from privacy.errors import AllianceError
from privacy.ledger.audit import audit_bundle
from privacy.ledger.entry import Publication
from privacy.ledger.export import export_bundle, read_key

__all__ = ["Life", "Lived", "live"]

SPARE: Final = 1000
"""Attempts beside one a round: a crash may cost one, and so does what fails."""
STUCK_S: Final = 180.0
"""Without a release nor an end: a round is lost for good."""
OTHER_EVERY: Final = 6
"""One fault in so many is no kill."""
DISK_BYTES: Final = 48 << 20
LAST: Final = 3
"""Rounds before the end at which the last kill lies in wait."""
LOOK_S: Final = 0.02
CALM_S: Final = 0.7
"""Between a release and the next fault, at most."""


@dataclass(frozen=True, slots=True)
class Life:
    """What one alliance is to go through.

    Args:
        number: seeds the faults.
        database: ``sqlite`` or ``postgresql``.
        rounds: of its study.
        most_kills: after so many it is left alone.
    """

    number: int
    database: str
    rounds: int
    most_kills: int


@dataclass(slots=True)
class Lived:
    """What came of it; times in seconds.

    Args:
        kills: for each fault that killed: who died in which steps, and the time from the last kill
            to the next release.
        others: other faults, each with the time from its end to the next release.
        ended: last words of processes that ended by themselves.
        problems: what the judge found.
    """

    number: int
    database: str
    rounds: int = 0
    attempts: int = 0
    seconds: float = 0.0
    kills: list[dict[str, Any]] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """Processes."""
        return sum(len(one["died"]) for one in self.kills)

    def add(self, problems: list[Problem], when: str) -> None:
        """Keeps each problem once."""
        known = {one["what"] for one in self.problems}
        self.problems += [asdict(one) | {"when": when} for one in problems if one.what not in known]


def live(life: Life, parent: Path | None = None) -> tuple[Lived, Evidence]:
    """Runs one life in a folder of its own; what came of it and the evidence.

    Args:
        life: which.
        parent: where the folder is made; it is removed.
    """
    started_s = time.monotonic()
    lived = Lived(life.number, life.database)
    with ExitStack() as stack:
        place = stack.enter_context(TemporaryDirectory(prefix="crash-", dir=parent))
        folder = Path(place) / "alliance"
        terms = make_terms(rounds=life.rounds, spare=SPARE)
        cluster = None
        if life.database == "postgresql":
            cluster = stack.enter_context(local_postgres.cluster())
        alliance = CrashAlliance(folder, terms, database=cluster.url if cluster else None)
        scene = _Scene(life, alliance, lived, Record(alliance, terms))
        if life.number % 3 == 0 and can_mount():
            scene.disks = {
                side: stack.enter_context(_disk(folder / f"{side}-state"))
                for side in (COORDINATOR, MEMBERS[0])
            }
        if cluster is not None:
            scene.restart_database = _crash(cluster)
        with alliance:
            scene.play()
        lived.ended = alliance.ended
        lived.add(_audited(folder, Path(place) / "bundle"), "at the end")
    evidence = scene.record.evidence()
    lived.rounds = len(evidence.releases)
    lived.attempts = sum(entry.kind in ("release", "failure") for entry in evidence.log)
    lived.seconds = time.monotonic() - started_s
    return lived, evidence


class _Scene:
    """The faults of one life, in order, and the judge after each."""

    def __init__(self, life: Life, alliance: CrashAlliance, lived: Lived, record: Record) -> None:
        self.alliance = alliance
        self.record = record
        self.draw = random.Random(f"crash/{life.database}/{life.number}")
        self.disks: dict[str, Path] = {}
        self.restart_database: Callable[[], None] | None = None
        self._life = life
        self._lived = lived
        self._kills = kills(self.draw)
        self._last = Kill((COORDINATOR, MEMBERS[1])[life.number % 2], "publish")

    def play(self) -> None:
        """From the first start to the published model."""
        if self._life.most_kills:
            self._faults()
        self._wait(lambda: self.alliance.finished)
        self._judge("at the end", final=True)

    def _faults(self) -> None:
        first = Kill((COORDINATOR, MEMBERS[0])[self._life.number % 2], "propose")
        self._wait(lambda: len(self.alliance.nodes) == len(MEMBERS))
        ended = not self._kill(first)
        while not ended and not self.alliance.finished and self._more():
            time.sleep(self.draw.uniform(0, CALM_S))
            number = len(self._lived.kills) + len(self._lived.others)
            others = self._possible()
            if number % OTHER_EVERY == OTHER_EVERY - 1 and others:
                ended = not self._other(others[number // OTHER_EVERY % len(others)])
            else:
                ended = not self._kill(next(self._kills))
        if not ended and self._wait(lambda: self._left_rounds() <= LAST):
            self._kill(self._last)

    def _more(self) -> bool:
        return self._lived.killed < self._life.most_kills - 1 and self._left_rounds() > LAST

    def _left_rounds(self) -> int:
        closed = self.alliance.closed
        return self._life.rounds - (closed[-1].event["round"] if closed else 0)

    def _possible(self) -> list[str]:
        """Faults that this life has the means for, in another order for each life."""
        means = {"disk full": self.disks, "database server crashed": self.restart_database}
        names = [name for name in FAULTS if means.get(name, True)]
        return names[self._life.number % len(names) :] + names[: self._life.number % len(names)]

    # One fault.

    def _kill(self, kill: Kill) -> bool:
        """Whether the alliance is there again afterwards."""
        self.alliance.tend()
        deaths: Deaths = kill(self.alliance, self.draw)
        recovered_s = self._recovered(deaths.at_s)
        self._lived.kills.append(
            {"meant": kill.step, "died": deaths.died, "recovery_s": recovered_s}
        )
        return self._judge(f"kill of {deaths.died}") and recovered_s is not None

    def _other(self, name: str) -> bool:
        self.alliance.tend()
        FAULTS[name](self)
        ended_s = time.monotonic()
        recovered_s = self._recovered(ended_s)
        self._lived.others.append({"name": name, "recovery_s": recovered_s})
        return self._judge(name) and recovered_s is not None

    def _recovered(self, after_s: float) -> float | None:
        """Seconds from a moment to the next release or the end; None if there is none in time."""
        alliance = self.alliance

        def there() -> bool:
            return alliance.finished or bool(alliance.closed and alliance.closed[-1].at_s > after_s)

        if not self._wait(there):
            return None
        told = ("RoundClosed", "StudyFinished")
        moments = [one.at_s for one in list(alliance.seen) if one.event["event"] in told]
        return next((at_s - after_s for at_s in moments if at_s > after_s), 0.0)

    def _wait(self, until: Callable[[], bool]) -> bool:
        """Tends the alliance until something is so; False, a problem, if it never is."""
        started_s = time.monotonic()
        rounds = len(self.alliance.closed)
        while not until():
            if len(self.alliance.closed) != rounds:
                rounds, started_s = len(self.alliance.closed), time.monotonic()
            if time.monotonic() - started_s > STUCK_S:
                words = [self.alliance.log(name, lines=2) for name in (COORDINATOR, *MEMBERS)]
                what = f"no release for {STUCK_S:g} s after round {rounds}: {words}"
                self._lived.add([Problem("stuck", what)], "waiting")
                return False
            self.alliance.tend()
            time.sleep(LOOK_S)
        return True

    def _judge(self, when: str, *, final: bool = False) -> bool:
        """Judges all there is; True if nothing is wrong so far."""
        for _ in range(40 if final else 1):
            if self.record.read():
                self._lived.add(self.record.problems, when)
                self._lived.add(judge(self.record.evidence()), when)
                break
            time.sleep(0.5)
        else:
            if final:
                self._lived.add([Problem("log", "a ledger cannot be read")], when)
        if final:
            self._lived.add(self._file(), when)
        return not self._lived.problems

    def _file(self) -> list[Problem]:
        """Check (6) on the disk: the file there is the one that was published last."""
        folder = self.alliance.folder / "coordinator-state" / "models"
        files = [path for path in folder.glob("*.safetensors") if path.is_file()]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        log = self.record.evidence().log
        told = [entry.file for entry in log if isinstance(entry, Publication) and entry.last]
        if digests != told:
            return [Problem("model", f"files {digests} are there, {told} were published last")]
        return []


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = f"size={DISK_BYTES},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _crash(cluster: local_postgres.Cluster) -> Callable[[], None]:
    def crash() -> None:
        cluster.stop("immediate")
        cluster.start()

    return crash


def _audited(folder: Path, bundle: Path) -> list[Problem]:
    """What an auditor says of everything that is left."""
    state = folder / "coordinator-state"
    try:
        export_bundle(
            bundle,
            coordinator=state,
            members={name: folder / f"{name}-state" for name in MEMBERS},
            key=read_key(state / "ledger.pem"),
        )
        audit = audit_bundle(bundle, seed="crash campaign", draw=5, sample=300)
    except AllianceError as error:
        return [Problem("audit", f"could not be audited: {error}")]
    return [Problem("audit", finding.sentence()) for finding in audit.findings]
