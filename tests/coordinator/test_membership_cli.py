"""The commands about members on both sides, where there is no enrolment port."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client_sdk.cli import app as node_app
from coordinator.cli import app as coordinator_app
from privacy.admission import fingerprint
from privacy.errors import ConfigurationError
from privacy.membership import Invitation
from tests.enrolled import node_config


class Desk:
    """An operator's and a member's folders; commands run in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "coordinator.toml"
        self.config.write_text(
            'state = "state"\n[enrolment]\naddress = "localhost:9444"\nhosts = ["localhost"]\n'
        )
        said = self.operator("authority", "init", str(folder / "authority"), "--alliance", "test")
        self.pin = said.split()[-1]

    def operator(self, *arguments: str) -> str:
        return output(CliRunner().invoke(coordinator_app, arguments))

    def member(self, *arguments: str) -> str:
        return output(CliRunner().invoke(node_app, arguments))

    def init(self, name: str = "newcomer") -> str:
        return self.member(
            "init", str(self.folder / name), "--alliance", "test", "--member", name,
            "--coordinator", "localhost:9443", "--consumers", "57", "--json",
        )  # fmt: skip

    def admit(self, name: str, shown: str, *more: str) -> str:
        return self.operator(
            "admit", str(self.folder / name / "request.json"), "--out",
            str(self.folder / f"{name}.pem"), "--config", str(self.config),
            "--fingerprint", shown, *more,
        )  # fmt: skip


def output(done: Result) -> str:
    if done.exception is not None:
        raise done.exception
    return done.stdout.strip()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_member_is_admitted_by_files_and_compared_fingerprints(desk: Desk) -> None:
    made = json.loads(desk.init())
    with pytest.raises(ConfigurationError, match="compare it with that member over the telephone"):
        desk.admit("newcomer", made["fingerprint"].replace("0", "1").replace("9", "8"))
    assert desk.pin in desk.admit("newcomer", made["fingerprint"])
    config = str(desk.folder / "newcomer" / "node.toml")
    file = str(desk.folder / "newcomer.pem")
    with pytest.raises(ConfigurationError, match="compare it with the operator"):
        desk.member("join", file, "--config", config)
    said = desk.member("join", file, "--config", config, "--fingerprint", desk.pin)
    assert "newcomer is a member of test" in said
    rows = json.loads(desk.operator("members", "--config", str(desk.config), "--json"))
    assert rows == [
        {
            "member": "newcomer", "identity": made["identity"], "declared_consumers": 60,
            "vouches": 0, "revoked": None, "left": False,
        }
    ]  # fmt: skip


def test_another_member_s_certificate_is_not_installed(desk: Desk) -> None:
    for name in ("newcomer", "other"):
        desk.admit(name, json.loads(desk.init(name))["fingerprint"])
    with pytest.raises(Exception, match="another key, name or authority"):
        desk.member(
            "join", str(desk.folder / "other.pem"), "--config",
            str(desk.folder / "newcomer" / "node.toml"), "--fingerprint", desk.pin,
        )  # fmt: skip


def test_keys_are_never_made_twice(desk: Desk) -> None:
    desk.init()
    kept = (desk.folder / "newcomer" / "identity.pem").read_bytes()
    with pytest.raises(ConfigurationError, match="a key is kept"):
        desk.init()
    assert (desk.folder / "newcomer" / "identity.pem").read_bytes() == kept


def test_a_node_starts_from_a_configuration_with_comments(desk: Desk) -> None:
    desk.init()
    path = desk.folder / "newcomer" / "node.toml"
    config = node_config(path)
    assert config.enrolment == "localhost:9444"
    assert config.declared_consumers == 60
    assert config.policy.admission is None
    assert "admission" in path.read_text()
    identity = json.loads((path.parent / "request.json").read_text())["request"]["identity"]
    desk.member(
        "init", str(desk.folder / "other"), "--alliance", "test", "--member", "other",
        "--coordinator", "[::1]:9443", "--consumers", "7", "--known", f"newcomer={identity}",
        "--proxy", "http://proxy.example:3128",
    )  # fmt: skip
    config = node_config(desk.folder / "other" / "node.toml")
    assert config.policy.admission == "countersigned"
    assert config.policy.known_members == {"newcomer": identity}
    assert config.enrolment == "[::1]:9444"
    assert config.proxy == "http://proxy.example:3128"


