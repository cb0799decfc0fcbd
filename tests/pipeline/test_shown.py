"""Figures as files, tables in other forms, and no running heads: in a whole run, and later without a model."""

import asyncio
import csv
import re

import pytest
from PIL import Image

from olmocr.pipeline.config import PipelineConfig
from olmocr.pipeline.run import run_pipeline
from tests.pipeline.books import FIGURE, TABLE, write_book
from tests.pipeline.doubles import Model, answer
from tests.rendered_here import PoolHere


@pytest.fixture
def run(tmp_path):
    """Return what runs a workspace over book.pdf, and asks nobody where no answer is given."""
    book = tmp_path / "book.pdf"

    def run(*answers, pages=1, rotate=0, **options):
        if not book.exists():
            write_book(book, pages, rotate)
        options = {"markdown": True, "workspace": tmp_path / "ws", "pdfs": book, "model": "m", **options}
        model = Model(*(answers or [AssertionError("the model was asked")]))
        return asyncio.run(run_pipeline(PipelineConfig(**options), ask=model.ask, open_pool=PoolHere))

    return run


def markdown_in(folder):
    (path,) = folder.rglob("book.md")
    return path


def links_in(markdown):
    return re.findall(r"\]\(([^()]*)\)", markdown.read_text())


def assert_is_the_square(path):
    with Image.open(path) as picture:
        assert picture.size == (644, 644), "twice as large as the model saw it"
        colors = {color for count, color in picture.getcolors(1 << 16) if count > 100}
        assert {(0, 0, 255), (255, 255, 0)} <= colors


def test_figures_are_cut_and_linked(run, tmp_path):
    run(answer(f"Text\n\n{FIGURE}\n"), figures=True)
    markdown = markdown_in(tmp_path / "ws")
    assert links_in(markdown) == ["book.files/page-0001-figure-1.png"]
    assert_is_the_square(markdown.parent / links_in(markdown)[0])
    (result,) = (tmp_path / "ws" / "results").iterdir()
    assert "page_512_1024_512_512.png" in result.read_text(), "the result is as the model wrote it"


def test_figures_may_be_asked_for_later_and_cost_no_answer_and_go_again(run, tmp_path):
    run(answer(FIGURE))
    before = markdown_in(tmp_path / "ws").read_text()
    run(figures=True)
    markdown = markdown_in(tmp_path / "ws")
    picture = markdown.parent / links_in(markdown)[0]
    assert_is_the_square(picture)
    assert run(figures=True).skipped == 1
    picture.unlink()
    run(figures=True)
    assert_is_the_square(picture)
    run()
    assert markdown.read_text() == before
    assert not picture.parent.exists()


def test_page_files_lead_to_the_figures_as_well(run, tmp_path):
    run(answer(FIGURE), figures=True, page_files=True)
    (page,) = (tmp_path / "ws" / "pages").rglob("0001.md")
    assert_is_the_square(page.parent / links_in(page)[0])


def test_a_figure_of_a_page_that_was_turned_is_cut_as_the_model_saw_it(run, tmp_path):
    run(answer("x", valid=False, turn=180), answer(FIGURE), rotate=180, figures=True)
    markdown = markdown_in(tmp_path / "ws")
    assert_is_the_square(markdown.parent / links_in(markdown)[0])


def test_a_box_that_is_not_believed_keeps_its_name_and_is_told(run, tmp_path, caplog):
    run(answer(f"![a](page_9_9_99999_9.png) {FIGURE}"), figures=True)
    links = links_in(markdown_in(tmp_path / "ws"))
    assert links == ["page_9_9_99999_9.png", "book.files/page-0001-figure-1.png"]
    assert "1 of 2 figures are not cut out (first: page_9_9_99999_9.png of page 1" in caplog.text


def test_a_persons_files_are_never_replaced_by_figures(run, tmp_path):
    out = tmp_path / "out"
    run(answer(FIGURE), output_dir=out)
    folder = markdown_in(out).parent / "book.files"
    folder.mkdir()
    (folder / "page-0001-figure-1.png").write_text("mine")
    run(output_dir=out, figures=True)
    assert (folder / "page-0001-figure-1.png").read_text() == "mine"
    markdown = markdown_in(out)
    assert_is_the_square(markdown.parent / links_in(markdown)[0])


def test_figures_are_not_read_as_documents(run, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    write_book(folder / "book.pdf")
    options = {"pdfs": folder, "output_dir": folder, "figures": True}
    assert run(answer(FIGURE), **options).done == 1
    assert len(list(folder.rglob("*.png"))) == 1
    assert run(**options).skipped == 1


def test_tables_become_markdown_also_later(run, tmp_path):
    run(answer(f"Before\n{TABLE}\nAfter"))
    run(tables="markdown")
    text = markdown_in(tmp_path / "ws").read_text()
    assert text == "Before\n\n| Year | Sum |\n| --- | --- |\n| 2024 | =1\\|2 |\n\nAfter"
    run()
    assert TABLE in markdown_in(tmp_path / "ws").read_text()


def test_tables_become_files_of_csv_that_the_text_leads_to(run, tmp_path):
    run(answer(f"Before\n{TABLE}\nAfter"), tables="csv")
    markdown = markdown_in(tmp_path / "ws")
    assert TABLE in markdown.read_text()
    assert links_in(markdown) == ["book.files/page-0001-table-1.csv"]
    with (markdown.parent / links_in(markdown)[0]).open(newline="") as file:
        assert list(csv.reader(file)) == [["Year", "Sum"], ["2024", "'=1|2"]]


def test_a_table_that_stays_html_is_told(run, caplog):
    run(answer("<table><tr><td>a"), tables="markdown")
    assert "1 tables are HTML only (first: page 1: it does not end)" in caplog.text


def test_running_heads_are_left_out_where_the_files_own_text_tells_them(run, tmp_path):
    pages = [answer(f"Annual Report\n\nText {number}\n\n{number}") for number in (1, 2, 3)]
    run(*pages, pages=3, workers=1, headers="drop", page_separator="\n--\n")
    texts = markdown_in(tmp_path / "ws").read_text().split("\n--\n")
    assert [text for text in texts if "Annual" in text] == []
    run(page_separator="\n--\n")
    assert "Annual Report" in markdown_in(tmp_path / "ws").read_text()
