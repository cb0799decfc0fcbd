"""One document -> its pages, for a run and for a server alike."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from olmocr.backends.choice import Answering
from olmocr.errors import InputError
from olmocr.pipeline.answers import Answers
from olmocr.pipeline.config import ReadingConfig
from olmocr.pipeline.ocr_page import Terms, ocr_page
from olmocr.pipeline.page_records import blank_record, how_asked, record_of, unrendered_record
from olmocr.pipeline.repetition import has_looped
from olmocr.pipeline.turns import Place
from olmocr.rendering.pool import RenderPool
from olmocr.workspace.document import PageRecord


def terms_of(config: ReadingConfig) -> Terms:
    """Return the terms on which pages are asked for."""
    return Terms(
        max_attempts=config.max_page_retries,
        max_tokens=config.max_tokens,
        timeout=config.page_timeout,
        time_limit=config.page_time_limit,
        prompt=config.prompt,
        guided=config.guided_decoding,
        is_looping=has_looped,
    )


@dataclass(frozen=True)
class PageReader:
    """Reads the pages of the document at *path*, called *name*: rendered by *pool*, asked for on *terms*.

    *longest_side* is that of a page's image, in pixels. If a page is the *only* one, its fault is the document's.
    """

    path: Path
    name: str
    pool: RenderPool
    longest_side: int
    terms: Terms
    is_only: bool

    async def read(self, number: int, turn: AbstractAsyncContextManager[Answering]) -> PageRecord:
        """Return the page (numbers begin at 1). *turn* is entered to ask about it, and yields what to ask.

        Raises:
            InputError: it cannot be rendered, and is the only one.
            ServerError: no server answers; after a `ServerUnavailableError`, another page may have more luck.
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
            if not (result.page and result.page.is_rotation_valid) and (fault := answers.fault()) is not None:
                raise fault  # the page timed out while it waited for a server, which is not the page's fault
            record = record_of(number, result, rendered.text_layer, answers.model)
            return replace(record, asked=how_asked(self.terms.prompt, self.longest_side, self.terms.guided))


class ReadableDocument(Protocol):
    """A document that a run has opened, whichever machine reads its pages."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of its bytes."""

    async def page_count(self) -> int:
        """Return how many pages it has.

        Raises:
            InputError: it cannot be opened.
        """

    async def read(self, number: int, place: Place, *, is_only: bool) -> PageRecord:
        """Return a page; its *place* in the order decides its turn. Raises the errors of :meth:`PageReader.read`."""

    def on_this_disk(self) -> AbstractAsyncContextManager[Path]:
        """Yield the path of its file on this machine."""


@dataclass(frozen=True)
class DocumentHere:
    """A document that this process reads: the file at *path*, called *name*, with *answers*, as *config* says."""

    path: Path
    name: str
    sha256: str
    pool: RenderPool
    answers: Answers
    config: ReadingConfig

    async def page_count(self) -> int:
        """Return how many pages it has; raises the errors of :meth:`~olmocr.rendering.pool.RenderPool.page_count`."""
        return await self.pool.page_count(self.path, self.name)

    async def read(self, number: int, place: Place, *, is_only: bool) -> PageRecord:
        """Return a page; raises the errors of :meth:`PageReader.read`."""
        terms, side = terms_of(self.config), self.config.target_longest_image_dim
        reader = PageReader(self.path, self.name, self.pool, side, terms, is_only)
        return await reader.read(number, self.answers.turn(place))

    @contextlib.asynccontextmanager
    async def on_this_disk(self) -> AsyncIterator[Path]:
        """Yield its path."""
        yield self.path
