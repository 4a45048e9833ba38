"""Fixed point on the ring (rules R6, R7, R10)."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from privacy.errors import DataError, TermsError
from privacy.fixedpoint import (
    CHUNK,
    SHARE_SCALE,
    Grid,
    add_in_place,
    decode,
    encode,
    grid_step,
    to_ring,
)
from privacy.keystream import KeyStream
from privacy.mechanism import rounded_sensitivity
from privacy.noise import DiscreteGaussian
from privacy.sampling import batch_shape
from tests.privacy.test_terms import document, make_terms, parse, roster_entry

KEY = bytes(range(32))
ROOMY = 1 << 40


def test_noise_of_a_member_has_the_same_width_in_steps_for_all_terms() -> None:
    terms = make_terms(clipping_norm=3.0, noise_multiplier=0.8, cohort_size=9)
    width = 0.8 * 3.0 / math.sqrt(terms.privacy.honest_survivors)
    assert grid_step(terms) * SHARE_SCALE == pytest.approx(width, rel=1e-14)


def test_ring_bound_is_rule_r10() -> None:
    """The bound s (B sqrt(H) / sigma + 12 N) < 2^31 decides, to within one part in a thousand."""

    def bound(noise_multiplier: float) -> float:
        terms = make_terms(noise_multiplier=noise_multiplier, ring_bits=64)
        cap = sum(batch_shape(terms, entry.name).slots for entry in terms.roster[:8])
        root = math.sqrt(terms.privacy.honest_survivors)
        return SHARE_SCALE * (cap * root / noise_multiplier + 12 * 8)

    edge = round(SHARE_SCALE * (8 * 151) * math.sqrt(5) / (2**31 - SHARE_SCALE * 96), 9)
    assert bound(edge) == pytest.approx(2**31, rel=1e-6)
    assert Grid.of(make_terms(noise_multiplier=round(edge * 1.001, 9))).ring_bits == 32
    with pytest.raises(TermsError, match=r"R10.*set ring_bits to 64"):
        Grid.of(make_terms(noise_multiplier=round(edge * 0.999, 9)))
    grid = Grid.of(make_terms(noise_multiplier=round(edge * 0.999, 9), ring_bits=64))
    assert grid.dtype == np.uint64


def test_ring_bound_takes_the_largest_cohort_of_the_roster() -> None:
    changed = document(noise_multiplier=0.5)
    changed["roster"] += [roster_entry(f"big-{n}", 90_000) for n in range(8)]
    with pytest.raises(TermsError, match="R10"):
        Grid.of(parse(changed))
    assert Grid.of(make_terms(noise_multiplier=0.5)).limit("member-0") > 0


def test_too_little_noise_for_the_rounding_is_refused() -> None:
    with pytest.raises(TermsError, match="too small for"):
        Grid.of(make_terms(noise_multiplier=0.001, ring_bits=64))


def test_limit_is_the_clip_of_all_slots() -> None:
    terms = make_terms()
    grid = Grid.of(terms)
    slots = batch_shape(terms, "member-0").slots
    assert grid.limit("member-0") == math.floor(
        slots * terms.privacy.clipping_norm / grid_step(terms)
    )
    with pytest.raises(TermsError, match="nobody"):
        grid.limit("nobody")


finite32 = st.floats(-100, 100, width=32)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite32)
)
def test_decoding_gives_the_sum_back_within_a_step_per_block(blocks: np.ndarray) -> None:
    grid = Grid(step=0.37, ring_bits=32, limits={})
    update = encode(blocks, grid, ROOMY, KeyStream(KEY))
    decoded = decode(to_ring(update, grid), grid)
    exact = blocks.astype(np.float64).sum(axis=0)
    error = decoded - exact
    assert np.abs(error).max() <= len(blocks) * grid.step * (1 + 1e-9)
    assert np.linalg.norm(error) <= len(blocks) * blocks.shape[1] * grid.step


def test_rounding_is_unbiased_and_fresh_in_every_coordinate() -> None:
    """Binomial tests at a false-alarm rate of 1e-6 each; the stream is derived."""
    grid = Grid(step=1.0, ring_bits=32, limits={})
    count = 3 * CHUNK
    update = encode(np.full((1, count), -2.75), grid, ROOMY, KeyStream(KEY))
    assert set(update.tolist()) == {-3, -2}
    assert stats.binomtest(int((update == -2).sum()), count, 0.25).pvalue > 1e-6
    both = int(((update[:-1:2] == -2) & (update[1::2] == -2)).sum())
    assert stats.binomtest(both, count // 2, 1 / 16).pvalue > 1e-6
    twice = encode(np.full((2, count), -2.75), grid, ROOMY, KeyStream(KEY))
    assert stats.binomtest(int((twice == -4).sum()), count, 1 / 16).pvalue > 1e-6


def test_integers_on_the_grid_are_kept_exactly() -> None:
    grid = Grid(step=0.25, ring_bits=32, limits={})
    values = np.arange(-1000, 1000, dtype=np.float64) * 0.25
    update = encode(values[None], grid, ROOMY, KeyStream(KEY))
    assert (update == np.arange(-1000, 1000)).all()


def test_blocks_may_come_one_at_a_time() -> None:
    grid = Grid(step=0.1, ring_bits=32, limits={})
    blocks = np.random.default_rng(1).normal(size=(5, CHUNK + 7)).astype(np.float32)
    whole = encode(blocks, grid, ROOMY, KeyStream(KEY))
    assert np.array_equal(whole, encode(iter(blocks), grid, ROOMY, KeyStream(KEY)))
    assert whole.dtype == np.int64


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sum_that_is_not_finite_counts_as_zero_and_is_not_seen(bad: float) -> None:
    grid = Grid(step=0.1, ring_bits=32, limits={})
    update = encode([np.array([bad, 0.3])], grid, 100, KeyStream(KEY))
    assert abs(int(update[0])) <= 1
    assert update[1] == pytest.approx(3, abs=1)


@pytest.mark.parametrize("blocks", [[], [np.zeros(3), np.zeros(4)], [np.zeros((2, 2))]])
def test_blocks_of_another_shape_are_refused(blocks: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="block"):
        encode(blocks, Grid(step=0.1, ring_bits=32, limits={}), 10, KeyStream(KEY))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 6), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    hnp.arrays(np.float32, 6, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    st.integers(1, 1000),
)
def test_clamping_never_increases_a_distance(
    blocks: np.ndarray, change: np.ndarray, limit: int
) -> None:
    grid = Grid(step=0.5, ring_bits=32, limits={})
    neighbour = blocks.copy()
    neighbour[1] = change
    first, second = (encode(x, grid, ROOMY, KeyStream(KEY)) for x in (blocks, neighbour))
    low, high = (encode(x, grid, limit, KeyStream(KEY)) for x in (blocks, neighbour))
    assert np.abs(low).max() <= limit
    assert (np.abs(low - high) <= np.abs(first - second)).all()
    assert (np.sign(low - high) * np.sign(first - second) >= 0).all()


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float64, 8, elements=st.floats(-1e4, 1e4)),
    hnp.arrays(np.float64, 8, elements=st.floats(-3, 3)),
    st.binary(min_size=32, max_size=32),
)
def test_neighbours_with_equal_offsets_differ_by_floor_or_ceiling(
    block: np.ndarray, change: np.ndarray, key: bytes
) -> None:
    """Rule R7: what the sensitivity bound assumes of the rounding."""
    grid = Grid(step=1.0, ring_bits=32, limits={})
    neighbour = block + change
    moved = encode(neighbour[None], grid, ROOMY, KeyStream(key)) - encode(
        block[None], grid, ROOMY, KeyStream(key)
    )
    exact = [Fraction(a) - Fraction(b) for a, b in zip(neighbour, block, strict=True)]
    slack = Fraction(1, 2**32)
    for steps, difference in zip(moved.tolist(), exact, strict=True):
        assert math.floor(difference - slack) <= steps <= math.ceil(difference + slack)


@pytest.mark.parametrize("norm", [0.0, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("dimension", [1, 50, 2000])
def test_rounded_differences_stay_below_the_accounted_sensitivity(
    norm: float, dimension: int
) -> None:
    """2000 draws; each may exceed Delta with probability 1e-15: false-alarm rate 2e-12."""
    random = np.random.default_rng(7)
    grid = Grid(step=1.0, ring_bits=32, limits={})
    block = random.normal(size=dimension) * 100
    directions = [np.eye(dimension)[0], np.ones(dimension) / math.sqrt(dimension)]
    bound = rounded_sensitivity(norm, dimension, 1.0)
    worst = 0.0
    for draw in range(2000 if dimension < 2000 else 200):
        change = norm * directions[draw % 2]
        key = draw.to_bytes(32, "big")
        moved = encode((block + change)[None], grid, ROOMY, KeyStream(key)) - encode(
            block[None], grid, ROOMY, KeyStream(key)
        )
        worst = max(worst, float(np.linalg.norm(moved)))
    assert worst <= bound
    # Positive control: rounding does lengthen differences, so the unrounded norm is no bound.
    if norm > 0 and norm % 1:
        assert worst > norm


def test_float32_block_sums_are_within_eta() -> None:
    """Rule R6: removing a consumer changes a float32 sum by at most C (1 + b^2 2^-23)."""
    random = np.random.default_rng(3)
    errors = []
    for consumers in (2, 16, 151, 256):
        eta = consumers**2 * 2.0**-23
        for _ in range(20):
            vectors = random.normal(size=(consumers, 40)).astype(np.float32)
            vectors[random.random(vectors.shape) < 0.3] *= np.float32(1e-4)
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / lengths * (1 - 1e-6)).astype(np.float32)
            vectors[1:] = np.abs(vectors[1:])  # large sums, the worst case for rounding
            order = random.permutation(consumers)
            total = np.add.reduce(vectors[order], axis=0, dtype=np.float32)
            without = np.add.reduce(vectors[order[order != 0]], axis=0, dtype=np.float32)
            change = np.linalg.norm(total.astype(np.float64) - without.astype(np.float64))
            assert change <= 1 + eta
            exact = vectors[order].astype(np.float64).sum(axis=0)
            assert np.linalg.norm(total - exact) <= eta / 2
            errors.append(float(np.linalg.norm(total - exact)))
    assert max(errors) > 0  # positive control: float32 does round


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int64, (4, 5), elements=st.integers(-(2**40), 2**40)),
    st.sampled_from([32, 64]),
)
def test_ring_sums_are_exact_through_wrapping(updates: np.ndarray, bits: int) -> None:
    grid = Grid(step=1.0, ring_bits=bits, limits={})  # type: ignore[arg-type]
    masks = np.random.default_rng(5).integers(0, 2**bits, 5, dtype=np.uint64).astype(grid.dtype)
    total = masks.copy()
    for update in updates:
        add_in_place(total, to_ring(update, grid))
    unmasked = total - masks
    half, ring = 1 << (bits - 1), 1 << bits
    for element, column in zip(decode(unmasked, grid), updates.T.tolist(), strict=True):
        assert element == float((sum(column) + half) % ring - half)


def test_extreme_sums_of_a_cohort_do_not_wrap() -> None:
    terms = make_terms(noise_multiplier=0.05)
    grid = Grid.of(terms)
    noise = np.array([12 * SHARE_SCALE, -12 * SHARE_SCALE])
    total = np.zeros(2, grid.dtype)
    for entry in terms.roster:
        limit = grid.limit(entry.name)
        add_in_place(total, to_ring(np.array([limit, -limit]) + noise, grid))
    reach = sum(grid.limits.values()) + 8 * 12 * SHARE_SCALE
    assert decode(total, grid).tolist() == [reach * grid.step, -reach * grid.step]


def test_noisy_sum_decodes_to_the_sum_with_the_noise_that_was_promised() -> None:
    """Standard deviation at a false-alarm rate of 1e-6; the streams are derived."""
    terms = make_terms(dimension=20_000)
    grid = Grid.of(terms)
    sampler = DiscreteGaussian(SHARE_SCALE)
    total = np.zeros(20_000, grid.dtype)
    for number in range(8):
        stream = KeyStream(number.to_bytes(32, "big"))
        update = encode(np.full((1, 20_000), 0.25, np.float32), grid, ROOMY, stream)
        add_in_place(total, to_ring(update + sampler.sample(20_000, stream), grid))
    error = decode(total, grid) - 8 * 0.25
    width = terms.privacy.noise_multiplier * terms.privacy.clipping_norm * math.sqrt(8 / 5)
    chi_square = float((error**2).sum()) / width**2
    assert 1e-6 < stats.chi2.cdf(chi_square, 20_000) < 1 - 1e-6


def test_mixed_rings_are_refused() -> None:
    narrow, wide = np.zeros(3, np.uint32), np.zeros(3, np.uint64)
    with pytest.raises(ValueError, match="cannot add"):
        add_in_place(wide, narrow)
    with pytest.raises(ValueError, match="cannot add"):
        add_in_place(narrow, np.zeros(1, np.uint32))
    with pytest.raises(ValueError, match="ring elements"):
        decode(wide, Grid(step=1.0, ring_bits=32, limits={}))
