"""Documents become text in a program: complete, in order, cancelled at once, and with failures by page."""

import asyncio
import io
import re
import signal
import threading

import pytest
from PIL import Image

import olmocr
from olmocr import Reader
from olmocr.errors import InputError, ServerError, ServerUnavailableError, UsageError
from tests.pipeline.books import FIGURE, TABLE, write_book
from tests.pipeline.doubles import Model, answer, write_numbered_pdf, write_pdf
from tests.pipeline.doubles import Reader as Numbers

SMALL = {"target_longest_image_dim": 64}


def reader(numbers=None, **options):
    return Reader(ask=(numbers or Numbers()).ask, **SMALL, **options)


@pytest.fixture(autouse=True)
def pythons_own_answer_to_interruptions():
    """Whatever a command that ran in this process before made of them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_document_has_its_text_and_its_pages_in_order(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [3, 1, 2])
    with reader() as open_reader:
        document = open_reader.read(pdf)
    assert document.text == "page 3\npage 1\npage 2"
    assert [page.text for page in document.pages] == ["page 3", "page 1", "page 2"]
    assert [page.page_number for page in document.pages] == [1, 2, 3]
    assert document.page_count == 3
    assert document.failures == ()


def test_pages_are_told_as_they_are_read_and_only_those_that_are_wanted(tmp_path):
    pdf, told = write_numbered_pdf(tmp_path / "a.pdf", [1, 2, 3, 4]), []
    with reader() as open_reader:
        document = open_reader.read(pdf, pages="2-3", on_page=told.append)
    assert document.text == "page 2\npage 3"
    assert {page.page_number for page in told} == {2, 3}
    assert document.page_count == 4


def test_a_model_is_kept_for_the_next_document(tmp_path):
    numbers = Numbers()
    pdfs = [write_numbered_pdf(tmp_path / f"{number}.pdf", [number]) for number in (1, 2)]
    with reader(numbers) as open_reader:
        assert [open_reader.read(pdf).text for pdf in pdfs] == ["page 1", "page 2"]
    assert numbers.asked == [1, 2]


def test_an_asynchronous_program_reads_documents_side_by_side(tmp_path):
    numbers = Numbers(together=2)
    pdfs = [write_numbered_pdf(tmp_path / f"{number}.pdf", [number]) for number in (1, 2)]

    async def read_both():
        async with reader(numbers) as open_reader:
            return await asyncio.gather(*(open_reader.read_async(pdf) for pdf in pdfs))

    assert [document.text for document in asyncio.run(read_both())] == ["page 1", "page 2"]


def test_a_page_without_a_good_answer_is_a_failure_of_the_document(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [1, 2])
    numbers = Numbers({2: [answer("cut", finish_reason="length")]})
    with reader(numbers, max_page_retries=2) as open_reader:
        (failure,) = open_reader.read(pdf).failures
    assert (failure.source, failure.page_number) == (str(pdf), 2)
    assert failure.why


def test_a_document_that_cannot_be_read_raises_and_the_next_one_is_read(tmp_path):
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.4 and nothing else")
    with reader() as open_reader:
        with pytest.raises(InputError, match=r"bad\.pdf"):
            open_reader.read(bad)
        assert open_reader.read(write_numbered_pdf(tmp_path / "a.pdf", [5])).text == "page 5"


@pytest.mark.parametrize("pages", ["7", "0", "x"])
def test_pages_that_a_document_does_not_have_are_refused(tmp_path, pages):
    with reader() as open_reader, pytest.raises(UsageError):
        open_reader.read(write_numbered_pdf(tmp_path / "a.pdf", [1]), pages=pages)


def test_a_folder_of_several_documents_is_refused_with_what_to_use(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        write_numbered_pdf(tmp_path / name, [1])
    with reader() as open_reader, pytest.raises(UsageError, match=r"2 documents.*run_pipeline"):
        open_reader.read(tmp_path)


def test_a_server_that_is_away_raises_and_names_what_happened(tmp_path):
    numbers = Numbers({1: [ServerUnavailableError("the server is away")]})
    with reader(numbers) as open_reader, pytest.raises(ServerError, match="the server is away"):
        open_reader.read(write_numbered_pdf(tmp_path / "a.pdf", [1]))


def test_an_interruption_ends_a_document_at_once_and_the_model_stays(tmp_path):
    pdf, is_first = write_numbered_pdf(tmp_path / "a.pdf", [1, 2]), [True]

    async def ask(request):
        if is_first and is_first.pop():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.Event().wait()
        return answer("read")

    with Reader(ask=ask, **SMALL) as open_reader:
        with pytest.raises(KeyboardInterrupt):
            open_reader.read(pdf)
        assert open_reader.read(pdf).text == "read\nread"


def in_a_cell(cell):
    """Run *cell* as a notebook's kernel does: within an event loop that runs, and with Python's own answer to Stop."""

    async def run():
        return cell()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def stopping(pages_before):
    """Return what answers pages, and what they are; it presses Stop at one, and waits for ever."""
    asked = []

    async def ask(request):
        asked.append(request)
        if len(asked) == pages_before + 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        if len(asked) > pages_before:
            await asyncio.Event().wait()
        return answer("read")

    return ask, asked


def test_stop_in_a_notebook_ends_a_document_before_its_other_pages(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 25))
    ask, asked = stopping(3)
    with pytest.raises(KeyboardInterrupt):
        in_a_cell(lambda: olmocr.read(pdf, ask=ask, max_concurrent_pages=2, **SMALL))
    assert len(asked) <= 5


def test_stop_in_a_notebook_ends_a_run_and_what_was_read_is_kept(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", range(1, 7))
    config = olmocr.PipelineConfig(
        workspace=tmp_path / "ws", pdfs=[pdf], model="m", max_concurrent_pages=1, target_longest_image_dim=64
    )
    ask, asked = stopping(3)
    with pytest.raises(KeyboardInterrupt):
        in_a_cell(lambda: olmocr.run_pipeline_sync(config, ask=ask))
    again = Numbers()
    in_a_cell(lambda: olmocr.run_pipeline_sync(config, ask=again.ask))
    assert (len(asked), again.asked) == (4, [4, 5, 6])


def test_a_reader_that_was_not_entered_says_how(tmp_path):
    with pytest.raises(RuntimeError, match="with Reader"):
        reader().read(write_pdf(tmp_path / "a.pdf"))


def test_neither_a_model_nor_a_server_is_a_usage_error():
    with pytest.raises(UsageError, match="no model is named"):
        Reader()


def test_one_call_reads_a_document(tmp_path):
    pdf = write_numbered_pdf(tmp_path / "a.pdf", [9])
    assert olmocr.read(pdf, ask=Numbers().ask, **SMALL).text == "page 9"
    assert asyncio.run(olmocr.read_async(pdf, ask=Numbers().ask, **SMALL)).text == "page 9"


@pytest.mark.parametrize(("setting", "words"), [("modle", "no setting 'modle'$"), ("figures", "with each document")])
def test_a_setting_that_a_reader_does_not_have_is_named(setting, words):
    with pytest.raises(TypeError, match=words):
        Reader("m", **{setting: True})


def test_public_names_are_completed_and_no_others():
    assert {name for name in dir(olmocr) if not name.startswith("_")} == set(olmocr.__all__) - {"__version__"}


def test_public_names_lead_to_what_they_name():
    assert {"Reader", "read", "Document", "PageRecord", "errors", "run_pipeline"} <= set(dir(olmocr))
    assert olmocr.errors.InputError is InputError


def links_in(text):
    return re.findall(r"\]\(([^()]*)\)", text)


@pytest.fixture
def book(tmp_path):
    """Return a function that reads a book of three pages, each with *text*."""
    path = write_book(tmp_path / "book.pdf", 3)

    def read(text, **asked):
        return olmocr.read(path, ask=Model(answer(text)).ask, pages="2", **asked)

    return read


def test_figures_are_data_to_which_the_text_leads(book):
    document = book(f"Text\n\n{FIGURE}", figures=True)
    (figure,) = document.files
    assert (figure.page_number, figure.kind, figure.media_type, figure.path) == (2, "figure", "image/png", None)
    assert links_in(document.text) == links_in(document.pages[0].text) == [figure.link] == ["page-0002-figure-1.png"]
    with Image.open(io.BytesIO(figure.content)) as picture:
        assert picture.size == (644, 644)


def test_figures_and_tables_go_into_a_folder_to_which_links_lead(book, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = book(f"{FIGURE}\n{TABLE}", figures=True, tables="csv", files_folder="my files")
    figure, table = document.files
    assert links_in(document.text) == [figure.link, table.link]
    assert figure.link == "my%20files/page-0002-figure-1.png"
    assert figure.path.read_bytes() == figure.content
    assert table.content == b"Year,Sum\r\n2024,'=1|2\r\n"
    assert TABLE in document.text


def test_files_are_never_replaced_and_the_same_ones_are_not_written_twice(book, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "page-0002-figure-1.png").write_text("mine")
    (folder / "page-0002-figure-1-2.png").symlink_to(tmp_path / "elsewhere.png")
    names = [book(FIGURE, figures=True, files_folder=folder).files[0].name for _ in range(2)]
    assert names == ["page-0002-figure-1-3.png"] * 2
    assert (folder / "page-0002-figure-1.png").read_text() == "mine"
    assert not (tmp_path / "elsewhere.png").exists()


@pytest.mark.parametrize(
    "name", ["page_0_0_99999_9.png", "page_../../../../x_1_1_1.png", "page_1_1_1_1/../../x.png", "page\x1b[31m.png"]
)
def test_what_a_model_calls_a_figure_never_becomes_a_path(book, tmp_path, name):
    text = f"![a]({name})"
    document = book(text, figures=True, files_folder=tmp_path / "files")
    assert (document.text, document.files) == (text, ())
    assert list((tmp_path / "files").iterdir()) == []
    for failure in document.left_as_is:
        assert failure.page_number == 2
        assert "\x1b" not in failure.why


def test_a_figure_or_table_that_stays_is_told_with_its_page(book):
    document = book("![a](page_0_0_9999_9.png)\n\n<table><tr><td>a", figures=True, tables="markdown")
    assert [failure.as_json["page_number"] for failure in document.left_as_is] == [2, 2]
    assert "page_0_0_9999_9.png is not cut out" in document.left_as_is[0].why
    assert "does not end" in document.left_as_is[1].why
    assert document.failures == ()


def test_tables_become_markdown(book):
    assert "| Year | Sum |" in book(TABLE, tables="markdown").text


def test_running_heads_are_dropped_and_told(tmp_path):
    path, told = write_book(tmp_path / "book.pdf", 3), []
    with Reader(ask=Model(answer("Annual Report\n\nText")).ask) as open_reader:
        document = open_reader.read(path, headers="drop", on_page=told.append)
        assert open_reader.read(path).text.count("Annual Report") == 3
    assert document.text == "Text\nText\nText"
    assert document.dropped_lines == tuple((number, "Annual Report") for number in (1, 2, 3))
    assert "Annual Report" in told[0].text, "a page is told as the model wrote it"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"figures": "out"}, "figures must be True or False"),
        ({"tables": "xlsx"}, "html, markdown, csv"),
        ({"headers": "none"}, "keep, drop"),
        ({"files_folder": "out"}, "`files_folder` would stay empty"),
        ({"files_folder": "s3://a/b", "figures": True}, "not on this disk"),
    ],
)
def test_a_form_that_there_is_not_is_refused_before_anything_is_asked(tmp_path, monkeypatch, asked, words):
    monkeypatch.chdir(tmp_path)
    numbers = Numbers()
    with reader(numbers) as open_reader, pytest.raises(UsageError, match=words):
        open_reader.read(write_numbered_pdf(tmp_path / "a.pdf", [1]), **asked)
    assert (numbers.asked, [path.name for path in tmp_path.iterdir()]) == ([], ["a.pdf"])
