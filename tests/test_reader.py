"""Documents become text in a program: complete, in order, cancelled at once, and with failures by page."""

import asyncio
import signal
import threading

import pytest

import olmocr
from olmocr import Reader
from olmocr.errors import InputError, ServerError, ServerUnavailableError, UsageError
from tests.pipeline.doubles import Reader as Numbers
from tests.pipeline.doubles import answer, write_numbered_pdf, write_pdf

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


def test_public_names_are_completed():
    assert {"Reader", "read", "Document", "PageRecord", "errors", "run_pipeline"} <= set(dir(olmocr))
    assert olmocr.errors.InputError is InputError
