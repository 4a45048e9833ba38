"""The demo's last act: an auditor's bundle, verified by a process that saw nothing of the study."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from privacy.errors import AllianceError

__all__ = ["audit"]

_PROGRAM = "from privacy.ledger.cli import main; main()"


def audit(folder: Path, alliance: Path, members: Iterable[str]) -> dict[str, Any]:
    """Exports a bundle, verifies it in a process of its own, and writes the report.

    Args:
        folder: the run's; gets ``bundle`` and ``audit-report.html``.
        alliance: holds the coordinator's and the members' state folders.
        members: names.

    Returns:
        What ``alliance-audit verify --json`` says.

    Raises:
        AllianceError: if the bundle cannot be made, or has findings.
    """
    bundle, coordinator = folder / "bundle", alliance / "coordinator-state"
    states = [f"{name}={alliance / f'{name}-state'}" for name in members]
    _run(
        "export", str(bundle), "--coordinator", str(coordinator),
        *(part for state in states for part in ("--member", state)),
        "--key", str(coordinator / "ledger.pem"),
    )  # fmt: skip
    verdict: dict[str, Any] = json.loads(_run("verify", str(bundle), "--json"))
    _run("report", str(bundle), "--output", str(folder / "audit-report.html"))
    return verdict


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AllianceError(f"alliance-audit {arguments[0]}: {done.stderr or done.stdout}")
    return done.stdout
