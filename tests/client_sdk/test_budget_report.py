from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from client_sdk.budget_report import budget_report, budget_text, read_budget
from client_sdk.process import open_node
from privacy.errors import ConfigurationError, LedgerError
from privacy.terms import Terms
from tests.conftest import identity, make_contract, make_terms

TERMS = make_terms(rounds=3, max_attempts=4, noise_multiplier=4.0, declared=10)
ROWS = "household,responded,spend,trips,kind,seen\n" + "".join(
    f"h{index},{index % 2},{index * 50},{index},A,2026-01-0{index + 1}\n" for index in range(5)
)


def configure(folder: Path, budget: str = "", alliance: str = "test", **changes: str) -> Path:
    (folder / "rows.csv").write_text(ROWS)
    (folder / "contract.json").write_text(make_contract().model_dump_json())
    pem = folder / "identity.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(identity("member-0").pem())
    path = folder / "node.toml"
    path.write_text(
        f'alliance = "{alliance}"\nmember = "member-0"\nidentity = "identity.pem"\n'
        'declared_consumers = 10\ncoordinator = "127.0.0.1:1"\ncontract = "contract.json"\n'
        f'state = "state"\n[data]\npath = "rows.csv"\n{budget}\n[tls]\nkey = "k"\n'
        'certificate = "c"\nauthority = "a"\n'
    )
    return path


def run(path: Path, *more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from client_sdk.cli import main; main()", "budget"]
        + [str(path), *more],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def begin(path: Path, terms: Terms = TERMS) -> None:
    """A node's life: a study accepted, two attempts reserved, one used."""
    _, node = open_node(path, spending=True)
    journal = node.journal
    journal.approve(
        terms, profile={m: m / 4 for m in range(1, 6)}, most_studies=5, signature=bytes(64)
    )
    journal.grant(terms, size=journal.reserve(terms, ahead=2))
    journal.use(terms, round_number=1, attempt=1, key_set=1, sha256="ab" * 32, signature=bytes(64))
    journal.close()  # type: ignore[attr-defined]


def test_before_there_is_a_ledger_the_configured_budget_is_told_and_nothing_is_made(
    tmp_path: Path,
) -> None:
    path = configure(tmp_path, "[policy.budget]\nepsilon = 6.0\n")
    report = budget_report(*read_budget(path))
    assert report["rule"]["epsilon"] == 6.0
    assert report["epsilon"] == report["lifetime_epsilon"] == {"1": 0.0, "5": 0.0}
    assert report["studies"] == []
    assert "No study was accepted yet." in run(path)
    assert not (tmp_path / "state").exists()


def test_what_is_spent_earmarked_and_left_is_told_in_plain_words(tmp_path: Path) -> None:
    path = configure(tmp_path)
    begin(path)
    report = json.loads(run(path, "--json"))
    for limit in report["limits"]:
        total = limit["spent"] + limit["earmarked"] + limit["left"]
        assert total == pytest.approx(limit["limit"], abs=1e-9)
        assert limit["spent"] == pytest.approx(limit["earmarked"])  # two of four attempts
    assert 0 < report["epsilon"]["1"] < report["epsilon"]["5"] < 10
    assert report["lifetime_epsilon"] == report["epsilon"]
    (study,) = report["studies"]
    assert study == {
        "study": TERMS.label, "terms": TERMS.hash, "attempts": 4, "reserved": 2, "used": 1,
        "finished": False,
        "epsilon_profile": {"1": 0.25, "2": 0.5, "3": 0.75, "4": 1.0, "5": 1.25},
    }  # fmt: skip
    text = budget_text(report)
    assert "all studies together may cost epsilon 10 at\n  delta 1e-05" in text
    assert "for good: it never renews" in text
    assert f"{TERMS.label} (open): 2 of 4 attempts reserved, 1 used" in text
    assert "epsilon(5) 1.250" in text


def test_a_renewing_budget_names_its_period_and_leaves_rows_out(tmp_path: Path) -> None:
    path = configure(tmp_path, '[policy.budget]\nrenewal_days = 365\nrenewal_column = "seen"\n')
    _, node = open_node(path, spending=True)
    assert node.dataset.left_out == 0
    text = budget_text(budget_report(*read_budget(path)))
    assert "in each period of 365 days, for rows whose\n" not in text
    assert "365 days, for rows whose seen is newer than its start; period 1" in text


def test_the_ledgers_key_is_its_own_and_its_owners_alone(tmp_path: Path) -> None:
    path = configure(tmp_path)
    begin(path)
    for name in ("ledger.pem", "ledger.sqlite"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
    assert (tmp_path / "state" / "ledger.pem").read_bytes() != identity("member-0").pem()


def test_a_ledger_belongs_to_one_alliance_and_member(tmp_path: Path) -> None:
    path = configure(tmp_path)
    begin(path)
    configure(tmp_path, alliance="elsewhere")
    with pytest.raises(LedgerError, match="is not a log of elsewhere/member/member-0"):
        open_node(path)


def test_spend_from_before_there_were_ledgers_is_not_forgotten(tmp_path: Path) -> None:
    path = configure(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="which no ledger knows of"):
        open_node(path)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("orders = [2.0]", "name a larger order"),
        ("renewal_days = 30", "name renewal_column"),
        ("epsilon = 0.00001\ndelta = 0.000000001", "raise one of them"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_said_before_anything_starts(
    tmp_path: Path, budget: str, words: str
) -> None:
    path = configure(tmp_path, f"[policy.budget]\n{budget}\n")
    with pytest.raises(ConfigurationError, match=rf"policy\.budget: .*{words}"):
        open_node(path, spending=True)
    with pytest.raises(ConfigurationError, match=words):
        read_budget(path)


def test_a_rule_that_may_not_change_any_more_is_said(tmp_path: Path) -> None:
    path = configure(tmp_path)
    begin(path)
    configure(tmp_path, "[policy.budget]\norders = [4.0]\n")
    with pytest.raises(ConfigurationError, match=r"policy\.budget: orders are fixed"):
        open_node(path, spending=True)


def test_only_a_node_that_serves_changes_the_rule_or_begins_a_period(tmp_path: Path) -> None:
    path = configure(tmp_path)
    begin(path)
    before = (tmp_path / "state" / "ledger.sqlite").read_bytes()
    configure(tmp_path, "[policy.budget]\nepsilon = 5.0\n")
    open_node(path)[1].journal.close()  # type: ignore[attr-defined]
    assert read_budget(path)[1].rule.epsilon_micro == 10_000_000  # type: ignore[union-attr]
    assert (tmp_path / "state" / "ledger.sqlite").read_bytes() == before
