"""Formulas reach a page as data only, and what a browser left of it is read or refused."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.bench.formulas.page import NotDrawnError, formula_page, parse_drawn
from olmocr.viewer.katex import Katex

KATEX = Katex("globalThis.katex = {}", ".katex { color: red }")


@given(st.lists(st.text() | st.sampled_from(["</script><script>alert(1)</script>", "<!--", "\u2028", "\ud800"])))
def test_no_formula_is_a_tag_or_a_script(formulas):
    page = formula_page(formulas, KATEX, "token")
    plain = formula_page([], KATEX, "token")
    assert re.findall("<[^>]*>", page) == re.findall("<[^>]*>", plain)
    data = re.search(r'<script type="application/json" id="formulas">(.*?)</script>', page)[1]
    assert json.loads(data)["formulas"] == formulas


def test_the_page_may_load_nothing_and_run_its_own_two_scripts_only():
    page = formula_page(["x"], KATEX, "token")
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"('sha256-[\w+/]{43}=' ?){2}", rules["script-src"])
    assert "unsafe" not in policy


def dumped(token="token", **changes):
    glyph = ["ab", 10, 0, 20, 8]
    value = {
        "katex": "0.1",
        "browser": "HeadlessChrome/156.0.0.0",
        "drawn": [{"mathml": "<mi> a\u200bb</mi>", "glyphs": [glyph]}, None],
    }
    return f'<html><pre id="{token}">{json.dumps(value | changes)}</pre></html>'


def test_a_box_with_two_characters_is_two_places():
    drawn = parse_drawn(dumped(), "token", 2)
    first, second = drawn.drawings
    assert (first.mathml, first.characters, second) == ("<mi>ab</mi>", "ab", None)
    assert (first.x.tolist(), first.y.tolist()) == ([15.0, 25.0], [4.0, 4.0])
    assert drawn.versions == {"katex": "0.1", "chromium": "156.0.0.0"}


@pytest.mark.parametrize(
    ("dump", "reason"),
    [
        ("", "left no drawings, but 'nothing'"),
        (dumped("other"), "left no drawings"),
        (dumped(drawn=[]), "drew 0 of 2"),
        (dumped(drawn=[7, 8]), "left no drawings"),
        (dumped(drawn=None), "left no drawings"),
        (dumped()[:90], "left no drawings"),
    ],
)
def test_anything_else_is_refused(dump, reason):
    with pytest.raises(NotDrawnError, match=reason):
        parse_drawn(dump, "token", 2)
