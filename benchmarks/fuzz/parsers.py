"""Every parser of ours: what is fuzzed, and what looks like a parser and is not.

A test compares both lists with the code: a function that is named like a parser and stands in
neither is told.
"""

from __future__ import annotations

import ast
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.fuzz import of_evidence, of_identity, of_wire
from benchmarks.fuzz.campaign import Outcome, Parser, run
from benchmarks.fuzz.scene import scene

__all__ = ["NOT_FUZZED", "PREFIXES", "every_parser", "named_like_parsers", "outcome_of"]

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("privacy", "protos", "coordinator", "client_sdk")
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
PREFIXES: Final = ("parse", "decode", "from", "load", "open", "read", "verify")
"""First words of names of public functions that read bytes or text."""

NOT_FUZZED: Final = {
    "client_sdk.budget_report:read_budget": "a ledger's SQLite file: entries are fuzzed, files in "
    "benchmarks.ledger_campaign",
    "client_sdk.canaries:read_canaries": "reads the file that open_enrolment reads",
    "client_sdk.recipes.catalogue:parse_settings": "propensity.settings:parse calls it",
    "client_sdk.recipes.evaluation.settings:parse": "parse_settings does it",
    "client_sdk.dataset.layout:load": "rows come from DuckDB and pyarrow, at a member's own wish",
    "client_sdk.dataset.source:read_table": "likewise",
    "client_sdk.hours:Hours.open_at": "takes a moment",
    "client_sdk.hours:Window.parse": "policies as TOML hold windows",
    "client_sdk.process:open_journal": "opens a ledger's SQLite file",
    "client_sdk.process:open_node": "reads what other parsers here read",
    "coordinator.aggregation:SecureAggregation.open": "opens an attempt",
    "coordinator.kept_sums:KeptSums.read": "bytes of a file, of a hash that the log has",
    "coordinator.mirror:Mirror.open": "opens a table",
    "coordinator.proposal:Proposal.open_logs": "opens tables",
    "coordinator.study_file:read_evaluation": "reads the file that read_study reads",
    "coordinator.store.database:open_engine": "SQLAlchemy reads the operator's URL",
    "privacy.fixedpoint:decode": "takes an array",
    "privacy.ledger.audit_log:Heads.read_heads": "reads notes with open_checkpoint",
    "privacy.ledger.cli:verify": "a command; benchmarks.ledger_campaign alters whole bundles",
    "privacy.ledger.export:open_state": "opens a ledger's SQLite file",
    "privacy.secagg.binding:Setup.verify": "benchmarks.secagg_campaign alters signatures",
    "protos.config:read_secret": "bytes of a file; what they say is another's to read",
    "protos.tls:TlsFiles.read": "bytes of files; gRPC reads them",
}
"""Functions named like parsers that are not fuzzed here, and why."""


@functools.cache
def every_parser() -> list[Parser]:
    """All of them, with valid inputs made in this process."""
    here = scene()
    return [*of_wire.parsers(here), *of_identity.parsers(here), *of_evidence.parsers(here)]


def outcome_of(place: int, inputs: int, seed: str, most_s: float) -> Outcome:
    """What becomes of inputs of one parser, by its place in the list."""
    logging.disable(logging.CRITICAL)  # refusals are logged, a million times
    return run(every_parser()[place], inputs, seed=seed, most_s=most_s)


def named_like_parsers() -> Iterator[str]:
    """Public functions and methods of ours that are named like parsers, ``module:name``."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" in path.name:
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield from _in(
                ast.parse(path.read_text(encoding="utf-8")), module.removesuffix(".__init__"), ""
            )


def _in(tree: ast.AST, module: str, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _in(node, module, f"{prefix}{node.name}.")
        elif isinstance(node, FUNCTIONS) and node.name.split("_")[0] in PREFIXES:
            yield f"{module}:{prefix}{node.name}"
