"""A coordinator that withholds deals and picks the dropouts after it saw who drew whom."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy.errors import MemberFault, RoundFailed
from privacy.secagg import Graph, KeySets, Setup
from privacy.secagg.binding import pair_seed, self_seed
from privacy.secagg.masking import apply_masks
from privacy.secagg.messages import Delivery
from tests.privacy.secagg.alliance import Alliance, Sum, sum_of, terms_of

DROPOUTS = 20


def attack(alliance: Alliance) -> bool:
    """Whether the sum of all survivors but one can be read."""
    alliance.advertise()
    alliance.share()
    alliance.take_shares()
    drew = {
        index: {deal.member for deal in shares.deals}
        for index, shares in alliance.exchange._shares.items()
    }
    drawers = {victim: {index for index in drew if victim in drew[index]} for victim in drew}
    victim = min(drawers, key=lambda index: len(drawers[index]))
    gone = set(drawers[victim])
    gone |= set([index for index in drew if index != victim and index not in gone][:DROPOUTS])
    gone = set(sorted(gone, key=lambda index: index not in drawers[victim])[:DROPOUTS])
    for name in alliance.here:
        whole = Delivery.decode(alliance.exchange.delivery(name), alliance.key_sets)
        kept = tuple(deal for deal in whole.deals if deal.member != victim)
        signed = alliance.members[name].deliver(
            alliance.key_sets, Delivery(whole.cohort, kept).encode()
        )
        assert alliance.exchange.take_ready(name, signed.body, signed.signature) == ()
    attempt = Sum(alliance, alliance.exchange.finish())
    attempt.leave([alliance.setup.name(index) for index in gone])
    attempt.contribute()
    attempt.confirm()
    attempt.take_confirmations()
    attempt.reveal()
    for name in attempt.here:
        signed = attempt.sent.said["unmask"][name]
        with contextlib.suppress(MemberFault):  # it misses shares that it withheld itself
            attempt.unmasking.take_unmask(name, signed.body, signed.signature)
    return _reads(alliance, attempt, victim)


def _reads(alliance: Alliance, attempt: Sum, victim: int) -> bool:
    unmasking = attempt.unmasking
    lists = unmasking._lists
    others = set(lists.survivors) - {victim}
    names = [alliance.setup.name(index) for index in others]
    dimension = alliance.setup.terms.dimension
    total = np.zeros(dimension, np.uint32)
    for name in names:
        total += np.frombuffer(alliance.sent.said["contribute"][name].body, dtype=np.uint32)
    bases: dict = {}
    secrets = {index: unmasking._rebuilt(index, bases) for index in others}
    subtract = [
        self_seed(unmasking._setup, secret, unmasking.cohort.hash, unmasking.attempt, one=index)
        for index, secret in secrets.items()
    ]
    add = []
    for index in lists.dropped:
        try:
            key = X25519PrivateKey.from_private_bytes(unmasking._rebuilt(index, bases))
        except RoundFailed:
            continue
        for other in unmasking._neighbours(index) & others:
            seed = pair_seed(
                unmasking._setup, key.exchange(unmasking._public(other)), unmasking.cohort.hash,
                unmasking.attempt, one=index, other=other,
            )  # fmt: skip
            (subtract if other < index else add).append(seed)
    apply_masks(total, add=add, subtract=subtract)
    return bool((total == sum_of(alliance.setup.terms, names)).all())


@pytest.mark.parametrize(("degree", "broken"), [(None, False), (28, True)])
def test_withheld_deals_expose_nobody(
    monkeypatch: pytest.MonkeyPatch, degree: int | None, broken: bool
) -> None:
    """With 28 draws, enough for masks that count both ways, it is broken: the positive control."""
    if degree is not None:
        whole = Setup.of
        graph = Graph(degree, 2)
        monkeypatch.setattr(Setup, "of", lambda terms: replace(whole(terms), graph=graph))
    terms = terms_of(members=128, dropouts=DROPOUTS, colluders=1, dimension=5)
    assert attack(Alliance(terms, KeySets(1, 1))) is broken
