"""The tables; a change here is a migration beside it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

__all__ = ["ANSWER", "METADATA", "STATE", "STUDY"]

METADATA: Final = MetaData()

STUDY: Final = Table(
    "study",
    METADATA,
    Column("terms_hash", String(64), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("proposed_ms", BigInteger, nullable=False),
    Column("starts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("wanted", String(16), nullable=False),
    Column("wanted_ms", BigInteger, nullable=False),
)
"""One row per terms; another version of a study is another row. ``wanted``: what the operator asks
for, since ``wanted_ms``; ``status``: what the coordinator made of it. ``starts``: how often a
coordinator began to run it. ``crashes``: how often it ended without a word; each time it may have
left one attempt open that no log knows of."""

STATE: Final = Table(
    "state",
    METADATA,
    Column("terms_hash", String(64), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
"""The public state after some rounds; the log says which of them happened, and its sums lead on."""

ANSWER: Final = Table(
    "answer",
    METADATA,
    Column("terms_hash", String(64), primary_key=True),
    Column("member", String(63), primary_key=True),
    Column("answer", String(16), nullable=False),
    Column("sentence", Text, nullable=False),
)
"""What each member last said to proposed terms, to be shown; what it signed is in the log."""
