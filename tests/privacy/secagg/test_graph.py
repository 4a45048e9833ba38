"""The graph: what the bounds are is worked out again here, and held against simulation."""

from __future__ import annotations

import collections
import itertools
import math
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import chi2

from privacy.errors import TermsError
from privacy.secagg import graph
from privacy.secagg.graph import COMPLETE_UP_TO, MOST_COHORT, Graph, draw, failure_bits
from privacy.terms import PrivacyTerms
from tests.conftest import make_terms
from tests.privacy.secagg.alliance import Entropy

SPARSE = [(65, 1, 0), (70, 3, 2), (100, 10, 10), (128, 1, 20), (150, 30, 5)]


def privacy(cohort: int, colluders: int, dropouts: int) -> PrivacyTerms:
    values = make_terms().privacy.model_dump()
    return PrivacyTerms(
        **values | {"cohort_size": cohort, "colluders": colluders, "dropouts": dropouts}
    )


def tail(population: int, marked: int, drawn: int, counts: range) -> Fraction:
    """Hypergeometric, exactly."""
    ways = sum(
        comb(marked, count) * comb(population - marked, drawn - count)
        for count in counts
        if count <= drawn
    )
    return Fraction(ways, comb(population, drawn))


def exposed(cohort: int, colluders: int, dropouts: int, degree: int) -> Fraction:
    """The union bound of section 9, exactly."""
    honest = cohort - colluders
    total = Fraction(0)
    for size in range(1, honest - dropouts):
        sets = comb(honest, size) * comb(honest - size, dropouts)
        drew = Fraction(comb(size - 1 + colluders + dropouts, degree), comb(cohort - 1, degree))
        total += sets * drew**size
    return total


def bits(probability: Fraction) -> float:
    if not probability:
        return math.inf
    return math.log2(probability.denominator) - math.log2(probability.numerator)


def least_threshold(cohort: int, colluders: int, dropouts: int, degree: int) -> int:
    return next(
        threshold
        for threshold in range(2, degree + 2)
        if cohort
        * tail(cohort - dropouts - 1, colluders, degree, range(threshold, degree + 1))
        * 2**41
        <= 1
    )


def exact_bits(
    cohort: int, colluders: int, dropouts: int, degree: int, share_threshold: int
) -> tuple[float, float]:
    corrupted = cohort * tail(
        cohort - dropouts - 1, colluders, degree, range(share_threshold, degree + 1)
    )
    worst = max(
        exposed(cohort - missing, colluders, dropouts - missing, degree)
        for missing in range(dropouts + 1)
    )
    answer = (cohort + colluders) // 2
    unrecovered = cohort * tail(cohort - 1, answer, degree, range(share_threshold))
    return bits(corrupted + worst), bits(unrecovered)


@pytest.mark.parametrize(("cohort", "colluders", "dropouts"), [(3, 1, 0), (64, 1, 0), (64, 20, 5)])
def test_up_to_64_members_everybody_masks_with_everybody(cohort, colluders, dropouts):
    terms = privacy(cohort, colluders, dropouts)
    assert Graph.of(terms) == Graph(None, terms.threshold)
    assert Graph.of(terms).holders(cohort) == cohort
    assert COMPLETE_UP_TO == 64


def test_above_64_the_graph_is_sparse():
    of = Graph.of(privacy(65, 1, 0))
    assert of.degree is not None
    assert of.holders(65) == of.degree + 1
    assert of.holders(10) == 10


def test_where_no_degree_is_enough_the_graph_is_complete():
    terms = privacy(65, 60, 1)
    assert Graph.of(terms) == Graph(None, terms.threshold)


def test_cohorts_beyond_one_message_of_keys_are_refused():
    with pytest.raises(TermsError, match=f"at most {MOST_COHORT}.*{MOST_COHORT + 1}.*several"):
        Graph.of(privacy(MOST_COHORT + 1, 1, 0))


