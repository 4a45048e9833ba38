"""Secret sharing against the textbook: any threshold of shares rebuilds, fewer say nothing."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.secagg.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, Basis, split
from tests.privacy.secagg.alliance import Entropy

COEFFICIENT_BYTES = 49

secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@st.composite
def dealings(draw):
    # Few small ones, many, and such that products of two or three fill 63 bits.
    most = draw(st.sampled_from([3000, 2**20 - 1, 2**21 - 1, 2**31 - 1, 2**32 - 1]))
    point = st.one_of(st.integers(1, min(most, 3000)), st.integers(1, most))
    points = draw(st.lists(point, min_size=1, max_size=12, unique=True))
    threshold = draw(st.integers(1, len(points)))
    return draw(secrets), points, threshold, draw(st.integers(0, 2**32))


def textbook(points, values, at=0):
    """Lagrange's formula, one inversion per term."""
    total = 0
    for x, value in zip(points, values, strict=True):
        numerator = denominator = 1
        for z in points:
            if z != x:
                numerator = numerator * (at - z) % PRIME
                denominator = denominator * (x - z) % PRIME
        total += value * numerator * pow(denominator, -1, PRIME)
    return total % PRIME


def coefficients(points, values):
    """The polynomial through the points, constant first (Newton's form, multiplied out)."""
    table = list(values)
    for level in range(1, len(points)):
        for place in range(len(points) - 1, level - 1, -1):
            rise = table[place] - table[place - 1]
            table[place] = rise * pow(points[place] - points[place - level], -1, PRIME) % PRIME
    polynomial = [0]
    for x, value in zip(reversed(points), reversed(table), strict=True):
        shifted = [0, *polynomial]
        polynomial = [
            (a - x * b) % PRIME for a, b in itertools.zip_longest(shifted, polynomial, fillvalue=0)
        ]
        polynomial[0] = (polynomial[0] + value) % PRIME
    return polynomial[: len(points)]


def numbers(shares):
    return [int.from_bytes(share) for share in shares]


def test_the_prime_is_the_least_above_every_secret():
    def is_prime(number):  # Miller-Rabin; composites pass with chance below 4^-12
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
            powers = [pow(base, odd << step, number) for step in range(twos)]
            if powers[0] != 1 and number - 1 not in powers:
                return False
        return True

    assert [offset for offset in range(1, 298, 2) if is_prime(2**256 + offset)] == [297]
    assert PRIME == 2**256 + 297


@given(dealings(), st.data())
def test_any_threshold_of_shares_rebuilds(dealing, data):
    secret, points, threshold, seed = dealing
    shares = split(secret, points, threshold, Entropy(str(seed)))
    assert {len(share) for share in shares} == {SHARE_BYTES}
    chosen = data.draw(st.permutations(range(len(points))))[:threshold]
    basis = Basis([points[place] for place in chosen])
    assert basis.rebuild([shares[place] for place in chosen]) == secret


def test_every_subset_of_a_small_sharing():
    secret, points = bytes(range(32)), [1, 2, 5, 9, 2**31]
    shares = dict(zip(points, split(secret, points, 3, Entropy("subsets")), strict=True))
    for chosen in itertools.permutations(points, 3):
        assert Basis(chosen).rebuild([shares[point] for point in chosen]) == secret
    for chosen in itertools.combinations(points, 2):
        assert Basis(chosen).rebuild([shares[point] for point in chosen]) != secret


@given(dealings())
def test_shares_lie_on_a_polynomial_of_the_entropy(dealing):
    """A reference of its own: powers instead of Horner, entropy read as the coefficients."""
    secret, points, threshold, seed = dealing
    shares = split(secret, points, threshold, Entropy(str(seed)))
    drawn = Entropy(str(seed))(COEFFICIENT_BYTES * (threshold - 1))
    high_first = [
        int.from_bytes(drawn[COEFFICIENT_BYTES * k : COEFFICIENT_BYTES * (k + 1)])
        for k in range(threshold - 1)
    ]
    for point, share in zip(points, numbers(shares), strict=True):
        powers = sum(c * point**k for k, c in enumerate(reversed(high_first), start=1))
        assert share == (int.from_bytes(secret) + powers) % PRIME


