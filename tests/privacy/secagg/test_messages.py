"""Message bodies: one encoding each, and nothing but it is read."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from privacy.errors import MalformedBody
from privacy.secagg.binding import KeySets
from privacy.secagg.messages import (
    Advertisement,
    Deal,
    Delivery,
    Lists,
    Offer,
    Opened,
    Revealed,
    Shares,
    Signatures,
    read_indices,
    write_indices,
)

COUNT = 2
RUN = KeySets(5, COUNT)


def raw(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def several(size: int, count: int = COUNT) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.tuples(*[raw(size)] * count)


def by_index(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    entries = st.lists(
        st.tuples(st.integers(1, 2**32 - 1), *parts), max_size=4, unique_by=lambda entry: entry[0]
    )
    return entries.map(lambda entries: tuple(sorted(entries)))


indices = by_index().map(lambda entries: tuple(index for (index,) in entries))
deals = by_index(several(64), raw(12), raw(98 * COUNT + 16)).map(
    lambda entries: tuple(Deal(*entry) for entry in entries)
)
opened = st.tuples(*[st.builds(Opened, raw(33), raw(16), raw(33), raw(16))] * COUNT)
keys = raw(32).map(lambda key: key[:-1] + bytes([key[-1] & 0x7F]))
advertisements = st.builds(Advertisement, keys, st.tuples(*[keys] * COUNT)).filter(
    lambda one: len(set(one.keys)) == COUNT + 1
)

KINDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "indices": (indices, write_indices, read_indices),
    "advertisement": (
        advertisements, Advertisement.encode, lambda data: Advertisement.decode(data, RUN),
    ),
    "offer": (
        st.builds(Offer, by_index(raw(32 * (COUNT + 1)), raw(64))),
        Offer.encode, lambda data: Offer.decode(data, RUN),
    ),
    "opened": (
        opened,
        lambda several: b"".join(one.encode() for one in several),
        lambda data: Opened.decode_all(data, RUN),
    ),
    "shares": (
        st.builds(Shares, several(32), several(64), deals),
        Shares.encode, lambda data: Shares.decode(data, RUN),
    ),
    "delivery": (
        st.builds(Delivery, indices, deals),
        Delivery.encode, lambda data: Delivery.decode(data, RUN),
    ),
    "lists": (st.builds(Lists, indices, indices), Lists.encode, Lists.decode),
    "signatures": (
        st.builds(Signatures, by_index(raw(64))), Signatures.encode, Signatures.decode,
    ),
    "revealed": (
        st.builds(Revealed, by_index(raw(33), raw(16))), Revealed.encode, Revealed.decode,
    ),
}  # fmt: skip

kinds = pytest.mark.parametrize("kind", KINDS)


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4) for number in numbers)


@kinds
@given(st.data())
def test_decoding_is_the_inverse_of_encoding(kind, data):
    messages, encode, decode = KINDS[kind]
    message = data.draw(messages)
    assert decode(encode(message)) == message
    assert encode(decode(encode(message))) == encode(message)


@kinds
@given(st.data())
def test_every_truncation_and_any_extension_is_refused(kind, data):
    messages, encode, decode = KINDS[kind]
    body = encode(data.draw(messages))
    for size in range(len(body)):
        with pytest.raises(MalformedBody):
            decode(body[:size])
    for more in (b"\x00", b"\xff", bytes(4), body):
        with pytest.raises(MalformedBody):
            decode(body + more)


@kinds
def test_garbage_is_malformed_and_nothing_else(kind):
    """Random bytes, and real bodies with random bytes in them; what is read reads back the same."""
    _, encode, decode = KINDS[kind]
    generator = random.Random(kind)
    read = 0
    for place in range(4000):
        size = generator.choice(
            [0, 1, 3, 4, 5, 8, 20, 64, 96, 196, 200, 400, generator.randrange(900)]
        )
        body = bytearray(generator.randbytes(size))
        if place % 2 and size >= 4:  # a believable length, so that reading goes deeper
            body[:4] = u32(generator.randrange(4))
        try:
            message = decode(bytes(body))
        except MalformedBody:
            continue
        read += 1
        assert encode(message) == bytes(body)
    assert read < 4000


@pytest.mark.parametrize(
    "kind", ["indices", "offer", "shares", "delivery", "lists", "signatures", "revealed"]
)
@pytest.mark.parametrize("count", [2**32 - 1, 2**31, 10**6])
def test_huge_counts_are_refused_at_once(kind, count):
    """Wherever a number could stand: nothing large is made, and it takes no time."""
    _, _, decode = KINDS[kind]
    decode_at = [u32(count), u32(0, count), u32(1, 1, count), bytes(32 * 6) + u32(count)]
    began = time.perf_counter()
    tracemalloc.start()
    try:
        for body in (*decode_at, *(body + bytes(1000) for body in decode_at)):
            with pytest.raises(MalformedBody):
                decode(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert time.perf_counter() - began < 5


@given(st.lists(st.integers(0, 20), max_size=6))
def test_lists_are_strictly_increasing_from_one(numbers):
    body = u32(len(numbers), *numbers)
    if numbers == sorted(set(numbers)) and 0 not in numbers:
        assert read_indices(body) == tuple(numbers)
    else:
        with pytest.raises(MalformedBody, match="repeats one or is out of order"):
            read_indices(body)


DEAL = bytes(64 * COUNT + 12 + 98 * COUNT + 16)


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (0, 1), (3, 5, 4)])
@pytest.mark.parametrize(
    ("kind", "before", "entry"),
    [
        ("offer", b"", bytes(32 * (COUNT + 1) + 64)),
        ("shares", bytes(96 * COUNT), DEAL),
        ("delivery", u32(1, 1), DEAL),
        ("signatures", b"", bytes(64)),
        ("revealed", b"", bytes(49)),
    ],
)
def test_entries_out_of_order_are_refused(kind, before, entry, order):
    _, _, decode = KINDS[kind]

    def body(indices):
        return before + u32(len(indices)) + b"".join(u32(index) + entry for index in indices)

    decode(body(range(1, len(order) + 1)))
    with pytest.raises(MalformedBody, match="out of order"):
        decode(body(order))


@pytest.mark.parametrize("bad", [u32(2, 2, 1), u32(2, 1, 1), u32(1, 0)])
def test_lists_inside_messages_are_checked_too(bad):
    for body, decode in (
        (bad + u32(0), Lists.decode),
        (u32(0) + bad, Lists.decode),
        (bad + u32(0), lambda data: Delivery.decode(data, RUN)),
    ):
        with pytest.raises(MalformedBody, match="out of order"):
            decode(body)


@pytest.mark.parametrize("keys", [(1, 1, 2), (1, 2, 1), (2, 1, 1)])
def test_an_advertisement_that_repeats_a_key_is_refused(keys):
    with pytest.raises(MalformedBody, match="repeats a key"):
        Advertisement.decode(b"".join(bytes([key]) * 32 for key in keys), RUN)


@pytest.mark.parametrize("place", range(3))
def test_a_key_in_a_second_form_is_refused(place):
    keys = [bytes([number]) * 32 for number in (1, 2, 3)]
    keys[place] = keys[place][:-1] + b"\x80"
    with pytest.raises(MalformedBody, match="top bit"):
        Advertisement.decode(b"".join(keys), RUN)


@pytest.mark.parametrize(
    ("kind", "decode"),
    [
        ("advertisement", Advertisement.decode),
        ("offer", Offer.decode),
        ("opened", Opened.decode_all),
        ("shares", Shares.decode),
        ("delivery", Delivery.decode),
    ],
)
@given(st.data())
def test_bodies_of_another_run_length_are_refused(kind, decode, data):
    messages, encode, _ = KINDS[kind]
    message = data.draw(messages)
    # Without entries these two are the same for every run.
    assume(not (kind == "offer" and not message.entries))
    assume(not (kind == "delivery" and not message.deals))
    with pytest.raises(MalformedBody):
        decode(encode(message), KeySets(5, COUNT + 1))


def test_the_layout_is_the_specifications():
    """Written out by hand: section 3 to 8 of the README."""
    one, two = b"\x01" * 32, b"\x02" * 32
    run = KeySets(9, 1)
    assert Advertisement(one, (two,)).encode() == one + two
    offer = Offer(((3, one + two, b"s" * 64),))
    assert offer.encode() == u32(1, 3) + one + two + b"s" * 64
    deal = Deal(7, (b"h" * 64,), b"n" * 12, b"c" * 114)
    assert deal.encode() == u32(7) + b"h" * 64 + b"n" * 12 + b"c" * 114
    shares = Shares((one,), (b"o" * 64,), (deal,))
    assert shares.encode() == one + b"o" * 64 + u32(1) + deal.encode()
    assert Shares.decode(shares.encode(), run) == shares
    assert Delivery((2, 7), (deal,)).encode() == u32(2, 2, 7, 1) + deal.encode()
    assert Opened(b"a" * 33, b"b" * 16, b"c" * 33, b"d" * 16).encode() == (
        b"a" * 33 + b"b" * 16 + b"c" * 33 + b"d" * 16
    )
    assert Lists((1, 3), (2,)).encode() == u32(2, 1, 3, 1, 2)
    assert Signatures(((4, b"s" * 64),)).encode() == u32(1, 4) + b"s" * 64
    assert Revealed(((4, b"s" * 33, b"t" * 16),)).encode() == u32(1, 4) + b"s" * 33 + b"t" * 16
