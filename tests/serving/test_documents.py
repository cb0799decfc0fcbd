from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.one_document import terms_of
from olmocr.serving.documents import TERMS, page_json, summary_json
from tests.four_pages import BLANK, DOCUMENT, FALLBACK, RETRIED, VALID

NOTHING_SAID = {
    "type": "page", "error": None, "failure": None, "text": None, "primary_language": None, "is_rotation_valid": True,
    "is_table": False, "is_diagram": False,
    "rotation": 0, "attempts": 0, "rejected": [], "ends": [], "temperature": 0.0, "input_tokens": 0, "output_tokens": 0,
    "total_output_tokens": 0, "text_coverage": None, "low_coverage": False, "seconds": 0.0,
}  # fmt: skip


def test_pages_are_asked_for_on_the_terms_of_a_run_that_nobody_told_otherwise():
    assert terms_of(PipelineConfig(workspace="ws", pdfs="a.pdf", model="m")) == TERMS


def test_a_page_that_was_read_at_once_is_told_in_every_field():
    assert page_json(VALID, "a.pdf") == {
        "type": "page",
        "page_number": 1,
        "status": "valid",
        "error": None,
        "failure": None,
        "text": "One",
        "primary_language": "en",
        "is_rotation_valid": True,
        "is_table": True,
        "is_diagram": False,
        "rotation": 0,
        "attempts": 1,
        "rejected": [],
        "ends": ["stop"],
        "temperature": 0.0,
        "input_tokens": 1000,
        "output_tokens": 200,
        "total_output_tokens": 200,
        "text_coverage": 0.95,
        "low_coverage": False,
        "seconds": 4.0,
    }


def test_a_page_that_was_turned_and_asked_again_is_told_in_every_field():
    assert page_json(RETRIED, "a.pdf") == {
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
        "rejected": ["went round in circles", "no words"],
        "ends": ["loop", "failed", "stop"],
        "temperature": 0.2,
        "input_tokens": 1100,
        "output_tokens": 300,
        "total_output_tokens": 900,
        "text_coverage": 0.5,
        "low_coverage": True,
        "seconds": 9.0,
    }


def test_a_blank_page_says_nothing_but_that():
    assert page_json(BLANK, "a.pdf") == NOTHING_SAID | {"page_number": 4, "status": "blank"}


def test_a_page_without_a_good_answer_says_why_the_last_one_was_none():
    assert page_json(FALLBACK, "a.pdf") == NOTHING_SAID | {
        "page_number": 3,
        "status": "fallback",
        "error": "the page took more than 60 s",
        "failure": {"source": "a.pdf", "page_number": 3, "why": "the page took more than 60 s"},
        "text": "the file's own",
        "attempts": 2,
        "rejected": ["cut", "the page took more than 60 s"],
        "ends": ["length", "cancelled"],
        "total_output_tokens": 70,
        "seconds": 60.25,
    }


def test_a_summary_counts_every_page():
    summary = {
        "type": "summary",
        "pages": 4,
        "blank_pages": [4],
        "retried_pages": [2, 3],
        "fallback_pages": [3],
        "failures": [{"source": DOCUMENT.source.name, "page_number": 3, "why": "the page took more than 60 s"}],
        "input_tokens": 2100,
        "output_tokens": 1170,
        "seconds": 70.123,
    }
    assert summary_json(DOCUMENT, 70.1234, markdown=False) == summary
    assert summary_json(DOCUMENT, 70.1234, markdown=True) == summary | {"markdown": "One\nZwei\nthe file's own\n"}
