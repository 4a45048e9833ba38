"""Bundles of small alliances, honest and not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ledger_campaign.small_alliance import Member, SmallAlliance
from client_sdk.recipes.propensity import fold
from privacy.ledger.audit import audit_bundle
from privacy.ledger.audit_result import Audit
from privacy.ledger.bundle import MANIFEST, encode_manifest, hash_file
from privacy.ledger.entry import Entry
from privacy.ledger.export import export_bundle


def audit(folder: Path, **changes: Any) -> Audit:
    options: dict[str, Any] = {"seed": "test", "draw": 10, "folds": lambda _: fold}
    return audit_bundle(folder, **(options | changes))


def export(alliance: SmallAlliance, out: Path, **changes: Any) -> Path:
    options: dict[str, Any] = {
        "coordinator": alliance.folder / "coordinator",
        "members": alliance.states,
        "key": alliance.key,
    }
    export_bundle(out, **(options | changes))
    return out


def seal(folder: Path, key: Any, origin: str = "small/coordinator") -> None:
    """Signs the manifest over whatever is in the folder now."""
    files = {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    (folder / MANIFEST).write_bytes(encode_manifest(files, origin=origin, key=key))


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


class Liar(SmallAlliance):
    """An alliance of which somebody changes entries before they are logged, or leaves them out.

    Args:
        folder: an empty folder.
        coordinator: changes the coordinator's entries.
        member: changes those of the last but one member.
        silent: members that cosign nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        coordinator: Callable[[Any], Entry | None] = lambda entry: entry,
        member: Callable[[Any], Entry | None] = lambda entry: entry,
        silent: tuple[str, ...] = (),
    ) -> None:
        self._coordinator = coordinator
        self._member = member
        self._silent = silent
        super().__init__(folder, members=4)

    def log(self, entry: Entry) -> int:
        changed = self._coordinator(entry)
        return super().log(changed) if changed is not None else self.store.size - 1

    def append(self, member: Member, *entries: Entry) -> None:
        if member.name == "member-2":
            changed = [self._member(entry) for entry in entries]
            super().append(member, *(one for one in changed if one is not None))
        else:
            super().append(member, *entries)

    def cosigns(self, member: Member, origin: str) -> bool:
        return member.name not in self._silent and super().cosigns(member, origin)

    def passport(self, index: int) -> None:
        """None: a liar's would not be made."""
