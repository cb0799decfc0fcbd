"""Text that strangers wrote is shown, and not obeyed."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.text import one_line, printable, visible

ANYTHING = st.text(st.characters())


@given(ANYTHING)
def test_a_message_holds_only_what_can_be_printed(text):
    assert printable(text).replace("\n", "").isprintable()


@given(ANYTHING, st.integers(2, 300))
def test_a_line_is_one_line_and_no_longer_than_it_may_be(text, most):
    line = one_line(text, most)
    assert line.isprintable()
    assert len(line) <= most


@given(ANYTHING)
def test_nothing_in_a_pages_text_is_obeyed(text):
    shown = visible(text)
    assert not any(unicodedata.bidirectional(each) in ("RLO", "LRO", "RLE", "LRE", "PDF") for each in shown)
    assert {each for each in shown if unicodedata.category(each) in ("Cc", "Cs")} <= {"\t", "\n"}


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_letters_numbers_and_signs_stay_as_they_are(text):
    assert printable(text) == visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[1mb", "a␛[1mb"),
        ("a\u202eb", "a[U+202E]b"),
        ("a\ud800b", "a\ufffdb"),
        ("a\r\nb\rc\td", "a\nb\nc\td"),
        ("\x9b \x7f \ud800", "[U+009B] [U+007F] \ufffd"),
    ],
)
def test_what_would_be_obeyed_is_shown_by_its_picture_or_number(text, shown):
    assert visible(text) == shown


def test_what_joins_letters_stays_in_a_pages_text():
    for text in ("می‌خواهم 👩‍🔬", "שלום \u200fعربي\u200e é 漢字"):
        assert visible(text) == text


def test_a_line_is_folded_before_it_is_cut():
    assert one_line("  one\n\ttwo\u2028three ") == "one two three"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("a\x1bb") == "a\\x1bb"
