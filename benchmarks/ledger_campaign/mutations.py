"""Random alterations of a bundle, each of which the auditor must find.

Who alters it, and what they can sign again:
 (a) somebody without any key, who changes bytes, lines and files;
 (b) whoever exported it, with the coordinator's ledger key, who signs the manifest again;
 (c) the coordinator, who also signs another head of its own log;
 (d) a member and the coordinator together, who sign the member's head and the manifest again;
 (e) a stranger with a key of its own, who signs what it can.
What members witnessed, or hold receipts for, stays as it was: without that nobody could tell.
Bytes that say nothing are left alone in (b): verifiers ignore signatures of keys they do not know.
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.ledger_campaign.small_alliance import SmallAlliance, key_of
from benchmarks.secagg_campaign.tally import Tally
from client_sdk.recipes.propensity import fold
from privacy.errors import EvidenceError
from privacy.identity import Identity
from privacy.ledger.audit import audit_bundle
from privacy.ledger.audit_result import Audit
from privacy.ledger.bundle import MANIFEST, encode_manifest, hash_file
from privacy.ledger.checkpoint import Checkpoint, sign_checkpoint
from privacy.ledger.entry import canonical
from privacy.ledger.export import export_bundle
from privacy.ledger.merkle import Stream, leaf_hash

__all__ = ["MUTATIONS", "Altered", "mutated", "mutations"]

ORIGIN: Final = "small/coordinator"
LOG: Final = "coordinator/entries.jsonl"
Files = dict[str, bytes]
Mutation = Callable[[random.Random, Files, "Altered"], str]
"""Changes files in place, and says what it did."""


class Altered:
    """A sound bundle on disk that is altered and mended again.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        alliance = SmallAlliance(folder / "alliance", members=4)
        alliance.agree()
        alliance.reserve(alliance.terms.privacy.max_attempts)
        self.old_note = alliance.store.newest_note() or b""
        alliance.go_on()
        self.key = alliance.key
        self.members = {f"members/{one.name}": one.key for one in alliance.members.values()}
        self.origins = {f"members/{name}": f"small/member/{name}" for name in alliance.members}
        self.origins["coordinator"] = ORIGIN
        self.folder = folder / "bundle"
        export_bundle(
            self.folder,
            coordinator=folder / "alliance" / "coordinator",
            members=alliance.states,
            key=alliance.key,
        )
        alliance.close()
        self.files: Files = {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        self.witnessed = alliance.witnessed

    def audit(self) -> Audit:
        """The real audit of what is on the disk."""
        return audit_bundle(self.folder, seed="campaign", draw=10, folds=lambda _: fold)

    def found(self, files: Mapping[str, bytes]) -> bool:
        """Whether the auditor finds that the bundle holds these files instead; mends it after."""
        try:
            self._write(self.files, files)
            return not self.audit().sound
        except EvidenceError:
            return True
        finally:
            self._write(files, self.files)

    def _write(self, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        for path in before.keys() - after.keys():
            (self.folder / path).unlink()
        for path, data in after.items():
            if before.get(path) != data:
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).write_bytes(data)

    # What can be signed again.

    def seal(self, files: Files, key: Identity | None = None) -> None:
        """Makes the manifest anew."""
        listed = {}
        with tempfile.NamedTemporaryFile() as file:
            for path, data in files.items():
                if path != MANIFEST:
                    Path(file.name).write_bytes(data)
                    listed[path] = hash_file(Path(file.name))
        files[MANIFEST] = encode_manifest(listed, origin=ORIGIN, key=key or self.key)

    def head(self, files: Files, folder: str, key: Identity) -> None:
        """Signs a log's head anew."""
        stream = Stream()
        for line in files[f"{folder}/entries.jsonl"].split(b"\n")[:-1]:
            stream.append(leaf_hash(line))
        head = Checkpoint(self.origins[folder], stream.size, stream.root())
        files[f"{folder}/head.note"] = sign_checkpoint(head, key)


# (a)


def flip_a_bit(rng: random.Random, files: Files, altered: Altered) -> str:
    """One bit anywhere."""
    path = rng.choice(sorted(files))
    data = bytearray(files[path])
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    files[path] = bytes(data)
    return f"bit of {path} at {at}"


def cut_or_insert_bytes(rng: random.Random, files: Files, altered: Altered) -> str:
    """Some bytes less, or more."""
    path = rng.choice(sorted(files))
    data = files[path]
    at, size = rng.randrange(len(data)), rng.choice([1, 1, 2, 16, 1000])
    if rng.random() < 0.5:
        files[path] = data[:at] + data[at + size :]
        return f"{size} bytes of {path} at {at} cut"
    files[path] = data[:at] + rng.randbytes(size) + data[at:]
    return f"{size} bytes into {path} at {at}"


def truncate(rng: random.Random, files: Files, altered: Altered) -> str:
    """A file ends early."""
    path = rng.choice(sorted(files))
    files[path] = files[path][: rng.randrange(len(files[path]))]
    return f"{path} truncated to {len(files[path])}"


def change_line_ends(rng: random.Random, files: Files, altered: Altered) -> str:
    """CRLF."""
    path = rng.choice([path for path, data in sorted(files.items()) if b"\n" in data])
    files[path] = files[path].replace(b"\n", b"\r\n")
    return f"CRLF in {path}"


def move_lines(rng: random.Random, files: Files, altered: Altered) -> str:
    """Two lines change places, or one stands twice, or is gone."""
    path = rng.choice(
        [path for path in sorted(files) if path.endswith(("jsonl", "note")) and _many(files[path])]
    )
    lines = files[path].splitlines(keepends=True)
    one, other = rng.sample(range(len(lines)), 2)
    way = rng.choice(["swap", "double", "drop"])
    if way == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    elif way == "double":
        lines.insert(other, lines[one])
    else:
        del lines[one]
    files[path] = b"".join(lines)
    return f"{way} lines {one} and {other} of {path}"


def move_files(rng: random.Random, files: Files, altered: Altered) -> str:
    """A file is gone, or stands for another, or two change places."""
    one, other = rng.sample(sorted(files), 2)
    way = rng.choice(["remove", "replace", "swap"])
    if way == "remove":
        del files[one]
    elif way == "replace":
        files[one] = files[other]
    else:
        files[one], files[other] = files[other], files[one]
    return f"{way} {one} and {other}"


def add_a_file(rng: random.Random, files: Files, altered: Altered) -> str:
    """A file that nobody exported."""
    path = rng.choice(
        ["members/member-9/entries.jsonl", "notes.txt", "models/other.safetensors", ".hidden"]
    )
    files[path] = rng.randbytes(rng.randrange(1, 200))
    return f"added {path}"


# (b)


def seal_a_change(rng: random.Random, files: Files, altered: Altered) -> str:
    """Bits, bytes or lines of a file change, and the manifest is signed again."""
    telling = (".jsonl", ".bin", ".sum", ".safetensors", "passport.json", "opening.json")
    paths = [
        path
        for path in sorted(files)
        if path.endswith(telling) and not path.endswith("receipts.jsonl")
    ] + [path for path in sorted(files) if path.endswith("head.note")]
    part = {path: files[path] for path in paths}
    before = dict(part)
    while part == before:
        what = rng.choice([flip_a_bit, cut_or_insert_bytes])(rng, part, altered)
    files.update(part)
    altered.seal(files)
    return f"sealed: {what}"


def swap_sealed_files(rng: random.Random, files: Files, altered: Altered) -> str:
    """Two files of one kind change places, and the manifest is signed again."""
    kind = rng.choice(["entries.jsonl", "head.note", "cosigned.note", ".bin", ".sum"])
    paths = [path for path in sorted(files) if path.endswith(kind)]
    one, other = rng.sample(paths, 2)
    files[one], files[other] = files[other], files[one]
    altered.seal(files)
    return f"sealed: swapped {one} and {other}"


def replay_an_old_head(rng: random.Random, files: Files, altered: Altered) -> str:
    """The coordinator's cosigned head of before the first round stands for the newest one."""
    size = int(altered.old_note.split(b"\n")[1])
    lines = files[LOG].splitlines(keepends=True)
    keep = rng.randrange(size, len(lines))
    files["coordinator/cosigned.note"] = altered.old_note
    files[LOG] = b"".join(lines[:keep])
    altered.head(files, "coordinator", altered.key)
    altered.seal(files)
    return f"the coordinator's log went back to {keep}, with an old cosigned head"


def take_cosignatures_away(rng: random.Random, files: Files, altered: Altered) -> str:
    """Too few witnesses are left on a head."""
    path = rng.choice([path for path in sorted(files) if path.endswith("cosigned.note")])
    text, _, signatures = files[path].rpartition(b"\n\n")
    lines = signatures.splitlines(keepends=True)
    keep = 1 + rng.randrange(2)
    files[path] = text + b"\n\n" + b"".join(lines[:keep])
    altered.seal(files)
    return f"{keep} signatures left in {path}"


# (c) and (d)


def rewrite_the_coordinator(rng: random.Random, files: Files, altered: Altered) -> str:
    """An entry that members witnessed is edited, dropped, doubled or moved; the head is new."""
    what = _rewrite(rng, files, LOG, most=altered.witnessed)
    altered.head(files, "coordinator", altered.key)
    altered.seal(files)
    return what


def rewrite_a_member(rng: random.Random, files: Files, altered: Altered) -> str:
    """The same in a member's log."""
    folder = rng.choice(sorted(altered.members))
    what = _rewrite(rng, files, f"{folder}/entries.jsonl", most=10**9)
    altered.head(files, folder, altered.members[folder])
    altered.seal(files)
    return what


def lower_a_figure(rng: random.Random, files: Files, altered: Altered) -> str:
    """The coordinator's passport states less than was spent, signed by its key."""
    path = next(path for path in sorted(files) if path.endswith("passport.json"))
    passport = json.loads(files[path])
    figures = passport["epsilon"][rng.choice(["spent_micro", "most_micro"])]
    at = rng.randrange(len(figures))
    figures[at] = rng.randrange(figures[at] - 3)
    if rng.random() < 0.3:
        passport["epsilon"]["attempts"] -= 1
    _sign_passport(passport, altered.key)
    files[path] = canonical(passport)
    altered.seal(files)
    return f"passport: epsilon({at + 1}) lowered"


# (e)


def sign_with_another_key(rng: random.Random, files: Files, altered: Altered) -> str:
    """A stranger signs the manifest, a head, or a passport."""
    stranger = key_of(f"stranger {rng.random()}")
    way = rng.choice(["manifest", "head", "passport"])
    if way == "manifest":
        altered.seal(files, stranger)
        return "manifest signed by a stranger"
    if way == "head":
        folder = rng.choice(sorted(altered.origins))
        altered.head(files, folder, stranger)
    else:
        path = next(path for path in sorted(files) if path.endswith("passport.json"))
        passport = json.loads(files[path])
        passport["key"] = stranger.public
        _sign_passport(passport, stranger)
        files[path] = canonical(passport)
    altered.seal(files)
    return f"{way} signed by a stranger"


MUTATIONS: Final[Sequence[tuple[Mutation, int]]] = (
    (flip_a_bit, 30),
    (cut_or_insert_bytes, 10),
    (truncate, 5),
    (change_line_ends, 1),
    (move_lines, 5),
    (move_files, 5),
    (add_a_file, 2),
    (seal_a_change, 18),
    (swap_sealed_files, 3),
    (replay_an_old_head, 2),
    (take_cosignatures_away, 2),
    (rewrite_the_coordinator, 7),
    (rewrite_a_member, 7),
    (lower_a_figure, 1),
    (sign_with_another_key, 2),
)
"""Kinds of alteration, and how often each is made of a hundred."""


@functools.cache
def _altered() -> tuple[tempfile.TemporaryDirectory[str], Altered]:
    """One sound bundle per process, in memory where that can be."""
    memory = Path("/dev/shm")  # noqa: S108  (a random name of our own in it)
    folder = tempfile.TemporaryDirectory(
        prefix="mutations-", dir=memory if memory.is_dir() else None
    )
    return folder, Altered(Path(folder.name))


def mutated(trials: Sequence[int], *, seed: int = 1) -> Tally:
    """Alters a bundle once per trial; each alteration must be found.

    Args:
        trials: their numbers decide, with the seed, what is altered.
        seed: for other alterations.
    """
    _, altered = _altered()
    kinds = [kind for kind, _ in MUTATIONS]
    weights = [weight for _, weight in MUTATIONS]
    tally = Tally()
    if not altered.audit().sound:
        tally.fail("the bundle is not sound before it is altered")
    for trial in trials:
        rng = random.Random(f"{seed}/{trial}")
        kind = rng.choices(kinds, weights)[0]
        files = dict(altered.files)
        what = kind(rng, files, altered)
        while files == altered.files:  # swapped with its like
            what = kind(rng, files, altered)
        tally.trials += 1
        tally.counts[kind.__name__.replace("_", " ")] += 1
        if not altered.found(files):
            tally.fail(f"trial {trial}: {what} was not found")
    return tally


def mutations(count: int, seed: int) -> tuple[int, int, dict[str, Any]]:
    """``count`` alterations: trials, failures, and what they were."""
    tally = mutated(range(count), seed=seed)
    return tally.trials, tally.failures, {"kinds": Counter(tally.counts), "missed": tally.reasons}


def _rewrite(rng: random.Random, files: Files, path: str, *, most: int) -> str:
    lines = files[path].splitlines(keepends=True)
    witnessed = min(len(lines), most)
    at = rng.randrange(1, witnessed)
    way = rng.choice(["edit", "drop", "double", "swap"])
    if way == "edit":
        entry = json.loads(lines[at])
        field = rng.choice([name for name in sorted(entry) if type(entry[name]) is int])
        entry[field] += rng.choice([1, -1, 1000])
        lines[at] = canonical(entry) + b"\n"
    elif way == "drop":
        del lines[at]
    elif way == "double":
        lines.insert(min(at, witnessed - 2), lines[at])  # behind the rest it would only be new
    else:
        other = rng.choice([one for one in range(1, witnessed) if one != at])
        lines[at], lines[other] = lines[other], lines[at]
    files[path] = b"".join(lines)
    return f"{way} entry {at} of {path}, signed again"


def _sign_passport(passport: dict[str, Any], key: Identity) -> None:
    del passport["signature"]
    passport["signature"] = key.sign("alliance/v1/passport", canonical(passport)).hex()


def _many(data: bytes) -> bool:
    return data.count(b"\n") > 1
