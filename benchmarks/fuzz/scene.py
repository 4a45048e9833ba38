"""Valid inputs of every kind, made once per process: a small alliance and what belongs to it."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.ledger_campaign.small_alliance import SmallAlliance, key_of
from client_sdk.joining import REQUEST_FILE, NewMember, init
from client_sdk.recipes.propensity import fold
from client_sdk.recipes.statistics.settings import StatisticsSettings, dimension
from privacy.acceptance import sign_acceptance
from privacy.certificates import Authority, make_signing_request, make_tls_key
from privacy.identity import Identity
from privacy.ledger.export import export_bundle
from privacy.terms import Terms

__all__ = ["NOW", "Scene", "scene"]

NOW: Final = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Scene:
    """What seeds are cut from.

    Args:
        folder: scratch, in memory where that can be; removed when the process ends.
        bundle: the alliance's, as an auditor gets it.
    """

    folder: Path
    alliance: SmallAlliance
    bundle: Path
    authority: Authority
    member_key: bytes
    member_certificate: bytes
    signing_request: bytes
    request: bytes

    @property
    def terms(self) -> Terms:
        """Of the one study."""
        return self.alliance.terms

    @property
    def document(self) -> dict[str, object]:
        """The canonical terms as an object."""
        document: dict[str, object] = json.loads(self.terms.canonical())
        return document

    def identity(self, index: int) -> Identity:
        """Of a member by its place in the roster."""
        return key_of(f"identity {index}")

    def ledger(self, index: int) -> Identity:
        """The key of a member's log."""
        return key_of(f"ledger member-{index}")

    def acceptance(self, index: int) -> bytes:
        """A member's signature under the terms."""
        return sign_acceptance(
            self.identity(index),
            self.terms,
            member=f"member-{index}",
            ledger_key=self.ledger(index).public,
        )

    def statistics(self) -> Terms:
        """Of a study of statistics over the same contract and roster."""
        terms = self.terms
        settings = StatisticsSettings(bins=4)
        one = {"rounds": 1, "max_attempts": 2, "sampling_probability": 1.0}
        return terms.model_copy(
            update={
                "recipe": "statistics",
                "settings": {"bins": 4},
                "dimension": dimension(terms.contract, settings),
                "privacy": terms.privacy.model_copy(update=one),
            }
        )

    def state_arrays(self) -> dict[str, object]:
        """The recipe's public state as arrays."""
        return dict(fold.initial_state(self.terms).arrays())

    def file(self, name: str, data: bytes) -> Path:
        """A file that holds these bytes now."""
        path = self.folder / name
        path.write_bytes(data)
        return path


@functools.cache
def scene() -> Scene:
    """The one of this process."""
    memory = Path("/dev/shm")  # noqa: S108  (a random name of our own in it)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    alliance = SmallAlliance(folder / "alliance").run()
    bundle = folder / "bundle"
    export_bundle(
        bundle,
        coordinator=alliance.folder / "coordinator",
        members=alliance.states,
        key=alliance.key,
    )
    authority = Authority("small", now=NOW, lifetime=dt.timedelta(days=365))
    issued = authority.issue_member("member-0", now=NOW, lifetime=dt.timedelta(days=1))
    key = make_tls_key()
    init(
        folder / "newcomer",
        NewMember(
            alliance="small",
            member="newcomer",
            coordinator="127.0.0.1:9443",
            declared_consumers=100,
            contract="contract.json",
            enrolment="127.0.0.1:9444",
            data="visits.csv",
        ),
    )
    return Scene(
        folder=folder,
        alliance=alliance,
        bundle=bundle,
        authority=authority,
        member_key=issued.key,
        member_certificate=issued.certificate,
        signing_request=make_signing_request(key, "newcomer"),
        request=(folder / "newcomer" / REQUEST_FILE).read_bytes(),
    )
