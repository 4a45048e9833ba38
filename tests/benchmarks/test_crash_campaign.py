"""A slice of the campaign; the whole of it is ``python -m benchmarks.crash_campaign``."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import local_postgres
from benchmarks.crash_campaign.campaign import quantile
from benchmarks.crash_campaign.controls import CONTROLS, flagged
from benchmarks.crash_campaign.life import Life, live
from benchmarks.crash_campaign.links import Links
from benchmarks.crash_campaign.steps import BETWEEN, Left, Steps, read_left

needs_postgres = pytest.mark.skipif(not local_postgres.available(), reason=local_postgres.MISSING)
ROUNDS = 40


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("number", "database"),
    [(1, "sqlite"), pytest.param(2, "postgresql", marks=needs_postgres)],
)
def test_kills_and_faults_lose_nothing_and_what_is_planted_is_seen(
    number: int, database: str
) -> None:
    lived, evidence = live(Life(number, database, ROUNDS, most_kills=10))
    assert lived.problems == []
    assert lived.rounds == ROUNDS
    assert lived.killed >= 3
    assert all(kill["recovery_s"] is not None for kill in lived.kills)
    for name in CONTROLS:
        assert flagged(name, evidence), name


def test_a_killed_process_says_in_which_step_it_died(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps")
    assert steps.inside == (BETWEEN,)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from benchmarks.crash_campaign.steps import Steps\n"
        "steps = Steps(Path(sys.argv[1])); steps.enter('share'); steps.enter('confirm')\n"
        "steps.leave('share'); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(steps.path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert steps.inside == ("confirm",)
    steps.begin()
    assert steps.inside == ("starting",)


def test_a_note_that_a_kill_cut_off_did_not_leave(tmp_path: Path) -> None:
    path = tmp_path / "left"
    assert read_left(path) == ()
    path.write_text('{"round": 1, "attempt": 2, "sha256": "ab"}\n{"round": 2, "att')
    assert read_left(path) == (Left(1, 2, "ab"),)


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets; its address."""

    def serve(client: socket.socket) -> None:
        with suppress(ConnectionResetError), client:
            while data := client.recv(1 << 16):
                client.sendall(data)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_links_lose_part_and_cut(echo: str) -> None:
    with Links(0.001) as links:
        host, _, port = links.open("one", echo).rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:

            def echoed(data: bytes) -> bytes:
                client.sendall(data)
                got = b""
                while len(got) < len(data):
                    got += client.recv(len(data))
                return got

            assert echoed(b"before") == b"before"
            links.lose(["one"], 1.0)
            client.sendall(b"parted")
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(60)
            links.mend(["one"])
            assert client.recv(6) == b"parted"
            links.lose(["one"], 0.2)
            for number in range(20):
                assert echoed(b"%d" % number) == b"%d" % number
            links.mend(["one"])
            links.cut(["one"])
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_quantile_is_the_value_that_enough_do_not_exceed() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [quantile(values, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert quantile([3.0], 0.99) == 3.0
