from dataclasses import replace

from olmocr.page import PAGE_PROMPT, ModelResponse, PageResponse
from olmocr.pipeline.ocr_page import PageResult
from olmocr.pipeline.page_records import blank_record, how_asked, record_of, unrendered_record
from olmocr.workspace.document import PageRecord

WORDS = " ".join(f"word{number}" for number in range(30))
NOTHING = PageResponse(None, True, 0, False, False, None)


def result(page=None, answer=None):
    return PageResult(
        page=page,
        answer=answer,
        attempts=3,
        rejected=("first", "second"),
        rotation=180,
        temperature=0.2,
        guided=True,
        output_tokens=900,
        seconds=4.5,
        passes=70,
        ends=("loop", "length", "stop"),
    )


def test_the_record_of_a_good_answer_has_all_that_is_known_of_it():
    page = PageResponse("de", True, 0, True, False, " ".join(WORDS.split()[:20]))
    found = record_of(7, result(page, ModelResponse("raw", "stop", 1100, 300)), WORDS, "m")
    assert found == PageRecord(
        page_number=7,
        status="valid",
        response=page,
        model="m",
        attempts=3,
        rejected=("first", "second"),
        rotation=180,
        temperature=0.2,
        guided=True,
        finish_reason="stop",
        input_tokens=1100,
        output_tokens=300,
        total_output_tokens=900,
        coverage=0.6667,
        seconds=4.5,
        ends=("loop", "length", "stop"),
        passes=70,
    )


def test_the_record_of_a_page_without_a_good_answer_holds_the_files_own_text_and_no_answers_tokens():
    assert record_of(7, result(), "the file's own", "m") == PageRecord(
        page_number=7,
        status="fallback",
        response=PageResponse(None, True, 0, False, False, "the file's own"),
        model="m",
        attempts=3,
        rejected=("first", "second"),
        rotation=180,
        temperature=0.2,
        guided=True,
        total_output_tokens=900,
        seconds=4.5,
        ends=("loop", "length", "stop"),
        passes=70,
    )


def test_no_model_was_asked_about_a_blank_page_or_one_that_could_not_be_rendered():
    assert blank_record(3) == PageRecord(3, "blank", NOTHING)
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
    assert unrendered_record(4, "x" * 10_000).rejected == ("x" * 2000,)
    assert record_of(7, replace(result(), rejected=("x" * 10_000, "short")), None, "m").rejected == (
        "x" * 2000,
        "short",
    )
