"""The auditor's way through: key, enrolment, a run, its folder of releases, the measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.empirical.runs import Member, honest, run, write_releases
from client_sdk.canaries import Canaries
from privacy.empirical.canaries import open_enrolment
from privacy.empirical.cli import app
from privacy.empirical.releases import INDEX, release_name
from privacy.fixedpoint import SHARE_SCALE
from tests.privacy.empirical.studies import LOUD

MEMBERS = ("member-0", "member-3")


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "terms.json").write_text(LOUD.model_dump_json())
    code, public = call("key", folder / "auditor.pem")
    assert (code, len(public.strip())) == (0, 64)
    for member in MEMBERS:
        code, said = call(
            "enrol", folder / "terms.json", "--member", member, "--count", 400, "--scale", 10,
            "--key", folder / "auditor.pem", "--secret", folder / f"{member}.secret",
            "--output", folder / f"{member}.canaries",
        )  # fmt: skip
        assert (code, "of 400 canaries take part" in said) == (0, True)
    return folder


def write_run(folder: Path, target: Path, *, noise_scale: float = SHARE_SCALE) -> None:
    members = {entry.name: Member(blocks=lambda *_: iter(())) for entry in LOUD.roster}
    for name in MEMBERS:
        data = (folder / f"{name}.canaries").read_bytes()
        members[name] = honest(Canaries(open_enrolment(data, where=name), bytes(32)))
    members = {
        name: Member(blocks=one.blocks, noise_scale=noise_scale) for name, one in members.items()
    }
    target.mkdir()
    write_releases(target, LOUD, run(LOUD, members, seed="cli"))


@pytest.fixture(scope="module")
def sound(enrolled: Path) -> Path:
    write_run(enrolled, enrolled / "releases")
    return enrolled


def measure(folder: Path, releases: Path, *more: object) -> tuple[int, str]:
    secrets = [folder / f"{member}.secret" for member in MEMBERS]
    return call("measure", folder / "terms.json", releases, *secrets, *more)


def test_an_honest_run_is_sound_and_says_what_it_does_not_prove(sound: Path) -> None:
    code, said = measure(sound, sound / "releases")
    assert code == 0, said
    assert "With 99.9 % confidence each, epsilon is at least" in said
    assert "this finds faults, not a member that cheats" in said


def test_files_are_for_their_owner_only(sound: Path) -> None:
    for name in ("auditor.pem", "member-0.secret", "member-0.canaries"):
        assert (sound / name).stat().st_mode & 0o077 == 0


def test_half_the_noise_is_a_finding(enrolled: Path, tmp_path: Path) -> None:
    write_run(enrolled, tmp_path / "half", noise_scale=SHARE_SCALE / 2)
    code, said = measure(enrolled, tmp_path / "half", "--json")
    document = json.loads(said)
    assert code == 1
    assert [one["fault"] for one in document["findings"] if one["flagged"]] == ["too little noise"]
    assert document["sound"] is False
    assert document["releases"] == LOUD.privacy.rounds


def test_a_claim_below_a_bound_is_a_finding(sound: Path) -> None:
    code, said = measure(sound, sound / "releases", "--epsilon", 0.001, "--json")
    assert code == 1
    assert json.loads(said)["bounds"]["gaussian"] > 0.001


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in (folder / "releases").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


FILE, OTHER = release_name(1, 1), release_name(2, 1)
BAD: dict[str, tuple[str, Callable[[bytes], bytes | None]]] = {
    "no index": (INDEX, lambda _: None),
    "index cut off": (INDEX, lambda data: data[:-1]),
    "empty index": (INDEX, lambda _: b""),
    "CRLF": (INDEX, lambda data: data.replace(b"\n", b"\r\n")),
    "a line twice": (INDEX, lambda data: data.splitlines(keepends=True)[0] * 2),
    "a stranger": (INDEX, lambda data: data.replace(b"member-0", b"member-9")),
    "a member twice": (INDEX, lambda data: data.replace(b"member-0", b"member-1")),
    "too few members": (INDEX, lambda data: data.replace(b',"member-1","member-2"', b"")),
    "other terms": (INDEX, lambda data: data.replace(LOUD.hash.encode(), b"0" * 64)),
    "other sampling": (INDEX, lambda data: data.replace(b'"poisson"', b'"shuffle"')),
    "no file": (FILE, lambda _: None),
    "a file cut off": (FILE, lambda data: data[:-4]),
    "a flipped bit": (FILE, lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_read_is_named_in_one_sentence(
    sound: Path, tmp_path: Path, bad: str
) -> None:
    folder = copied(sound, tmp_path / "bad")
    name, change = BAD[bad]
    changed = change((folder / name).read_bytes())
    (folder / name).unlink()
    if changed is not None:
        (folder / name).write_bytes(changed)
    code, said = measure(sound, folder)
    assert code == 2
    assert said.startswith(f"alliance-audit: {folder}")
    assert len(said.strip().splitlines()) == 1


def test_sums_that_are_not_the_ledgers_are_refused(sound: Path, tmp_path: Path) -> None:
    """A sum of the right size, and another round's, which is one too."""
    folder = copied(sound, tmp_path / "forged")
    for forged in (bytes((folder / FILE).stat().st_size), (folder / OTHER).read_bytes()):
        (folder / FILE).write_bytes(forged)
        code, said = measure(sound, folder)
        assert (code, "whose hash the ledger holds" in said) == (2, True)


def test_a_secret_twice_or_of_nobody_is_unreadable(sound: Path) -> None:
    secret = sound / "member-0.secret"
    assert call("measure", sound / "terms.json", sound / "releases", secret, secret)[0] == 2
    code, said = call("measure", sound / "terms.json", sound / "releases", sound / "terms.json")
    assert code == 2
    assert "Traceback" not in said


def test_nothing_is_replaced(sound: Path) -> None:
    assert call("key", sound / "auditor.pem")[0] == 2


def test_too_many_canaries_are_refused_with_the_remedy(sound: Path, tmp_path: Path) -> None:
    code, said = call(
        "enrol", sound / "terms.json", "--member", "member-0", "--count", 5000,
        "--key", sound / "auditor.pem", "--secret", tmp_path / "a", "--output", tmp_path / "b",
    )  # fmt: skip
    assert (code, "enrol at most 2000 canaries in all" in said) == (2, True)
    assert not (tmp_path / "a").exists()
