"""Leaving: no spend from that moment on, in any process; who is told; what contains the member."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from privacy.errors import BudgetRefusal
from tests.client_sdk.test_journal import (
    TERMS,
    approve,
    begun,
    kinds,
    ready,
    sqlite_journal,
    use,
)

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
