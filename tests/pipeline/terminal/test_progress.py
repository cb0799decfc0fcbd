import pytest

from olmocr.pipeline.terminal.progress import Tally
from tests.four_pages import BLANK, FOUR, VALID


def test_the_line_says_what_was_read_how_fast_and_what_is_left():
    tally = Tally(started=100)
    tally.begin("a", pages=6, waiting=1)
    for page in FOUR:
        tally.add("a", "a.pdf", page)
    assert tally.line(165).startswith(
        "4 of 6+ pages, 0 of 2 documents, 2 retried, 1 failed, 1 blank, 3.7 pages/min, about 2 min left, 18 tokens/s, "
    )
    assert tally.line(165).endswith(" MiB")


def test_a_document_is_done_with_its_last_page_or_when_nothing_of_it_was_left():
    tally = Tally(started=0)
    tally.begin("a", pages=1, waiting=1)
    tally.begin("b", pages=0, waiting=0)
    assert "1 of 2 documents" in tally.line(1)
    tally.add("a", "a.pdf", VALID)
    assert "2 of 2 documents" in tally.line(1)


def test_documents_still_to_come_are_taken_to_be_as_long_as_those_that_were_begun():
    tally = Tally(started=0)
    tally.begin("a", pages=10, waiting=3)
    tally.begin("b", pages=20, waiting=2)
    assert tally.pages_left == 30 + 2 * 15


def test_what_came_before_the_first_page_was_asked_for_does_not_count_as_reading():
    tally = Tally(started=0)
    tally.begin("a", pages=2, waiting=0)
    tally.start(600)
    tally.add("a", "a.pdf", VALID)
    assert "2.0 pages/min" in tally.line(630)


@pytest.mark.parametrize(("pages", "left"), [(2, "about 30 s left"), (601, "about 5.0 h left")])
def test_the_time_left_is_told_as_a_person_would(pages, left):
    tally = Tally(started=0)
    tally.begin("a", pages=pages, waiting=0)
    tally.add("a", "a.pdf", VALID)
    assert left in tally.line(30)


def test_blank_pages_alone_tell_nothing_of_the_time_that_is_left():
    tally = Tally(started=0)
    tally.begin("a", pages=2, waiting=0)
    tally.add("a", "a.pdf", BLANK)
    assert "left" not in tally.line(30)
    assert "pages/min" not in tally.line(30)
    tally.add("a", "a.pdf", VALID)
    assert "2.0 pages/min" in tally.line(60)
