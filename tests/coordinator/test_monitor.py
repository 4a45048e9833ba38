from __future__ import annotations

import io
import json
import logging

import pytest

from coordinator.console import Lines
from coordinator.monitor import (
    AttemptFailed,
    Event,
    JsonLines,
    KeysFailed,
    Listening,
    MemberFaulted,
    MemberJoined,
    MemberLeft,
    MemberRefused,
    Monitor,
    RoundClosed,
    StudyFinished,
    StudyOpened,
    StudyPaused,
)
from coordinator.rpc_errors import REASONS, Denied, denial

PROFILE = {"1": 0.9, "2": 1.9}
EVENTS: list[Event] = [
    Listening("127.0.0.1:1"),
    StudyOpened("s", "ab", ("a", "b"), 3, 1e-5, PROFILE, 1.8, PROFILE, "gRPC"),
    MemberJoined("a", "ipv4:127.0.0.1:2"),
    MemberLeft("a"),
    MemberRefused("a", "s round 1", "no"),
    MemberFaulted("a", "sent too much"),
    RoundClosed(1, 1, ("a",), ("b",), 0.02, 1, 0.3),
    AttemptFailed(1, 1, "too few"),
    KeysFailed("too few"),
    StudyPaused("s", 2, 3),
    StudyFinished("s", 3, 4, 1.5, "model"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_has_a_line_and_a_json_object(event: Event) -> None:
    lines, objects = io.StringIO(), io.StringIO()
    Monitor(Lines(lines), JsonLines(objects)).emit(event)
    assert len(lines.getvalue().strip()) > 5
    document = json.loads(objects.getvalue())
    assert document["event"] == type(event).__name__


def test_a_sink_that_fails_stops_neither_the_others_nor_the_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Event) -> None:
        raise OSError("disk full")

    seen: list[Event] = []
    with caplog.at_level(logging.ERROR):
        Monitor(broken, seen.append).emit(EVENTS[0])
    assert seen == EVENTS[:1]
    assert "could not be written" in caplog.text


def test_every_reason_to_refuse_a_stream_has_its_status_and_sentence() -> None:
    answers = [denial(Denied(reason)) for reason in REASONS]
    assert len({sentence for _, sentence in answers}) == len(REASONS)
