"""What is told of a page that was read, was not, or was taken from the file's own text."""

from pathlib import Path

from olmocr.doctor.measure.answers import judge
from olmocr.page import PageResponse
from olmocr.validate.known_pages.page_set import KnownPage
from olmocr.workspace.document import PageRecord

PAGE = KnownPage(Path("/a/b/x.pdf"), 2, truth="four")


def record(text, status="valid"):
    response = PageResponse("en", True, 0, False, False, text)
    return PageRecord(2, status, response, attempts=1, total_output_tokens=9)


def test_a_page_is_told_with_its_errors_and_without_its_folder():
    judged = judge(PAGE, record("fear"))
    assert (judged.document, judged.page_number, judged.status) == ("x.pdf", 2, "valid")
    assert judged.character_error_rate == 0.5
    assert judge(PAGE, record("four")).character_error_rate == 0


def test_what_the_model_did_not_read_is_wrong_even_if_the_files_own_text_is_right():
    assert judge(PAGE, record("four", "fallback")).character_error_rate == 1
    missing = judge(PAGE, None)
    assert (missing.status, missing.attempts, missing.character_error_rate) == ("missing", 0, 1)
