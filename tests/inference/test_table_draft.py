"""A table is continued with the cells of the page's own text, and never with anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmocr.inference.table_draft import TableText

OWN = "Invoice 51495\nItem Qty Price\nDesk lamp 1 10.48\nPaper A4 10 30.74\nBrass hook 17 87.04\nThank you"
TABLE = (
    "# Invoice 51495\n\n<table>\n<tr><th>Item</th><th>Qty</th><th>Price</th></tr>\n"
    "<tr><td>Desk lamp</td><td>1</td><td>10.48</td></tr>\n<tr><td>Paper A4</td><td>10</td><td>30.74</td></tr>\n"
    "<tr><td>Brass hook</td><td>17</td><td>87.04</td></tr>\n</table>"
)
HEADED = TABLE.index("</tr>") + len("</tr>")


def test_from_the_first_finished_row_on_every_beginning_of_a_table_is_continued_to_its_end():
    text = TableText(OWN)
    for end in range(HEADED, len(TABLE) - len("</table>")):
        assert text.after(TABLE[:end], most=1000) == TABLE[end:], TABLE[:end]


def test_outside_of_a_table_and_before_its_first_finished_row_nothing_is_added():
    text = TableText(OWN)
    for end in (0, 10, TABLE.index("<tr>"), HEADED - 1, len(TABLE)):
        assert text.after(TABLE[:end], most=1000) == ""


def test_a_table_whose_cells_have_lines_of_their_own_is_continued_too():
    text = TableText("Item\nQty\nDesk lamp\n1\nPaper A4\n10\n")
    begun = "<table><tr><th>Item</th><th>Qty</th></tr><tr><td>Desk"
    rest = " lamp</td><td>1</td></tr>\n<tr><td>Paper A4</td><td>10</td></tr>\n</table>"
    assert text.after(begun, most=1000) == rest
    assert text.after(f"{begun} lamp</td>", most=1000) == rest.removeprefix(" lamp</td>")


def test_what_stands_between_rows_is_what_stood_there_before():
    rows = "<table><tr><td>Item</td><td>Qty</td><td>Price</td></tr><tr><td>Desk lamp</td><td>1</td><td>10.48</td></tr>"
    assert TableText(OWN).after(rows, most=20) == "<tr><td>Paper A4</td><td>10</td><td>30.74</td></tr>"


def test_where_the_model_ends_a_cell_later_than_expected_the_rest_follows_the_model():
    text = TableText("Name Town Year\nAnna Marie Smith Port 1931\nJo Hill 1932")
    begun = "<table>\n<tr><th>Name</th><th>Town</th><th>Year</th></tr>\n<tr><td>Anna"
    assert text.after(begun, most=10).startswith(" Marie Smith</td><td>Port</td><td>1931</td></tr>")
    assert text.after(f"{begun} Marie</td>", most=10).startswith("<td>Smith Port</td><td>1931</td></tr>")
    assert text.after(f"{begun} Marie Smith Port</td>", most=10) == ""  # one word is left for two cells


def test_a_row_that_the_own_text_does_not_have_is_skipped_if_one_of_the_two_before_it_is_found():
    text = TableText("A B\n1 2\n3 4\n5 6")
    rows = (
        "<table>\n<tr><th>A</th><th>B</th></tr>\n<tr><td>1</td><td>2</td></tr>\n<tr><td>other</td><td>words</td></tr>\n"
    )
    assert text.after(rows, most=1000) == "<tr><td>5</td><td>6</td></tr>\n</table>"


@pytest.mark.parametrize("own", ["", "\n\n", "12 3", "Item Qty Pri\nce"])
def test_without_the_tables_rows_in_the_own_text_there_is_nothing_to_add(own):
    assert TableText(own).after(TABLE[: HEADED + 5], most=1000) == ""


PIECES = st.sampled_from(
    ["<table", ">", "<tr>", "</tr>", "<td>", "</td>", "<th>", "</th>", "</table>", "\n", " ", "a", "1"]
)


@given(own=st.text("ab1 \n<>"), written=st.lists(PIECES).map("".join), most=st.integers(0, 200))
def test_any_texts_give_a_text_of_a_length_that_is_bounded(own, written, most):
    longest = 10 * (len(own) + len(written) + 20)  # a row more than asked for
    assert len(TableText(own).after(written, most)) <= most + longest
