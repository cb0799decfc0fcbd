"""A document as it was read -> as its markdown shows it: figures as files, tables in another form, no running heads.

The result, and what is kept of each page, stay as the model wrote them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Literal
from urllib.parse import quote

from olmocr.errors import InputError, output_error
from olmocr.page import TARGET_LONGEST_IMAGE_DIM
from olmocr.pipeline.config import TextForm
from olmocr.rendering.figures import figure_names, figures_of, with_links
from olmocr.rendering.pool import RenderPool
from olmocr.rendering.render import turned
from olmocr.strays import NOT_TO_READ
from olmocr.text import in_a_line
from olmocr.workspace.document import AttachedFile, Document, Failure, PageRecord
from olmocr.workspace.running_heads import Edges, RunningHeads, running_heads
from olmocr.workspace.tables import LeftAsItIs, Table, as_csv, split_at_tables, tables_as_markdown

log = logging.getLogger(__name__)

FIGURE_SIDE = 2 * TARGET_LONGEST_IMAGE_DIM
"""Pixels on the longest side of a page from which figures are cut: twice what the model sees, 220 per inch of A4."""

_Figure = tuple[int, str]  # a page's number, and the name that its text has for a figure


@dataclass(frozen=True)
class Looked:
    """What a document's pages show: figures cut out, as files by page and name; why others were not; running heads."""

    figures: Mapping[_Figure, Path] = field(default_factory=dict)
    refused: Mapping[_Figure, str] = field(default_factory=dict)
    heads: RunningHeads | None = None


NOTHING = Looked()


async def look_into(document: Document, path: Path, pool: RenderPool, folder: Path, form: TextForm) -> Looked:
    """Cut the figures that *document*'s text names out of the file at *path* into *folder*; find its running heads.

    Raises:
        OutputError: *folder* cannot be written.
    """
    looked = await cut_out(document, path, pool, folder) if form.figures else NOTHING
    if form.headers == "drop":
        numbers = [page.page_number for page in document.pages]
        looked = replace(looked, heads=await find_heads(path, document.source.name, numbers, pool))
    return looked


async def find_heads(path: Path, name: str, numbers: Iterable[int], pool: RenderPool) -> RunningHeads:
    """Return the lines that repeat at the edges of these pages of the file at *path*, called *name*."""
    edges: dict[int, Edges] = {}
    for number in numbers:
        try:
            top, bottom = await pool.edges(path, name, number)
        except InputError:  # a damaged page has no lines to compare
            continue
        edges[number] = Edges(tuple(top), tuple(bottom))
    return running_heads(edges)


async def cut_out(
    document: Document, path: Path, pool: RenderPool, folder: Path, most_bytes: int | None = None
) -> Looked:
    """Cut the figures that *document*'s text names out of the file at *path* into *folder*, as PNG.

    *most_bytes* limits the figures of one page together; None means no limit.

    Raises:
        OutputError: *folder* cannot be written.
    """
    figures: dict[_Figure, Path] = {}
    refused: dict[_Figure, str] = {}
    for page in document.pages:
        if _is_markdown(page) and figure_names(page.text):
            async for name, found in _cut(document.source.name, page, path, pool, folder, most_bytes):
                if isinstance(found, Path):
                    figures[page.page_number, name] = found
                else:
                    refused[page.page_number, name] = found
    return Looked(figures, refused)


def _is_markdown(page: PageRecord) -> bool:
    return page.status == "valid"


async def _cut(
    source: str, page: PageRecord, path: Path, pool: RenderPool, folder: Path, most_bytes: int | None
) -> AsyncIterator[tuple[str, Path | str]]:
    """Yield the names that a page's text has for figures, and the file of each, or why there is none."""
    try:
        rendered = await pool.render(path, source, page.page_number, FIGURE_SIDE)
    except InputError as error:
        for name in figure_names(page.text):
            yield name, str(error)
        return
    found = figures_of(page.text, turned(rendered.image, page.rotation))
    written = 0
    # One by one: a caller that leaves ends this before the next figure.
    while (each := await asyncio.to_thread(next, found, None)) is not None:
        name, picture = each
        if isinstance(picture, str):
            yield name, picture
            continue
        file = folder / f"{page.page_number}-{secrets.token_hex(8)}.png"
        try:
            await asyncio.to_thread(picture.save, file, "PNG")
            size = file.stat().st_size
        except OSError as error:
            raise output_error(
                error, f"a temporary file with a figure of {source} (set TMPDIR to use another folder)"
            ) from error
        if most_bytes is not None and written + size > most_bytes:
            file.unlink()
            yield name, f"the page's figures have more than {most_bytes >> 20} MiB"
            continue
        written += size
        yield name, file


