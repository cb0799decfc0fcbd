"""Documents -> their text, for programs: a model that stays loaded, and no workspace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from olmocr.errors import UsageError
from olmocr.event_loop import EventLoopThread
from olmocr.inputs.local_file import content_hash, fetched, scratch_folder
from olmocr.inputs.sources import Source, find_sources
from olmocr.page import Ask
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.config import ReadingConfig
from olmocr.pipeline.one_document import PageReader, terms_of
from olmocr.pipeline.page_ranges import parse_page_ranges, wanted_numbers
from olmocr.pipeline.turns import side_by_side
from olmocr.rendering.pool import RenderPool
from olmocr.workspace.document import Document, PageRecord

OnPage = Callable[[PageRecord], None]
"""Called with each page as soon as it is read; pages of one document may come in any order."""


class Reader:
    """Reads documents with a model that is loaded once, when the first page needs it.

    ::

        with Reader("build/demo-8bit") as reader:
            for name in ("a.pdf", "b.png"):
                print(reader.read(name).text)

    ``async with`` and :meth:`read_async` do the same for asynchronous programs. Nothing is kept on the disk: for many
    documents, which should survive an interruption, use :func:`olmocr.run_pipeline`.
    """

    def __init__(self, model: str | Path | None = None, *, ask: Ask | None = None, **settings: Any) -> None:
        """Take what is to answer.

        Args:
            model: a converted model's folder, or a repository on the Hub; with *server*, the name of its model.
            ask: answers instead of a model; for tests, and for models of your own.
            **settings: the other fields of :class:`~olmocr.pipeline.config.ReadingConfig`, such as *server*.

        Raises:
            UsageError: a setting is out of its range, or neither a model nor a server is named.
        """
        name = str(model) if model is not None else None
        if ask is not None and name is None:
            name = getattr(ask, "__name__", type(ask).__name__)
        self._config = ReadingConfig(model=name, **settings)
        self._ask = ask
        self._loop: EventLoopThread | None = None
        self._documents = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._loop = stack.enter_context(EventLoopThread())
            self._loop.run(self.__aenter__())
            self._sync_stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        loop, self._loop = self._loop, None
        with self._sync_stack:
            if loop is not None:
                loop.run(self.__aexit__(*exception))

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._scratch = stack.enter_context(scratch_folder())
            self._pool = await stack.enter_async_context(RenderPool())
            self._answers = await stack.enter_async_context(Answers(self._config, self._scratch, self._ask))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    def read(self, document: str | Path, *, pages: str | None = None, on_page: OnPage = lambda page: None) -> Document:
        """Return what :meth:`read_async` returns. Ctrl-C, or a notebook's Stop, ends it at once."""
        if self._loop is None:
            raise RuntimeError("a Reader is used in a with block: with Reader(model) as reader: reader.read(name)")
        return self._loop.run(self.read_async(document, pages=pages, on_page=on_page))

    async def read_async(
        self, document: str | Path, *, pages: str | None = None, on_page: OnPage = lambda page: None
    ) -> Document:
        """Read one document: its ``text``, its ``pages``, and its ``failures``, pages without a good answer.

        Args:
            document: a PDF or a picture: a path, a URL, a member of an archive (``a.zip::b.pdf``), or ``-`` for
                standard input.
            pages: only these: ``"1-5,9,12-"``.
            on_page: called with each page as soon as it is read.

        Raises:
            InputError: it cannot be read, or has none of those pages.
            ServerError: nobody answers.
            UsageError: it stands for several documents, or *pages* makes no sense.
            OlmocrError: the model cannot be loaded.
        """
        selection = parse_page_ranges(pages) if pages is not None else None
        source = _only_source(str(document))
        self._documents += 1
        place = self._documents
        async with fetched(source, self._scratch) as path:
            count = await self._pool.page_count(path, source.name)
            numbers = wanted_numbers(selection, count)
            if not numbers:
                raise UsageError(f"{source.name} has no page {pages}: it ends with page {count}")
            sha256 = await asyncio.to_thread(content_hash, path, source.name)
            records = await self._read_pages(
                PageReader(
                    path,
                    source.name,
                    self._pool,
                    self._config.target_longest_image_dim,
                    terms_of(self._config),
                    is_only=count == 1,
                ),
                place,
                numbers,
                on_page,
            )
        return Document(source, sha256, tuple(sorted(records, key=lambda page: page.page_number)), count)

    async def _read_pages(
        self, reader: PageReader, document: int, numbers: tuple[int, ...], on_page: OnPage
    ) -> list[PageRecord]:
        async def read(number: int) -> PageRecord:
            place = (document, number)
            async with self._answers.in_hand.turn(place):
                return await reader.read(number, self._answers.turn(place))

        records = []
        async with contextlib.aclosing(side_by_side(numbers, read, self._answers.in_hand.count)) as pages:
            async for page in pages:
                records.append(page)
                on_page(page)
        return records


def read(
    document: str | Path,
    *,
    model: str | Path | None = None,
    pages: str | None = None,
    on_page: OnPage = lambda page: None,
    **settings: Any,
) -> Document:
    """Read one document: ``read("x.pdf", model="build/demo-8bit").text``.

    The model is loaded for this document alone; a :class:`Reader` keeps it. Arguments and errors are those of
    :class:`Reader` and of :meth:`Reader.read_async`.
    """
    with Reader(model, **settings) as reader:
        return reader.read(document, pages=pages, on_page=on_page)


async def read_async(
    document: str | Path,
    *,
    model: str | Path | None = None,
    pages: str | None = None,
    on_page: OnPage = lambda page: None,
    **settings: Any,
) -> Document:
    """Do what :func:`read` does, for asynchronous programs."""
    async with Reader(model, **settings) as reader:
        return await reader.read_async(document, pages=pages, on_page=on_page)


def _only_source(name: str) -> Source:
    sources = find_sources([name])
    if len(sources) != 1:
        raise UsageError(f"{name} stands for {len(sources)} documents; read them one by one, or with run_pipeline")
    return sources[0]
