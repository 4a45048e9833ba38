"""What a study costs, worked out and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import costs
from coordinator.costs import Costs, kept_costs
from privacy.accounting import Accountant
from tests.conftest import make_terms


def test_costs_are_the_accountant_s_and_never_less_in_between() -> None:
    terms = make_terms(rounds=100, max_attempts=150)
    found, accountant = Costs.of(terms), Accountant(terms)
    assert found.profile == accountant.projection().profile
    assert len(found.spent) == 151
    assert found.spent[0] == 0
    assert found.spent[-1] == found.profile[1]
    for attempts in (1, 7, 50, 149):
        exact = accountant.epsilon(attempts=attempts)
        assert exact <= found.spent[attempts] <= accountant.epsilon(attempts=min(150, attempts + 3))


def test_kept_costs_are_read_unless_they_are_of_other_software_or_spoiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = make_terms(rounds=2, max_attempts=3)
    loud = make_terms(noise_multiplier=0.02, rounds=2, max_attempts=2)
    first = {one.hash: kept_costs(one, tmp_path / "costs") for one in (terms, loud)}
    assert first[loud.hash].spent[-1] > 1000
    worked_out: list[str] = []
    of = Costs.of
    monkeypatch.setattr(Costs, "of", lambda one: worked_out.append(one.hash) or of(one))
    for one in (terms, loud):
        assert kept_costs(one, tmp_path / "costs") == first[one.hash]
    assert worked_out == []
    path = tmp_path / "costs" / f"{terms.hash}.json"
    for spoiled in (
        path.read_bytes()[:-9],
        b"",
        path.read_bytes().replace(b"alliance ", b"other "),
    ):
        path.write_bytes(spoiled)
        assert kept_costs(terms, tmp_path / "costs") == first[terms.hash]
    assert worked_out == 3 * [terms.hash]
    monkeypatch.setattr(costs, "_software", lambda: "alliance 99")
    assert kept_costs(terms, tmp_path / "costs").software == "alliance 99"


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "costs").write_text("a file")
    assert kept_costs(make_terms(), tmp_path / "costs") == Costs.of(make_terms())
