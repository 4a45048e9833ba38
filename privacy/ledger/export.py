"""Makes a bundle from the state folders of a coordinator and of members (README, section 5)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from privacy.empirical.releases import INDEX, release_line, release_name
from privacy.errors import ConfigurationError, EvidenceError, LedgerError
from privacy.identity import Identity
from privacy.ledger.bundle import COORDINATOR, MANIFEST, Listed, encode_manifest, hash_file
from privacy.ledger.database import Database
from privacy.ledger.entry import Opened, Release, decode_entry
from privacy.ledger.kept import SUFFIX, kept_files
from privacy.ledger.store import LedgerStore

__all__ = ["export_bundle", "open_state", "read_key"]

LEDGER: Final = "ledger.sqlite"
KEY: Final = "ledger.pem"


def export_bundle(
    out: Path,
    *,
    coordinator: Path | None,
    members: Mapping[str, Path],
    key: Identity,
    told: Callable[[str], None] = lambda what: None,
) -> int:
    """Writes a bundle; how many files it names.

    Logs may be written to meanwhile: what is exported of each is what one head of it covers.

    Args:
        out: a folder that does not exist yet, or is empty.
        coordinator: its state folder.
        members: state folders by name.
        key: the exporter's ledger key; the key of one of these logs.
        told: is told what is being written.

    Raises:
        ConfigurationError: if a folder or key is not what it should be.
        LedgerError: if a log cannot be read.
        EvidenceError: if a file has a name that no bundle holds.
    """
    if coordinator is None and not members:
        raise ConfigurationError("name a coordinator's or a member's state folder to export")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out}: is there already; name a new folder")
    with ExitStack() as stack:
        stores: dict[str, LedgerStore] = {}
        if coordinator is not None:
            stores[COORDINATOR] = stack.enter_context(closing(open_state(coordinator)))
        for name, folder in members.items():
            store = stack.enter_context(closing(open_state(folder)))
            if store.origin.rpartition("/")[2] != name or "/member/" not in store.origin:
                raise ConfigurationError(f"{folder}: is the state of {store.origin}, not of {name}")
            stores[f"members/{name}"] = store
        exporter = next((store for store in stores.values() if store.key == key.public), None)
        if exporter is None:
            raise ConfigurationError("the key is that of none of the logs which are exported")
        files: dict[str, Listed] = {}
        sizes = {}
        for path, store in stores.items():
            told(path)
            sizes[path] = _write_log(out, path, store, files)
        if coordinator is not None:
            log = stores[COORDINATOR].entries(0, sizes[COORDINATOR])
            for target, parts in chain(_papers(coordinator), _releases(coordinator, log)):
                told(target)
                _write(out / target, parts)
                files[target] = hash_file(out / target)
        _write(out / MANIFEST, [encode_manifest(files, origin=exporter.origin, key=key)])
    return len(files)


def open_state(folder: Path) -> LedgerStore:
    """The log in a state folder, which is not changed.

    Raises:
        ConfigurationError: if there is none.
        LedgerError: if it cannot be used.
    """
    path = folder / LEDGER
    if not path.is_file():
        raise ConfigurationError(f"{folder}: holds no {LEDGER}; name a state folder")
    database = Database(path)
    try:
        rows = database.query("SELECT data FROM leaf WHERE idx = 0")
    finally:
        database.close()
    opened = decode_entry(rows[0][0], where=f"{path}: entry 0") if rows else None
    if not isinstance(opened, Opened):
        raise LedgerError(f"{path}: does not begin with `opened`; restore the newest copy")
    return LedgerStore(
        path, origin=opened.origin, key=read_key(folder / KEY), software=opened.software,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )  # fmt: skip


def read_key(path: Path) -> Identity:
    """The ledger key in a file.

    Raises:
        ConfigurationError: if there is none.
    """
    try:
        return Identity.from_pem(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _write_log(out: Path, folder: str, store: LedgerStore, files: dict[str, Listed]) -> int:
    """Writes a log as it is now; how many entries."""
    note = store.note()
    size = store.check_head(note).size
    parts: dict[str, Iterable[bytes]] = {
        "entries.jsonl": (entry + b"\n" for entry in store.entries(0, size)),
        "head.note": [note],
    }
    cosigned = store.newest_note()
    if cosigned is not None and store.check_head(cosigned).size <= size:
        parts["cosigned.note"] = [cosigned]
    if folder != COORDINATOR:
        parts["receipts.jsonl"] = (receipt + b"\n" for receipt in store.receipts())
    for name, data in parts.items():
        path = f"{folder}/{name}"
        _write(out / path, data)
        files[path] = hash_file(out / path)
    return size


def _papers(state: Path) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Models and kept rounds of a coordinator: where they go, and what is in them."""
    for pattern in ("*.safetensors", "*.passport.json"):
        for source in sorted((state / "models").glob(pattern)):
            yield f"models/{source.name}", _bytes(source)
    for source in sorted((state / "rounds").glob(f"*/round-*{SUFFIX}")):
        folder = source.relative_to(state).with_suffix("").as_posix()
        with suppress(FileNotFoundError):  # the coordinator let go of it meanwhile
            for name, parts in kept_files(source):
                yield f"{COORDINATOR}/{folder}/{name}", parts


def _releases(state: Path, entries: Iterable[bytes]) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Sums that a coordinator kept and its log names, and an index of each study's."""
    folders = {path.name.rpartition("@")[2]: path for path in (state / "releases").glob("*@*")}
    if not folders:
        return
    lines: dict[Path, list[bytes]] = {}
    for index, data in enumerate(entries):
        if b'"kind":"release"' not in data:  # spares reading the others
            continue
        entry = decode_entry(data, where=f"{state}: entry {index}")
        if not isinstance(entry, Release) or (folder := folders.get(entry.terms[:16])) is None:
            continue
        source = folder / release_name(entry.round, entry.attempt)
        if source.exists():
            line = release_line(
                entry.terms, round_number=entry.round, attempt=entry.attempt,
                contributors=tuple(one.member for one in entry.contributions),
                sum_sha256=entry.sum,
            )  # fmt: skip
            lines.setdefault(folder, []).append(line)
            yield f"{COORDINATOR}/{source.relative_to(state).as_posix()}", _bytes(source)
    for folder, index_lines in lines.items():
        yield f"{COORDINATOR}/{folder.relative_to(state).as_posix()}/{INDEX}", index_lines


def _bytes(source: Path) -> Iterator[bytes]:
    if source.is_symlink() or not source.is_file():
        raise EvidenceError(f"{source}: is no plain file")
    with source.open("rb") as file:
        yield from iter(lambda: file.read(1 << 20), b"")


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """A new file, on the disk when this returns."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from error
