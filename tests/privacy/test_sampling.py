"""Poisson sampling into a public shape (rules R4, R6)."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.errors import ConfigurationError, DataError, TermsError
from privacy.keystream import KeyStream
from privacy.sampling import (
    EMPTY_SLOT,
    LARGEST_BLOCK,
    OVERFLOW_PROBABILITY,
    BatchShape,
    Enrolment,
    batch_shape,
    enrol,
    enrolment_cap,
    sample_slots,
    tail_probability,
)
from tests.privacy.test_terms import make_terms

KEY = bytes(range(32))


def ids(count: int) -> list[str]:
    return [f"household-{number}" for number in range(count)]


def streams() -> Iterator[KeyStream]:
    for number in range(10_000):
        yield KeyStream(number.to_bytes(32, "big"))


@pytest.mark.parametrize(
    ("trials", "probability", "bound"),
    [(10, 0.5, 5), (1500, 0.05, 150), (1500, 0.01, 60), (150_000, 0.001, 256), (300, 1 / 3, 160)],
)
def test_tail_is_the_binomial_tail(trials: int, probability: float, bound: int) -> None:
    exact = stats.binom.sf(bound, trials, probability)
    assert exact <= tail_probability(trials, probability, bound) <= exact * (1 + 1e-5)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 100_000), st.floats(0, 1), st.integers(0, 100_000))
def test_tail_is_never_below_the_binomial_tail(trials: int, probability: float, bound: int) -> None:
    exact = stats.binom.sf(bound, trials, probability)
    rounding = 1e-9 * exact + 1e-300  # below, floats lose digits
    assert tail_probability(trials, probability, bound) >= exact - rounding


@pytest.mark.parametrize("declared", [1, 20, 1000, 50_000, 4_000_000])
@pytest.mark.parametrize("q", [0.001, 0.05, 0.5, 1.0])
def test_shape_keeps_overflow_rare_and_is_the_smallest(declared: int, q: float) -> None:
    shape = batch_shape(make_terms(declared=declared, sampling_probability=q), "member-0")
    cap = enrolment_cap(declared)

    def overflow(blocks: int, consumers: int) -> float:
        return blocks * float(stats.binom.sf(consumers, cap, q / blocks))

    assert overflow(shape.blocks, shape.consumers) <= OVERFLOW_PROBABILITY
    assert shape.consumers <= LARGEST_BLOCK
    if shape.consumers > 1:
        assert overflow(shape.blocks, shape.consumers - 1) > OVERFLOW_PROBABILITY * (1 - 1e-3)
    if shape.blocks > 1:
        assert overflow(shape.blocks - 1, LARGEST_BLOCK) > OVERFLOW_PROBABILITY * (1 - 1e-3)


def test_few_consumers_without_sampling_share_one_exact_block() -> None:
    shape = batch_shape(make_terms(declared=100, sampling_probability=1.0), "member-0")
    assert shape == BatchShape(blocks=1, consumers=150)
    with pytest.raises(TermsError, match="nobody"):
        batch_shape(make_terms(), "nobody")


@pytest.mark.parametrize("declared", [1, 2, 10, 400, 10_000])
def test_cap_covers_every_count_that_rounds_to_the_declared_one(declared: int) -> None:
    unit = 10 ** (len(str(declared)) - 1)
    largest = declared + (unit + 1) // 2 - 1 + (unit % 2 == 0)  # rounds half up or down
    assert enrolment_cap(declared) >= largest


def blocks_by_consumer(enrolment: Enrolment, names: list[str]) -> dict[str, int]:
    return {
        names[row]: int(block)
        for row, block in zip(enrolment.rows, enrolment.blocks, strict=True)
        if row != EMPTY_SLOT
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 899))
def test_removing_a_consumer_moves_no_other(removed: int) -> None:
    terms = make_terms(declared=1000, sampling_probability=1.0)
    names = ids(900)
    fewer = names[:removed] + names[removed + 1 :]
    before = blocks_by_consumer(enrol(terms, "member-0", names, KEY), names)
    after = blocks_by_consumer(enrol(terms, "member-0", fewer, KEY), fewer)
    del before[names[removed]]
    assert after == before


def test_blocks_are_hashed_evenly() -> None:
    """Chi-square at a false-alarm rate of 1e-6; the key is fixed, so the test is repeatable."""
    terms = make_terms(declared=10_000, sampling_probability=1.0)
    shape = batch_shape(terms, "member-0")
    enrolment = enrol(terms, "member-0", ids(15_000), KEY)
    assert enrolment.left_out == 0
    assert (np.diff(enrolment.blocks) >= 0).all()
    counts = np.bincount(enrolment.blocks, minlength=shape.blocks)
    assert stats.chisquare(counts).pvalue > 1e-6
    other = enrol(terms, "member-0", ids(15_000), KEY[::-1])
    assert not np.array_equal(other.rows, enrolment.rows)


def test_consumers_beyond_the_cap_are_cut_evenly_over_blocks() -> None:
    """Chi-square at a false-alarm rate of 1e-6."""
    terms = make_terms(declared=2000, sampling_probability=1.0)
    enrolment = enrol(terms, "member-0", ids(9000), KEY)
    assert enrolment.left_out == 6000
    assert len(set(enrolment.rows.tolist())) == 3000
    counts = np.bincount(enrolment.blocks, minlength=batch_shape(terms, "member-0").blocks)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_bad_enrolments_are_refused() -> None:
    terms = make_terms()
    with pytest.raises(DataError, match="twice"):
        enrol(terms, "member-0", ["a", "b", "a"], KEY)
    with pytest.raises(ConfigurationError, match="32 bytes"):
        enrol(terms, "member-0", ["a"], b"short")


def test_nobody_enrolled_gives_empty_slots() -> None:
    terms = make_terms()
    enrolment = enrol(terms, "member-0", [], KEY)
    slots = sample_slots(enrolment, batch_shape(terms, "member-0"), 0.05, KeyStream(KEY))
    assert (slots == EMPTY_SLOT).all()


def test_everybody_is_sampled_once_in_its_own_block_without_sampling() -> None:
    terms = make_terms(declared=1000, sampling_probability=1.0)
    shape = batch_shape(terms, "member-0")
    names = ids(1400)
    enrolment = enrol(terms, "member-0", names, KEY)
    slots = sample_slots(enrolment, shape, 1.0, KeyStream(KEY))
    assert slots.shape == (shape.blocks, shape.consumers)
    assert sorted(slots[slots != EMPTY_SLOT].tolist()) == list(range(1400))
    block_of = blocks_by_consumer(enrolment, names)
    for block, row in zip(*np.nonzero(slots != EMPTY_SLOT), strict=True):
        assert block_of[names[slots[block, row]]] == block


def test_sampling_is_poisson() -> None:
    """Count and pairs over 400 attempts; each of the three tests has a false-alarm rate of 1e-6.

    Streams are derived, so the test is repeatable.
    """
    q, consumers, attempts = 0.05, 1300, 400
    terms = make_terms(declared=1000, sampling_probability=q)
    shape = batch_shape(terms, "member-0")
    enrolment = enrol(terms, "member-0", ids(consumers), KEY)
    picked = np.zeros((attempts, consumers), bool)
    for attempt, stream in zip(range(attempts), streams(), strict=False):
        slots = sample_slots(enrolment, shape, q, stream)
        picked[attempt, slots[slots != EMPTY_SLOT]] = True
    total = int(picked.sum())
    assert stats.binomtest(total, attempts * consumers, q).pvalue > 1e-6
    # Poisson sampling lets the batch size vary: its variance is that of a binomial.
    sizes = picked.sum(axis=1)
    dispersion = float(((sizes - consumers * q) ** 2).sum() / (consumers * q * (1 - q)))
    assert 1e-6 < stats.chi2.cdf(dispersion, attempts) < 1 - 1e-6
    # Neighbours in hash order are sampled independently.
    order = enrolment.rows[:consumers]
    both = int((picked[:, order[:-1:2]] & picked[:, order[1::2]]).sum())
    assert stats.binomtest(both, attempts * (consumers // 2), q * q).pvalue > 1e-6


def test_probability_is_rounded_down() -> None:
    class Fixed(KeyStream):
        def uint64(self, count: int) -> np.ndarray:
            return np.full(count, threshold, np.uint64)

    terms = make_terms(declared=100, sampling_probability=0.3)
    shape = batch_shape(terms, "member-0")
    enrolment = enrol(terms, "member-0", ids(20), KEY)
    threshold = math.floor(0.3 * 2**64) - 1
    assert (sample_slots(enrolment, shape, 0.3, Fixed(KEY)) != EMPTY_SLOT).sum() == 20
    threshold += 1
    assert (sample_slots(enrolment, shape, 0.3, Fixed(KEY)) != EMPTY_SLOT).sum() == 0


def test_overflow_is_cut_at_the_slots_of_the_block() -> None:
    shape = BatchShape(blocks=2, consumers=3)
    enrolment = Enrolment(
        rows=np.arange(10), blocks=np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1]), left_out=0
    )
    slots = sample_slots(enrolment, shape, 1.0, KeyStream(KEY))
    assert [sorted(block) for block in slots.tolist()] == [[0, 1, 2], [6, 7, 8]]


def test_slots_do_not_tell_who_else_was_sampled() -> None:
    """Every arrangement of a block is as likely: 24 of 4 in 4 slots, false alarm below 1e-6."""
    shape = BatchShape(blocks=1, consumers=4)
    enrolment = Enrolment(rows=np.arange(4), blocks=np.zeros(4, np.int64), left_out=0)
    stream, counts = KeyStream(KEY), Counter[tuple[int, ...]]()
    for _ in range(4800):
        counts[tuple(sample_slots(enrolment, shape, 1.0, stream)[0].tolist())] += 1
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 75
