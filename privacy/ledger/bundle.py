"""What an auditor gets: a folder whose signed manifest names every file (README, section 5).

Reading it trusts nothing: a path that leaves the folder, a link, a file of unexpected kind or size
is refused before any of it is read. What the manifest and the files disagree on is left to the
audit, which says it file by file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privacy.errors import EvidenceError
from privacy.identity import Identity, IdentityKey
from privacy.ledger.entry import LONGEST_ENTRY
from privacy.ledger.note import LONGEST_TEXT, Note, open_note, sign_text

__all__ = [
    "COORDINATOR",
    "MANIFEST",
    "Bundle",
    "Listed",
    "encode_manifest",
    "hash_file",
    "open_bundle",
]

MANIFEST: Final = "manifest.note"
HEADER: Final = "alliance-audit/bundle/v1"
COORDINATOR: Final = "coordinator"

LONGEST_MANIFEST: Final = 64 << 20
LONGEST_NOTE: Final = LONGEST_TEXT + (1 << 20)
LONGEST_LINE: Final = LONGEST_ENTRY + (1 << 20)
"""Of a receipt: an entry, a note and a proof."""
LARGEST_FILE: Final = 1 << 40
LARGEST_WHOLE: Final = 1 << 30
"""Of a file that is read as a whole: an opening, a contribution, a model."""
MOST_FILES: Final = 500_000

_LINE: Final = re.compile(r"([0-9a-f]{64})  (0|[1-9][0-9]{0,12})  (.+)")
_NAME: Final = r"[a-z0-9][a-z0-9-]{0,62}"
_STUDY: Final = rf"{_NAME}@[0-9a-f]{{16}}"
_ROUND: Final = r"round-[1-9][0-9]{0,9}-[1-9][0-9]{0,9}"
_LAYOUT: Final = re.compile(
    rf"coordinator/(entries\.jsonl|head\.note|cosigned\.note)"
    rf"|coordinator/rounds/{_STUDY}/{_ROUND}/(opening\.json|{_NAME}\.bin)"
    rf"|coordinator/releases/{_STUDY}/(releases\.jsonl|{_ROUND}\.sum)"
    rf"|members/{_NAME}/(entries\.jsonl|head\.note|cosigned\.note|receipts\.jsonl)"
    rf"|models/{_NAME}\.(safetensors|passport\.json)"
)

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far, and of how much."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the manifest names it."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder that could be read; nothing in it is believed yet.

    Args:
        folder: where it is.
        manifest: the manifest's bytes.
        signer: the name under which it is signed.
        listed: files by path, as the manifest names them.
        present: files by path, with their sizes, as they are there.
    """

    folder: Path
    manifest: bytes
    signer: str
    listed: Mapping[str, Listed]
    present: Mapping[str, int]

    @property
    def members(self) -> tuple[str, ...]:
        """Members whose folder is there."""
        names = {path.split("/")[1] for path in self.present if path.startswith("members/")}
        return tuple(sorted(names))

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return path in self.present

    def under(self, prefix: str) -> tuple[str, ...]:
        """Files below a folder, in order."""
        return tuple(sorted(path for path in self.present if path.startswith(prefix)))

    def read(self, path: str, *, most_bytes: int = LARGEST_WHOLE) -> bytes:
        """A whole file.

        Raises:
            EvidenceError: if it is too large or cannot be read.
        """
        size = self.present.get(path)
        if size is None:
            raise EvidenceError(f"{path}: is missing")
        if size > most_bytes:
            raise EvidenceError(f"{path}: {size} bytes, at most {most_bytes} are accepted")
        try:
            with (self.folder / path).open("rb") as file:
                return file.read(most_bytes + 1)
        except OSError as error:
            raise EvidenceError(f"{path}: {error.strerror}") from error

    def lines(self, path: str, *, longest: int) -> Iterator[bytes]:
        """A file's lines without their line feeds.

        Raises:
            EvidenceError: naming the line: too long, or the last one cut off.
        """
        try:
            with (self.folder / path).open("rb") as file:
                index = 0
                while line := file.readline(longest + 2):
                    if not line.endswith(b"\n"):
                        what = "is too long" if len(line) > longest else "is cut off"
                        raise EvidenceError(f"{path} entry {index}: {what}")
                    yield line[:-1]
                    index += 1
        except OSError as error:
            raise EvidenceError(f"{path}: {error.strerror}") from error

    def expect_signed(self, key: IdentityKey) -> None:
        """Checks the manifest's signature.

        Raises:
            EvidenceError: if it is not by that key.
        """
        open_note(self.manifest, name=self.signer, key=key, longest_text=LONGEST_MANIFEST)


