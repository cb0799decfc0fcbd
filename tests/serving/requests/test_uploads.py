"""Files that are sent to be read: forms, bodies and where they lie."""

import tempfile
from pathlib import Path

import pytest

from tests.serving.servers import OCR
from tests.serving.uploaded import PDF, by_number, lines_of, refused


def test_a_form_may_hold_the_file_and_the_options(reading_server, pdf):
    data = {"pages": "2-", "markdown": "false"}
    reply = reading_server.post(OCR, files={"file": ("../a\x1bb.pdf", pdf(1, 2, 3))}, data=data)
    first, *pages, last = lines_of(reply)
    assert "/" not in first["name"]
    assert "\x1b" not in first["name"]
    assert sorted(by_number(pages)) == [2, 3]
    assert "markdown" not in last


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"%PDF-1.7\ngarbage", "damaged PDF"), (b"<html>", "web page"), (b"\x89PNG\r\n\x1a\nxx", "damaged picture")],
)
def test_what_is_not_a_document_is_named(reading_server, content, words):
    refused(reading_server.post(OCR, content=content, headers=PDF), 400, words)
    refused(reading_server.post(OCR, files={"file": ("mine.pdf", content)}), 400, "mine.pdf", words)


def test_a_form_without_a_file_is_refused(reading_server, pdf):
    refused(reading_server.post(OCR, files={"document": ("a.pdf", pdf(1))}), 400, "'file'")
    refused(reading_server.post(OCR, data={"file": "a.pdf"}, files={"x": b"y"}), 400, "'file'")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    refused(reading_server.post(OCR, content=b"--y\r\nnonsense", headers=headers), 400, "form")
    refused(reading_server.post(OCR, files=[("file", b"a"), ("file", b"b")]), 400, "form cannot be read")
    refused(
        reading_server.post(OCR, content=b"{}", headers={"content-type": "application/json"}),
        415,
        "multipart/form-data",
    )


def test_uploads_lie_where_temporary_files_do(reading_server):
    assert Path(tempfile.gettempdir()) == reading_server.folder
