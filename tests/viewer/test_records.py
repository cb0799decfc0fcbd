import json

import pytest

from olmocr.errors import InputError
from olmocr.viewer.records import find_records, read_records
from tests.pipeline.doubles import answer, write_pdf
from tests.viewer.workspaces import run, write_record


def documents(workspace):
    return [document for path in find_records(workspace) for _, document in read_records(path)]


def test_each_page_has_its_own_part_of_the_text(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=3)
    run(tmp_path / "ws", [pdf], answer("Öne\ntwo"), answer("", language="null"), answer("Three"))
    (document,) = documents(tmp_path / "ws")
    assert [page.text for page in document.pages] == ["Öne\ntwo", "", "Three"]
    assert [page.number for page in document.pages] == [1, 2, 3]
    assert document.name == "a.pdf"
    assert document.error is None


def test_a_pages_status_says_how_it_was_read(tmp_path):
    write_record(
        tmp_path,
        ["a", "b", "", "c", ""],
        attempts=[1, 3, 1, 8, 8],
        is_fallback=[False, False, False, True, True],
        rejected=[[], ["x", "y"], [], [], []],
    )
    (document,) = documents(tmp_path)
    assert [page.status for page in document.pages] == ["valid", "retried", "blank", "fallback", "failed"]
    assert [page.needs_a_look for page in document.pages] == [False, True, False, True, True]
    assert document.pages[1].rejected == ("x", "y")


def test_a_record_of_upstreams_with_several_documents_a_file_is_read(tmp_path):
    write_record(tmp_path, ["one"], name="1.pdf")
    write_record(tmp_path, ["two"], name="2.pdf")
    assert [(each.name, each.pages[0].status) for each in documents(tmp_path)] == [
        ("1.pdf", "valid"),
        ("2.pdf", "valid"),
    ]


def test_a_page_that_every_answer_calls_turned_needs_a_look(tmp_path):
    write_record(tmp_path, ["a", "b", "c"], is_rotation_valid=[True, False, None])
    assert [page.needs_a_look for page in documents(tmp_path)[0].pages] == [False, True, False]


def test_low_coverage_needs_a_look(tmp_path):
    write_record(tmp_path, ["a", "b"], low_coverage=[False, True])
    assert [page.needs_a_look for page in documents(tmp_path)[0].pages] == [False, True]


def test_a_failed_document_has_its_error_and_what_could_be_read(tmp_path):
    pdf = write_pdf(tmp_path / "a.pdf", pages=2)
    run(tmp_path / "ws", [pdf], answer("good"), answer(finish_reason="length"), max_page_retries=2)
    (document,) = documents(tmp_path / "ws")
    assert "no good answer for page 2" in document.error
    assert [page.status for page in document.pages] == ["valid", "failed"]


def test_a_document_that_could_not_be_opened_has_its_error_and_no_page(tmp_path):
    (tmp_path / "a.pdf").write_text("nothing")
    run(tmp_path / "ws", [tmp_path / "a.pdf"], answer())
    (document,) = documents(tmp_path / "ws")
    assert document.error.endswith(
        "is not a PDF, and not a picture of a kind that can be read "
        "(PDF, PNG, JPEG, TIFF, WebP, GIF, BMP, HEIC, AVIF, JPEG 2000)"
    )
    assert document.pages == ()


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b"null", b"\xff\xfe", b'{"metadata": 1}', b'{"metadata": {"Source-File": "a"}}', b"[" * 100_000,
        b'{"metadata": {"Source-File": "a"}, "text": "", "attributes": {"pdf_page_numbers": [[1]]}}',
        b'{"metadata": {"Source-File": "a"}, "text": "", "attributes": {"pdf_page_numbers": [[0, Infinity, 1]]}}',
    ],
)  # fmt: skip
def test_a_line_that_is_not_a_record_is_a_document_that_failed(tmp_path, line):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "output_a.jsonl").write_bytes(line + b"\n")
    (document,) = documents(tmp_path)
    assert "is not a record of a document" in document.error


def test_spans_beyond_the_text_show_what_there_is(tmp_path):
    write_record(tmp_path, ["abc"])
    path = tmp_path / "results/output_a.jsonl"
    record = json.loads(path.read_text())
    record["attributes"]["pdf_page_numbers"] = [[-5, 2, 1], [2, 10**30, 2]]
    path.write_text(json.dumps(record))
    assert [page.text for page in documents(tmp_path)[0].pages] == ["ab", "c"]


def test_every_document_has_a_key_of_its_own_that_is_safe_in_a_path(tmp_path):
    for number, name in enumerate(
        ["../../etc/passwd", "a b/Ü<script>.pdf", "a.pdf", "a.pdf", "", "." * 300, "x" * 300]
    ):
        write_record(tmp_path, ["text"], name=name, file=f"output_{number}.jsonl")
    keys = [document.key for document in documents(tmp_path)]
    assert len(set(keys)) == 7
    assert all(key.replace("-", "").isalnum() and key.isascii() and len(key) < 60 for key in keys)


def test_a_folder_that_is_not_a_workspace_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a workspace: it has no results/ and no failed/"):
        find_records(tmp_path)


def test_a_record_that_a_run_has_just_moved_is_not_a_document(tmp_path):
    assert list(read_records(tmp_path / "results/output_a.jsonl")) == []


def test_a_record_that_cannot_be_read_is_a_document_that_failed(tmp_path):
    (tmp_path / "results/output_a.jsonl").mkdir(parents=True)
    (document,) = documents(tmp_path)
    assert "cannot be read: Is a directory" in document.error
