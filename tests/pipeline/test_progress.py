import pytest

from olmocr.pipeline.progress import Tally
from tests.four_pages import FOUR, VALID


def test_the_line_says_what_was_read_how_fast_and_what_is_left():
    tally = Tally(started=100)
    tally.begin(pages=6, waiting=1)
    for page in FOUR:
        tally.add(page)
    assert tally.line(165).startswith(
        "4 of 6+ pages, 2 retried, 1 failed, 1 blank, 3.7 pages/min, 18 tokens/s, about 2 min left, "
    )
    assert tally.line(165).endswith(" MiB")


def test_documents_still_to_come_are_taken_to_be_as_long_as_those_that_were_begun():
    tally = Tally(started=0)
    tally.begin(pages=10, waiting=3)
    tally.begin(pages=20, waiting=2)
    assert tally.pages_left == 30 + 2 * 15


@pytest.mark.parametrize(("pages", "left"), [(2, "about 30 s left"), (601, "about 5.0 h left")])
def test_the_time_left_is_told_as_a_person_would(pages, left):
    tally = Tally(started=0)
    tally.begin(pages=pages, waiting=0)
    tally.add(VALID)
    assert left in tally.line(30)
