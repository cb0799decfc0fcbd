"""Each kind of check holds for the text that it is meant for, and for no other, as olmOCR-bench decides it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmocr.validate.bench.checks import parse_check
from olmocr.validate.bench.rules import holds
from olmocr.validate.bench.tables import Cell, grids_in, lay_out
from olmocr.validate.bench.text import normalized
from olmocr.validate.score import places

SPANS = """<table>
<thead><tr><th colspan="2">Fruit</th><th rowspan="2">Stock</th></tr><tr><td>Kind</td><td>Price</td></tr></thead>
<tr><td rowspan="2">Apples</td><td>1.20</td><td>14</td></tr>
<tr><td>1.35</td><td>9</td></tr>
</table>"""
MARKDOWN = "| | May | June |\n|---|---:|---|\n| Rain | 12 | 7 |\n| Sun | 80 | 95 |"


def passes(kind, page, /, **fields):
    line = json.dumps({"pdf": "a.pdf", "page": 1, "id": "one", "type": kind, **fields})
    return holds(parse_check(line, "text"), page)


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


@settings(max_examples=60, deadline=None)
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
    ("fields", "expected"),
    [
        ({"cell": "1.20", "right": "14", "left": "Apples", "down": "1.35", "up": "Price"}, True),
        ({"cell": "1.35", "left": "Apples", "top_heading": "Price"}, True),
        ({"cell": "9", "top_heading": "Stock", "up": "14", "left_heading": "Apples"}, True),
        ({"cell": "1.20", "top_heading": "Fruit"}, True),  # every heading above counts
        ({"cell": "Apples", "right": "1.35"}, True),  # it spans both rows
        ({"cell": "Fruit", "down": "Price"}, True),  # it spans both columns
        ({"cell": "14", "up": "Price"}, False),
        ({"cell": "1.20", "right": "9"}, False),
        ({"cell": "1.21", "right": "14"}, False),
        ({"cell": "1.21", "right": "14", "max_diffs": 1}, True),
        ({"cell": "Apple", "right": "1.2", "max_diffs": 1}, True),
        ({"cell": "Pears"}, False),
        ({"cell": "zz", "max_diffs": 2}, False),  # half of a cell is always asked for
    ],
)
def test_a_cell_has_its_neighbours_where_rows_and_columns_are_spanned(fields, expected):
    assert passes("table", SPANS, **fields) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cell": "95", "top_heading": "June", "left_heading": "Sun", "up": "7", "left": "80"}, True),
        ({"cell": "12", "top_heading": "June"}, False),
        ({"cell": "12", "ignore_markdown_tables": True}, False),
        ({"cell": "12", "up": None, "down": ""}, True),  # nothing is asked there
    ],
)
def test_a_markdown_table_is_a_table_too(fields, expected):
    assert passes("table", f"Weather\n\n{MARKDOWN}\n\nSource: none", **fields) is expected


def test_marks_of_type_in_a_cell_do_not_matter():
    assert passes("table", "<table><tr><td><b>Total</b></td><td>a<br>b</td></tr></table>", cell="Total", right="a b")


def test_any_one_of_several_tables_will_do():
    assert passes("table", f"{MARKDOWN}\n\ntext\n\n{SPANS}", cell="1.35", left="Apples")
    assert len(grids_in(f"{MARKDOWN}\n\ntext\n\n{SPANS}")) == 2


def test_a_table_within_a_cell_is_a_table_and_the_cells_text():
    outer, inner = grids_in("<table><tr><td>a<table><tr><td>b</td></tr></table></td><td>c</td></tr></table>")
    assert [cell.text for cell in outer.cells.values()] == ["ab", "c"]
    assert [cell.text for cell in inner.cells.values()] == ["b"]


@pytest.mark.parametrize("span", ["0", "-1", "x", "", "99999999999999999999", "\u0663"])
def test_a_table_that_claims_to_span_the_world_is_laid_out_all_the_same(span):
    cells = f'<td rowspan="{span}" colspan="{span}">a</td>' * 20
    (grid,) = grids_in("<table>" + f"<tr>{cells}</tr>" * 20 + "</table>")
    assert len(grid.slots) <= 1_100_000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.builds(Cell, st.text("ab", max_size=2), st.integers(1, 3), st.integers(1, 3)), max_size=4),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_a_neighbour_is_a_cell_and_headings_are_found_in_any_table(rows):
    grid = lay_out(rows)
    assert len(grid.cells) == sum(map(len, rows))
    for place in grid.cells:
        for way in ("up", "down", "left", "right"):
            assert grid.beside(place, way) <= set(grid.cells) - {place}
        assert place not in grid.headings(place, "up") | grid.headings(place, "left")


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


def test_a_formula_is_neither_passed_nor_failed():
    assert passes("math", "$x$", math="x") is None


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_what_was_made_comparable_holds_no_run_of_spaces_and_no_curled_quote(text):
    found = normalized(text)
    assert not set("\n\t\u2019\u201c\u2013\u2212\u00b5") & set(found)
    assert "  " not in found
