from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.one_document import terms_of
from olmocr.serving.documents import TERMS, page_json, summary_json
from tests.serving.pages import BLANK, DOCUMENT, FALLEN_BACK, FIRST_TRY, TURNED_AND_RETRIED

NOTHING_SAID = {
    "type": "page", "error": None, "failure": None, "text": None, "primary_language": None, "is_rotation_valid": True,
    "is_table": False, "is_diagram": False,
    "rotation": 0, "attempts": 0, "rejected": [], "ends": [], "temperature": 0.0, "input_tokens": 0, "output_tokens": 0,
    "total_output_tokens": 0, "text_coverage": None, "low_coverage": False, "seconds": 0.0,
}  # fmt: skip


def test_pages_are_asked_for_on_the_terms_of_a_run_that_nobody_told_otherwise():
    assert terms_of(PipelineConfig(workspace="ws", pdfs="a.pdf", model="m")) == TERMS


def test_a_page_that_was_read_at_once_is_told_in_every_field():
    assert page_json(FIRST_TRY, "a.pdf") == {
        "type": "page",
        "page_number": 1,
        "status": "valid",
        "error": None,
        "failure": None,
        "text": "One <table>",
        "primary_language": "en",
        "is_rotation_valid": True,
        "is_table": True,
        "is_diagram": False,
        "rotation": 0,
        "attempts": 1,
        "rejected": [],
        "ends": ["stop"],
        "temperature": 0.0,
        "input_tokens": 1100,
        "output_tokens": 31,
        "total_output_tokens": 31,
        "text_coverage": 0.9,
        "low_coverage": False,
        "seconds": 2.0,
    }


def test_a_page_that_was_turned_and_asked_again_is_told_in_every_field():
    assert page_json(TURNED_AND_RETRIED, "a.pdf") == {
        "type": "page",
        "page_number": 2,
        "status": "valid",
        "error": None,
        "failure": None,
        "text": "Zwei",
        "primary_language": "de",
        "is_rotation_valid": True,
        "is_table": False,
        "is_diagram": True,
        "rotation": 90,
        "attempts": 3,
        "rejected": ["the page is turned: correction 90", "finish_reason is 'loop' after 400 tokens"],
        "ends": ["stop", "loop", "stop"],
        "temperature": 0.1,
        "input_tokens": 1300,
        "output_tokens": 47,
        "total_output_tokens": 500,
        "text_coverage": 0.1,
        "low_coverage": True,
        "seconds": 7.5,
    }


def test_a_blank_page_says_nothing_but_that():
    assert page_json(BLANK, "a.pdf") == NOTHING_SAID | {"page_number": 3, "status": "blank"}


def test_a_page_without_a_good_answer_says_why_the_last_one_was_none():
    assert page_json(FALLEN_BACK, "a.pdf") == NOTHING_SAID | {
        "page_number": 4,
        "status": "fallback",
        "error": "the page took more than 60 s",
        "failure": {"source": "a.pdf", "page_number": 4, "why": "the page took more than 60 s"},
        "text": "as in the file",
        "attempts": 2,
        "rejected": ["no memory", "the page took more than 60 s"],
        "ends": ["failed", "cancelled"],
        "total_output_tokens": 90,
        "seconds": 60.25,
    }


def test_a_summary_counts_every_page():
    summary = {
        "type": "summary",
        "pages": 4,
        "blank_pages": [3],
        "retried_pages": [2, 4],
        "fallback_pages": [4],
        "failures": [{"source": DOCUMENT.source.name, "page_number": 4, "why": "the page took more than 60 s"}],
        "input_tokens": 2400,
        "output_tokens": 621,
        "seconds": 70.123,
    }
    assert summary_json(DOCUMENT, 70.1234, markdown=False) == summary
    assert summary_json(DOCUMENT, 70.1234, markdown=True) == summary | {"markdown": "One <table>\nZwei\nas in the file"}
