"""Tables in a page's text as markdown and CSV: what the cells say stays what they say, and no more."""

import csv
import html
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from olmocr.html_tables import html_tables
from olmocr.workspace.tables import (
    MERGED,
    MOST_PLACES,
    LeftAsItIs,
    Table,
    as_csv,
    as_markdown,
    split_at_tables,
    tables_as_markdown,
)

HOSTILE = st.text("ab1é *_`|\\<>&~#!-+=.:;[]{}\"'%", max_size=12).filter(lambda text: "\\[" not in text)
GRIDS = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(HOSTILE, min_size=width, max_size=width), min_size=1, max_size=4)
)


def make_table(grid):
    head, *body = [[html.escape(cell) for cell in row] for row in grid]
    rows = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    rows += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body]
    return f"<table>{''.join(rows)}</table>"


def folded(grid):
    return [[" ".join(cell.split()) for cell in row] for row in grid]


def only_table(text):
    (table,) = [piece for piece in split_at_tables(text) if isinstance(piece, Table)]
    return table


def as_a_browser_shows(markdown):
    """Return the text of each cell of the only table in *markdown*, by another reader of markdown."""
    (rows,) = html_tables(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))
    return folded([[cell.text for cell in row] for row in rows])


@given(GRIDS)
@example([["\\|", "|\\", "a*b*_c_"], ["<script>x</script>", "&lt;", "![x](y)"]])
def test_a_table_without_merged_cells_says_the_same_as_markdown(grid):
    assert as_a_browser_shows(as_markdown(only_table(make_table(grid)))) == folded(grid)


@given(GRIDS)
def test_a_table_without_merged_cells_says_the_same_as_csv(grid):
    rows = list(csv.reader(io.StringIO(as_csv(only_table(make_table(grid))), newline="")))
    assert [[cell.removeprefix("'") for cell in row] for row in rows] == [
        [cell.removeprefix("'") for cell in row] or [""] for row in folded(grid)
    ]


@given(st.lists(st.sampled_from(["<table>", "</table>", "<tr>", "<td>", "</td>", "<br>", "a", "\n", "<th colspan=2>"])))
def test_whatever_is_not_a_table_stays_in_its_place(pieces):
    text = "".join(pieces)
    found = list(split_at_tables(text))
    if not any(isinstance(each, Table) for each in found):
        assert "".join(each.html if isinstance(each, LeftAsItIs) else each for each in found) == text
        assert tables_as_markdown(text) == text


def test_a_table_stands_between_empty_lines_and_the_text_around_it_stays():
    text = f"before\n{make_table([['a', 'b'], ['1', '2']])} after\n"
    assert tables_as_markdown(text) == "before\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n after\n"
    assert tables_as_markdown(make_table([["a"]])) == "| a |\n| --- |"
    two = make_table([["a"]]) + "\n\n" + make_table([["b"]])
    assert tables_as_markdown(two) == "| a |\n| --- |\n\n| b |\n| --- |"


def test_a_table_without_headings_gets_no_row_for_one():
    assert tables_as_markdown("<table><tr><td>1</td><td>2</td></tr></table>") == "| | |\n| --- | --- |\n| 1 | 2 |"


def test_the_text_of_a_merged_cell_stands_once_and_that_is_said():
    table = only_table(
        "<table><tr><th colspan=2>Year</th><th rowspan=2>All</th></tr><tr><td>2024</td><td>2025</td></tr></table>"
    )
    assert table.rows == (("Year", "", "All"), ("2024", "2025", ""))
    assert as_markdown(table).endswith(f"| 2024 | 2025 | |\n\n{MERGED}")
    assert as_csv(table) == "Year,,All\r\n2024,2025,\r\n"


def test_rows_of_different_lengths_are_filled_up():
    assert only_table("<table><tr><td>a<tr><td>b<td>c</table>").rows == (("a", ""), ("b", "c"))


def test_line_breaks_emphasis_and_equations_stay():
    text = r"<table><tr><th>a<br/>b</th><th><b class='x'>c</b></th><th>\(x_1 * |y|\) $5*</th></tr></table>"
    assert tables_as_markdown(text).splitlines()[0] == r"| a<br>b | <b>c</b> | \(x_1 * \|y\|\) $5\* |"
    assert as_csv(only_table(text)) == '"a\nb",c,\\(x_1 * |y|\\) $5*\r\n'


def test_a_tag_that_is_written_as_text_in_an_equation_becomes_none():
    text = r"<table><tr><th>\(&lt;img src=x&gt;\)</th></tr></table>"
    assert tables_as_markdown(text).splitlines()[0] == r"| \(< img src=x>\) |"


def test_a_caption_stands_before_its_table():
    text = "<table><caption>Table 1: *all*</caption><tr><th>a</th></tr></table>"
    assert tables_as_markdown(text).splitlines() == [r"Table 1: \*all\*", "", "| a |", "| --- |"]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("<table><tr><td><table><tr><td>a</td></tr></table></td></tr></table>", "it contains another table"),
        ("<table><tr><td>a", "it does not end"),
        ("<table></table>", "it has no cells"),
        ("<table><tr><td><ul><li>a</li></ul></td></tr></table>", "<ul> is in it"),
        ("<table><tr>lost<td>a</td></tr></table>", "there is text between its cells"),
        ("<table><td>a</td></table>", "a cell is outside its rows"),
        ("<table><tr><td>a<!-- b --></td></tr></table>", "it contains a comment"),
        ("<table><caption>a<tr><td>b</td></tr></table>", "its caption does not end"),
        ("<table><tr><td>a</td><td rowspan=2>b</td></tr><tr><td colspan=2>c</td></tr></table>", "two of its cells"),
        ("<table><tr><td colspan=999999999>a</td></tr></table>", f"it has more than {MOST_PLACES} places"),
    ],
)
def test_a_table_that_markdown_cannot_tell_stays_html_and_why_is_said(table, why):
    said = []
    text = f"before {table} after"
    assert tables_as_markdown(text, said.append) == text
    (reason,) = said
    assert reason.startswith(why)


def test_the_tables_of_a_text_have_their_places_together():
    large = f"<table><tr><td colspan={MOST_PLACES // 2 + 1}>a</td></tr></table>"
    kinds = [type(piece) for piece in split_at_tables(large * 2) if piece]
    assert kinds == [Table, LeftAsItIs]
    assert len(tables_as_markdown(large * 50)) < 6 * MOST_PLACES


@pytest.mark.parametrize("cell", ["=1+1", "@x", "+cmd|' /C calc'!A0", "-2+3", "--1"])
def test_what_a_spreadsheet_would_compute_is_text(cell):
    assert next(csv.reader([as_csv(only_table(make_table([[cell]])))])) == [f"'{cell}"]


@pytest.mark.parametrize("cell", ["-5", "+3.2", "-", "-1,000.5 %", "- 3", "--", "(5)"])
def test_numbers_with_a_sign_stay_numbers(cell):
    assert next(csv.reader([as_csv(only_table(make_table([[cell]])))])) == [cell]
