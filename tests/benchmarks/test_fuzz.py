"""A slice of the fuzzing, and that it leaves no parser out."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator

import pytest

from benchmarks.fuzz.campaign import Parser, run
from benchmarks.fuzz.mutations import Mutator
from benchmarks.fuzz.parsers import NOT_FUZZED, every_parser, named_like_parsers
from privacy.errors import MalformedBody

INPUTS = 250
NEVER_READ = {"reserve: a member's answer"}
"""What was taken once is not taken again."""


@pytest.fixture(scope="module")
def parsers() -> list[Parser]:
    return every_parser()


def test_every_parser_is_fuzzed_or_named_with_a_reason(parsers: list[Parser]) -> None:
    there = set(named_like_parsers())
    fuzzed = {name for parser in parsers for name in parser.covers}
    assert there - fuzzed - NOT_FUZZED.keys() == set()
    assert NOT_FUZZED.keys() <= there - fuzzed
    assert len({parser.name for parser in parsers}) == len(parsers)


def test_no_parser_crashes_or_hangs(parsers: list[Parser]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of certificates that will be refused one day
        for parser in parsers:
            outcome = run(parser, INPUTS, seed="test")
            assert (outcome.crashes, outcome.hangs) == ({}, []), parser.name
            assert outcome.inputs == INPUTS
            assert outcome.refused > 0, parser.name
            assert outcome.read > 0 or parser.name in NEVER_READ, parser.name


# Positive controls: a parser that crashes, hangs or hoards is told.


def odd(data: bytes) -> None:
    if data == b"valid":
        return
    if len(data) % 2:
        raise MalformedBody("odd")
    raise IndexError(data[:1])


def endless(data: bytes) -> None:
    while data != b"valid":
        pass


def hoarding(kept: list[bytes]) -> Iterator[None]:
    while True:
        yield kept.append(bytes(1 << 20) * 8)


def test_a_crash_is_counted_and_its_input_kept() -> None:
    outcome = run(Parser("odd", (), (b"valid",), odd), 300, seed="1")
    assert min(outcome.read, outcome.refused) > 0
    assert outcome.failures == outcome.crashed > 0
    assert all(len(data) % 2 == 0 for each in outcome.crashes.values() for data in each)


def test_a_hang_is_ended_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fuzz.campaign.HANG_S", 0.02)
    outcome = run(Parser("endless", (), (b"valid",), endless), 5, seed="1")
    assert outcome.failures == len(outcome.hangs) > 0


def test_memory_beyond_twice_the_cap_is_told() -> None:
    kept: list[bytes] = []
    hoard = hoarding(kept)
    parser = Parser("hoarding", (), (b"valid",), lambda _: next(hoard))
    assert run(parser, 20, seed="1").failures == 1


def test_the_same_seed_makes_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        mutator = Mutator([b'{"a":[1,"b"]}'], "json", 1000, random.Random(seed))
        return [mutator.next() for _ in range(200)]

    assert inputs(1) == inputs(1) != inputs(2)
