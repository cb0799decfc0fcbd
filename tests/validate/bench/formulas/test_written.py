"""Formulas are found in a page's text as olmOCR-bench finds them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.bench.formulas.written import formulas_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \(x^2\) and \[ y \]", ["x^2", "y"]),
        ("so $x$ and $$\ny\n$$", ["y", "x"]),
        (r"\(a\) \(b\) \(a\)", ["a", "b"]),
        (r"\(open and $x$", ["x"]),
        (r"\(\)x\)", [r"\)x"]),
        ("$$$", ["$"]),
        ("price 5$", []),
        (r"\( \)", []),
        ("", []),
    ],
)
def test_formulas_stand_between_their_marks(text, expected):
    assert formulas_in(text) == expected


def test_those_between_dollars_may_be_left_out():
    assert formulas_in(r"$x$ \(y\)", with_dollars=False) == ["y"]


@given(st.text("$\\()[]a ", max_size=30))
def test_they_are_those_that_lazy_patterns_find_one_after_the_other(text):
    expected, rest = [], text
    for pattern in (r"\\\((.+?)\\\)", r"\\\[(.+?)\\\]", r"\$\$(.+?)\$\$", r"\$(.+?)\$"):
        expected += [found.strip() for found in re.findall(pattern, rest, re.DOTALL)]
        rest = re.sub(pattern, "", rest, flags=re.DOTALL)
    assert formulas_in(text) == list(dict.fromkeys(filter(None, expected)))
