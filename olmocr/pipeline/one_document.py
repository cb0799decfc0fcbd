"""One document -> its pages, side by side, each as soon as it is read: in a run, and in a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from olmocr.backends.choice import Answering
from olmocr.errors import InputError
from olmocr.pipeline.ocr_page import Terms, ocr_page
from olmocr.pipeline.page_records import blank_record, record_of, unrendered_record
from olmocr.rendering.pool import RenderPool
from olmocr.workspace.document import PageRecord

T = TypeVar("T")


@dataclass(frozen=True)
class PageReader:
    """Reads the pages of the document at *path*, called *name*: rendered by *pool*, asked for on *terms*.

    *longest_side* is that of a page's image, in pixels. What is wrong with a page that is the *only* one is wrong with
    the document.
    """

    path: Path
    name: str
    pool: RenderPool
    longest_side: int
    terms: Terms
    is_only: bool

    async def read(self, number: int, turn: AbstractAsyncContextManager[Answering]) -> PageRecord:
        """Return the page (numbers begin at 1). *turn* is entered to ask about it, and yields what is asked.

        Raises:
            InputError: it cannot be rendered, and is the only one.
            ServerError: nobody answers; of a `ServerUnavailableError` another page may have more luck.
        """
        try:
            rendered = await self.pool.render(self.path, self.name, number, self.longest_side)
        except InputError as error:
            if self.is_only:
                raise
            return unrendered_record(number, str(error))
        if rendered.is_blank:
            return blank_record(number)
        async with turn as answers:
            result = await ocr_page(rendered.image, answers.ask, self.terms, text_layer=rendered.text_layer)
            if result.page is None and (fault := answers.fault()) is not None:
                raise fault  # the page ran out of time while it waited for a server: that says nothing of the page
            return record_of(number, result, rendered.text_layer, answers.model)


async def read_pages(numbers: Iterable[int], read: Callable[[int], Awaitable[T]], at_once: int) -> AsyncGenerator[T]:
    """Yield what *read* returns of each page as it comes, *at_once* pages in hand; the first error ends them all.

    A page is begun in the order of *numbers*. Closing this ends all pages that are in hand. What must not be lost
    then is to be kept by *read* itself.
    """
    waiting = iter(numbers)
    reading: set[asyncio.Task[T]] = set()

    def begin_next() -> None:
        for number in waiting:
            reading.add(asyncio.ensure_future(read(number)))
            return

    try:
        for _ in range(at_once):
            begin_next()
        while reading:
            finished, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                reading.discard(task)
                begin_next()
                yield task.result()
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
