"""HTML tables as models write them: spans, heads, tables within tables, and answers that end in the middle."""

import pytest

from olmocr.validate.html_tables import MOST_ROWS, Cell, html_tables


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