def open_bundle(folder: Path) -> Bundle:
    """The bundle in a folder.

    Raises:
        EvidenceError: by the numbers below, in one sentence.
    """
    # 1. It is a folder with a manifest, which is a note of one signature.
    # 2. The manifest has its header, and per file one line; lines are in order of their paths.
    # 3. Paths are those of section 5, so none is absolute and none leads out of the folder.
    # 4. The folder holds plain files and folders alone: no links, devices or pipes.
    if not folder.is_dir():  # 1
        raise EvidenceError(f"{folder}: is not a folder")
    manifest_path = folder / MANIFEST
    if manifest_path.is_symlink() or not manifest_path.is_file():
        raise EvidenceError(f"{folder}: holds no {MANIFEST}, so it is no bundle")
    try:
        with manifest_path.open("rb") as file:
            data = file.read(LONGEST_MANIFEST + LONGEST_NOTE + 1)
        note = Note.parse(data, longest_text=LONGEST_MANIFEST)
    except OSError as error:
        raise EvidenceError(f"{MANIFEST}: {error.strerror}") from error
    except EvidenceError as error:
        raise EvidenceError(f"{MANIFEST}: {error}") from error
    if len(note.signatures) != 1:
        raise EvidenceError(f"{MANIFEST}: has one signature, not {len(note.signatures)}")
    listed = _parse_manifest(note.text)  # 2, 3
    present = dict(_walk(folder, ""))  # 4
    present.pop(MANIFEST, None)
    return Bundle(folder, data, note.signatures[0].name, listed, present)


def hash_file(path: Path, told: Callable[[int], None] = lambda size: None) -> Listed:
    """A file's hash and size.

    Args:
        path: of the file.
        told: is told how many bytes more were read.

    Raises:
        EvidenceError: if it cannot be read.
    """
    state, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
                size += len(block)
                told(len(block))
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from error
    return Listed(state.hexdigest(), size)


def encode_manifest(files: Mapping[str, Listed], *, origin: str, key: Identity) -> bytes:
    """The manifest over files, signed by the log ``origin``.

    Raises:
        EvidenceError: if a path is none of section 5.
    """
    for path in files:
        if not _LAYOUT.fullmatch(path):
            raise EvidenceError(f"{path}: is not a file of a bundle")
    lines = [f"{file.sha256}  {file.size}  {path}\n" for path, file in sorted(files.items())]
    return sign_text(f"{HEADER}\n" + "".join(lines), name=origin, key=key)


def _parse_manifest(text: str) -> dict[str, Listed]:
    header, *lines = text.removesuffix("\n").split("\n")
    if header != HEADER:
        raise EvidenceError(f"{MANIFEST}: begins with {header[:60]!r}, not {HEADER!r}")
    if len(lines) > MOST_FILES:
        raise EvidenceError(f"{MANIFEST}: names {len(lines)} files, at most {MOST_FILES}")
    listed: dict[str, Listed] = {}
    last = ""
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if not match:
            raise EvidenceError(f"{MANIFEST} line {number}: not a hash, a size and a path")
        sha256, size, path = match[1], int(match[2]), match[3]
        if not _LAYOUT.fullmatch(path) or size > LARGEST_FILE:
            raise EvidenceError(f"{MANIFEST} line {number}: {path[:80]!r} is no file of a bundle")
        if path <= last:
            raise EvidenceError(f"{MANIFEST} line {number}: {path} is named twice or out of order")
        listed[path] = Listed(sha256, size)
        last = path
    return listed


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Every file below a folder with its size."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = f"{prefix}{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if path.count("/") > 4:
                    raise EvidenceError(f"{path}: is no folder of a bundle")
                yield from _walk(folder / entry.name, f"{path}/")
            elif stat.S_ISREG(status.st_mode):
                yield path, status.st_size
            else:
                raise EvidenceError(f"{path!r:.120}: is neither a plain file nor a folder")
    except OSError as error:
        raise EvidenceError(f"{folder}: {error.strerror}") from error