@pytest.mark.parametrize(("cohort", "colluders", "dropouts"), SPARSE)
@pytest.mark.parametrize(("more_degree", "more_threshold"), [(0, 0), (-9, 0), (3, 2), (0, -1)])
def test_failure_bits_are_the_exact_bounds(
    cohort, colluders, dropouts, more_degree, more_threshold
):
    of = Graph.of(privacy(cohort, colluders, dropouts))
    degree, threshold = of.degree + more_degree, max(1, of.share_threshold + more_threshold)
    claimed = failure_bits(
        cohort, colluders, dropouts, (cohort + colluders) // 2 + 1,
        degree=degree, share_threshold=threshold,
    )  # fmt: skip
    exact = exact_bits(cohort, colluders, dropouts, degree, threshold)
    assert claimed == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(("cohort", "colluders", "dropouts"), SPARSE)
def test_the_degree_is_the_least_that_meets_both_bounds(cohort, colluders, dropouts):
    of = Graph.of(privacy(cohort, colluders, dropouts))
    assert of.share_threshold == least_threshold(cohort, colluders, dropouts, of.degree)
    meets = []
    # Every lower degree fails, the lowest by far; some of them are enough.
    for degree in [2, of.degree // 2, *range(of.degree - 3, of.degree + 1)]:
        threshold = least_threshold(cohort, colluders, dropouts, degree)
        security, correctness = exact_bits(cohort, colluders, dropouts, degree, threshold)
        meets.append(security >= 40 and correctness >= 20)
    assert meets == [False] * (len(meets) - 1) + [True]


@pytest.mark.parametrize(("cohort", "colluders", "dropouts"), [(150, 60, 5), (100, 30, 10)])
def test_thresholds_take_half_of_what_may_fail_at_every_degree(cohort, colluders, dropouts):
    for degree in range(2, cohort - dropouts - 1):
        expected = least_threshold(cohort, colluders, dropouts, degree)
        assert graph._share_threshold(cohort, colluders, dropouts, degree) == expected


@pytest.mark.parametrize(("cohort", "colluders", "dropouts"), SPARSE)
def test_members_that_are_missing_from_the_beginning_cost_no_security(cohort, colluders, dropouts):
    """For every number of them: no fewer bits than 40, which is what the terms were given."""
    of = Graph.of(privacy(cohort, colluders, dropouts))
    for missing in range(dropouts + 1):
        left = cohort - missing
        corrupted = left * tail(
            cohort - dropouts - 1, colluders, of.degree, range(of.share_threshold, of.degree + 1)
        )
        probability = corrupted + exposed(left, colluders, dropouts - missing, of.degree)
        assert bits(probability) >= 40, missing


@pytest.mark.parametrize(("cohort", "colluders", "dropouts"), [(300, 30, 30), (1000, 100, 50)])
def test_the_middle_of_the_missing_is_never_the_worst(cohort, colluders, dropouts):
    """`failure_bits` looks at none and at all missing only; here at every count, for itself."""
    of = Graph.of(privacy(cohort, colluders, dropouts))
    chances = [
        graph._log2_open(cohort - missing, colluders, dropouts - missing, of.degree)
        for missing in range(0, dropouts + 1, 5)
    ]
    assert max(chances) == max(chances[0], chances[-1])


def drawn_graphs(cohort: int, degree: int, count: int):
    """Adjacency of random draws: entry [i, j] says that i drew j."""
    generator = np.random.default_rng(20200)
    for _ in range(count):
        scores = generator.random((cohort, cohort))
        np.fill_diagonal(scores, 2.0)
        drawn = np.zeros((cohort, cohort), dtype=bool)
        np.put_along_axis(drawn, np.argsort(scores)[:, :degree], True, axis=1)
        yield drawn


def is_exposed(drawn: np.ndarray, members: list[int]) -> bool:
    """Whether some of the members, not all, drew none of the others."""
    edges = drawn[np.ix_(members, members)]
    return not (reaches_all(edges) and reaches_all(edges.T))


def reaches_all(edges: np.ndarray) -> bool:
    reached = np.zeros(len(edges), dtype=bool)
    reached[0] = True
    while True:
        further = reached | edges[reached].any(axis=0)
        if (further == reached).all():
            return bool(reached.all())
        reached = further


@pytest.mark.parametrize(
    ("degree", "colluders", "dropouts", "trials", "tight"),
    [(8, 20, 0, 2000, 0.5), (9, 12, 1, 600, 0.0)],
)
def test_graphs_are_exposed_as_often_as_the_bound_says(degree, colluders, dropouts, trials, tight):
    """70 members, and the adversary picks the dropouts after it saw the graph.

    The bound may be above the truth: it counts a graph once for every exposed set and every choice
    of dropouts. Without dropouts it is not far above. False alarms: at 4.5 standard deviations,
    below 1e-5.
    """
    bound = min(1.0, float(exposed(70, colluders, dropouts, degree)))
    honest = range(colluders, 70)
    found = 0
    for drawn in drawn_graphs(70, degree, trials):
        assert drawn.sum(axis=1).tolist() == [degree] * 70
        found += any(
            is_exposed(drawn, [member for member in honest if member not in gone])
            for gone in itertools.combinations(honest, dropouts)
        )
    frequency = found / trials
    noise = 4.5 * math.sqrt(bound * (1 - bound) / trials)
    assert found >= 5
    assert tight * bound - noise <= frequency <= bound + noise


def test_corrupted_holders_reach_the_threshold_as_often_as_the_tail_says():
    """70 members, c = 20, degree 6, threshold 5. False alarms: 4.5 deviations, below 1e-5."""
    trials, chance = 3000, float(tail(69, 20, 6, range(5, 7)))
    hits = sum(
        int((drawn[20:, :20].sum(axis=1) >= 5).sum()) for drawn in drawn_graphs(70, 6, trials)
    )
    count = 50 * trials
    assert abs(hits - count * chance) <= 4.5 * math.sqrt(count * chance)
    claimed = graph._log2_tail(69, 20, 6, range(5, 7))
    assert claimed == pytest.approx(math.log2(chance), abs=1e-9)


def test_a_tail_that_cannot_be_is_minus_infinity():
    assert graph._log2_tail(10, 2, 5, range(3, 6)) == -math.inf
    assert graph._log2_tail(10, 2, 5, range(6)) == pytest.approx(0, abs=1e-9)


def test_draws_are_uniform_over_sets():
    """Chi-square over all 35 sets of 3 of 7, 7000 draws; false alarms: 1e-6."""
    others = [2, 3, 5, 7, 11, 13, 17]
    entropy = Entropy("draws")
    counts = collections.Counter(tuple(draw(others, 3, entropy)) for _ in range(7000))
    sets = list(itertools.combinations(others, 3))
    assert set(counts) <= set(sets)
    statistic = sum((counts[one] - 200) ** 2 / 200 for one in sets)
    assert statistic < chi2.ppf(1 - 1e-6, len(sets) - 1)


def test_chi_square_sees_a_draw_that_is_not_uniform():
    """The positive control: the last member is left out of a tenth of its sets."""
    entropy = Entropy("draws")
    counts = collections.Counter()
    for place in range(7000):
        pool = [2, 3, 5, 7, 11, 13] if place % 10 == 0 else [2, 3, 5, 7, 11, 13, 17]
        counts[tuple(draw(pool, 3, entropy))] += 1
    sets = itertools.combinations([2, 3, 5, 7, 11, 13, 17], 3)
    assert sum((counts[one] - 200) ** 2 / 200 for one in sets) > chi2.ppf(1 - 1e-6, 34)


def test_draws_take_others_only_and_change_nothing():
    others = [40, 7, 22, 3, 90]
    entropy = Entropy("others")
    for degree in range(1, 5):
        drawn = draw(others, degree, entropy)
        assert len(set(drawn)) == degree
        assert drawn == sorted(drawn)
        assert set(drawn) <= set(others)
    assert others == [40, 7, 22, 3, 90]
    assert entropy.given == 16 * (1 + 2 + 3 + 4)


@pytest.mark.parametrize("degree", [None, 5, 6])
def test_draws_of_everybody_need_no_entropy(degree):
    entropy = Entropy("nobody")
    assert draw([40, 7, 22, 3, 90], degree, entropy) == [3, 7, 22, 40, 90]
    assert entropy.given == 0
