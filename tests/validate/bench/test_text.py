"""Text is compared without what is only a manner of writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.bench.text import normalized


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("It is **bold**, __so__ and <b>so</b>", "It is bold, so and so"),
        ("It is *slanted*, _so_ and <i>so</i>", "It is slanted, so and so"),
        ("a<br>b<br/>c", "a b c"),
        ("a \n\n\t b", "a b"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u2018a\u2019 \u201cb\u201d \u201ec\u201d \u201ad\u2019", "'a' \"b\" \"c\" 'd'"),
        ("1\u20132\u20143\u20114\u20125\u22126", "1-2-3-4-5-6"),
        ("5 \u00b5m", "5 \u03bcm"),
        ("a\uff3fb", "a_b"),
        ("*never\nclosed*", "*never closed*"),  # a pair does not reach over the end of a line
        ("", ""),
    ],
)
def test_text_is_compared_without_what_is_only_a_manner_of_writing(text, same):
    assert normalized(text) == same


@given(st.text())
def test_what_was_made_comparable_holds_no_run_of_spaces_and_no_curled_quote(text):
    found = normalized(text)
    assert not set("\n\t\u2019\u201c\u2013\u2212\u00b5") & set(found)
    assert "  " not in found
