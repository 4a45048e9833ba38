"""The command as people run it: exit codes, one sentence for what cannot be read, no framework."""

from __future__ import annotations

import json
import sys

import pytest

from privacy.ledger.cli import main
from tests.privacy.ledger.bundles import copy, seal
from tests.test_house import import_without

BLOCKED = {"torch", "opacus", "flwr", "grpc", "google", "duckdb", "sqlalchemy", "pyarrow"}


def run(*arguments, blocked=BLOCKED):
    program = f"import sys; sys.argv = {['alliance-audit', *map(str, arguments)]!r}\n"
    done = import_without(blocked, program + "from privacy.ledger.cli import main; main()")
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def here(monkeypatch, capsys):
    """The same in this process: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["alliance-audit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def damaged(bundle, tmp_path_factory):
    folder = copy(bundle, tmp_path_factory.mktemp("damaged") / "b")
    path = folder / "members/member-0/entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"count":4', b'"count":3'))
    return folder


def test_a_sound_bundle_ends_with_0_and_json(bundle):
    done = run("verify", bundle, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["sound"]
    assert said["checked"][15]["count"] == 2  # the fold was found by its entry point
    assert done.stderr == ""


def test_findings_end_with_1_and_name_file_and_entry(damaged, here):
    done = run("verify", damaged)
    assert done.returncode == 1
    assert "members/member-0/entries.jsonl: is not the file that the manifest names" in done.stdout
    assert "Could not be checked from these bytes" in done.stdout
    code, output, _ = here("verify", damaged, "--json")
    assert code == 1
    assert not json.loads(output)["sound"]
    assert {one["file"] for one in json.loads(output)["findings"]} >= {
        "members/member-0/entries.jsonl"
    }


def test_what_cannot_be_read_ends_with_2_and_a_sentence(tmp_path, bundle, here):
    done = run("verify", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("alliance-audit: ")
    for arguments in (
        ("verify", tmp_path / "nothing"),
        ("report", tmp_path, "--output", tmp_path / "r.html"),
        ("diff", bundle, tmp_path),
        ("passport", tmp_path / "nothing"),
        ("export", tmp_path / "out", "--key", tmp_path / "no.pem", "--member", "a=b"),
        ("report", bundle, "--output", tmp_path / "no" / "r.html"),
    ):
        code, _, error = here(*arguments)
        assert code == 2, arguments
        assert error.startswith("alliance-audit: ")
        assert error.count("\n") == 1


def test_export_report_diff_and_passport(alliance, bundle, tmp_path, here):
    out = tmp_path / "out"
    members = [
        part for name, state in alliance.states.items() for part in ("--member", f"{name}={state}")
    ]
    coordinator = alliance.folder / "coordinator"
    code, output, _ = here(
        "export", out, "--coordinator", coordinator, *members,
        "--key", coordinator / "ledger.pem", "--json",
    )  # fmt: skip
    assert (code, json.loads(output)["files"]) == (0, 39)
    report = tmp_path / "r.html"
    assert here("report", out, "--output", report, "--seed", "s")[0] == 0
    assert "可靠" in report.read_text()
    code, output, _ = here("diff", bundle, out, "--json")
    assert (code, json.loads(output)["added"]) == (0, [])
    passport, model = out / "models/coupons.passport.json", out / "models/coupons.safetensors"
    done = run("passport", passport, "--model", model, "--key", alliance.key.public)
    assert done.returncode == 0
    assert "it is this one" in done.stdout
    code, output, _ = here("passport", passport, "--model", passport, "--json")
    assert (code, json.loads(output)["sound"]) == (1, False)


def test_diff_ends_with_1_where_something_changed(bundle, damaged, here):
    assert here("diff", bundle, damaged)[0] == 1


def test_help_is_there_for_every_command(here):
    code, output, _ = here("--help")
    for command in ("export", "verify", "report", "diff", "passport", "empirical"):
        assert command in output
        assert here(command, "--help")[0] == 0
    assert code == 0


def test_a_resealed_edit_is_found_too(bundle, alliance, tmp_path, here):
    folder = copy(bundle, tmp_path / "b")
    path = folder / "members/member-0/entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"count":4', b'"count":3'))
    seal(folder, alliance.key)
    assert here("verify", folder)[0] == 1
