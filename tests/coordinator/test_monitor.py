from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Console

from coordinator.console import Lines
from coordinator.metrics import Metrics
from coordinator.monitor import (
    AttemptFailed,
    Event,
    JsonLines,
    KeysFailed,
    Listening,
    MemberDeparted,
    MemberFaulted,
    MemberJoined,
    MemberLeft,
    MemberRefused,
    MemberRests,
    Monitor,
    RoundClosed,
    StudyFinished,
    StudyOpened,
    StudyPaused,
)
from coordinator.rpc_errors import REASONS, Denied, denial
from coordinator.status import Status, take
from coordinator.watch import view

PROFILE = {"1": 0.9, "2": 1.9}
EVENTS: list[Event] = [
    Listening("127.0.0.1:1"),
    StudyOpened("s", "ab", ("a", "b"), 3, 1e-5, PROFILE, 1.8, PROFILE, "gRPC"),
    MemberJoined("a", "ipv4:127.0.0.1:2"),
    MemberLeft("a"),
    MemberDeparted("a"),
    MemberRefused("a", "s round 1", "no"),
    MemberFaulted("a", "sent too much"),
    MemberRests("a", "missed 3 tasks in a row", 10.0),
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


def test_a_rest_is_seen_in_status_view_and_metrics() -> None:
    event, metrics = MemberRests("a", "missed 3 tasks in a row", 10.0), Metrics()
    status = take(take(Status(), MemberJoined("a", "ipv4:127.0.0.1:2"), now_ms=0), event, now_ms=9)
    assert (status.members["a"].rests, status.members["a"].rests_until_ms) == (1, 10_009)
    assert status.notices[-1].sentence == "a rests for 10 s: missed 3 tasks in a row"
    shown = io.StringIO()
    Console(file=shown, width=120).print(view(status, now_s=3.0, alive=True))
    assert "1, 7 s left" in shown.getvalue()
    metrics(event)
    assert metrics.registry.get_sample_value("alliance_member_rests_total", {"member": "a"}) == 1.0


def test_every_reason_to_refuse_a_stream_has_its_status_and_sentence() -> None:
    answers = [denial(Denied(reason)) for reason in REASONS]
    assert len({sentence for _, sentence in answers}) == len(REASONS)
