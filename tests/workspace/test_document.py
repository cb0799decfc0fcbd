import dataclasses

import pytest

from olmocr.workspace.document import why_failed
from tests.four_pages import DOCUMENT, FALLBACK, VALID


def pages(*statuses):
    kinds = {"valid": VALID, "fallback": FALLBACK}
    made = (dataclasses.replace(kinds[each], page_number=at) for at, each in enumerate(statuses, 1))
    return dataclasses.replace(DOCUMENT, pages=tuple(made))


@pytest.mark.parametrize(
    ("coverage", "lacks"), [(None, False), (0.0, True), (0.6999, True), (0.7, False), (1.0, False)]
)
def test_a_page_lacks_text_below_seven_tenths_and_not_where_there_is_nothing_to_compare(coverage, lacks):
    assert dataclasses.replace(VALID, coverage=coverage).lacks_text is lacks


def test_a_document_may_have_as_many_fallbacks_as_the_rate_says_and_no_more():
    assert why_failed(DOCUMENT, 0.25) is None
    assert why_failed(DOCUMENT, 0.24) == (
        "the model gave no good answer for page 3; last: the page took more than 60 s"
    )


def test_of_several_fallbacks_the_first_is_named_and_all_are_counted():
    assert why_failed(pages("valid", "fallback", "fallback"), 0.5) == (
        "the model gave no good answer for 2 of 3 pages (first: 2); last: the page took more than 60 s"
    )


def test_a_page_that_could_not_be_drawn_is_not_blamed_on_the_model():
    lost = dataclasses.replace(FALLBACK, page_number=2, attempts=0, rejected=("page 2 of a.pdf is damaged",))
    document = dataclasses.replace(DOCUMENT, pages=(VALID, lost))
    assert why_failed(document, 0) == "page 2 could not be drawn: page 2 of a.pdf is damaged"


def test_no_fallback_never_fails():
    assert why_failed(pages("valid", "valid"), 0) is None
