"""Answers that exist are found by the names that benchmarks and pipelines give them."""

import pytest

from olmocr.errors import InputError
from olmocr.validate.bench.answers import read_answers
from olmocr.validate.bench.checks import Baseline, BenchCheck, BenchSet
from tests.pipeline.doubles import write_numbered_pdf


@pytest.fixture
def bench(tmp_path):
    """Return a benchmark of a document with one page and one with two."""
    pages = {"old/a.pdf": [1], "old/b_pg1.PDF": [2, 3]}
    for document, numbers in pages.items():
        write_numbered_pdf(tmp_path / "pdfs" / document, numbers)
    checks = tuple(
        BenchCheck(f"{document} {number}", "baseline", "baseline", document, number, 0, Baseline())
        for document, numbers in pages.items()
        for number in range(1, len(numbers) + 1)
    )
    return BenchSet(tmp_path / "pdfs", tuple(pages), checks, "0" * 64, None)


def found(tmp_path, bench, **files):
    folder = tmp_path / "answers"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_answers(folder, bench)


def test_repeats_of_a_page_are_all_of_its_readings(tmp_path, bench):
    names = ("old/a_pg1_repeat10.md", "old/a_pg1_repeat2.md", "old/b_pg1_pg1_repeat1.md", "old/b_pg1_pg2_repeat1.md")
    answers = found(tmp_path, bench, **{name: name for name in names})
    assert answers.readings == {
        ("old/a.pdf", 1): ("old/a_pg1_repeat2.md", "old/a_pg1_repeat10.md"),
        ("old/b_pg1.PDF", 1): ("old/b_pg1_pg1_repeat1.md",),
        ("old/b_pg1.PDF", 2): ("old/b_pg1_pg2_repeat1.md",),
    }


def test_markdown_of_a_document_is_its_page_if_it_has_one(tmp_path, bench):
    answers = found(tmp_path, bench, **{"old/a.md": "a", "old/b_pg1.md": "b and b"})
    assert list(answers.readings.values()) == [("a",), (), ()]


def test_files_of_pages_are_answers_too(tmp_path, bench):
    answers = found(tmp_path, bench, **{"old/b_pg1.md/0001.md": "1", "old/b_pg1.md/0002.md": "2"})
    assert list(answers.readings.values()) == [(), ("1",), ("2",)]


def test_what_hides_or_is_about_something_else_does_not_count(tmp_path, bench):
    answers = found(tmp_path, bench, **{"old/a.md": "a", "old/._a_pg1_repeat1.md": "x", "README.md": "y", "c.md": "z"})
    assert answers.readings["old/a.pdf", 1] == ("a",)
    assert found(tmp_path, bench, **{"README.md": "other"}).sha256 == answers.sha256
    assert found(tmp_path, bench, **{"old/a.md": "other"}).sha256 != answers.sha256


def test_a_folder_without_one_answer_is_refused(tmp_path, bench):
    with pytest.raises(InputError, match="is not a folder; `answers` must be a folder"):
        read_answers(tmp_path / "nothing", bench)
    with pytest.raises(InputError, match=r"does not have an answer for any page .* files like old/a_pg1_repeat1\.md"):
        found(tmp_path, bench, **{"c.md": "z"})


def test_a_document_that_cannot_be_opened_has_no_page_for_its_markdown(tmp_path, bench):
    (tmp_path / "pdfs/old/a.pdf").write_bytes(b"%PDF-1.7 and no more")
    answers = found(tmp_path, bench, **{"old/a.md": "a", "old/b_pg1_pg1_repeat1.md": "b"})
    assert answers.readings["old/a.pdf", 1] == ()


def test_bytes_that_are_not_text_are_named(tmp_path, bench):
    (tmp_path / "answers/old").mkdir(parents=True)
    (tmp_path / "answers/old/a.md").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"old/a\.md is not UTF-8 text"):
        read_answers(tmp_path / "answers", bench)
