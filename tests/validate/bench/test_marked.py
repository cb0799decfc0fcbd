"""What markdown and HTML mark is found as lazy patterns find it, in one pass."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.bench.marked import FORMATS, footnote_marks, texts_in

# As olmOCR-bench defines them.
PATTERNS = {
    "heading": [(r"^#{1,6}\s+(.+?)$", re.MULTILINE), (r"<h[1-6][^>]*>(.*?)</h[1-6]>", re.IGNORECASE | re.DOTALL)],
    "bold": [
        (r"\*\*(.*?)\*\*", re.DOTALL),
        (r"__(.*?)__", re.DOTALL),
        (r"<b[^>]*>(.*?)</b>", re.IGNORECASE | re.DOTALL),
        (r"<strong[^>]*>(.*?)</strong>", re.IGNORECASE | re.DOTALL),
    ],
    "italic": [
        (r"(?<!\*)\*(?!\*)(.*?)(?<!\*)\*(?!\*)", re.DOTALL),
        (r"(?<!_)_(?!_)(.*?)(?<!_)_(?!_)", re.DOTALL),
        (r"<i[^>]*>(.*?)</i>", re.IGNORECASE | re.DOTALL),
        (r"<em[^>]*>(.*?)</em>", re.IGNORECASE | re.DOTALL),
    ],
}
WORDS = "# ## a * ** _ __ < > <b> <br> </b> <B </B> <i> </i> <em> </em> <strong> </strong> <h1> </h2>"
PIECES = st.lists(st.sampled_from([*WORDS.split(), " ", "\n", "\n\n"]), max_size=12).map("".join)


@pytest.mark.parametrize("form", FORMATS)
@given(text=PIECES)
def test_what_stands_in_a_format_is_what_the_patterns_find(form, text):
    assert texts_in(text, form) == [
        each for pattern, flags in PATTERNS[form] for each in re.findall(pattern, text, flags)
    ]


NOTES = st.lists(
    st.sampled_from(["[^1]", ":", "a", "<sup", ">", "1", "</sup>", "<SUP x>", "\u00b9", "\n"]), max_size=12
)


@given(NOTES.map("".join))
def test_footnotes_marks_are_those_that_the_patterns_find(text):
    patterns = (r"\[\^1\](?!:)", "(?i:<sup[^>]*>1</sup>)", "\u00b9")
    expected = [found.span() for pattern in patterns for found in re.finditer(pattern, text)]
    assert footnote_marks(text, "1") == expected


def test_a_marker_is_not_a_pattern():
    assert footnote_marks("[^*][^a]<sup>*</sup>", "*") == [(0, 4), (8, 20)]
