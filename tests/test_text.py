"""Text that strangers wrote is shown, and not obeyed."""

import html
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.text import _stretches, normalized, one_line, printable, unescaped, visible

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


TEXTS = st.text(st.sampled_from("aé \u0301\u0315\u0300\u3099ｶﾞか한각\u1112\u1161\u11ab\u0bc6\u0bbeﬁㄱㅏ漢"), max_size=40)


@given(TEXTS, st.sampled_from([1, 300, 20]), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_a_text_in_a_normal_form_is_the_librarys_where_no_run_of_marks_is_endless(text, times, form):
    text = (text + "x") * times
    assert normalized(form, text) == unicodedata.normalize(form, text)


def test_a_run_of_marks_is_put_in_order_in_pieces():
    marks = "a" + "\u0315\u0300" * 5000
    assert max(map(len, _stretches(marks))) <= 512
    assert "".join(_stretches(marks)) == marks
    assert sorted(normalized("NFD", marks)) == sorted(marks)


@pytest.mark.parametrize("digits", [8, 4300, 5000, 100_000])
def test_a_reference_to_a_character_beyond_unicode_is_not_a_character_whatever_its_digits(digits):
    assert unescaped(f"a &#{'9' * digits}; &amp; &#x{'f' * digits};") == "a \ufffd & \ufffd"


def test_references_to_characters_are_read_as_the_library_reads_them():
    assert unescaped(f"&#{'0' * 5000}65;") == "A"
    text = "&#65; &#0000000065; &#x41; &amp;lt; &notit; &#0; &#128; &#1114111; &#1114112; &#; &"
    assert unescaped(text) == html.unescape(text)