@given(dealings(), secrets)
def test_one_share_too_few_fits_every_secret(dealing, other):
    """For any other secret there are coefficients, as likely as any, that give the same shares."""
    secret, points, threshold, seed = dealing
    if threshold == 1:
        return
    seen = points[: threshold - 1]
    shares = split(secret, points, threshold, Entropy(str(seed)))[: threshold - 1]
    polynomial = coefficients([0, *seen], [int.from_bytes(other), *numbers(shares)])
    drawn = b"".join(c.to_bytes(COEFFICIENT_BYTES) for c in reversed(polynomial[1:]))
    again = split(other, points, threshold, lambda count: drawn if count == len(drawn) else b"")
    assert again[: threshold - 1] == shares


@given(dealings())
def test_a_basis_is_lagranges(dealing):
    secret, points, _, seed = dealing
    values = numbers(split(secret, points, len(points), Entropy(str(seed))))
    at_zero = textbook(points, values)
    assert Basis(points).rebuild([value.to_bytes(SHARE_BYTES) for value in values]) == secret
    assert at_zero == int.from_bytes(secret)


def test_weights_are_rational_lagrange_weights():
    points = (1, 3, 4, 8)
    for place, x in enumerate(points):
        exact = Fraction(1)
        for z in points:
            if z != x:
                exact *= Fraction(z, z - x)
        modular = exact.numerator * pow(exact.denominator, -1, PRIME) % PRIME
        assert Basis(points)._weights[place] == modular


@given(dealings(), st.data())
def test_one_changed_share_gives_another_secret_or_none(dealing, data):
    secret, points, threshold, seed = dealing
    shares = split(secret, points, threshold, Entropy(str(seed)))[:threshold]
    place = data.draw(st.integers(0, threshold - 1))
    changed = data.draw(st.integers(0, PRIME - 1))
    if changed == int.from_bytes(shares[place]):
        return
    shares[place] = changed.to_bytes(SHARE_BYTES)
    assert Basis(points[:threshold]).rebuild(shares) != secret


@pytest.mark.parametrize("excess", [0, 1, 296])
def test_shares_of_no_32_byte_secret_are_told(excess):
    share = (2**256 + excess).to_bytes(SHARE_BYTES)
    assert Basis([4]).rebuild([share]) is None
    assert Basis([4]).rebuild([(2**256 - 1).to_bytes(SHARE_BYTES)]) == b"\xff" * 32


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, (1).to_bytes(32)])
def test_extreme_secrets_come_back(secret):
    shares = split(secret, [1, 2, 3], 3, Entropy("extreme"))
    assert Basis([1, 2, 3]).rebuild(shares) == secret


def test_each_sharing_takes_fresh_coefficients_of_full_width():
    entropy = Entropy("width")
    one, two = (split(bytes(32), [1, 2, 3, 4, 5], 4, entropy) for _ in range(2))
    assert entropy.given == 2 * 3 * COEFFICIENT_BYTES
    assert not set(one) & set(two)


@pytest.mark.parametrize(
    ("secret", "points", "threshold", "problem"),
    [
        (bytes(31), [1, 2], 2, "32 bytes, got 31"),
        (bytes(33), [1, 2], 2, "32 bytes, got 33"),
        (bytes(32), [1, 2], 0, "2 points with threshold 0"),
        (bytes(32), [1, 2], 3, "2 points with threshold 3"),
        (bytes(32), [], 1, "0 points"),
        (bytes(32), [2, 2], 1, "cannot share"),
        (bytes(32), [0, 1], 1, "secret itself lies at 0"),
        (bytes(32), [-1, 1], 1, "count from 1"),
    ],
)
def test_bad_sharings_are_refused(secret, points, threshold, problem):
    with pytest.raises(ValueError, match=problem):
        split(secret, points, threshold, Entropy("bad"))


@pytest.mark.parametrize("points", [[], [1, 1], [0, 1], [-3], [1, 1 << 32]])
def test_bad_bases_are_refused(points):
    with pytest.raises(ValueError, match="distinct points from 1 and below"):
        Basis(points)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_basis_takes_one_share_per_point(count):
    with pytest.raises(ValueError, match=f"{count} shares for 2 points"):
        Basis([1, 2]).rebuild([bytes(SHARE_BYTES)] * count)
