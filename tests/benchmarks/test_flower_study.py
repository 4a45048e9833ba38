"""The demo's study in plain Flower: it is the same study, it runs, and it is as long as we say."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.demo.journey import STUDY, contract
from benchmarks.demo.study import DECLARED, demo_identities, demo_terms
from protos.codec import message_of

ROOT = Path(__file__).parent.parent.parent
APP = ROOT / "benchmarks" / "peers" / "flower_study" / "app"


def python_lines(text: str) -> int:
    """Lines with code: no blank ones, no comments, no docstrings."""
    skipped = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    used = set()
    idle = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in idle and token.type != tokenize.ENDMARKER:
            used |= set(range(token.start[0], token.end[0] + 1))
    return len(used - skipped)


def toml_lines(text: str) -> int:
    return sum(bool(line.strip()) and not line.startswith("#") for line in text.splitlines())


def lengths() -> tuple[int, int]:
    """Lines of our study and of Flower's."""
    flower = sum(python_lines(path.read_text()) for path in APP.glob("*.py"))
    return toml_lines(STUDY.read_text()), flower + toml_lines((APP / "pyproject.toml").read_text())


def test_lines_are_counted_without_blanks_comments_and_docstrings() -> None:
    text = '"""Doc."""\n\n# no\nx = [\n    1,  # yes\n]\n\n\ndef f():\n    """Doc\n    more."""\n'
    assert python_lines(text) == 4
    assert toml_lines("# no\n\n[a]\nb = 1  # yes\n") == 2


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_says_how_long_both_are(name: str) -> None:
    text = (ROOT / name).read_text()
    ours, flower = lengths()
    said = re.search(r"(\d+) (?:lines|行)[^\d]*(\d+)", text[text.index("flower_study") - 200 :])
    assert said is not None
    assert (int(said[1]), int(said[2])) == (ours, flower)


def test_the_readme_shows_the_study_in_full() -> None:
    text = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"```toml\n(# study.toml\n.*?)```", text, re.DOTALL)
    assert tomllib.loads(shown) == tomllib.loads(STUDY.read_text())


class Apps:
    """Both halves as Flower would load them, from their own folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(APP))
        names = ("study", "client_app", "server_app")
        for name in names:
            monkeypatch.delitem(sys.modules, name, raising=False)
        loaded = {name: __import__(name) for name in names}
        self.study: ModuleType = loaded["study"]
        self.client: Any = loaded["client_app"].app
        self.server: Any = loaded["server_app"].app
        self.epsilon: Any = loaded["server_app"].epsilon
        for name in names:
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> Apps:
    return Apps(monkeypatch)


class Here(Grid):
    """Flower's grid without a network: each message is answered by the ClientApp at once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._run = Run.create_empty(run_id=1)

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(range(10, 10 + len(DECLARED)))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            metadata = Metadata(
                run_id=1, message_id=str(node), src_node_id=1, dst_node_id=node,
                reply_to_message_id="", group_id="", created_at=0.0, ttl=60.0,
                message_type=message.metadata.message_type,
            )  # fmt: skip
            config = {"partition-id": node - 10}
            context = Context(1, node, config, RecordDict(), {})
            replies.append(self._client(message_of(message.content, metadata), context))
        return replies


def test_it_is_the_same_study(apps: Apps) -> None:
    terms, study = demo_terms(demo_identities()), apps.study
    table = contract()
    assert {
        column.name: (column.low, column.high, column.scale == "log") for column in table.numbers
    } == study.NUMBERS
    assert {name: tuple(values) for name, values in study.CATEGORIES.items()} == {
        column.name: column.values for column in table.categories
    }
    assert (
        table.consumer_id, table.label, table.rows_per_consumer,
    ) == (study.CONSUMER, study.LABEL, study.ROWS)  # fmt: skip
    privacy = terms.privacy
    assert (
        privacy.clipping_norm, privacy.noise_multiplier, privacy.sampling_probability,
        privacy.delta,
    ) == (study.CLIP, study.SIGMA, study.Q, study.DELTA)  # fmt: skip
    assert (privacy.colluders, privacy.dropouts) == (study.COLLUDERS, study.DROPOUTS)
    assert privacy.max_attempts - privacy.rounds == study.SPARE
    assert study.DECLARED == DECLARED
    assert terms.dimension == study.DIMENSION
    # Ours accounts for the grid as well, and rounds up.
    assert 0.96 < apps.epsilon(privacy.max_attempts) <= 0.98


def test_it_learns_and_tells_its_cost(
    apps: Apps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)  # as Flower's own processes set it
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    rng = np.random.default_rng(3)
    for name, declared in DECLARED.items():
        lines = [",".join(["household", "redeemed", *apps.study.NUMBERS, "type"])]
        for consumer in range(declared):
            spend = float(rng.uniform(0, 5000))
            values = [spend, *[float(rng.uniform(0, 10)) for _ in range(6)]]
            label = int(spend > 800)
            lines.append(f"h{consumer},{label},{','.join(f'{one:.2f}' for one in values)},Type A")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    output = tmp_path / "model.npz"
    config = {"rounds": 80, "folder": str(tmp_path), "output": str(output)}
    apps.server(Here(apps.client), Context(1, 1, {}, RecordDict(), config))
    with np.load(output) as kept:
        weights, epsilon = kept["weights"], float(kept["epsilon"])
    assert weights[0] == weights[:7].max() > 1  # spend decides
    assert 0.9 < epsilon < 0.98
