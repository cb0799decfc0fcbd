"""The kind of a document is told by its content."""

from tests.inputs.documents import names
from tests.pipeline.doubles import write_pdf


def test_a_pdf_that_is_called_a_list_or_an_archive_is_a_pdf(here):
    write_pdf(here / "a.txt")
    write_pdf(here / "b.zip")
    assert names("a.txt", "b.zip") == ["a.txt", "b.zip"]
