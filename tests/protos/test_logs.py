"""The table of events is complete, and what may quote a row is not written."""

from __future__ import annotations

import ast
import io
import json
import logging
import string
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.monitor import Event
from privacy.errors import DataError
from protos.log_events import EVENTS
from protos.logs import LogFormat, configure, line_of, log

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("coordinator", "client_sdk", "protos", "privacy")
OWN = {kind.__name__ for kind in typing.get_args(Event)}
"""The coordinator's own events."""
BY_PROCESS = {"ProcessFailed", "OtherSoftware"}
RESERVED = {"at", "level", "event", "message", "error"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def names_of(node: ast.expr) -> list[str]:
    """The event's name, or both where one of two is chosen."""
    if isinstance(node, ast.IfExp):
        return [*names_of(node.body), *names_of(node.orelse)]
    assert isinstance(node, ast.Constant)
    return [node.value]


def test_every_record_is_an_event_of_the_table_with_the_fields_of_its_sentence() -> None:
    used = set()
    for where, call in calls():
        if not (isinstance(call.func, ast.Name) and call.func.id == "log" and call.args):
            continue
        for name in names_of(call.args[0]):
            assert name in EVENTS, where
            used.add(name)
            wanted = {part for _, part, _, _ in string.Formatter().parse(EVENTS[name].sentence)}
            given = {keyword.arg for keyword in call.keywords} - {"error"}
            assert given == wanted - {None}, where
            assert not given & RESERVED, where
    assert used | OWN | BY_PROCESS == set(EVENTS)
    assert not used & OWN


def test_nobody_logs_past_the_table() -> None:
    for where, call in calls():
        if where.startswith("protos/logs.py"):
            continue
        written = ast.unparse(call.func)
        assert not written.startswith(("logging.", "_LOG.")), where


def test_the_coordinator_s_events_are_of_the_table() -> None:
    assert {name for name, kind in EVENTS.items() if not kind.sentence} == OWN


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("alliance")
    before = root.handlers[:], root.level, ours.level, sys.excepthook, logging.raiseExceptions
    yield io.StringIO()
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])
    sys.excepthook, logging.raiseExceptions = before[3], before[4]
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, typing.Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_has_a_moment_a_level_an_event_and_its_fields(stream: io.StringIO) -> None:
    configure(stream, style="json", level="info")
    log("TaskTaken", task="coupons round 1", size_bytes=24)  # below the level
    log("LinkUp", target="alliance.example:9443", member="harbour")
    (said,) = lines(stream)
    assert said.pop("at").endswith("Z")
    assert said == {
        "level": "info", "event": "LinkUp", "target": "alliance.example:9443",
        "member": "harbour", "message": "connected to alliance.example:9443 as harbour",
    }  # fmt: skip


def test_events_and_records_have_one_form() -> None:
    said = json.loads(line_of("MemberFaulted", {"member": "a", "sentence": "b"}, at_s=0.25))
    assert said == {
        "at": "1970-01-01T00:00:00.250Z", "level": "error", "event": "MemberFaulted",
        "member": "a", "sentence": "b",
    }  # fmt: skip


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_may_quote_a_row_is_not_written(stream: io.StringIO, style: LogFormat) -> None:
    configure(stream, style=style, level="debug")
    row = "household 4711 spent 867.53"
    try:
        raise ValueError(row)
    except ValueError as cause:
        log("ContributionEmpty", error=cause)
        logging.getLogger("asyncio").exception("a task failed: %s", row)
        try:
            raise KeyError(row) from cause
        except KeyError as error:
            log("TaskUnanswered", error=error, task="train.contribute")
            sys.excepthook(KeyError, error, error.__traceback__)
    logging.getLogger("sqlalchemy.engine").debug("INSERT %s", row)
    logging.getLogger("sqlalchemy.pool").warning(row)
    logging.getLogger("py.warnings").warning("%s", row)
    log("LinkUp", target=np.array([867.53]), member=row.encode())  # type: ignore[arg-type]
    written = stream.getvalue()
    assert row not in written
    assert "867.53" not in written
    assert "<ndarray>" in written
    assert "<bytes>" in written
    for kept in ("ContributionEmpty", "ValueError", "KeyError", "test_logs.py", "a task failed"):
        assert kept in written


def test_an_error_of_ours_is_written_with_its_words(stream: io.StringIO) -> None:
    configure(stream, style="json")
    log("TaskUnanswered", error=DataError("column spend: 1 of 2 rows"), task="train.contribute")
    (said,) = lines(stream)
    assert said["error"]["kind"] == "DataError"
    assert said["error"]["sentence"] == "column spend: 1 of 2 rows"


@pytest.mark.parametrize("style", ["text", "json"])
def test_nobody_forges_a_line(stream: io.StringIO, style: LogFormat) -> None:
    configure(stream, style=style)
    log("LinkLost", target="a", sentence="over\n{}\r\u2028\x1b[2J" + "x" * 10_000)
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert len(line) < 5000


@pytest.mark.parametrize("side", ["coordinator", "client_sdk"])
@pytest.mark.parametrize("style", ["text", "json"])
def test_a_program_s_last_words_have_the_form_of_its_records(
    tmp_path: Path, side: str, style: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", f"from {side}.cli import main; main()", "run", str(config),
         "--log-format", style],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "config.toml" in line
    assert line.startswith("{" if style == "json" else "alliance-")
