"""A document on this disk -> its pages, each as soon as it is read, and the result of all of them, as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmocr.backends.choice import Answering
from olmocr.files import temporary_folder
from olmocr.inputs.local_file import content_hash
from olmocr.inputs.sources import Source
from olmocr.page import Ask
from olmocr.pipeline.config import TextForm
from olmocr.pipeline.ocr_page import Terms
from olmocr.pipeline.one_document import PageReader
from olmocr.pipeline.page_ranges import wanted_numbers
from olmocr.pipeline.repetition import has_looped
from olmocr.pipeline.shown import FIGURE_SIDE, NOTHING, Looked, Showing, cut_out, find_heads
from olmocr.pipeline.turns import side_by_side
from olmocr.rendering.pool import RenderPool
from olmocr.serving.bounds import Bound
from olmocr.serving.refusals import RequestError, bad_request, without_paths
from olmocr.serving.requests.uploads import Wanted
from olmocr.workspace.document import AttachedFile, Document, PageRecord, page_failure
from olmocr.workspace.outputs import markdown_of
from olmocr.workspace.running_heads import RunningHeads

TERMS = Terms(guided="retries", is_looping=has_looped)
"""The pipeline's own value."""

_BYTES_A_PIXEL = 4  # three, and some for what is made from them
_FIGURE_BYTES_A_PIXEL = 12  # a page's pixels: as they come, as a picture, turned, and as a figure of almost all


