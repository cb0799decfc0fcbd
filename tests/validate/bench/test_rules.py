"""Each kind of check holds for the text that it is meant for, and for no other, as olmOCR-bench decides it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.bench.rules import formulas_to_draw
from olmocr.validate.score import places
from tests.validate.bench.formulas.doubles import drawn
from tests.validate.bench.ruled import check, passes


@pytest.mark.parametrize("kind", ["present", "absent"])
@pytest.mark.parametrize(
    ("text", "fields", "is_there"),
    [
        ("The old pier was closed.", {"text": "old pier"}, True),
        ("The old pier was closed.", {"text": "Old Pier"}, False),
        ("The old pier was closed.", {"text": "OLD PIER", "case_sensitive": False}, True),
        ("The old peer was closed.", {"text": "old pier"}, False),
        ("The old peer was closed.", {"text": "old pier", "max_diffs": 1}, True),
        ("The odd peer was closed.", {"text": "old pier", "max_diffs": 1}, False),
        ("The \u201cold\npier\u201d", {"text": '"old pier"'}, True),
        ("one two three four", {"text": "one", "first_n": 5}, True),
        ("one two three four", {"text": "four", "first_n": 5}, False),
        ("one two three four", {"text": "four", "last_n": 5}, True),
        ("one two three four", {"text": "two", "first_n": 4, "last_n": 4}, False),
        ("one two three four", {"text": "four", "first_n": 4, "last_n": 4}, True),
        ("one two three four", {"text": "two", "first_n": 0, "last_n": None}, True),
    ],
)
def test_a_phrase_is_there_or_not(kind, text, fields, is_there):
    assert passes(kind, text, **fields) == (is_there if kind == "present" else not is_there)


@pytest.mark.parametrize("text", ["", " ", "\n", "\n\n \n", "a"])
def test_a_page_without_text_has_no_phrase_that_would_be_found_in_it_the_wrong_way_round(text):
    assert not passes("present", text, text="a long phrase")
    assert passes("absent", text, text="a long phrase")
    assert not passes("order", text, before="a long phrase", after="another one")
    assert not passes("table", text, cell="")


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("first then second", {"before": "first", "after": "second"}, True),
        ("second then first", {"before": "first", "after": "second"}, False),
        ("first, second, first", {"before": "second", "after": "first"}, True),  # any of them
        ("first only", {"before": "first", "after": "second"}, False),
        ("same", {"before": "same", "after": "same"}, False),  # one place is not before itself
        ("same, same", {"before": "same", "after": "same"}, True),
        ("frist then secnod", {"before": "first", "after": "second", "max_diffs": 2}, True),
        ("frist then secnod", {"before": "first", "after": "second", "max_diffs": 1}, False),
        ("aaaa", {"before": "aaab", "after": "aaaa", "max_diffs": 1}, False),
        (" cc ", {"before": "bcbc", "after": "cbca", "max_diffs": 2}, False),  # of overlapping places fuzzysearch's
        (" bcb", {"before": "bcbc", "after": "ccba", "max_diffs": 2}, True),
    ],
)
def test_one_text_comes_before_another(text, fields, expected):
    assert passes("order", text, **fields) is expected


@given(
    st.text("ab c", max_size=20), st.text("abc", min_size=2, max_size=6), st.text("ab c", max_size=20),
    st.integers(0, 5), st.sampled_from(["drop", "change", "add", "none"]),
)  # fmt: skip
def test_a_phrase_with_one_edit_is_found(before, phrase, after, at, how):
    at = at % len(phrase)
    edited = {
        "drop": phrase[:at] + phrase[at + 1 :],
        "change": phrase[:at] + "x" + phrase[at + 1 :],
        "add": phrase[:at] + "x" + phrase[at:],
        "none": phrase,
    }[how]
    found = places(phrase, before + edited + after, 1)
    assert found
    assert all(0 <= place <= len(before + edited + after) for place in found)
    if how == "none":
        assert before.count(phrase) == 0 or len(found) >= 1
        assert len(before) in places(phrase, before + phrase + after, 0)


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("Some text.", {}, True),
        ("", {}, False),
        (" \n- * |", {}, False),
        ("Read " + "a" * 30, {}, True),
        ("Read " + "a" * 31, {}, False),
        ("Read " + "ab" * 31, {}, False),
        ("Read " + "abcde" * 31, {}, False),
        ("Read " + "abcdef" * 31, {}, True),  # it looks at no more than five characters
        ("Read " + "a" * 31, {"max_repeats": 40}, True),
        ("Read \u4f60\u597d", {}, False),
        ("Read \u3042", {}, False),
        ("Read \u30a2", {}, False),
        ("Read \U0001f600", {}, False),
        ("Read \u4f60\u597d", {"check_disallowed_characters": False}, True),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", {}, True),
        ("", {"max_length": 0}, True),
        ("---", {"max_length": 0}, True),
        ("a", {"max_length": 0}, False),
        ("![a map](page_1_2_3_4.png)", {"max_length": 0}, False),
        ("![a map](page_1_2_3_4.png)", {"max_length": 0, "max_length_skips_image_alt_tags": True}, True),
        ("a" * 50, {"max_length": 50}, True),
    ],
)
def test_a_page_has_text_and_no_more_of_it_than_there_is(text, fields, expected):
    assert passes("baseline", text, **fields) is expected


def test_a_formula_is_not_scored_where_none_can_be_drawn():
    assert passes("math", "$x$", math="x") is None


@pytest.mark.parametrize(
    ("page", "fields", "expected"),
    [
        ("so $abc$.", {"math": "ab"}, True),
        ("so $ab$ and $c$.", {"math": "abc"}, False),
        ("so $ab$.", {"math": "ab", "ignore_dollar_delimited": True}, False),
        (r"so \(ab\).", {"math": "ab", "ignore_dollar_delimited": True}, True),
        ("so $z$.", {"math": "ab"}, False),  # z cannot be drawn
        ("so ab.", {"math": "ab"}, False),
        ("so $z$.", {"math": "z"}, True),  # letter for letter
        ("so $ab$.", {"math": "z"}, False),
    ],
)
def test_a_formula_is_there_if_one_of_the_page_shows_it(page, fields, expected):
    drawings = {"z": None} | {each: drawn(each) for each in ("ab", "abc", "c")}
    assert passes("math", page, drawings, **fields) is expected


def test_only_what_has_to_be_drawn_is_named():
    assert formulas_to_draw(check("math", math="a"), "$b$ $c$") == ["a", "b", "c"]
    assert formulas_to_draw(check("math", math="a"), "$b$ $a$") == []
    assert formulas_to_draw(check("present", text="a"), "$b$") == []


@pytest.mark.parametrize(
    ("page", "fields", "expected"),
    [
        ("# The old pier\n", {"format": "heading", "text": "old pier"}, True),
        ("The old pier\n", {"format": "heading", "text": "old pier"}, False),
        ("####### The old pier\n", {"format": "heading", "text": "old pier"}, False),
        ("<H2 class='x'>The\nold pier</h2>", {"format": "heading", "text": "old pier"}, True),
        ("a **bold** word", {"format": "bold", "text": "bold"}, True),
        ("a __bold__ word", {"format": "bold", "text": "bold"}, True),
        ("a <strong>bold</strong> word", {"format": "bold", "text": "bold"}, True),
        ("a *bold* word", {"format": "bold", "text": "bold"}, False),
        ("a **bald** word", {"format": "bold", "text": "bold", "max_diffs": 1}, True),
        ("a **BOLD** word", {"format": "bold", "text": "bold"}, False),
        ("a **BOLD** word", {"format": "bold", "text": "bold", "case_sensitive": False}, True),
        ("a **b** word", {"format": "bold", "text": "bold"}, False),  # shorter than what is looked for
        ("a *slanted* word", {"format": "italic", "text": "slanted"}, True),
        ("a <em>slanted</em> word", {"format": "italic", "text": "slanted"}, True),
        ("a **slanted** word", {"format": "italic", "text": "slanted"}, False),
        ("", {"format": "italic", "text": "slanted"}, False),
    ],
)
def test_a_text_stands_in_a_format(page, fields, expected):
    assert passes("format", page, **fields) is expected


@pytest.mark.parametrize(
    ("page", "fields", "expected"),
    [
        ("as was seen[^1]", {"marker": "1"}, True),
        ("[^1]: as was seen", {"marker": "1"}, False),
        ("as was seen<sup class='x'>1</SUP>", {"marker": "1"}, True),
        ("as was seen\u00b9\u2070", {"marker": "10"}, True),
        ("as was seen\u00b9\u2070", {"marker": "1"}, True),
        ("as was seen 1", {"marker": "1"}, False),
        ("as was seen.[^1] Then", {"marker": "1", "appears_before_marker": "was seen"}, True),
        ("as was told.[^1] Then", {"marker": "1", "appears_before_marker": "was seen"}, False),
        ("as was sean.[^1] Then", {"marker": "1", "appears_before_marker": "was seen", "max_diffs": 2}, True),
        ("as was seen.[^1] Then", {"marker": "1", "appears_after_marker": "Then"}, True),
        ("as was seen.[^1] Then", {"marker": "1", "appears_after_marker": "When it"}, False),
        ("was seen[^1] a, b[^1] then", {"marker": "1", "appears_before_marker": "was seen"}, True),
        ("n[^1]", {"marker": "1", "appears_before_marker": "was seen"}, False),  # shorter than what is looked for
        ("[^1]", {"marker": "1", "appears_before_marker": "was seen"}, False),
        ("was seen" + 300 * "-" + "[^1]", {"marker": "1", "appears_before_marker": "was seen"}, False),
    ],
)
def test_a_footnotes_mark_stands_between_texts(page, fields, expected):
    assert passes("footnote", page, **fields) is expected
