import datetime
import hashlib

from olmocr.version import __version__
from olmocr.workspace.outputs import dolma_line, markdown_of, page_markdown, pages_json
from tests.four_pages import DOCUMENT, FALLBACK, RETRIED, SHA

TEXT = "One\nZwei\nthe file's own\n"


def test_a_documents_record_has_every_field():
    assert dolma_line(DOCUMENT, datetime.date(2026, 5, 4)) == {
        "id": hashlib.sha1(TEXT.encode()).hexdigest(),
        "text": TEXT,
        "source": "olmocr",
        "added": "2026-05-04",
        "created": "2026-05-04",
        "metadata": {
            "Source-File": "in/a.pdf",
            "olmocr-version": __version__,
            "pdf-total-pages": 4,
            "total-input-tokens": 2100,
            "total-output-tokens": 500,
            "total-fallback-pages": 1,
            "source-sha256": SHA,
            "source-pages": 7,
            "model": "m-4bit, m-8bit",
        },
        "attributes": {
            "pdf_page_numbers": [[0, 4, 1], [4, 9, 2], [9, 24, 3], [24, 24, 4]],
            "primary_language": ["en", "de", "", ""],
            "is_rotation_valid": [True, True, True, True],
            "rotation_correction": [0, 0, 0, 0],
            "is_table": [True, False, False, False],
            "is_diagram": [False, True, False, False],
            "is_fallback": [False, False, True, False],
            "is_blank": [False, False, False, True],
            "attempts": [1, 3, 2, 0],
            "finish_reason": ["stop", "stop", "", ""],
            "temperature": [0.0, 0.2, 0.0, 0.0],
            "rotation": [0, 90, 0, 0],
            "rejected": ["", "went round in circles\nno words", "cut\nthe page took more than 60 s", ""],
            "is_compared": [True, True, False, False],
            "text_coverage": [0.95, 0.5, 1.0, 1.0],
            "low_coverage": [False, True, False, False],
            "server": ["http://mac:8000/v1", "", "", ""],
        },
    }


def test_markdown_is_the_text_and_before_it_what_is_known_of_the_document():
    assert markdown_of(DOCUMENT) == TEXT
    assert markdown_of(DOCUMENT, separator="<{page}>", front_matter=True) == (
        '---\nsource: "in/a.pdf"\npages: 4\nlanguages: ["de", "en"]\nfallback_pages: [3]\n'
        f'olmocr_version: "{__version__}"\n---\nOne<2>Zwei<3>the file\'s own<4>'
    )


def test_a_pages_markdown_begins_as_olmocr_answers():
    assert page_markdown(FALLBACK) == "the file's own"
    assert page_markdown(RETRIED, front_matter=True) == (
        '---\nprimary_language: "de"\nis_rotation_valid: True\nrotation_correction: 0\n'
        "is_table: False\nis_diagram: True\n---\nZwei"
    )


def test_all_that_is_known_of_pages_has_every_field():
    found = pages_json(DOCUMENT)
    pages = found.pop("pages")
    assert found == {"source": "in/a.pdf", "sha256": SHA, "page_count": 7}
    assert pages[1] == {
        "page_number": 2,
        "status": "valid",
        "response": {
            "primary_language": "de",
            "is_rotation_valid": True,
            "rotation_correction": 0,
            "is_table": False,
            "is_diagram": True,
            "natural_text": "Zwei",
        },
        "model": "m-8bit",
        "attempts": 3,
        "rejected": ("went round in circles", "no words"),
        "rotation": 90,
        "temperature": 0.2,
        "guided": True,
        "finish_reason": "stop",
        "input_tokens": 1100,
        "output_tokens": 300,
        "total_output_tokens": 900,
        "coverage": 0.5,
        "seconds": 9.0,
        "ends": ("loop", "failed", "stop"),
        "passes": 700,
        "asked": "1288 pixels, prompt c12f21ac",
        "server": "",
    }
    assert [page["page_number"] for page in pages] == [1, 2, 3, 4]
