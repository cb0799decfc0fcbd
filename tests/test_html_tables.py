"""HTML tables as models write them: spans, heads, tables within tables, and answers that end in the middle."""

import pytest

from olmocr.html_tables import MOST_NESTED, MOST_ROWS, Cell, html_tables


@pytest.mark.parametrize(
    ("html", "rows"),
    [
        ("<tr><td> a </td><th>b</th></tr>", [[Cell("a"), Cell("b", heading=True)]]),
        ("<thead><tr><td>a</td></tr></thead><tr><td>b</td></tr>", [[Cell("a", heading=True)], [Cell("b")]]),
        ("<tr><td>a<td>b<tr><td>c", [[Cell("a"), Cell("b")], [Cell("c")]]),
        ("<tr><td>a<br>b &amp; <i>c</i></td></tr>", [[Cell("a\nb & c")]]),
        ('<tr><td rowspan="2" colspan=3>a</td></tr>', [[Cell("a", 2, 3)]]),
        ('<tr><td rowspan="0" colspan="0">a</td></tr>', [[Cell("a", MOST_ROWS, 1)]]),
        ('<tr><td rowspan="x" colspan="-2">a</td></tr>', [[Cell("a")]]),
        ("<td>in no row</td><tr></tr>", [[]]),
    ],
)
def test_a_tables_rows_are_read(html, rows):
    assert html_tables(f"text<table>{html}</table>text <td>x</td>") == [rows]


def test_a_table_in_a_cell_is_a_table_and_its_text_is_the_cells_too():
    inner = "<table><tr><td>b</td></tr></table>"
    assert html_tables(f"<table><tr><td>a{inner}c</td></tr></table>") == [[[Cell("abc")]], [[Cell("b")]]]


def test_tables_are_read_to_a_depth_and_what_lies_deeper_is_text():
    depth = MOST_NESTED + 3
    html = "".join(f"<table><tr><td>{number} " for number in range(depth)) + "</td></tr></table>" * depth
    tables = html_tables(html + "<table><tr><td>after</td></tr></table>")
    assert len(tables) == MOST_NESTED + 1
    assert tables[MOST_NESTED - 1] == [[Cell("15 16 17 18")]]
    assert tables[-1] == [[Cell("after")]]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<td title="a > b">x</td>', "x"),
        ("<td title='it>x</td>", "x"),
        ("<td>a < b <!-- no --> c</td>", "a < b  c"),
        ("<td>a <!-- no end</td>", "a <!-- no end"),
        ("<td><a <b>x</td>", "<a x"),
        (f"<td>&#{'1' * 5000};x</td>", "\ufffdx"),
    ],
)
def test_what_is_not_a_whole_tag_is_text(html, text):
    assert html_tables(f"<table><tr>{html}</tr></table>") == [[[Cell(text)]]]