class Showing:
    """A document's text in the requested *form*, and the files that belong to it."""

    def __init__(self, document: Document, looked: Looked, form: TextForm) -> None:
        self._document = document
        self._looked = looked
        self._form = form
        self._names = _figure_files(looked)
        self._left: list[tuple[int, str]] = []
        self._dropped: list[tuple[int, str]] = []
        self._texts = {page.page_number: self._text(page) for page in document.pages}

    def files(self) -> dict[str, str | Path]:
        """Return the figures and tables by file name."""
        files = {name: content for _, _, name, content in self._files()}
        if files:
            files[NOT_TO_READ] = "olmocr wrote the files in this folder, and does not read them as documents.\n"
        return files

    def attached(self) -> Iterator[AttachedFile]:
        """Yield the figures and tables; a figure stays in the folder it was cut into, and is removed with it."""
        for number, kind, name, content in self._files():
            if isinstance(content, Path):
                yield AttachedFile(number, kind, name, name, content)
            else:
                yield AttachedFile(number, kind, name, name, data=content.encode())

    def _files(self) -> Iterator[tuple[int, Literal["figure", "table"], str, str | Path]]:
        for figure, path in self._looked.figures.items():
            yield figure[0], "figure", self._names[figure], path
        for page in self._document.pages if self._form.tables == "csv" else ():
            for name, table in self._csv_tables(page).items():
                yield page.page_number, "table", name, as_csv(table)

    def linked(self, attached: PurePath | None, folder: PurePath) -> Document:
        """Return the document with links to its files in *attached*, for a text that lies in *folder*."""
        if attached is None:
            return self.shown()
        way = quote(Path(os.path.relpath(attached, folder)).as_posix())
        return self.shown(lambda name: f"{way}/{name}")

    def shown(self, link: Callable[[str], str] = lambda name: name) -> Document:
        """Return the document as it should be shown; *link* returns the link to a file by its name."""
        pages = tuple(
            replace(page, response=replace(page.response, natural_text=self._linked_text(page, link)))
            if page.response.natural_text is not None
            else page
            for page in self._document.pages
        )
        left, dropped = tuple(self._all_left()), tuple(self._dropped)
        return replace(self._document, pages=pages, left_as_is=left, dropped_lines=dropped)

    def _all_left(self) -> Iterator[Failure]:
        source = self._document.source.name
        for (number, figure), why in self._looked.refused.items():
            yield Failure(source, f"{in_a_line(figure)} is not cut out: {in_a_line(why)}", number)
        for number, why in self._left:
            yield Failure(source, f"a table is HTML only: {why}", number)

    def _text(self, page: PageRecord) -> str:
        """Return a page's text without running heads, its tables in the requested form."""
        text, number = page.text, page.page_number
        if self._looked.heads is not None and page.rotation == 0:
            text, dropped = self._looked.heads.without(number, text)
            self._dropped += [(number, line) for line in dropped]
        if not _is_markdown(page):
            return text
        if self._form.tables == "markdown":
            return tables_as_markdown(text, lambda why: self._left.append((number, why)))
        if self._form.tables == "csv":
            self._left += [(number, piece.why) for piece in split_at_tables(text) if isinstance(piece, LeftAsItIs)]
        return text

    def _linked_text(self, page: PageRecord, link: Callable[[str], str]) -> str:
        text, number = self._texts[page.page_number], page.page_number
        if self._form.tables == "csv" and _is_markdown(page):
            text = self._with_csv_links(text, number, link)
        return with_links(text, {name: link(file) for (at, name), file in self._names.items() if at == number})

    def _with_csv_links(self, text: str, number: int, link: Callable[[str], str]) -> str:
        pieces, count = [], 0
        for piece in split_at_tables(text):
            if isinstance(piece, str):
                pieces.append(piece)
            elif isinstance(piece, LeftAsItIs):
                pieces.append(piece.html)
            else:
                count += 1
                pieces.append(f"{piece.html}\n\n[This table as CSV]({link(_csv_name(number, count))})\n\n")
        return "".join(pieces)

    def _csv_tables(self, page: PageRecord) -> dict[str, Table]:
        if not _is_markdown(page):
            return {}
        tables = [piece for piece in split_at_tables(self._texts[page.page_number]) if isinstance(piece, Table)]
        return {_csv_name(page.page_number, at): table for at, table in enumerate(tables, 1)}

    def tell(self) -> None:
        """Log what could not be done, and what was left out, once for all pages."""
        name = in_a_line(self._document.source.name)
        if self._looked.refused:
            (number, figure), why = next(iter(self._looked.refused.items()))
            log.warning(
                "%s: %d of %d figures are not cut out (first: %s of page %d: %s)",
                name, len(self._looked.refused), len(self._looked.refused) + len(self._looked.figures),
                in_a_line(figure), number, in_a_line(why),
            )  # fmt: skip
        if self._left:
            number, why = self._left[0]
            log.warning("%s: %d tables are HTML only (first: page %d: %s)", name, len(self._left), number, why)
        if self._dropped:
            number, line = self._dropped[0]
            log.info(
                "%s: %d lines that repeat at the edges of pages are left out (first: page %d: %s)",
                name, len(self._dropped), number, in_a_line(line),
            )  # fmt: skip
        elif self._looked.heads is not None:
            log.info("%s: no line is left out, since none in the file's own text repeats at the edges of pages", name)


def _figure_files(looked: Looked) -> dict[_Figure, str]:
    """Return what each figure's file is called."""
    counts: dict[int, int] = {}
    names = {}
    for number, name in looked.figures:
        counts[number] = counts.get(number, 0) + 1
        names[number, name] = f"page-{number:04}-figure-{counts[number]}.png"
    return names


def _csv_name(number: int, count: int) -> str:
    return f"page-{number:04}-table-{count}.csv"
