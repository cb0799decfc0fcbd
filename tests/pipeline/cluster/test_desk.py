"""What one reader does with documents that it is sent."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from olmocr import PipelineConfig
from olmocr.backends.choice import Answering
from olmocr.errors import CheckpointError, InputError
from olmocr.inputs.sources import find_sources
from olmocr.page import ModelResponse
from olmocr.pipeline.cluster.desk import (
    Desk,
    Fault,
    OpenedThere,
    PageQuestion,
    SentDocument,
    _with_port_of_its_own,
    reader_terms,
)
from olmocr.pipeline.config import ReadingConfig
from olmocr.version import __version__
from tests.pipeline.doubles import Reader, write_numbered_pdf
from tests.rendered_here import PoolHere

CONFIG = PipelineConfig(workspace="ws", pdfs="a.pdf", model="m", ray="local", target_longest_image_dim=64)


class Sender:
    """Sends a file's bytes, and counts how often."""

    def __init__(self):
        self.sent = 0

    async def fetch(self, content):
        self.sent += 1
        return content


def desk_of(model, sender, terms=None):
    @contextlib.asynccontextmanager
    async def answering():
        yield Answering(model.ask, "m")

    return Desk(terms or reader_terms(CONFIG), sender.fetch, open_pool=PoolHere, open_answering=answering)


def document(path, token="t"):
    (source,) = find_sources([str(path)])
    return SentDocument(token, source, path.read_bytes())


def read_all(path, pages, content=None):
    sender, model = Sender(), Reader()

    async def run():
        async with desk_of(model, sender) as desk:
            sent = document(path)
            opened = await desk.open(sent)
            questions = [
                PageQuestion(sent, opened.sha256, number, (0, number), pages == 1) for number in range(1, pages + 1)
            ]
            return opened, await asyncio.gather(*map(desk.read, questions)), list(desk._scratch.iterdir())

    return *asyncio.run(run()), sender, model


def test_a_document_is_fetched_once_for_all_its_pages(tmp_path):
    path = write_numbered_pdf(tmp_path / "a.pdf", [5, 6, 7])
    opened, pages, kept, sender, _ = read_all(path, 3)
    assert (opened.page_count, sender.sent, len(kept)) == (3, 1, 1)
    assert [page.text for page in pages] == ["page 5", "page 6", "page 7"]
    assert {page.model for page in pages} == {"m"}


def test_many_documents_leave_no_more_files_than_are_kept_and_none_afterwards(tmp_path):
    paths = [write_numbered_pdf(tmp_path / f"{number}.pdf", [number]) for number in range(1, 31)]

    async def run():
        async with desk_of(Reader(), Sender()) as desk:
            for at, path in enumerate(paths):
                await desk.open(document(path, f"t{at}"))
            scratch = desk._scratch
            return scratch, len(list(scratch.iterdir()))

    scratch, count = asyncio.run(run())
    assert count == 16
    assert not scratch.exists()


def test_a_document_that_is_none_is_a_fault_that_is_told(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4 nothing")

    async def run():
        async with desk_of(Reader(), Sender()) as desk:
            return await desk.open(document(path))

    found = asyncio.run(run())
    assert isinstance(found, Fault)
    assert isinstance(found.error, InputError)


def test_a_document_that_has_changed_meanwhile_is_not_read(tmp_path):
    path = write_numbered_pdf(tmp_path / "a.pdf", [5])

    async def run():
        async with desk_of(Reader(), Sender()) as desk:
            return await desk.read(PageQuestion(document(path), "0" * 64, 1, (0, 1), True))

    assert "changed while it was being read" in str(asyncio.run(run()).error)


def test_what_could_not_be_fetched_is_tried_again(tmp_path):
    path = write_numbered_pdf(tmp_path / "a.pdf", [5])
    sender = Sender()
    fetch = sender.fetch

    async def once(content):
        if not sender.sent:
            sender.sent = 1
            raise InputError("it did not come")
        return await fetch(content)

    sender.fetch = once

    async def run():
        async with desk_of(Reader(), sender) as desk:
            return await desk.open(document(path)), await desk.open(document(path))

    first, second = asyncio.run(run())
    assert isinstance(first, Fault)
    assert isinstance(second, OpenedThere)


def test_a_reader_says_what_it_is_once_it_has_its_model(tmp_path):
    async def run():
        async with desk_of(Reader(), Sender()) as desk:
            return await desk.load()

    info = asyncio.run(run())
    assert (info.version, info.weights) == (__version__, None)
    assert info.room > 8


def test_without_its_model_it_says_so():
    async def run():
        async with Desk(
            reader_terms(replace(CONFIG, model="/nowhere/at/all")), Sender().fetch, open_pool=PoolHere
        ) as desk:
            return await desk.load()

    assert isinstance(asyncio.run(run()).error, CheckpointError)


def test_a_models_folder_is_named_from_the_root_for_others_and_as_it_was_in_records(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    terms = reader_terms(replace(CONFIG, model="model"))
    assert (terms.config.model, terms.named) == (str(tmp_path / "model"), "model")
    assert type(terms.config) is ReadingConfig
    assert reader_terms(replace(CONFIG, model="org/name")).config.model == "org/name"


def test_a_key_is_sent_to_no_reader():
    assert reader_terms(replace(CONFIG, api_key="secret")).config.api_key is None


@pytest.mark.parametrize("backend", ["mlx-vlm", "vllm"])
def test_servers_that_readers_start_have_ports_of_their_own(backend):
    config = ReadingConfig(model="m", backend=backend)
    assert _with_port_of_its_own(config).port is not None
    assert _with_port_of_its_own(ReadingConfig(model="m")).port is None
    assert _with_port_of_its_own(ReadingConfig(model="m", backend=backend, port=7)).port == 7


def test_an_answer_is_what_one_process_would_have_kept(tmp_path):
    path = write_numbered_pdf(tmp_path / "a.pdf", [5])
    _, (page,), _, _, model = read_all(path, 1)
    assert page.server == ""
    assert model.asked == [5]
    assert isinstance(page.attempts, int)
    assert ModelResponse is not None
