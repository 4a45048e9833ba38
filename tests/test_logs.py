"""Logs of a real alliance at debug level hold no data, no update, no key and no consumer."""

from __future__ import annotations

import base64
import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from benchmarks.local_alliance import LocalAlliance
from privacy.ledger.kept import HEAD, SUFFIX
from protos.log_events import EVENTS
from tests.spied_node import SPIED_ROUND
from tests.test_alliance import ROOT, local_alliance, terms

WINDOW = 12
"""Bytes of a canary: long enough that none is met by chance, and base64 of it stands alone."""


def forms(data: bytes) -> set[str]:
    """How bytes may turn up in a text."""
    plain = base64.b64encode(data).decode().rstrip("=")
    return {
        data.hex(), data.hex().upper(), plain, plain.replace("+", "-").replace("/", "_"),
        str(list(data))[1:-1], repr(data)[2:-1],
    }  # fmt: skip


def windows(data: bytes, *, most: int = 40) -> Iterable[bytes]:
    """Parts of bytes at places whose base64 does not depend on what stands before."""
    starts = range(0, len(data) - WINDOW + 1, WINDOW)
    yield from (data[at : at + WINDOW] for at in starts[:most])


def canaries_of_numbers(values: np.ndarray) -> set[str]:
    """Numbers in decimals, as both widths print them."""
    told = [value for value in values.tolist() if value and not float(value).is_integer()]
    wide = {repr(float(value)) for value in told[:100]}
    return {one for one in wide | {str(np.float32(value)) for value in told[:100]} if len(one) > 6}


def private_bytes(pem: Path) -> bytes:
    key = load_pem_private_key(pem.read_bytes(), None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if hasattr(key, "private_numbers"):
        return key.private_numbers().private_value.to_bytes(32, "big")
    return der[-32:]


def planted(folder: Path, data: Path) -> dict[str, set[str]]:
    """Everything that must not be met, by what it is."""
    keys: set[str] = set()
    for pem in folder.rglob("*.pem"):
        lines = pem.read_text().splitlines()
        if "PRIVATE KEY" not in lines[0]:
            continue
        keys |= {line for line in lines[1:-1] if len(line) > 16}
        for part in windows(private_bytes(pem)):
            keys |= forms(part)
    rows: set[str] = set()
    consumers: set[str] = set()
    for path in data.glob("*.csv"):
        with path.open() as file:
            for row in csv.DictReader(file):
                consumers.add(row["household"])
                rows.add(row["spend"])
    rows |= {form for one in rows for form in forms(one.encode())}
    consumers |= {form for one in consumers for form in forms(one.encode())}
    updates: set[str] = set()
    for path in data.glob("*.spied"):
        update = np.frombuffer(path.read_bytes(), dtype=np.float32)
        updates |= canaries_of_numbers(update)
        for part in windows(update[update != 0].tobytes()):
            updates |= forms(part)
    for path in folder.rglob(f"*{SUFFIX}"):  # masked, and still nobody's to read
        for part in windows(path.read_bytes()[len(HEAD) :], most=4):
            updates |= forms(part)
    return {"keys": keys, "rows": rows, "consumers": consumers, "updates": updates}


def met(text: str, canaries: Iterable[str]) -> list[str]:
    return [one for one in canaries if one in text]


def write_data(path: Path, index: int) -> None:
    """Rows whose values and names are met nowhere else."""
    rng = np.random.default_rng(index)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["household", "responded", "spend", "trips", "kind"])
        for _ in range(20):
            name = f"household-{rng.bytes(8).hex()}"
            for _row in range(3):
                spend = f"{float(rng.uniform(1, 999)):.9f}"
                writer.writerow([name, int(rng.integers(2)), spend, int(rng.integers(50)), "A"])


class Spied(LocalAlliance):
    """Every process logs all it can; nodes are spied upon, and what is printed is logged too."""

    def _start(self, module: str, name: str, *arguments: Path | str) -> subprocess.Popen[str]:
        command = ["run", *map(str, arguments), "--log-format", "json", "--log-level", "debug"]
        program = ["-c", "from coordinator.cli import main; main()"]
        if module.startswith("client_sdk"):
            program = ["-m", "tests.spied_node", str(self.folder.parent / f"{name}.spied")]
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, *program, *command], cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if module.startswith("coordinator") else log,
                stderr=log, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )  # fmt: skip


def test_logs_hold_no_data_no_update_no_key_and_no_consumer(tmp_path: Path) -> None:
    study = terms(rounds=8, spare=20, members=4)
    for index, entry in enumerate(study.roster):
        write_data(tmp_path / f"{entry.name}.csv", index)
    bad = tmp_path / "member-3.csv"  # a member whose data does not fit ends with the reason
    bad.write_text(bad.read_text().replace(",A\n", ",Q\n", 1))
    usual = local_alliance(tmp_path, study)
    alliance = Spied(usual.folder, study, usual.members, deadlines={"assemble_s": 30.0})
    printed = ""
    with alliance:
        for event in alliance.events():
            printed += json.dumps(event) + "\n"
            if event["event"] == "RoundClosed" and event["round"] == 5:
                alliance.restart_coordinator(signal.SIGKILL)  # so that links are lost as well
        canaries = planted(alliance.folder, tmp_path)
    assert all(len(found) >= 100 for found in canaries.values())
    logs = {path.name: path.read_text() for path in alliance.folder.glob("*.log")}
    seen = set()
    for line in "\n".join([*logs.values(), printed]).splitlines():
        if line:
            said = json.loads(line)
            assert said["event"] in EVENTS
            seen.add(said["event"])
    wanted = {"TaskTaken", "TaskAnswered", "LinkUp", "LinkLost", "ProcessFailed", "RoundClosed"}
    assert wanted | {"ContributionEmpty"} <= seen, SPIED_ROUND
    for name, text in (logs | {"stdout": printed}).items():
        for what, found in canaries.items():
            assert met(text, found) == [], (name, what)


@pytest.mark.parametrize("what", ["plain", "hex", "base64", "urlsafe", "python", "number", "row"])
def test_the_search_finds_what_is_planted(tmp_path: Path, what: str) -> None:
    """The positive control."""
    update = np.random.default_rng(1).normal(size=64).astype(np.float32)
    data = update.tobytes()
    (tmp_path / "a.spied").write_bytes(data)
    write_data(tmp_path / "a.csv", 1)
    leaks = {
        "plain": repr(data), "hex": data.hex(), "base64": base64.b64encode(data).decode(),
        "urlsafe": base64.urlsafe_b64encode(data).decode(), "python": str(list(data)),
        "number": str(update.tolist()), "row": (tmp_path / "a.csv").read_text(),
    }  # fmt: skip
    canaries = planted(tmp_path, tmp_path)
    where = {"row": "rows"}.get(what, "updates")
    assert met(f"before {leaks[what]} after", canaries[where])
    assert met("nothing of the kind: round 7, 0.5 s", set().union(*canaries.values())) == []
