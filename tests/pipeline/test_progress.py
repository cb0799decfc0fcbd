import pytest

from olmocr.page import PageResponse
from olmocr.pipeline.page_records import blank_record
from olmocr.pipeline.progress import Tally
from olmocr.workspace.document import PageRecord


def page(**fields):
    return PageRecord(1, "valid", PageResponse("en", True, 0, False, False, "text"), **fields)


def test_the_line_says_what_was_read_how_fast_and_what_is_left():
    tally = Tally(started=0)
    tally.begin(pages=4, waiting=2)
    tally.add(page(attempts=2, total_output_tokens=600))
    tally.add(blank_record(2))
    assert tally.line(60).startswith(
        "2 of 4+ pages, 1 retried, 1 blank, 2.0 pages/min, 10 tokens/s, about 5 min left, "
    )


def test_documents_still_to_come_are_taken_to_be_as_long_as_those_that_were_begun():
    tally = Tally(started=0)
    tally.begin(pages=10, waiting=3)
    tally.begin(pages=20, waiting=2)
    assert tally.pages_left == 30 + 2 * 15


@pytest.mark.parametrize(("pages", "left"), [(2, "about 30 s left"), (601, "about 5.0 h left")])
def test_the_time_left_is_told_as_a_person_would(pages, left):
    tally = Tally(started=0)
    tally.begin(pages=pages, waiting=0)
    tally.add(page())
    assert left in tally.line(30)
