"""The report: one file that needs nothing, says both languages, and overstates no figure."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.ledger.findings import CHECKS, Finding
from privacy.ledger.obligations import OBLIGATIONS
from privacy.ledger.plots import Line, step_plot
from privacy.ledger.report import _epsilon, _odds, _sure, render_report
from tests.privacy.ledger.bundles import audit

VOID = {"meta", "input", "br", "line", "path"}
CHINESE = re.compile(r"[\u4e00-\u9fff]")


class Reader(HTMLParser):
    """Checks nesting; collects tags, attributes and text by language."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text: dict[str | None, list[str]] = {}

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        assert not [name for name in values if name.startswith("on")]
        if tag not in VOID:
            self.open.append((tag, values.get("lang")))

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        language = next((lang for _, lang in reversed(self.open) if lang), None)
        self.text.setdefault(language, []).append(data)


def read(html) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def said(bundle):
    return audit(bundle)


def test_the_report_needs_nothing_and_nests(said):
    html = render_report(said)
    reader = read(html)
    assert reader.links == []
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert html == render_report(said)
    assert {"svg", "text"} <= reader.tags


def test_both_languages_say_all_checks_and_duties(said):
    reader = read(render_report(said))
    english, chinese = " ".join(reader.text["en"]), " ".join(reader.text["zh"])
    assert not CHINESE.search(english)
    for check in CHECKS.values():
        assert check.title in english
        assert check.title_zh in chinese
    for one in OBLIGATIONS:
        for texts in (one.law, one.duty, one.evidence, one.open_):
            assert texts[0] in english
            assert texts[1] in chinese
    assert "Sound" in english
    assert "可靠" in chinese


@pytest.mark.parametrize(
    ("left_ms", "shown"), [(1_800_000_000_000, "2027-01-15"), (2**53 - 1, "ms")]
)
def test_who_left_is_said_in_both_languages(said, left_ms, shown):
    first, *others = said.members
    assert "left on" not in render_report(said)
    html = render_report(replace(said, members=(replace(first, left_ms=left_ms), *others)))
    reader = read(html)
    (english,) = [text for text in reader.text["en"] if "left on" in text]
    assert shown in english
    assert [text for text in reader.text["zh"] if "退出" in text and shown in text]


def test_findings_stand_first_and_are_escaped(said):
    bad = replace(said, findings=(Finding(13, "members/a<b>", 7, "spent <script>alert(1)"),))
    html = render_report(bad)
    assert "Sound" not in html
    assert "1 finding." in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert CHECKS[13].meaning_zh in html
    read(html)


def test_figures_are_rounded_against_whoever_spends():
    assert _epsilon(1) == "0.001"
    assert _epsilon(1_040_000) == "1.040"
    assert _epsilon(2**53 - 1) == "∞"
    assert _odds(0) == "1.00"
    assert _odds(1_000_000) == "2.72"
    assert _odds(10_000_000) == "22,027"
    assert _odds(2**53 - 1) == "> 1,000,000"
    assert _sure(0) == "50.0"
    assert _sure(2_000_000) == "88.1"
    assert _sure(2**53 - 1) == "100.0"


@given(
    st.lists(
        st.tuples(st.integers(0, 2**53 - 1), st.floats(0, 1e12, allow_nan=False)), max_size=20
    ),
    st.none() | st.floats(0, 1e6),
)
def test_plots_stay_inside_of_their_frame(points, limit):
    markup = step_plot([Line("one", sorted(points))], title="<a>", limit=limit)
    assert (markup == "") == (not points)
    assert "<a>" not in markup
    assert "nan" not in markup
    for path in re.findall(r' d="([^"]*)"', markup):
        for kind, number in re.findall(r"([HV])(-?[\d.]+)", path):
            assert 0 <= float(number) <= (460 if kind == "H" else 190)
