"""What a process says of itself, as text or JSON lines on its error stream.

**Guarantees:** a record of ours is an event of `protos.log_events` with names, numbers and
sentences; other types are named and not shown. Of an error that is not ours only its kind and
where it came from are written, never its message, which may quote a row; of other software's
records only their templates, from warnings on, whatever level is asked for.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import traceback
from types import TracebackType
from typing import Any, Final, Literal, TextIO

from privacy.errors import AllianceError
from protos.log_events import EVENTS, LoggedEvent

__all__ = ["LogFormat", "LogLevel", "adopt", "configure", "end", "line_of", "log"]

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Field = str | int | float | bool | None

_LOG: Final = logging.getLogger("alliance")
LONGEST: Final = 2000
"""Characters of a field."""
UNLISTED: Final = LoggedEvent(logging.INFO)
"""A test holds the table against the coordinator's events; none is lost to its being incomplete."""
FRAMES: Final = 12
"""Innermost places of an error that are told."""


def log(event: str, /, *, error: BaseException | None = None, **fields: Field) -> None:
    """Writes one event, if its level is asked for.

    Args:
        event: of the table.
        error: what caused it; told by kind and place, with its words only if it is ours.
        fields: those that the table's sentence names.
    """
    kind = EVENTS[event]
    if _LOG.isEnabledFor(kind.level):
        shown = {name: _shown(value) for name, value in fields.items()}
        told = (type(error), error, error.__traceback__) if error is not None else None
        _LOG.log(
            kind.level,
            "%s",
            kind.sentence.format_map(shown),
            exc_info=told,
            extra={"event": event, "fields": shown},
        )


def configure(stream: TextIO, *, style: LogFormat = "text", level: LogLevel = "info") -> None:
    """Sends this process's records to a stream; uncaught errors become records as well.

    Args:
        stream: the error stream, as a rule.
        style: of the lines.
        level: the least of our own records; other software's are written from warnings on.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if style == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
    _LOG.setLevel(level.upper())
    sys.excepthook = _failed


def adopt(logger: str) -> None:
    """Has other software's records written as ours are, and by nobody else."""
    theirs = logging.getLogger(logger)
    theirs.handlers.clear()
    theirs.propagate = True
    theirs.setLevel(logging.WARNING)


def end(program: str, sentence: str) -> None:
    """Says why a program ends: as its last record where these are JSON, as one line otherwise."""
    if any(isinstance(one.formatter, _Json) for one in logging.getLogger().handlers):
        log("ProcessFailed", sentence=sentence)
    else:
        sys.stderr.write(f"{program}: {sentence}\n")


def line_of(event: str, fields: dict[str, Any], *, at_s: float) -> str:
    """One JSON line; the coordinator's own events and all records have this form.

    Args:
        event: of the table.
        fields: as JSON takes them.
        at_s: seconds since 1970.
    """
    kind = EVENTS.get(event, UNLISTED)
    level = logging.getLevelName(kind.level).lower()
    return json.dumps({"at": _moment(at_s), "level": level, "event": event, **fields})


class _Json(logging.Formatter):
    """One JSON object a line: at, level, event, message, fields, error."""

    def format(self, record: logging.LogRecord) -> str:
        event, message, fields = _parts(record)
        error = _error(record)
        return line_of(
            event,
            {"message": message, **fields} | ({"error": error} if error else {}),
            at_s=record.created,
        )


class _Text(logging.Formatter):
    """The same for a terminal: moment, level, event, sentence."""

    def format(self, record: logging.LogRecord) -> str:
        event, message, _ = _parts(record)
        error = _error(record)
        if error:
            places = "".join(f"\n  at {place}" for place in error["at"])
            message += f" [{error['kind']}] {error['sentence']}".rstrip() + places
        return f"{_moment(record.created)} {record.levelname} {event}: {message}"


def _parts(record: logging.LogRecord) -> tuple[str, str, dict[str, Any]]:
    """Event, message and fields; of other software's records the template alone."""
    event = getattr(record, "event", None)
    if isinstance(event, str):
        return event, record.getMessage(), record.fields  # type: ignore[attr-defined]
    template = record.msg if isinstance(record.msg, str) and record.args else ""
    if record.name == "py.warnings":  # its message is an argument, and may quote anything
        template = "a warning"
    fields = {"logger": record.name, "template": _shown(template)}
    return "OtherSoftware", EVENTS["OtherSoftware"].sentence.format_map(fields), fields


def _error(record: logging.LogRecord) -> dict[str, Any]:
    """Kind, words if they are ours, and places of a record's error; empty if it has none."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return {
        "kind": type(error).__name__,
        "sentence": _shown(str(error)) if isinstance(error, AllianceError) else "",
        "at": [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames],
    }


def _shown(value: Any) -> Any:
    """A field as it is written: no line breaks, no more than `LONGEST`, no type beside `Field`."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        return f"<{type(value).__name__}>"
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)[
        :LONGEST
    ]


def _moment(at_s: float) -> str:
    moment = dt.datetime.fromtimestamp(at_s, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log(
            "ProcessFailed", error=error, sentence="an error that nobody expected; please report it"
        )