def test_vouches_go_by_file_as_well(desk: Desk) -> None:
    made = {name: json.loads(desk.init(name)) for name in ("harbour", "newcomer")}
    for name, one in made.items():
        desk.admit(name, one["fingerprint"])
    request = str(desk.folder / "request.json")
    (desk.folder / "request.json").write_text(
        desk.operator("members", "--config", str(desk.config), "--request", "newcomer")
    )
    vouch = ("vouch", request, "--config", str(desk.folder / "harbour" / "node.toml"))
    with pytest.raises(ConfigurationError, match="what stands in the request proves nothing"):
        desk.member(*vouch)
    about = {"alliance": "test", "member": "newcomer", "identity": made["newcomer"]["identity"]}
    word = str(desk.folder / "vouch.json")
    desk.member(*vouch, "--fingerprint", fingerprint(**about), "--output", word)
    said = desk.operator("countersign", word, "--config", str(desk.config), "--json")
    assert json.loads(said) == {"newcomer": 1}


@pytest.mark.parametrize("key", ["identity", "ledger"])
def test_rotating_a_key_that_terms_name_says_what_it_takes(desk: Desk, key: str) -> None:
    desk.init()
    config = str(desk.folder / "newcomer" / "node.toml")
    with pytest.raises(ConfigurationError, match=r"new version of .*terms.*nothing was changed"):
        desk.member("rotate", key, "--config", config)


def test_an_invitation_is_one_line_with_the_authority_s_fingerprint(desk: Desk) -> None:
    line = desk.operator("invite", "newcomer", "--config", str(desk.config), "--hours", "2")
    invitation = Invitation.parse(line)
    assert (invitation.member, invitation.address) == ("newcomer", "localhost:9444")
    assert invitation.authority == desk.pin


def test_a_coordinator_without_an_enrolment_table_is_told_so(desk: Desk) -> None:
    desk.config.write_text('state = "state"\n')
    with pytest.raises(ConfigurationError, match=r"has no \[enrolment\] table; add one"):
        desk.operator("invite", "newcomer", "--config", str(desk.config))


def test_a_departure_is_taken_by_hand(desk: Desk) -> None:
    made = json.loads(desk.init())
    desk.admit("newcomer", made["fingerprint"])
    config = str(desk.folder / "newcomer" / "node.toml")
    with pytest.raises(ConfigurationError, match="give --yes as well"):
        desk.member("leave", config, "--json")
    said = json.loads(desk.member("leave", config, "--yes", "--json"))
    assert said["told"] is False
    assert "alliance-coordinator left departure.json" in said["by_hand"]
    departure = Path(said["departure"])
    desk.operator("left", str(departure), "--config", str(desk.config))
    assert desk.operator("members", "--config", str(desk.config)).endswith("  left")
    (row,) = json.loads(desk.operator("members", "--json", "--config", str(desk.config)))
    assert row["left"] is True
    departure.write_bytes(departure.read_bytes().replace(b"newcomer", b"oldcomer"))
    with pytest.raises(ConfigurationError, match="signature"):
        desk.operator("left", str(departure), "--config", str(desk.config))
    assert desk.member("models", config) == "no model contains this member: nothing ever left it"


def test_leaving_is_asked_about(desk: Desk) -> None:
    desk.init()
    config = desk.folder / "newcomer" / "node.toml"
    done = CliRunner().invoke(node_app, ["leave", str(config)], input="n\n")
    assert done.exit_code == 1
    assert "for good" in done.output
    assert not (desk.folder / "newcomer" / "departure.json").exists()
    done = CliRunner().invoke(node_app, ["leave", str(config)], input="y\n")
    assert "its ledger spends nothing any more" in done.output
    assert (desk.folder / "newcomer" / "departure.json").exists()
