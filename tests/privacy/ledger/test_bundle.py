"""Bundles: what is no bundle is said in a sentence, and nothing outside of one is ever read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from privacy.errors import ConfigurationError, EvidenceError
from privacy.ledger.bundle import MANIFEST, Listed, encode_manifest, open_bundle
from privacy.ledger.note import sign_text
from tests.conftest import identity
from tests.privacy.ledger.bundles import audit, copy, export, seal

KEY = identity("coordinator")
HEADER = "alliance-audit/bundle/v1\n"
ROW = "0" * 64 + "  12  {}\n"


def refused(folder) -> str:
    with pytest.raises(EvidenceError) as error:
        open_bundle(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_bundle_is_read(bundle, alliance):
    opened = open_bundle(bundle)
    assert opened.signer == "small/coordinator"
    assert opened.members == tuple(alliance.members)
    assert opened.listed.keys() == opened.present.keys()
    opened.expect_signed(alliance.key.public)


@pytest.mark.parametrize("what", ["missing", "a file", "empty"])
def test_a_folder_that_is_no_bundle(tmp_path, what):
    folder = tmp_path / "b"
    if what == "a file":
        folder.write_text("x")
    elif what == "empty":
        folder.mkdir()
    assert ("is no bundle" if what == "empty" else "is not a folder") in refused(folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("alliance-audit/bundle/v2\n", "begins with"),
        (HEADER + "x\n", "line 1: not a hash"),
        (HEADER + ROW.format("../outside"), "no file of a bundle"),
        (HEADER + ROW.format("/etc/passwd"), "no file of a bundle"),
        (HEADER + ROW.format("members/../coordinator/head.note"), "no file of a bundle"),
        (HEADER + ROW.format("members/a/other.txt"), "no file of a bundle"),
        (HEADER + ROW.format("models/a.safetensors").replace("12", "012"), "not a hash"),
        (HEADER + ROW.format("models/a.safetensors").replace("12", "9" * 13), "no file"),
        (HEADER + 2 * ROW.format("models/a.safetensors"), "named twice"),
        (HEADER + ROW.format("models/b.safetensors") + ROW.format("models/a.safetensors"), "order"),
    ],
)
def test_manifests_that_are_none(tmp_path, text, why):
    (tmp_path / MANIFEST).write_bytes(sign_text(text, name="a/coordinator", key=KEY))
    assert why in refused(tmp_path)


def test_a_manifest_is_a_strict_note(bundle, tmp_path):
    data = (bundle / MANIFEST).read_bytes()
    for bad in (
        data.replace(b"\n", b"\r\n"),
        data[:-20],
        data + data.splitlines(keepends=True)[-1],
        b"",
        b"\xff\xfe",
    ):
        (tmp_path / MANIFEST).write_bytes(bad)
        assert refused(tmp_path).startswith(MANIFEST)


def test_links_and_devices_are_never_followed(bundle, tmp_path):
    for number, make in enumerate(
        (
            lambda path: path.symlink_to("/etc/passwd"),
            lambda path: path.symlink_to("/"),
            os.mkfifo,
        )
    ):
        folder = copy(bundle, tmp_path / str(number))
        make(folder / "coordinator" / "extra")
        assert "neither a plain file nor a folder" in refused(folder)
    folder = copy(bundle, tmp_path / "manifest")
    (folder / MANIFEST).rename(tmp_path / "elsewhere")
    (folder / MANIFEST).symlink_to(tmp_path / "elsewhere")
    assert "is no bundle" in refused(folder)


def test_files_and_manifest_are_held_against_each_other(bundle, tmp_path):
    folder = copy(bundle, tmp_path / "b")
    (folder / "members/member-0/receipts.jsonl").unlink()
    (folder / "coordinator/extra").write_text("x")
    data = (folder / "models/coupons.safetensors").read_bytes()
    (folder / "models/coupons.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = {(one.file, one.check) for one in audit(folder).findings}
    assert {
        ("members/member-0/receipts.jsonl", 1),
        ("coordinator/extra", 1),
        ("models/coupons.safetensors", 1),
        ("models/coupons.safetensors", 14),
    } <= found


def test_only_files_of_the_layout_are_signed():
    with pytest.raises(EvidenceError, match="not a file of a bundle"):
        encode_manifest({"../x": Listed("0" * 64, 1)}, origin="a/coordinator", key=KEY)


def test_any_partys_folder_may_be_missing(alliance, tmp_path):
    alone = export(
        alliance, tmp_path / "alone", coordinator=None,
        members={"member-1": alliance.folder / "member-1"}, key=alliance.members["member-1"].key,
    )  # fmt: skip
    said = audit(alone)
    assert said.sound
    assert said.signer == "small/member/member-1"
    assert any("coordinator recorded" in one for one in said.unchecked)
    assert any("receipts of member-1" in one for one in said.unchecked)
    known = audit(alone, key=alliance.key.public)
    assert known.checked[12] == 3
    assert known.sound
    without = export(alliance, tmp_path / "without", members={})
    said = audit(without)
    assert said.sound
    assert sum("the budget of member-" in one for one in said.unchecked) == 5


def test_the_index_of_releases_is_made_of_the_log_and_of_what_is_there(alliance, tmp_path):
    state = tmp_path / "coordinator"
    shutil.copytree(alliance.folder / "coordinator", state)
    (folder,) = (state / "releases").iterdir()
    sums = sorted(folder.glob("*.sum"))
    sums[0].unlink()
    (folder / "round-99-1.sum").write_bytes(sums[1].read_bytes())  # the log names no such attempt
    exported = export(alliance, tmp_path / "bundle", coordinator=state)
    releases = exported / "coordinator" / "releases" / folder.name
    left = [path.name for path in sums[1:]]
    assert sorted(path.name for path in releases.glob("*.sum")) == left
    lines = [json.loads(line) for line in (releases / "releases.jsonl").read_bytes().splitlines()]
    assert sorted(f"round-{one['round']}-{one['attempt']}.sum" for one in lines) == left
    for one in lines:
        data = (releases / f"round-{one['round']}-{one['attempt']}.sum").read_bytes()
        assert hashlib.sha256(data).hexdigest() == one["sum"]
    assert audit(exported).sound


def test_exports_that_cannot_be_made(alliance, bundle, tmp_path):
    with pytest.raises(ConfigurationError, match="is there already"):
        export(alliance, bundle)
    with pytest.raises(ConfigurationError, match="none of the logs"):
        export(alliance, tmp_path / "a", key=KEY.generate())
    with pytest.raises(ConfigurationError, match=r"holds no ledger\.sqlite"):
        export(alliance, tmp_path / "b", coordinator=tmp_path)
    with pytest.raises(ConfigurationError, match="is the state of small/member/member-1"):
        export(alliance, tmp_path / "c", members={"member-0": alliance.folder / "member-1"})
    with pytest.raises(ConfigurationError, match="name a coordinator"):
        export(alliance, tmp_path / "d", coordinator=None, members={})


def test_a_stranger_may_not_sign_the_manifest(bundle, tmp_path, alliance):
    folder = copy(bundle, tmp_path / "b")
    seal(folder, identity("stranger"))
    assert {one.check for one in audit(folder).findings} == {2}
    seal(folder, alliance.key, "small/member/nobody")
    assert {one.check for one in audit(folder).findings} == {2}
    seal(folder, alliance.key)
    assert audit(folder).sound
