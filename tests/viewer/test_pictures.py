"""Pictures beside a page's text, or a sentence in their place."""

import base64
import io
import json

import pytest
from PIL import Image

from tests.pipeline.doubles import answer, write_image, write_pdf
from tests.viewer.sites import only_document, site
from tests.viewer.workspaces import run, sha256, write_record


def picture(page):
    (image,) = page.all("img")
    data = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_a_page_that_was_turned_to_be_read_is_shown_so(tmp_path):
    image = write_image(tmp_path / "a.png", size=(1000, 500))
    page = only_document(site(run(tmp_path / "ws", [image], answer(valid=False, turn=90), answer())))
    shown = picture(page)
    assert shown.size == (500, 1000)
    assert sum(shown.getpixel((40, 960))) < 100  # its black corner was the top left one
    assert "turned 90° counter-clockwise" in page.text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: path.unlink(), "the file no longer exists"),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), "the file has changed since it was read"),
    ],
)
def test_where_the_source_is_gone_a_sentence_stands_in_its_place(tmp_path, change, sentence):
    pdf = write_pdf(tmp_path / "a.pdf")
    run(tmp_path / "ws", [pdf], answer("text"))
    change(pdf)
    page = only_document(site(tmp_path / "ws"))
    assert not page.all("img")
    assert sentence in page.text
    assert "text" in page.text


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", ".", "a\0b", "x" * 5000, "~nobody-here/a.pdf", ""])
def test_a_record_cannot_have_anything_but_a_file_opened(tmp_path, name):
    write_record(tmp_path, ["text"], name=name, metadata={"source-sha256": "0" * 64})
    assert "No picture" in only_document(site(tmp_path)).text


def test_a_file_that_the_record_knows_but_is_not_a_document_is_not_shown(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    write_record(tmp_path / "ws", ["text"], name=secret, metadata={"source-sha256": sha256(secret)})
    page = only_document(site(tmp_path / "ws"))
    assert "is not a PDF, and not a picture" in page.text
    assert "the secret" not in page.text


@pytest.mark.parametrize("number", [0, -1, 3])
def test_a_page_number_that_the_file_does_not_have_is_said(tmp_path, number):
    pdf = write_pdf(tmp_path / "a.pdf", pages=2)
    write_record(tmp_path / "ws", ["text"], name=pdf, metadata={"source-sha256": sha256(pdf)})
    path = tmp_path / "ws/results/output_a.jsonl"
    record = json.loads(path.read_text())
    record["attributes"]["pdf_page_numbers"] = [[0, 4, number]]
    path.write_text(json.dumps(record))
    assert f"The file has no page {number}." in only_document(site(tmp_path / "ws")).text
