"""How far an answer is from the truth: numbers, tables and plain text."""

from olmocr.validate.score import exact_cells, exact_numbers, exact_tables, numbers_in, plain, tables_in


def test_a_number_counts_as_often_as_it_is_there():
    assert numbers_in("<td>1,479.68</td> on 2019-04-27") == ["1,479.68", "2019-04-27"]
    assert exact_numbers("7 7 9", "7 7 7 8") == 2


def test_cells_are_compared_where_they_stand():
    (true,) = tables_in("<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td> 2\n</td></tr></table>")
    assert true == (("A", "B"), ("1", "2"))
    cut = tables_in("<p>x</p><table><tr><th>A</th><th>C</th></tr><tr><td>1")
    assert (exact_cells(cut, [true]), exact_tables(cut, [true]), exact_tables([true], [true])) == (2, 0, 1)
    assert tables_in("no table <td>here</td>") == []


def test_plain_text_has_neither_tags_nor_marks():
    assert plain("# Title\n\n<td>a &lt; b</td>  **bold**\n- item") == "Title a &lt; b bold item"


def test_a_line_break_in_a_cell_is_not_a_space():
    assert tables_in("<table><tr><td>12<br>50</td></tr></table>") == [(("1250",),)]
