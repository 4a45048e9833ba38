"""The noise sampler against theory in rationals, against statistics and against OpenDP.

Statistical tests draw fresh noise and alarm below p = 1e-6, so each raises a false alarm once in
a million runs. Every one has a positive control beside it.
"""

import functools
import itertools
import math
import os
import tracemalloc
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from benchmarks.noise import (
    ALARM,
    chi_square_p,
    opendp_samples,
    with_short_thresholds,
    worst_error,
)
from privacy.keystream import KeyStream
from privacy.noise import CELL_BITS, MAX_SCALE, TAIL_BITS, DiscreteGaussian

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620900")
LOW_BITS = (1 << CELL_BITS) - 1
CLOSE = Fraction(1, 2**120)


def same_distribution_p(ours: np.ndarray, other: np.ndarray) -> float:
    """P-value of two samples coming from one distribution; rare values are pooled."""
    low = min(ours.min(), other.min())
    size = max(ours.max(), other.max()) - low + 1
    table = np.array([np.bincount(x - low, minlength=size) for x in (ours, other)])
    rare = table.sum(axis=0) < 20
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    return float(stats.chi2_contingency(table[:, table.any(axis=0)]).pvalue)


@functools.cache
def weights_of(scale: float) -> tuple[list[int], int]:
    return DiscreteGaussian(scale).weights()


class ScriptedStream(KeyStream):
    """Gives out the words it was told to, and fails when asked for more."""

    def __init__(self, *words: int) -> None:
        super().__init__(bytes(32))
        self.words = list(words)

    def fill(self, buffer: np.ndarray) -> None:
        view = buffer.view(np.uint64)
        view[:] = [self.words.pop(0) for _ in range(len(view))]


class TestImpliedProbabilities:
    @pytest.mark.parametrize("scale", [1, 3])
    def test_agree_with_theory_to_2_to_the_minus_120(self, scale):
        assert worst_error(DiscreteGaussian(scale)) < CLOSE

    @pytest.mark.parametrize("scale", [1, 1.3, 3, 100.7, 2**14])
    def test_sum_to_one_and_end_at_the_cut(self, scale):
        sampler = DiscreteGaussian(scale)
        weights, denominator = weights_of(scale)
        assert weights[0] + 2 * sum(weights[1:]) == denominator
        assert sampler.bound == math.ceil(12 * Fraction(scale))
        assert weights[sampler.bound] > 0
        assert not any(weights[sampler.bound + 1 :])
        assert all(a >= b for a, b in itertools.pairwise(weights))

    @pytest.mark.parametrize("k", [0, 1, 2, 1000, 2**14, 5 * 2**14 + 1, 12 * 2**14])
    def test_at_working_scale_agree_with_theory(self, k):
        # The normaliser is s sqrt(2 pi) by Poisson summation; the cut changes it by 2^-107.
        scale = 2**14
        weights, denominator = weights_of(scale)
        with localcontext() as context:
            context.prec = 70
            exact = (Decimal(-k * k) / (2 * scale * scale)).exp() / (scale * (2 * PI).sqrt())
        error = abs(Fraction(weights[k], denominator) - Fraction(exact))
        assert error < Fraction(exact) / 2**100 + Fraction(1, 2**128)

    def test_control_thresholds_cut_to_32_bits_are_flagged(self):
        faulty = with_short_thresholds(DiscreteGaussian(3), 32)
        assert CLOSE < worst_error(faulty) < Fraction(1, 2**30)

    def test_control_a_wrong_scale_is_flagged(self):
        sampler = DiscreteGaussian(3)
        sampler._table = DiscreteGaussian(3.0000001)._table
        assert worst_error(sampler) > CLOSE


