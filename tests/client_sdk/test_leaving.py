"""Leaving: no spend from that moment on, in any process; who is told; what contains the member."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_sdk.credentials import Credentials
from client_sdk.joining import join
from client_sdk.leaving import leave
from client_sdk.own_models import ranges
from client_sdk.process import open_journal
from privacy.departure import Departure
from privacy.errors import BudgetRefusal, ConfigurationError, LinkError
from privacy.identity import Identity
from tests.client_sdk.test_journal import (
    TERMS,
    approve,
    begun,
    kinds,
    ready,
    sqlite_journal,
    use,
)
from tests.enrolled import Enrolled, enrolled, node_config

LEFT = "this member has left the alliance"
LEAVE = """
import sys
from pathlib import Path
from tests.client_sdk.test_journal import sqlite_journal
print(sqlite_journal(Path(sys.argv[1])).leave("we sell no groceries any more").kind)
"""


def test_leaving_stops_a_process_that_is_about_to_spend(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    running = begun(path)
    approve(running)
    ready(running, ahead=4)
    use(running, 1)
    said = subprocess.run(
        [sys.executable, "-c", LEAVE, str(path)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "left"
    written = running.store.size
    for spend in (
        lambda: running.check(TERMS, round_number=2, attempt=1),
        lambda: use(running, 2),
        lambda: running.reserve(TERMS, ahead=4),
        lambda: running.reserve(TERMS, ahead=0),
        lambda: approve(running),  # terms it accepted before are not accepted again
        lambda: running.adopt(running.account.rule.model_copy(update={"epsilon_micro": 1})),
    ):
        with pytest.raises(BudgetRefusal, match=LEFT):
            spend()
    assert running.store.size == written
    running.finish(TERMS, "its model was published")  # nothing to free any more
    running.refuse(TERMS.hash, "train.reserve", LEFT)
    assert kinds(running)[-2:] == ["left", "refusal"]
    running.close()


def test_leaving_holds_after_a_restart_and_again_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first = begun(path)
    approve(first)
    ready(first, ahead=4)
    left = first.leave("we sell no groceries any more")
    first.close()
    again = sqlite_journal(path)
    assert again.leave("another reason") == left == again.account.left
    with pytest.raises(BudgetRefusal, match=LEFT):
        again.reserve(TERMS, ahead=4)
    assert kinds(again).count("left") == 1
    again.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Enrolled]:
    with enrolled(tmp_path) as opened:
        yield opened


def left_here(path: Path) -> bool:
    journal = open_journal(node_config(path))
    try:
        return journal.account.left is not None
    finally:
        journal.close()


def test_the_coordinator_is_told_and_gives_no_more_certificates(here: Enrolled) -> None:
    path = here.new_node("newcomer")
    join(path, str(here.invite("newcomer")))
    config = node_config(path)
    done = leave(config, path.parent, "we sell no groceries any more")
    assert done.by_hand == ""
    assert done.models == ()
    word = Departure.from_json(done.departure.read_bytes())
    record = here.registry.members()["newcomer"]
    assert record.departure == word.canonical()
    assert "groceries" not in word.canonical().decode()  # its reason stays at the member
    identity = Identity.from_pem(config.identity.read_bytes())
    mine = Credentials(
        config.tls, member="newcomer", identity=identity, enrolment=config.enrolment, proxy=None
    )
    with pytest.raises(LinkError, match="this member left the alliance; to come back"):
        mine.renew()
    again = leave(config, path.parent, "another reason")
    assert (again.at, again.by_hand) == (done.at, "")


def test_a_departure_is_believed_of_its_own_member_only(here: Enrolled) -> None:
    for name in ("newcomer", "other"):
        join(here.new_node(name), str(here.invite(name)))
    config = node_config(here.folder / "newcomer" / "node.toml")
    stranger = here.new_node("newcomer", folder=here.folder / "thief")
    authority = config.tls.authority.read_bytes()
    tls = node_config(stranger).tls
    tls.authority.write_bytes(authority)
    done = leave(node_config(stranger), stranger.parent, "")
    assert "names other keys than this member was admitted with" in done.by_hand
    assert {one.reason for one in here.registry.members().values()} == {None}


def test_a_coordinator_that_cannot_be_reached_stops_nobody_from_leaving(tmp_path: Path) -> None:
    with enrolled(tmp_path) as here:
        path = here.new_node("newcomer")
        join(path, str(here.invite("newcomer")))
    done = leave(node_config(path), path.parent, "")  # its port is closed by now
    assert left_here(path)
    assert "send" in done.by_hand
    assert "alliance-coordinator left departure.json" in done.by_hand
    assert Departure.from_json(done.departure.read_bytes()).member == "newcomer"


@pytest.mark.parametrize("missing", ["identity.pem", "tls/authority.pem"])
def test_a_file_that_is_missing_stops_nobody_from_leaving(here: Enrolled, missing: str) -> None:
    path = here.new_node("newcomer")
    join(path, str(here.invite("newcomer")))
    (path.parent / missing).unlink()
    if missing == "identity.pem":
        with pytest.raises(ConfigurationError, match=r"identity\.pem"):
            leave(node_config(path), path.parent, "")
    else:
        assert "authority.pem" in leave(node_config(path), path.parent, "").by_hand
    assert left_here(path)


def test_rounds_are_told_in_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([3, 1, 2, 7, 9, 8, 5]) == "1-3, 5, 7-9"
