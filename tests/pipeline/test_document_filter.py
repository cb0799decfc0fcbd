import pytest

from olmocr.pipeline.document_filter import why_filtered
from tests.pipeline.doubles import answer, write_form, write_pdf
from tests.pipeline.test_run import records, run

ENGLISH = "The committee met on Tuesday to discuss the results of the survey, and decided to publish them. " * 4
GERMAN = "Der Ausschuss traf sich am Dienstag, um über die Ergebnisse der Umfrage zu beraten, und beschloss viel. " * 4


@pytest.mark.parametrize(
    ("text", "has_form", "languages", "expected"),
    [
        (ENGLISH, False, ["en"], None),
        (GERMAN, False, ["en"], "its language is de, not en"),
        (GERMAN, False, ["en", "de"], None),
        (ENGLISH, True, ["en"], "it is a form"),
        ("kurz und deutsch", False, ["en"], None),
        ("1 2 3 4 5 6 7 8 9 0 " * 40, False, ["en"], None),
        ("", False, ["en"], None),
    ],
)
def test_what_is_not_text_in_a_language_that_is_wanted_is_left_out(text, has_form, languages, expected):
    assert why_filtered(text, has_form=has_form, languages=languages) == expected


def test_a_text_full_of_advertising_is_left_out():
    why = why_filtered(ENGLISH + "Download the free ebook now, casino coupon. ", has_form=False, languages=["en"])
    assert why.endswith("are typical of advertising")


def test_a_form_is_left_out_only_on_request_and_is_not_a_failure(tmp_path):
    form, plain = write_form(tmp_path / "form.pdf", "Ada"), write_pdf(tmp_path / "plain.pdf")
    summary, requests = run(tmp_path / "ws", [form, plain], answer(), apply_filter=True)
    assert (summary.done, summary.filtered, summary.failures, len(requests)) == (1, 1, (), 1)
    assert list(records(tmp_path / "ws")) == [str(plain)]
    summary, requests = run(tmp_path / "ws", [form, plain], answer())
    assert (summary.done, summary.skipped, summary.filtered, len(requests)) == (1, 1, 0, 1)
