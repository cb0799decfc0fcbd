"""Tables and the neighbours of their cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.validate.bench.tables import Cell, grids_in, lay_out
from tests.validate.bench.ruled import passes

SPANS = """<table>
<thead><tr><th colspan="2">Fruit</th><th rowspan="2">Stock</th></tr><tr><td>Kind</td><td>Price</td></tr></thead>
<tr><td rowspan="2">Apples</td><td>1.20</td><td>14</td></tr>
<tr><td>1.35</td><td>9</td></tr>
</table>"""


MARKDOWN = "| | May | June |\n|---|---:|---|\n| Rain | 12 | 7 |\n| Sun | 80 | 95 |"


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
