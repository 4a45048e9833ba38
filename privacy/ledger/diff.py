"""Two bundles of one alliance: what the later one adds, and whether it keeps all of the earlier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from privacy.errors import EvidenceError
from privacy.ledger.bundle import LONGEST_LINE, Bundle, hash_file, open_bundle
from privacy.ledger.entry import decode_entry
from privacy.ledger.findings import Finding

__all__ = ["Difference", "compare_bundles"]

LOGS: Final = ("entries.jsonl", "receipts.jsonl", "releases.jsonl")
"""Files that only grow."""
REPLACED: Final = (".note", ".safetensors", ".passport.json")
"""Files of which the newest is kept."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What two bundles differ in.

    Args:
        findings: what the later one does not keep of the earlier.
        added: what it adds, a sentence each.
    """

    findings: tuple[Finding, ...]
    added: tuple[str, ...]

    @property
    def extends(self) -> bool:
        """Whether the later bundle keeps everything."""
        return not self.findings

    def document(self) -> dict[str, Any]:
        """The difference for `--json`."""
        return {
            "extends": self.extends,
            "findings": [finding.document() for finding in self.findings],
            "added": list(self.added),
        }


def compare_bundles(before: Path, after: Path) -> Difference:
    """Compares two bundles; neither is audited.

    Rounds that were kept and are no longer are let go to make room, which is said and is no
    finding: their hashes stay in the log.

    Args:
        before: the earlier one.
        after: the later one.

    Raises:
        EvidenceError: if one of them is no bundle.
    """
    earlier, later = open_bundle(before), open_bundle(after)
    findings: list[Finding] = []
    added: list[str] = []
    for path in sorted(earlier.present.keys() | later.present.keys()):
        if not later.has(path):
            _compare_missing(path, findings, added)
        elif path.endswith(LOGS):
            _compare_log(earlier, later, path, findings, added)
        elif not earlier.has(path):
            added.append(f"{path}: is new")
        elif hash_file(earlier.folder / path) != hash_file(later.folder / path):
            if path.endswith(REPLACED):
                added.append(f"{path}: was replaced by a newer one")
            else:
                findings.append(Finding(1, path, None, "is not what it was before"))
    return Difference(tuple(findings), _summed_up(added))


def _compare_missing(path: str, findings: list[Finding], added: list[str]) -> None:
    if path.startswith("coordinator/rounds/"):
        added.append(f"{path.rpartition('/')[0]}: is no longer kept")
    elif path.endswith("cosigned.note"):
        findings.append(Finding(5, path, None, "the cosigned head is gone"))
    else:
        findings.append(Finding(1, path, None, "was there before and is missing"))


def _compare_log(
    earlier: Bundle, later: Bundle, path: str, findings: list[Finding], added: list[str]
) -> None:
    kinds: Counter[str] = Counter()
    for index, (old, new) in enumerate(zip_longest(_lines(earlier, path), _lines(later, path))):
        if old is None:
            kinds[_kind(new, path)] += 1
        elif new is None:
            findings.append(Finding(5, path, index, "the log ends here; before it went on"))
            return
        elif old != new:
            findings.append(Finding(5, path, index, "is not what it was before"))
            return
    if kinds:
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        added.append(f"{path}: {kinds.total()} more ({what})")


def _lines(bundle: Bundle, path: str) -> Iterator[bytes]:
    return bundle.lines(path, longest=LONGEST_LINE) if bundle.has(path) else iter(())


def _kind(line: bytes, path: str) -> str:
    if not path.endswith("entries.jsonl"):
        return path.rpartition("/")[2].removesuffix(".jsonl")
    try:
        return decode_entry(line, where=path).kind
    except EvidenceError:
        return "unreadable"


def _summed_up(added: list[str]) -> tuple[str, ...]:
    """Kept rounds by folder, once each."""
    folders: Counter[str] = Counter()
    rest: dict[str, None] = {}
    for sentence in added:
        if sentence.startswith("coordinator/r") and sentence.endswith(": is new"):
            folders["/".join(sentence.split("/")[1:3])] += 1
        else:
            rest[sentence] = None
    new = (f"coordinator/{folder}: {count} files are new" for folder, count in folders.items())
    return (*rest, *new)
