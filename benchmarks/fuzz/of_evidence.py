"""Parsers of ledgers, bundles, passports, releases and model files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from safetensors.numpy import save

from benchmarks.fuzz.campaign import Parser
from benchmarks.fuzz.scene import Scene
from client_sdk.recipes.model_file import load_model
from client_sdk.recipes.propensity.adaptation import Adaptation
from client_sdk.recipes.propensity.adapted_file import AdaptedModel, load_adapted, save_adapted
from client_sdk.recipes.propensity.fold import state_from_arrays
from client_sdk.recipes.statistics import fold as statistics
from coordinator.store.studies import StudyStore
from privacy.documents import check_shape
from privacy.empirical.releases import INDEX, open_releases
from privacy.errors import EvidenceError, LedgerError
from privacy.ledger.audit_log import Heads
from privacy.ledger.audit_member import _receipt
from privacy.ledger.audit_models import check_models
from privacy.ledger.audit_rounds import _opening
from privacy.ledger.bundle import MANIFEST, Bundle, open_bundle
from privacy.ledger.checkpoint import (
    add_cosignatures,
    cosigners,
    open_checkpoint,
    own_note,
)
from privacy.ledger.entry import canonical, decode_entry, parse_canonical
from privacy.ledger.export import export_bundle
from privacy.ledger.findings import Findings
from privacy.ledger.kept import SUFFIX, kept_files
from privacy.ledger.merkle import MemoryTree, root, verify_consistency, verify_inclusion
from privacy.ledger.note import Note, NoteSignature, decode_base64, open_note, sign_text
from privacy.ledger.passport import CONTEXT, Passport, open_passport
from privacy.terms import Terms

__all__ = ["parsers"]


def parsers(here: Scene) -> Iterator[Parser]:
    """All of them."""
    yield from _notes(here)
    yield from _entries(here)
    yield from _bundles(here)
    yield from _models(here)


def _notes(here: Scene) -> Iterator[Parser]:
    alliance = here.alliance
    note = alliance.store.newest_note() or b""
    origin, key = alliance.store.origin, alliance.key
    keys = {f"small/member/member-{index}": here.ledger(index).public for index in range(5)}
    text = Note.parse(note).text

    def read(data: bytes) -> None:
        Note.parse(data)
        for line in data.decode(errors="replace").splitlines()[:3]:
            _or_refused(NoteSignature.parse, line)
            _or_refused(decode_base64, line, where="a line")
        open_checkpoint(data, origin=origin, key=key.public)
        own_note(data, origin=origin, key=key.public)
        cosigners(data, keys)
        add_cosignatures(note, data.decode(errors="replace").splitlines()[-2:])
        open_note(data, name=origin, key=key.public)

    def signed_anew(data: bytes) -> None:
        changed = data.replace(b"\x00", b"").decode(errors="replace") + "\n"
        signed = sign_text(changed, name=origin, key=key)
        open_checkpoint(signed, origin=origin, key=key.public)

    def line(data: bytes) -> None:
        NoteSignature.parse(data.decode("utf-8", errors="replace"))

    store = alliance.store
    size = store.size
    head = open_checkpoint(store.note(), origin=origin, key=key.public)
    tree = MemoryTree()
    for leaf in store.leaf_hashes():
        tree.append(leaf)
    (third,) = store.leaf_hashes(3, 4)

    def inclusion(data: bytes) -> None:
        index = int.from_bytes(data[:4], "big", signed=True)
        verify_inclusion(
            leaf=third, index=index, size=size, proof=_hashes(data[4:]),
            root=head.root,
        )  # fmt: skip

    def consistency(data: bytes) -> None:
        old_size = int.from_bytes(data[:4], "big", signed=True)
        verify_consistency(
            old_size=old_size, new_size=size, proof=_hashes(data[4:]), old_root=root(tree, 5),
            new_root=head.root,
        )  # fmt: skip

    yield Parser(
        "notes and cosigned heads",
        (
            "privacy.ledger.note:Note.parse",
            "privacy.ledger.note:open_note",
            "privacy.ledger.note:decode_base64",
            "privacy.ledger.checkpoint:open_checkpoint",
        ),
        (note, alliance.store.note()), read, form="text", longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "checkpoints, signed anew", ("privacy.ledger.checkpoint:Checkpoint.parse",),
        (text.encode(),), signed_anew, form="text", longest=1 << 14,
    )  # fmt: skip
    yield Parser(
        "signature lines", ("privacy.ledger.note:NoteSignature.parse",),
        (note.split(b"\n\n")[1].splitlines()[0],), line, form="text", longest=1 << 14,
    )  # fmt: skip
    yield Parser(
        "proofs of inclusion", ("privacy.ledger.merkle:verify_inclusion",),
        ((3).to_bytes(4, "big") + b"".join(store.inclusion_proof(3, size)),), inclusion,
    )  # fmt: skip
    yield Parser(
        "proofs of consistency", ("privacy.ledger.merkle:verify_consistency",),
        ((5).to_bytes(4, "big") + b"".join(store.consistency_proof(5, size)),), consistency,
    )  # fmt: skip


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + 32] for at in range(0, min(len(data), 3000), 32)]


def _entries(here: Scene) -> Iterator[Parser]:
    stores = [here.alliance.store, *(one.store for one in here.alliance.members.values())]
    entries = {data for store in stores for data in store.entries()}
    kinds: dict[str, bytes] = {}
    for data in sorted(entries):
        kinds.setdefault(json.loads(data)["kind"], data)
    receipts = next(iter(here.alliance.members.values())).store.receipts()

    yield Parser(
        "ledger entries",
        (
            "privacy.ledger.entry:decode_entry",
            "privacy.ledger.entry:parse_canonical",
        ),
        tuple(kinds.values()),
        lambda data: (decode_entry(data, where="it"), parse_canonical(data, where="it")),
        form="json", longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "receipts", ("privacy.ledger.audit_member:MemberAudit.read_receipts",),
        tuple(receipts)[:3], _receipt, form="json", longest=1 << 20,
    )  # fmt: skip


def _bundles(here: Scene) -> Iterator[Parser]:
    manifest = (here.bundle / MANIFEST).read_bytes()
    bundle = open_bundle(here.bundle)
    folder = here.folder / "manifest"
    folder.mkdir()

    def read(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        open_bundle(folder).expect_signed(here.alliance.key.public)

    def lines(data: bytes) -> None:
        path = here.file("manifest/entries.jsonl", data)
        opened = Bundle(folder, b"", "", {}, {path.name: len(data)})
        list(opened.lines(path.name, longest=2000))
        opened.read(path.name, most_bytes=10_000)

    def opening(data: bytes) -> None:
        (folder / "opening.json").write_bytes(data)
        opened = Bundle(folder, b"", "", {}, {"opening.json": len(data)})
        _opening(opened, "opening.json")

    def kept(data: bytes) -> None:
        sizes = [sum(map(len, parts)) for _, parts in kept_files(here.file("round.kept", data))]
        if not sizes:
            raise EvidenceError("unfinished, which is no error to its reader")

    files = sorted((here.alliance.folder / "coordinator" / "rounds").glob(f"*/*{SUFFIX}"))
    yield Parser(
        "files of kept rounds", ("privacy.ledger.kept:kept_files",),
        tuple(path.read_bytes() for path in files), kept, longest=1 << 20,
    )  # fmt: skip
    openings = [path for path in bundle.under("coordinator/rounds/") if path.endswith(".json")]
    yield Parser(
        "manifests", ("privacy.ledger.bundle:open_bundle",),
        (manifest,), read, form="text", longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "files of lines",
        ("privacy.ledger.bundle:Bundle.read", "privacy.ledger.audit_log:read_log"),
        (b'{"a":1}\n' * 5, b"\n"), lines, form="text", longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "openings of kept rounds", (),
        tuple((here.bundle / path).read_bytes() for path in openings), opening, form="json",
        longest=1 << 20,
    )  # fmt: skip


def _models(here: Scene) -> Iterator[Parser]:
    models = here.alliance.folder / "coordinator" / "models"
    model = (models / f"{here.terms.study}.safetensors").read_bytes()
    passport = (models / f"{here.terms.study}.passport.json").read_bytes()
    state = save({name: np.asarray(one) for name, one in here.state_arrays().items()})
    key = here.alliance.key

    def signed_anew(data: bytes) -> None:
        try:
            check_shape(data)  # as `open_passport` does first
            read = Passport.model_validate_json(data)
            signature = key.sign(CONTEXT, read.unsigned()).hex()
        except ValueError as error:
            raise EvidenceError("the form is fuzzed by another parser") from error
        signed: Any = read.model_copy(update={"signature": signature})
        open_passport(canonical(signed.model_dump(mode="json")))

    def audited(data: bytes) -> None:
        path = here.file("models/coupons.safetensors", data)
        bundle = Bundle(here.folder, b"", "", {}, {f"models/{path.name}": len(data)})
        check_models(bundle, None, None, Heads(Findings()), Findings())

    def model_file(data: bytes) -> None:
        load_model(here.file("model.safetensors", data))
        audited(data)

    (here.folder / "models").mkdir()
    yield Parser(
        "model files", ("client_sdk.recipes.model_file:load_model",),
        (model,), model_file, longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "papers of model files", (), (_papers(model),),
        lambda data: load_model(here.file("papers.safetensors", _with_papers(model, data))),
        form="json", longest=1 << 20,
    )  # fmt: skip
    adapted = here.folder / "adapted.safetensors"
    terms, parameters, number = load_model(here.file("model.safetensors", model))
    save_adapted(adapted, AdaptedModel(terms, parameters, number, Adaptation(trees="tree\n")))
    yield Parser(
        "adapted models",
        (
            "client_sdk.recipes.propensity.adapted_file:load_adapted",
            "client_sdk.recipes.model_file:read_file",
        ),
        (adapted.read_bytes(),),
        lambda data: load_adapted(here.file("adapted.safetensors", data)), longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "a study's public state",
        (
            "client_sdk.recipes.propensity.fold:state_from_arrays",
            "coordinator.store.studies:StudyStore.state",
        ),
        (state,), _state(here.terms, state_from_arrays), longest=1 << 20,
    )  # fmt: skip
    told = here.statistics()
    found = statistics.initial_state(told).arrays()
    yield Parser(
        "the public state of statistics",
        ("client_sdk.recipes.statistics.fold:state_from_arrays",),
        (save({name: np.asarray(one) for name, one in found.items()}),),
        _state(told, statistics.state_from_arrays), longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "passports", ("privacy.ledger.passport:open_passport",),
        (passport,), open_passport, form="json", longest=1 << 20,
    )  # fmt: skip
    yield Parser(
        "passports, signed anew", (), (passport,), signed_anew, form="json", longest=1 << 20
    )
    yield _releases(here)


class _OneRow(StudyStore):
    """A store whose only row is set from outside."""

    def __init__(self) -> None:
        self.data = b""

    def _rows(self, query: Any) -> list[Any]:
        return [(self.data,)]


def _state(terms: Terms, read: Callable[..., object]) -> Callable[[bytes], object]:
    """Reads a state as a coordinator that starts again does."""
    store = _OneRow()

    def parse(data: bytes) -> None:
        store.data = data
        arrays = store.state(terms.hash, 1, "")
        read(arrays or {}, terms)

    return parse


def _releases(here: Scene) -> Parser:
    bundle, state = here.folder / "exported", here.alliance.folder / "coordinator"
    export_bundle(bundle, coordinator=state, members={}, key=here.alliance.key)
    source = next((bundle / "coordinator" / "releases").iterdir())
    folder = here.folder / "releases"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    lines = (source / INDEX).read_bytes()

    def parse(data: bytes) -> None:
        (folder / INDEX).write_bytes(data)
        open_releases(folder, here.terms)

    return Parser(
        "releases", ("privacy.empirical.releases:open_releases",),
        (lines,), parse, form="text", longest=1 << 20,
    )  # fmt: skip


def _papers(model: bytes) -> bytes:
    size = int.from_bytes(model[:8], "little")
    header = json.loads(model[8 : 8 + size])
    papers: str = header["__metadata__"]["alliance/v1/model"]
    return papers.encode()


def _with_papers(model: bytes, papers: bytes) -> bytes:
    """The model file with other papers."""
    size = int.from_bytes(model[:8], "little")
    header = json.loads(model[8 : 8 + size])
    header["__metadata__"]["alliance/v1/model"] = papers.decode("utf-8", errors="replace")
    changed = json.dumps(header).encode()
    changed += b" " * (-len(changed) % 8)
    return len(changed).to_bytes(8, "little") + changed + model[8 + size :]


def _or_refused(call: Any, *arguments: Any, **named: Any) -> None:
    """Calls something that may refuse, and goes on to the next."""
    try:
        call(*arguments, **named)
    except (EvidenceError, LedgerError):
        return