@dataclass(frozen=True, kw_only=True)
class DocumentReader:
    """Reads documents: renders pages with *pool*, and asks *ask* about *at_once* pages of one document.

    *model* is the model's name in records; *on_page* is called with each page. *rendered* limits the number of rendered
    pages of all documents together, *pixels* their bytes, and *kept* the number of pages of documents being read, since
    their text is kept until the last page is done. *figure_bytes* limits one page's figures, as PNG, which are on the
    disk beside the document while they are sent.
    """

    ask: Ask
    pool: RenderPool
    model: str
    at_once: int
    rendered: asyncio.Semaphore
    pixels: Bound
    kept: Bound
    most_pages: int
    figure_bytes: int
    terms: Terms = TERMS
    on_page: Callable[[PageRecord], None] = lambda page: None

    async def read(self, path: Path, name: str, wanted: Wanted) -> AsyncGenerator[dict[str, Any]]:
        """Yield what the document is, its pages as they are finished, and the result of all; each with its *type*.

        A page's files follow it, each with its *content* as an :class:`~olmocr.workspace.document.AttachedFile`: it is
        removed when the next line is requested.

        Raises:
            InputError: it cannot be read at all.
            RequestError: it has too many pages, or none of those requested.
            ServerError: the model no longer answers.
        """
        started = time.monotonic()
        count = await self.pool.page_count(path, name)
        numbers = self._numbers(count, wanted)
        sha256 = await asyncio.to_thread(content_hash, path, name)
        about = {"type": "document", "name": name, "sha256": sha256, "page_count": count, "pages": list(numbers)}
        empty = Document(Source(name, path), sha256, (), count)
        records: list[PageRecord] = []
        pages_of_it = self._pages(path, name, numbers, wanted.longest_side)
        async with (
            self.kept.taken(len(numbers)),
            self._heads(path, name, numbers, wanted.form) as heads,
            contextlib.aclosing(pages_of_it) as pages,
        ):
            if len(numbers) > 1:  # for a single page it is not yet known whether there is anything to report
                yield about
            async for record in pages:
                if len(numbers) == 1:
                    yield about
                self.on_page(record)
                page = replace(empty, pages=(record,))
                async with self._shown(page, path, wanted.form, heads) as shown:
                    records += shown.pages
                    yield page_json(shown.pages[0], name) | _beside_json(shown, wanted.form)
                    for file in shown.files:
                        yield file_json(file)
        records.sort(key=lambda record: record.page_number)
        document = replace(empty, pages=tuple(records))
        yield summary_json(document, time.monotonic() - started, markdown=wanted.markdown)

    @contextlib.asynccontextmanager
    async def _heads(
        self, path: Path, name: str, numbers: tuple[int, ...], form: TextForm
    ) -> AsyncIterator[asyncio.Future[RunningHeads] | None]:
        """Yield the running heads, found while the first pages are read; None if they are to stay."""
        if form.headers == "keep":
            yield None
            return
        heads = asyncio.ensure_future(find_heads(path, name, numbers, self.pool))
        try:
            yield heads
        finally:
            heads.cancel()
            await asyncio.gather(heads, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _shown(
        self, page: Document, path: Path, form: TextForm, heads: asyncio.Future[RunningHeads] | None
    ) -> AsyncIterator[Document]:
        """Yield a document of one *page* in the requested form; its figures are beside the file at *path*."""
        if form.is_as_read:
            yield page
            return
        with contextlib.ExitStack() as stack:
            looked = NOTHING
            if form.figures:
                folder = stack.enter_context(temporary_folder(path.parent))
                looked = await self._cut_out(page, path, folder)
            if heads is not None:
                looked = replace(looked, heads=await heads)
            showing = Showing(page, looked, form)
            yield replace(showing.shown(), files=tuple(showing.attached()))

    async def _cut_out(self, page: Document, path: Path, folder: Path) -> Looked:
        async with self.pixels.taken(_FIGURE_BYTES_A_PIXEL * FIGURE_SIDE**2):
            return await cut_out(page, path, self.pool, folder, self.figure_bytes)

    def _numbers(self, count: int, wanted: Wanted) -> tuple[int, ...]:
        numbers = wanted_numbers(wanted.pages, count)
        if not numbers:
            raise bad_request(f"the document has {count} pages and none of those requested", "pages")
        if len(numbers) > self.most_pages:
            raise RequestError(
                413,
                f"{len(numbers)} pages are requested, and this server reads {self.most_pages} at most; ask for some",
                code="too_many_pages",
                param="pages",
            )
        return numbers

    def _pages(self, path: Path, name: str, numbers: tuple[int, ...], longest_side: int) -> AsyncGenerator[PageRecord]:
        """Yield pages as they are finished; closing this ends unfinished ones."""
        reader = PageReader(path, name, self.pool, longest_side, self.terms, is_only=len(numbers) == 1)

        async def read(number: int) -> PageRecord:
            async with self.rendered, self.pixels.taken(_BYTES_A_PIXEL * longest_side**2):
                return await reader.read(number, contextlib.nullcontext(Answering(self.ask, self.model)))

        return side_by_side(numbers, read, self.at_once)


def page_json(record: PageRecord, name: str) -> dict[str, Any]:
    """Return a page of the document *name* as reported to a client.

    *failure* says why its text is not the model's, and so does *error*, in words alone.
    """
    response = record.response
    rejected = [without_paths(why) for why in record.rejected]
    failure = page_failure(name, dataclasses.replace(record, rejected=tuple(rejected)))
    return {
        "type": "page",
        "page_number": record.page_number,
        "status": record.status,
        "error": failure.why if failure else None,
        "failure": failure.as_json if failure else None,
        "text": response.natural_text,
        "primary_language": response.primary_language,
        "is_rotation_valid": response.is_rotation_valid,
        "is_table": response.is_table,
        "is_diagram": response.is_diagram,
        "rotation": record.rotation,
        "attempts": record.attempts,
        "rejected": rejected,
        "ends": list(record.ends),
        "temperature": record.temperature,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "total_output_tokens": record.total_output_tokens,
        "text_coverage": record.coverage,
        "low_coverage": record.lacks_text,
        "seconds": record.seconds,
    }


def _beside_json(shown: Document, form: TextForm) -> dict[str, Any]:
    """Return what accompanies a page whose text was changed after reading: files, and what stayed or was dropped."""
    if form.is_as_read:
        return {}
    return {
        "files": [file.name for file in shown.files],
        "left_as_is": [{**each.as_json, "why": without_paths(each.why)} for each in shown.left_as_is],
        "dropped_lines": [line for _, line in shown.dropped_lines],
    }


def file_json(file: AttachedFile) -> dict[str, Any]:
    """Return a file that a page's text links to, with its *content* to be read."""
    return {
        "type": "file",
        "page_number": file.page_number,
        "kind": file.kind,
        "name": file.name,
        "media_type": file.media_type,
        "content": file,
    }


def summary_json(document: Document, seconds: float, *, markdown: bool) -> dict[str, Any]:
    """Return the result for a document: counts, and its text as markdown."""
    pages = document.pages
    return {
        "type": "summary",
        "pages": len(pages),
        "blank_pages": [page.page_number for page in pages if page.status == "blank"],
        "retried_pages": [page.page_number for page in pages if page.attempts > 1],
        "fallback_pages": list(document.fallback_pages),
        "failures": [{**each.as_json, "why": without_paths(each.why)} for each in document.failures],
        "input_tokens": sum(page.input_tokens for page in pages),
        "output_tokens": sum(page.total_output_tokens for page in pages),
        "seconds": round(seconds, 3),
        **({"markdown": markdown_of(document)} if markdown else {}),
    }
