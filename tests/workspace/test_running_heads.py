import pytest

from olmocr.workspace.running_heads import Edges, running_heads


def heads_of(*pages):
    """Return the running heads of pages with these lines at their upper and lower edges."""
    return running_heads({number: Edges(*map(tuple, page)) for number, page in enumerate(pages, 1)})


BOOK = heads_of(*((["Annual Report 2025"], [f"Page {number} of 4"]) for number in range(1, 5)))


def test_lines_that_repeat_at_the_edges_of_pages_are_dropped():
    text = "**Annual report 2025**\n\nThe text.\n\nPage 2 of 4"
    assert BOOK.without(2, text) == ("The text.", ["**Annual report 2025**", "Page 2 of 4"])


@pytest.mark.parametrize(
    "text",
    [
        "The text.",
        "",
        "# Annual Report 2025\n\nThe text.",  # a title
        "The text.\n\nAnnual Report 2025\n\nMore of it.",  # within the text
        "The text.\n\nPage 3 of 4",  # not what stands on this page
        "Annual Report 2025: the text.",
    ],
)
def test_all_other_lines_stay(text):
    assert BOOK.without(2, text) == (text, [])


def test_page_numbers_are_dropped_where_they_go_up_with_the_pages():
    numbered = heads_of(([], ["- 11 -"]), ([], ["- 12 -"]), ([], ["- 13 -"]))
    assert numbered.without(2, "The text.\n\n- 12 -") == ("The text.", ["- 12 -"])


def test_numbers_that_do_not_go_up_with_the_pages_are_a_tables():
    tables = heads_of(([], ["40"]), ([], ["17"]), ([], ["23"]))
    assert tables.without(2, "Sum\n\n17") == ("Sum\n\n17", [])


def test_a_line_on_two_pages_is_not_a_running_head():
    assert heads_of((["A"], []), (["A"], []), ([], [])).without(1, "A\n\nb") == ("A\n\nb", [])


def test_without_a_text_of_the_files_own_nothing_is_known():
    assert running_heads({}).without(1, "A\n\n1") == ("A\n\n1", [])


def test_a_page_may_be_nothing_but_running_heads():
    assert BOOK.without(1, "Annual Report 2025\n\nPage 1 of 4")[0] == ""
