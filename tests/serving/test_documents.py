from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import terms_of
from olmocr.serving.documents import TERMS, page_json, summary_json
from tests.four_pages import DOCUMENT, FALLBACK, RETRIED


def test_pages_are_asked_for_on_the_terms_of_a_run_that_nobody_told_otherwise():
    assert terms_of(PipelineConfig(workspace="ws", pdfs="a.pdf", model="m")) == TERMS


def test_a_client_is_told_all_of_a_page_that_was_asked_again():
    assert page_json(RETRIED) == {
        "type": "page",
        "page_number": 2,
        "status": "valid",
        "error": None,
        "text": "Zwei",
        "primary_language": "de",
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


def test_a_client_is_told_the_last_reason_of_a_page_that_fell_back():
    told = page_json(FALLBACK)
    assert (told["error"], told["text"], told["status"]) == (
        "the page took more than 9 s",
        "the file's own",
        "fallback",
    )


def test_the_last_line_counts_all_tokens_that_were_written():
    summary = {
        "type": "summary",
        "pages": 4,
        "blank_pages": [4],
        "retried_pages": [2, 3],
        "fallback_pages": [3],
        "input_tokens": 2100,
        "output_tokens": 1170,
        "seconds": 1.235,
    }
    assert summary_json(DOCUMENT, 1.2349, markdown=False) == summary
    assert summary_json(DOCUMENT, 1.2349, markdown=True) == {**summary, "markdown": "One\nZwei\nthe file's own\n"}