class TestSamplesFollowTheTable:
    @pytest.mark.parametrize("scale", [1, 3, 2**14])
    def test_sampling_is_what_the_table_says(self, scale):
        # The same bits, decided one by one in Python integers.
        sampler = DiscreteGaussian(scale)
        words, tails = sampler._table.words.tolist(), sampler._table.tails.tolist()
        expected = []
        for word in KeyStream(b"t" * 32).uint64(8000).tolist():
            cell = word % len(words)
            head = (word >> CELL_BITS) & ((1 << 43) - 1)
            threshold_head, alias = words[cell] >> CELL_BITS, cell ^ (words[cell] & LOW_BITS)
            assert head != threshold_head or alias == cell
            magnitude = cell if head < threshold_head else alias
            expected.append(-magnitude if word >> 63 else magnitude)
        assert len(tails) == len(words)
        assert sampler.sample(8000, KeyStream(b"t" * 32)).tolist() == expected

    def test_flipping_the_sign_bit_negates_the_sample_exactly(self):
        sampler = DiscreteGaussian(3)
        words = KeyStream(b"s" * 32).uint64(500).tolist()
        plus = sampler.sample(500, ScriptedStream(*words))
        minus = sampler.sample(500, ScriptedStream(*(word ^ 1 << 63 for word in words)))
        assert np.array_equal(plus, -minus)

    @pytest.mark.parametrize("scale", [1, 3, 2**14])
    def test_low_bits_decide_where_heads_are_equal(self, scale):
        sampler = DiscreteGaussian(scale)
        words, tails = sampler._table.words.tolist(), sampler._table.tails.tolist()
        cell = next(
            cell
            for cell, (word, (low, high)) in enumerate(zip(words, tails, strict=True))
            if word & LOW_BITS and low and high and word >> CELL_BITS
        )
        own, alias = cell, cell ^ (words[cell] & LOW_BITS)
        bits = words[cell] & ~LOW_BITS | cell
        low, high = tails[cell]
        shift, one_head = 128 - TAIL_BITS, 1 << CELL_BITS
        rest = (1 << shift) - 1  # bits of the second word that no threshold has

        def outcome(*stream_words):
            stream = ScriptedStream(*stream_words)
            sample = int(sampler.sample(1, stream)[0])
            assert stream.words == []  # asked for just this much
            return sample

        assert outcome(bits - one_head) == own
        assert outcome(bits + one_head) == alias
        assert outcome(bits, low - 1, high << shift | rest) == own
        assert outcome(bits, low, high << shift) == alias
        assert outcome(bits, 2**64 - 1, (high - 1) << shift | rest) == own
        assert outcome(bits, 0, (high + 1) << shift) == alias
        assert outcome(bits | 1 << 63, low - 1, high << shift) == -own

    def test_ties_within_a_block_are_settled_in_order(self):
        sampler = DiscreteGaussian(3)
        words, tails = sampler._table.words.tolist(), sampler._table.tails.tolist()
        cells = [cell for cell, word in enumerate(words) if word & LOW_BITS][:2]
        bits = [words[cell] & ~LOW_BITS | cell for cell in cells]
        low, high = tails[cells[1]]
        sure = 5 << CELL_BITS | cells[0]  # far below its threshold: no tie
        stream = ScriptedStream(bits[0], sure, bits[1], 0, 0, low, high << (128 - TAIL_BITS))
        expected = [cells[0], cells[0], cells[1] ^ (words[cells[1]] & LOW_BITS)]
        assert sampler.sample(3, stream).tolist() == expected


class TestStatistics:
    @pytest.mark.parametrize("scale", [1, 3])
    def test_samples_fit_theory(self, scale):
        samples = DiscreteGaussian(scale).sample(200_000, KeyStream.fresh())
        assert chi_square_p(samples, scale) > ALARM

    @pytest.mark.parametrize("scale", [1, 3])
    def test_samples_fit_those_of_opendp(self, scale):
        ours = DiscreteGaussian(scale).sample(20_000, KeyStream.fresh())
        assert same_distribution_p(ours, opendp_samples(scale, 20_000)) > ALARM

    def test_opendp_fits_theory(self):
        assert chi_square_p(opendp_samples(3.0, 20_000), 3) > ALARM

    def test_control_half_the_scale_is_flagged(self):
        half = DiscreteGaussian(1.5).sample(20_000, KeyStream.fresh())
        full = DiscreteGaussian(3).sample(20_000, KeyStream.fresh())
        assert chi_square_p(half, 3) < ALARM
        assert same_distribution_p(half, full) < ALARM

    @pytest.mark.parametrize("scale", [1, 3])
    def test_control_zero_counted_twice_is_flagged(self, scale):
        samples = DiscreteGaussian(scale).sample(20_000, KeyStream.fresh())
        doubled = np.append(samples, samples[samples == 0])
        assert chi_square_p(doubled, scale) < ALARM

    def test_working_scale_has_the_right_moments_and_quantiles(self):
        # Six standard errors: a false alarm once in 5e8 for either moment.
        count, scale = 4_000_000, 2**14
        samples = DiscreteGaussian(scale).sample(count, KeyStream.fresh())
        assert abs(samples.mean()) < 6 * scale / math.sqrt(count)
        assert abs(samples.var() / scale**2 - 1) < 6 * math.sqrt(2 / count)
        ranks = stats.norm.cdf((samples + 0.5) / scale)
        bins = np.bincount((ranks * 256).astype(int), minlength=256)
        assert stats.chisquare(bins).pvalue > ALARM
        # Of four million, so that the control's statistic lies nine deviations above the alarm.
        tight = stats.norm.cdf((samples + 0.5) / (1.01 * scale))
        bins = np.bincount((tight * 256).astype(int), minlength=256)
        assert stats.chisquare(bins).pvalue < ALARM  # control: a scale wrong by one percent


