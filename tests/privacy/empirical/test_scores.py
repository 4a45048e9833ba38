from __future__ import annotations

import numpy as np
import pytest

from privacy.empirical import scores
from privacy.empirical.canaries import signs
from privacy.empirical.releases import Released
from privacy.empirical.scores import log_likelihood_ratios, score
from tests.privacy.empirical.studies import LOUD, enrolled

DIMENSION = LOUD.dimension


def releases(count: int) -> list[Released]:
    rng = np.random.default_rng(0)
    names = tuple(entry.name for entry in LOUD.roster)
    totals = rng.standard_normal((count, DIMENSION))
    present = [names if at % 2 else names[1:] for at in range(count)]
    return [Released(at + 1, 1, present[at], lambda at=at: totals[at]) for at in range(count)]


def test_scores_are_inner_products_with_unit_directions() -> None:
    secrets, _ = enrolled(LOUD)
    some = releases(3)
    result = score(LOUD, secrets[:2], some)
    sums = []
    for secret, member in zip(secrets, result.members, strict=False):
        directions = signs(secret.seeds(0, secret.count), DIMENSION).astype(np.float64)
        directions /= np.sqrt(DIMENSION)
        expected = directions @ np.stack([one.total() for one in some], axis=1)
        assert member.scores == pytest.approx(expected, abs=1e-5)
        whole = directions[secret.included].sum(axis=0)
        sums.append(whole)
    assert result.gram == pytest.approx(np.array(sums) @ np.array(sums).T, rel=1e-6)
    assert list(result.members[0].present) == [False, True, False]
    assert result.members[1].present.all()
    totals = np.stack([one.total() for one in some])
    assert result.mean_square == pytest.approx((totals**2).mean(axis=1))
    assert result.total_square == pytest.approx((totals.sum(axis=0) ** 2).mean())
    assert result.expected_variance == pytest.approx([16 / 3, 20 / 3, 16 / 3])


def test_scores_do_not_depend_on_how_much_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets, _ = enrolled(LOUD)
    whole = score(LOUD, secrets[:1], releases(3))
    monkeypatch.setattr(scores, "FLOATS_AT_ONCE", 2 * DIMENSION)
    pieces = score(LOUD, secrets[:1], releases(3))
    assert pieces.members[0].scores == pytest.approx(whole.members[0].scores, abs=1e-5)
    assert pieces.gram == pytest.approx(whole.gram)


def test_the_ratio_of_a_release_without_the_member_counts_nothing() -> None:
    secrets, _ = enrolled(LOUD)
    some = releases(2)
    both, _ = log_likelihood_ratios(score(LOUD, secrets[:1], some))
    second, included = log_likelihood_ratios(score(LOUD, secrets[:1], some[1:]))
    assert both == pytest.approx(second, abs=1e-5)
    assert (included == secrets[0].included).all()
