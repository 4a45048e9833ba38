"""Shamir's secret sharing of 32-byte secrets, with one Lagrange basis per set of shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from operator import mul
from typing import Final

import numpy as np

__all__ = ["PRIME", "SECRET_BYTES", "SHARE_BYTES", "Basis", "split"]

PRIME: Final = 2**256 + 297
"""The smallest prime above 2^256: every 32-byte secret is a field element."""
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33
_COEFFICIENT_BYTES: Final = 49
"""Reduced modulo the prime; the distance from uniform is below 2^-135."""


def split(
    secret: bytes, points: Sequence[int], threshold: int, entropy: Callable[[int], bytes]
) -> list[bytes]:
    """Shares of a secret: any ``threshold`` rebuild it, fewer say nothing about it.

    Args:
        secret: 32 bytes.
        points: where the polynomial is evaluated; distinct, from 1.
        threshold: at least 1, at most ``len(points)``.
        entropy: gives secret random bytes.

    Returns:
        One share of 33 bytes, big-endian, for each point.

    Raises:
        ValueError: if the arguments are not as above.

    Source:
        Shamir (1979), "How to Share a Secret".
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, got {len(secret)}")
    if not 1 <= threshold <= len(points) or len(set(points)) != len(points):
        raise ValueError(f"cannot share among {len(points)} points with threshold {threshold}")
    if min(points) < 1:
        raise ValueError("points count from 1: the secret itself lies at 0")
    drawn = entropy(_COEFFICIENT_BYTES * (threshold - 1))
    coefficients = [
        int.from_bytes(drawn[start : start + _COEFFICIENT_BYTES]) % PRIME
        for start in range(0, len(drawn), _COEFFICIENT_BYTES)
    ]
    constant = int.from_bytes(secret)
    shares = []
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value + coefficient) * point % PRIME
        shares.append(((value + constant) % PRIME).to_bytes(SHARE_BYTES))
    return shares


class Basis:
    """The Lagrange basis at 0 of one set of points: worked out once, used for every secret.

    Args:
        points: distinct, from 1 and below 2^32; as many as the threshold.
    """

    __slots__ = ("_weights", "points")

    def __init__(self, points: Sequence[int]) -> None:
        if len(set(points)) != len(points) or not points or min(points) < 1 or max(points) >> 32:
            raise ValueError("a basis needs distinct points from 1 and below 2^32")
        self.points = tuple(points)
        self._weights = _weights(self.points)

    def rebuild(self, shares: Sequence[bytes]) -> bytes | None:
        """The secret behind one share per point, in their order.

        Returns:
            32 bytes, or None if the shares belong to no 32-byte secret: whoever dealt them cheated.

        Raises:
            ValueError: if the number of shares is not that of the points.
        """
        if len(shares) != len(self.points):
            raise ValueError(f"{len(shares)} shares for {len(self.points)} points")
        value = sum(map(mul, self._weights, map(int.from_bytes, shares))) % PRIME
        return value.to_bytes(SECRET_BYTES) if value < 1 << 8 * SECRET_BYTES else None


def _weights(points: tuple[int, ...]) -> list[int]:
    """For each point x: the product over the other points z of z / (z - x).

    Written as P / (x * product of (z - x)), with P the product of all points; one inversion serves
    all denominators (Montgomery's trick). Points are small, so that several differences are
    multiplied in 63 bits before Python's integers take over; t points take 8 t^2 bytes meanwhile.
    """
    at = np.array(points, dtype=np.int64)
    factors = at[:, np.newaxis] - at
    np.fill_diagonal(factors, at)
    together = max(1, 62 // max(points).bit_length())
    few = np.multiply.reduceat(factors, range(0, len(points), together), axis=0)
    denominators = [prod(column) % PRIME for column in few.T.tolist()]
    prefixes = [1]
    for denominator in denominators:
        prefixes.append(prefixes[-1] * denominator % PRIME)
    inverse = prod(points) * pow(prefixes.pop(), -1, PRIME) % PRIME
    weights = []
    for prefix, denominator in zip(reversed(prefixes), reversed(denominators), strict=True):
        weights.append(inverse * prefix % PRIME)
        inverse = inverse * denominator % PRIME
    return weights[::-1]
