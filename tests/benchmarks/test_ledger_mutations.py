"""A slice of the campaign of mutations: every alteration of a bundle is found."""

from __future__ import annotations

from benchmarks.ledger_campaign.mutations import MUTATIONS, Altered, mutated, mutations


def test_every_alteration_is_found():
    tally = mutated(range(100), seed=7)
    assert (tally.trials, tally.failures, tally.reasons) == (100, 0, [])
    assert len(tally.counts) >= len(MUTATIONS) - 3


def test_an_alteration_that_is_none_counts_as_missed(monkeypatch):
    """The positive control: an auditor that finds nothing fails every trial."""
    monkeypatch.setattr(Altered, "found", lambda self, files: False)
    trials, failures, detail = mutations(5, seed=1)
    assert (trials, failures) == (5, 5)
    assert len(detail["missed"]) == 5
