"""Where the processes of an alliance connect to, and what leaves a member (ATTACKS O4, O6)."""

from __future__ import annotations

import base64
import csv
import gzip
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.local_alliance import LocalAlliance
from tests.test_alliance import ROOT, local_alliance, of_kind, terms
from tests.test_logs import write_data

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

CALL = re.compile(r'(?:connect|sendto)\(.*sin6?_port=htons\((\d+)\).*?"([0-9a-f.:]+)"')
TRACE = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o")
GZIP = b"\x1f\x8b\x08"


def reached(trace: Path) -> set[str]:
    """Addresses and ports of the internet's families that a traced process tried to reach."""
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    return {
        f"{match[2].removeprefix('::ffff:')}:{match[1]}"
        for line in lines
        if (match := CALL.search(line))
    }


def shapes(canary: str) -> Iterator[bytes]:
    """A canary as it is, and in base64 wherever it stands among other bytes."""
    data = canary.encode()
    yield data
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data)
        yield encoded[-(-8 * before // 6) : len(encoded) // 4 * 4 - 4]


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes, and what is behind every beginning of gzip in them."""
    yield data
    for match in re.finditer(re.escape(GZIP), data):
        try:
            yield zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data[match.start() :])
        except zlib.error:
            continue


def met(data: bytes, canaries: set[bytes]) -> list[bytes]:
    return [one for part in unpacked(data) for one in canaries if one in part]


def canaries_of(folder: Path) -> set[bytes]:
    """Consumers and spends of all members' tables."""
    found: set[bytes] = set()
    for path in folder.glob("*.csv"):
        with path.open() as file:
            for row in csv.DictReader(file):
                found.update(shapes(row["household"]), shapes(row["spend"]))
    return found


class Watched(LocalAlliance):
    """Each process is traced from its first instruction, and nodes' frames are kept."""

    def _start(self, module: str, name: str, *arguments: Path | str) -> subprocess.Popen[str]:
        program = ["-c", "from coordinator.cli import main; main()"]
        if module.startswith("client_sdk"):
            program = ["-m", "tests.tapped_node", str(self.folder.parent / f"{name}.tap")]
        trace = str(self.folder.parent / f"{name}.trace")
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [*TRACE, trace, sys.executable, *program, "run", *map(str, arguments)],
                cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if module.startswith("coordinator") else log,
                stderr=log, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )  # fmt: skip


def test_nodes_reach_their_coordinator_alone_and_no_row_leaves_them(tmp_path: Path) -> None:
    study = terms(rounds=2, members=4)
    names = [entry.name for entry in study.roster]
    for index, name in enumerate(names):
        write_data(tmp_path / f"{name}.csv", index)
    usual = local_alliance(tmp_path, study)
    with Watched(usual.folder, study, usual.members, deadlines={"assemble_s": 60.0}) as alliance:
        events = list(alliance.events())
    assert len(of_kind(events, "RoundClosed")) == 2
    (listening,) = of_kind(events, "Listening")
    for name in names:
        assert reached(tmp_path / f"{name}.trace") == {listening["address"]}, name
    assert reached(tmp_path / "coordinator.trace") == set()
    canaries = canaries_of(tmp_path)
    assert len(canaries) > 1000
    for name in names:
        tap = (tmp_path / f"{name}.tap").read_bytes()
        assert study.label.encode() in tap
        assert met(tap, canaries) == []
    kept = [path for path in alliance.folder.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.sqlite" for path in kept)
    for path in kept:
        assert met(path.read_bytes(), canaries) == [], path


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_a_connection_elsewhere_is_seen(tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    call = "connect" if kind == "SOCK_STREAM" else "sendto"
    arguments = "('127.0.0.1', 9)" if kind == "SOCK_STREAM" else "b'x', ('127.0.0.1', 9)"
    program = (
        "import socket, contextlib\n"
        f"with socket.socket(socket.AF_INET, socket.{kind}) as one, "
        f"contextlib.suppress(OSError):\n    one.{call}({arguments})\n"
    )
    subprocess.run([*TRACE, str(trace), sys.executable, "-c", program], check=True, timeout=60)
    assert reached(trace) == {"127.0.0.1:9"}


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
@pytest.mark.parametrize("pack", [bytes, base64.b64encode, gzip.compress])
def test_a_row_that_leaves_is_seen(before: bytes, pack: object) -> None:
    canary = "household-0123456789abcdef"
    assert callable(pack)
    sent = before + pack(before + canary.encode() + b",17\n") + b"rest"
    assert met(sent, set(shapes(canary)))
    assert not met(sent, set(shapes("household-fedcba9876543210")))