class TestRepetition:
    def test_fresh_streams_give_different_noise_and_a_fixed_key_is_flagged(self):
        sampler = DiscreteGaussian(2**14)
        runs = [sampler.sample(64, KeyStream.fresh()) for _ in range(2)]
        assert not np.array_equal(*runs)
        fixed = [sampler.sample(64, KeyStream(bytes(32))) for _ in range(2)]
        assert np.array_equal(*fixed)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    @pytest.mark.parametrize("kind", ["fresh", "derived"])
    def test_a_forked_child_draws_other_noise_unless_the_stream_is_derived(self, kind):
        sampler = DiscreteGaussian(2**14)
        stream = KeyStream.fresh() if kind == "fresh" else KeyStream(bytes(32))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(writer, sampler.sample(64, stream).tobytes())
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            theirs = np.frombuffer(pipe.read(), dtype=np.int64)
        assert os.waitpid(child, 0)[1] == 0
        assert len(theirs) == 64
        repeated = np.array_equal(theirs, sampler.sample(64, stream))
        assert repeated == (kind == "derived")


class TestAddTo:
    @pytest.mark.parametrize("count", [0, 1, 8191, 8192, 8193, 20_000])
    def test_adds_exactly_what_sample_gives(self, count):
        sampler = DiscreteGaussian(100.5)
        vector = np.arange(count, dtype=np.int64) << 40
        expected = vector + sampler.sample(count, KeyStream(bytes(32)))
        sampler.add_to(vector, KeyStream(bytes(32)))
        assert np.array_equal(vector, expected)

    def test_leaves_what_lies_between_the_coordinates_alone(self):
        sampler = DiscreteGaussian(3)
        whole = np.zeros(20_000, dtype=np.int64)
        sampler.add_to(whole[::2], KeyStream(bytes(32)))
        assert np.array_equal(whole[::2], sampler.sample(10_000, KeyStream(bytes(32))))
        assert not whole[1::2].any()

    def test_needs_temporary_memory_for_one_block_only(self):
        sampler, stream = DiscreteGaussian(2**14), KeyStream.fresh()
        vector = np.zeros(1_000_000, dtype=np.int64)
        tracemalloc.start()
        sampler.add_to(vector, stream)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 300 * 1024

    @pytest.mark.parametrize(
        "vector",
        [np.zeros(3, np.int32), np.zeros(3), np.zeros((2, 2), np.int64), np.broadcast_to(0, (3,))],
    )
    def test_refuses_what_is_not_a_writable_int64_vector(self, vector):
        with pytest.raises(ValueError, match="writable int64 vector"):
            DiscreteGaussian(3).add_to(vector, KeyStream.fresh())


@pytest.mark.parametrize("scale", [0, 0.99, -3, 1e6, math.inf, math.nan])
def test_scales_beyond_the_table_are_refused(scale):
    with pytest.raises(ValueError, match="choose the grid step"):
        DiscreteGaussian(scale)


def test_the_largest_scale_fits_the_cell_field():
    assert math.ceil(12 * Fraction(MAX_SCALE)) < 1 << CELL_BITS


def test_samplers_of_one_scale_share_one_read_only_table():
    first, second = DiscreteGaussian(2**14), DiscreteGaussian(2.0**14)
    assert first._table is second._table
    with pytest.raises(ValueError, match="read-only"):
        first._table.words[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        first._table.tails[0] = 0
