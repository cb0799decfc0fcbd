from dataclasses import replace

from olmocr.page import PAGE_PROMPT, ModelResponse, PageResponse
from olmocr.pipeline.ocr_page import PageResult
from olmocr.pipeline.page_records import blank_record, how_asked, record_of, unrendered_record
from olmocr.workspace.document import PageRecord
from tests.four_pages import BLANK, FALLBACK, RETRIED, VALID

NOTHING = PageResponse(None, True, 0, False, False, None)


def result_of(page):
    """Return what asking for a page gave that *page* is the record of."""
    accepted = page.status == "valid"
    answer = ModelResponse("raw", page.finish_reason, page.input_tokens, page.output_tokens, server=page.server)
    return PageResult(
        page=page.response if accepted else None,
        answer=answer if accepted else None,
        attempts=page.attempts,
        rejected=page.rejected,
        rotation=page.rotation,
        temperature=page.temperature,
        guided=page.guided,
        output_tokens=page.total_output_tokens,
        seconds=page.seconds,
        passes=page.passes,
        ends=page.ends,
    )


def test_the_record_of_a_good_answer_has_all_that_is_known_of_it():
    one_of_21_words = " ".join(["Zwei", *(f"word{number}" for number in range(20))])
    assert record_of(2, result_of(RETRIED), one_of_21_words, "m-8bit") == replace(RETRIED, coverage=0.0476, asked="")
    assert record_of(1, result_of(VALID), None, "m-4bit") == replace(VALID, coverage=None)


def test_the_record_of_a_page_without_a_good_answer_holds_the_files_own_text_and_no_answers_tokens():
    assert record_of(3, result_of(FALLBACK), "the file's own", "m-4bit") == FALLBACK


def test_no_model_was_asked_about_a_blank_page_or_one_that_could_not_be_rendered():
    assert blank_record(4) == BLANK
    assert unrendered_record(4, "damaged") == PageRecord(4, "fallback", NOTHING, rejected=("damaged",))


def test_how_a_page_was_asked_for_tells_what_its_text_may_depend_on():
    assert (
        how_asked(PAGE_PROMPT, 1288, "retries")
        == how_asked(PAGE_PROMPT, 1288, "never")
        == "1288 pixels, prompt c12f21ac"
    )
    ways = {
        how_asked(PAGE_PROMPT, 644, "never"),
        how_asked("Read.", 1288, "never"),
        how_asked(PAGE_PROMPT, 1288, "always"),
    }
    assert len(ways | {"1288 pixels, prompt c12f21ac"}) == 4


def test_no_reason_in_a_record_is_longer_than_2000_characters():
    too_long = replace(result_of(FALLBACK), rejected=("x" * 10_000, "short"))
    assert unrendered_record(4, "x" * 10_000).rejected == ("x" * 2000,)
    assert record_of(3, too_long, None, "m").rejected == ("x" * 2000, "short")
