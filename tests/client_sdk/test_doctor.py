"""The doctor against a real enrolment port, a real coordinator's port, proxies and interceptors."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client_sdk import doctor
from client_sdk.doctor import Finding, examine
from client_sdk.joining import join
from privacy.certificates import Authority, make_tls_key
from tests.conftest import make_contract
from tests.enrolled import HOUR, Clock, Enrolled, enrolled
from tests.tunnels import connect_proxy, tls_server

DAY = dt.timedelta(days=1)
DATA = "household,responded,spend,trips,kind\n" + "".join(
    f"h{n},{n % 2},{n}.5,{n},A\n" for n in range(20)
)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolled]:
    with enrolled(tmp_path_factory.mktemp("operator")) as here:
        path = here.new_node("healthy")
        folder = path.parent
        # The enrolment port stands in for the coordinator's: of that, TLS alone is looked at.
        set_line(path, "coordinator", here.address)
        path.write_text(path.read_text() + f'other = "{"0" * 64}"\n')
        (folder / "contract.json").write_text(make_contract().model_dump_json())
        (folder / "data.csv").write_text(DATA)
        join(path, str(here.invite("healthy")))
        yield here


@pytest.fixture
def node(operator: Enrolled, tmp_path: Path) -> Path:
    """A copy of the healthy node, to make ill."""
    shutil.copytree(operator.folder / "healthy", tmp_path / "node")
    return tmp_path / "node" / "node.toml"


def set_line(path: Path, key: str, value: str) -> None:
    lines = [
        f'{key} = "{value}"' if line.lstrip("# ").startswith(f"{key} =") else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")


def wrong(findings: list[Finding]) -> dict[str, str]:
    return {one.check: one.sentence for one in findings if one.outcome == "wrong"}


def test_nothing_is_wrong_with_a_healthy_node(node: Path) -> None:
    findings = examine(node)
    assert wrong(findings) == {}
    assert {one.outcome for one in findings} == {"good"}
    assert [one.check for one in findings] == [
        "config", "identity", "state", "certificate", "data", "coordinator port",
        "coordinator tls", "enrolment port", "enrolment tls", "clock", "protocol", "membership",
    ]  # fmt: skip


def other_authority(folder: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    issued = Authority("else", now=now, lifetime=DAY).issue_member("healthy", now=now, lifetime=DAY)
    (folder / "tls" / "key.pem").write_bytes(issued.key)
    (folder / "tls" / "certificate.pem").write_bytes(issued.certificate)


ILLS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "identity is world-readable": (
        lambda folder: (folder / "identity.pem").chmod(0o644),
        "identity",
        "others may read this key; run chmod 600",
    ),
    "TLS key is world-readable": (
        lambda folder: (folder / "tls" / "key.pem").chmod(0o604),
        "certificate",
        "others may read this key; run chmod 600",
    ),
    "no certificate": (
        lambda folder: (folder / "tls" / "certificate.pem").unlink(),
        "certificate",
        "there is none yet; ask the operator for an invitation",
    ),
    "certificate is junk": (
        lambda folder: (folder / "tls" / "certificate.pem").write_bytes(b"junk"),
        "certificate",
        "not a PEM certificate; join again",
    ),
    "key mismatch": (
        lambda folder: (folder / "tls" / "key.pem").write_bytes(make_tls_key()),
        "certificate",
        "is not of the key",
    ),
    "another authority's certificate": (
        other_authority,
        "certificate",
        "was issued by CN=else, not by",
    ),
    "wrong name": (
        lambda folder: set_line(folder / "node.toml", "member", "other"),
        "certificate",
        "names healthy, node.toml names other; mend node.toml",
    ),
    "state is a file": (
        lambda folder: (shutil.rmtree(folder / "state"), (folder / "state").touch()),
        "state",
        "cannot be written",
    ),
    "data does not fit": (
        lambda folder: (folder / "data.csv").write_text("household,responded\nh1,1\n"),
        "data",
        "spend",
    ),
    "declared too few": (
        lambda folder: (folder / "data.csv").write_text(
            DATA + "".join(f"x{n},0,1,1,B\n" for n in range(500))
        ),
        "data",
        "520 consumers, but 20 declared",
    ),
    "no such coordinator": (
        lambda folder: set_line(folder / "node.toml", "coordinator", "no-such-host.invalid:1"),
        "coordinator dns",
        "cannot be resolved",
    ),
    "config is no TOML": (
        lambda folder: (folder / "node.toml").write_text("member = ["),
        "config",
        "not TOML",
    ),
}


@pytest.mark.parametrize("ill", ILLS)
def test_each_ill_is_found_by_name_and_alone(node: Path, ill: str) -> None:
    harm, check, sentence = ILLS[ill]
    harm(node.parent)
    found = wrong(examine(node))
    assert sentence in found.pop(check)
    assert set(found) <= ({"membership"} if check == "certificate" or ill == "identity is "
                          "world-readable" else set())  # fmt: skip


def test_a_full_disk_is_found(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 1 << 62)
    assert "MiB left; free" in wrong(examine(node))["state"]


@pytest.mark.parametrize("off", [6 * HOUR / 60, DAY, 365 * DAY, -6 * HOUR / 60, -DAY])
def test_a_clock_that_is_off_is_found(node: Path, off: dt.timedelta) -> None:
    clock = Clock()
    clock.ahead = off
    assert "set it, with NTP" in wrong(examine(node, clock=clock))["clock"]


@pytest.mark.parametrize("off", [4 * HOUR / 60, -4 * HOUR / 60])
def test_a_clock_within_five_minutes_is_good(node: Path, off: dt.timedelta) -> None:
    clock = Clock()
    clock.ahead = off
    assert wrong(examine(node, clock=clock)) == {}


@pytest.mark.parametrize(("off", "sentence"), [(-DAY, "is valid from"), (2 * DAY, "expired at")])
def test_a_certificate_out_of_its_time_is_found(
    node: Path, off: dt.timedelta, sentence: str
) -> None:
    clock = Clock()
    clock.ahead = off
    found = wrong(examine(node, clock=clock))
    assert sentence in found["certificate"]
    assert "this machine's clock says" in found["clock"]


def test_an_interceptor_is_named(node: Path, tmp_path: Path) -> None:
    with tls_server(tmp_path, "Inspecting Firewall") as address:
        set_line(node, "coordinator", address)
        set_line(node, "enrolment", address)
        found = wrong(examine(node))
    for check in ("coordinator tls", "enrolment tls"):
        assert "issued by CN=Inspecting Firewall" in found[check]
        assert "let this connection through unopened" in found[check]


def test_an_old_tls_is_found(node: Path, tmp_path: Path) -> None:
    with tls_server(tmp_path, "old", version=ssl.TLSVersion.TLSv1_2) as address:
        shutil.copy(tmp_path / "old.authority.pem", node.parent / "tls" / "authority.pem")
        set_line(node, "coordinator", address)
        found = wrong(examine(node))
    assert "speaks TLSv1.2, TLS 1.3 is required" in found["coordinator tls"]


def test_a_certificate_for_another_host_is_found(node: Path, operator: Enrolled) -> None:
    set_line(node, "coordinator", operator.address.replace("127.0.0.1", "127.0.0.2"))
    # 127.0.0.2 is this machine as well, where the port is open on 127.0.0.1 alone.
    assert "does not take connections" in wrong(examine(node))["coordinator port"]
    set_line(node, "coordinator", operator.address.replace("127.0.0.1", "localhost.localdomain"))
    found = wrong(examine(node))
    assert "coordinator dns" in found or "of another host" in found["coordinator tls"]


def test_a_revoked_member_learns_why(operator: Enrolled) -> None:
    path = operator.new_node("leaver")
    join(path, str(operator.invite("leaver")))
    operator.registry.revoke("leaver", "contract ended", now=operator.clock())
    assert "revoked; ask the operator why (contract ended)" in wrong(examine(path))["membership"]


def test_another_protocol_is_found(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROTOCOL", 99)
    assert "this node 99; update the coordinator" in wrong(examine(node))["protocol"]


def test_it_works_through_a_proxy_and_says_what_is_wrong_with_one(
    node: Path, operator: Enrolled
) -> None:
    seen: list[str] = []
    with connect_proxy(seen) as proxy:
        set_line(node, "proxy", proxy)
        findings = examine(node)
    assert wrong(findings) == {}
    assert set(seen) == {operator.address}
    assert len(seen) == 3  # both ports by steps, and gRPC
    found = wrong(examine(node))
    assert "check that the proxy is up" in found["coordinator proxy"]
    with connect_proxy([], status="403 Forbidden") as proxy:
        set_line(node, "proxy", proxy)
        found = wrong(examine(node))
    assert "403 Forbidden" in found["enrolment proxy"]


def test_a_node_joins_through_a_proxy(operator: Enrolled, tmp_path: Path) -> None:
    seen: list[str] = []
    with connect_proxy(seen) as proxy:
        path = operator.new_node("inside", folder=tmp_path / "inside", proxy=proxy)
        join(path, str(operator.invite("inside")))
    assert set(seen) == {operator.address}
    assert (tmp_path / "inside" / "tls" / "certificate.pem").exists()


def test_the_command_s_exit_code_and_json_tell(node: Path) -> None:
    command = [sys.executable, "-c", "from client_sdk.cli import main; main()", "doctor"]
    good = subprocess.run([*command, str(node), "--json"], capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    assert {one["outcome"] for one in json.loads(good.stdout)} == {"good"}
    (node.parent / "identity.pem").chmod(0o644)
    ill = subprocess.run([*command, str(node)], capture_output=True, text=True, check=False)
    assert ill.returncode == 1
    assert "run chmod 600" in ill.stdout
