"""A document as it was read -> as its markdown shows it: figures as files, tables in another form, no running heads.

What the result holds, and what was kept of each page, stays as the model wrote it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from olmocr.errors import InputError, output_error
from olmocr.page import TARGET_LONGEST_IMAGE_DIM
from olmocr.pipeline.config import PipelineConfig
from olmocr.rendering.figures import cut_figures, figure_names, with_links
from olmocr.rendering.pool import RenderPool
from olmocr.rendering.render import turned
from olmocr.strays import NOT_TO_READ
from olmocr.text import in_a_line
from olmocr.workspace.document import Document, PageRecord
from olmocr.workspace.running_heads import Edges, RunningHeads, running_heads
from olmocr.workspace.tables import LeftAsItIs, Table, as_csv, split_at_tables, tables_as_markdown

log = logging.getLogger(__name__)

FIGURE_SIDE = 2 * TARGET_LONGEST_IMAGE_DIM
"""Pixels on the longest side of a page from which figures are cut: twice what the model sees, 220 to an A4's inch."""

_Figure = tuple[int, str]  # a page's number, and the name that its text has for a figure


@dataclass(frozen=True)
class Looked:
    """What a document's pages show: figures that were cut, as files by page and name, why others were not; lines."""

    figures: Mapping[_Figure, Path] = field(default_factory=dict)
    refused: Mapping[_Figure, str] = field(default_factory=dict)
    heads: RunningHeads | None = None


NOTHING = Looked()


async def look_into(document: Document, path: Path, pool: RenderPool, folder: Path, config: PipelineConfig) -> Looked:
    """Cut the figures that *document*'s text names out of the file at *path* into *folder*; find its running heads.

    Raises:
        OutputError: *folder* cannot be written.
    """
    figures: dict[_Figure, Path] = {}
    refused: dict[_Figure, str] = {}
    edges: dict[int, Edges] = {}
    for page in document.pages:
        if config.figures and _is_markdown(page) and figure_names(page.text):
            await _cut(document, page, path, pool, folder, figures, refused)
        if config.headers == "drop" and page.rotation == 0:
            try:
                top, bottom = await pool.edges(path, document.source.name, page.page_number)
            except InputError:  # a damaged page tells nothing
                continue
            edges[page.page_number] = Edges(tuple(top), tuple(bottom))
    return Looked(figures, refused, running_heads(edges) if config.headers == "drop" else None)


def _is_markdown(page: PageRecord) -> bool:
    return page.status == "valid"


async def _cut(
    document: Document,
    page: PageRecord,
    path: Path,
    pool: RenderPool,
    folder: Path,
    figures: dict[_Figure, Path],
    refused: dict[_Figure, str],
) -> None:
    number = page.page_number
    try:
        rendered = await pool.render(path, document.source.name, number, FIGURE_SIDE)
    except InputError as error:
        refused |= {(number, name): str(error) for name in figure_names(page.text)}
        return
    found = cut_figures(page.text, turned(rendered.image, page.rotation))
    refused |= {(number, name): why for name, why in found.refused.items()}
    for name, picture in found.pictures.items():
        file = folder / f"{number}-{len(figures)}.png"
        try:
            await asyncio.to_thread(picture.save, file, "PNG")
        except OSError as error:
            raise output_error(error, f"a temporary file with {name} (TMPDIR names another folder)") from error
        figures[number, name] = file


class Showing:
    """A document's text as *config* wants it shown, and the files that belong to it."""

    def __init__(self, document: Document, looked: Looked, config: PipelineConfig) -> None:
        self._document = document
        self._looked = looked
        self._config = config
        self._names = _figure_files(looked)
        self._left: list[tuple[int, str]] = []
        self._dropped: list[tuple[int, str]] = []
        self._texts = {page.page_number: self._text(page) for page in document.pages}

    def files(self) -> dict[str, str | Path]:
        """Return the figures and tables, by the names of their files."""
        files: dict[str, str | Path] = {self._names[figure]: path for figure, path in self._looked.figures.items()}
        if self._config.tables == "csv":
            for page in self._document.pages:
                files |= {name: as_csv(table) for name, table in self._csv_tables(page).items()}
        if files:
            files[NOT_TO_READ] = "olmocr wrote the files of this folder, and reads none of them as a document.\n"
        return files

    def linked(self, attached: Path | None, folder: Path) -> Document:
        """Return the document with links to its files in *attached*, for a text that lies in *folder*."""
        if attached is None:
            return self._with(lambda name: name)
        way = quote(Path(os.path.relpath(attached, folder)).as_posix())
        return self._with(lambda name: f"{way}/{name}")

    def _with(self, link: Callable[[str], str]) -> Document:
        pages = tuple(
            replace(page, response=replace(page.response, natural_text=self._linked_text(page, link)))
            if page.response.natural_text is not None
            else page
            for page in self._document.pages
        )
        return replace(self._document, pages=pages)

    def _text(self, page: PageRecord) -> str:
        """Return a page's text without running heads, its tables in the form that is asked for."""
        text, number = page.text, page.page_number
        if self._looked.heads is not None:
            text, dropped = self._looked.heads.without(number, text)
            self._dropped += [(number, line) for line in dropped]
        if not _is_markdown(page):
            return text
        if self._config.tables == "markdown":
            return tables_as_markdown(text, lambda why: self._left.append((number, why)))
        if self._config.tables == "csv":
            self._left += [(number, piece.why) for piece in split_at_tables(text) if isinstance(piece, LeftAsItIs)]
        return text

    def _linked_text(self, page: PageRecord, link: Callable[[str], str]) -> str:
        text, number = self._texts[page.page_number], page.page_number
        if self._config.tables == "csv" and _is_markdown(page):
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
        """Say what could not be done, and what was left out, once for all pages."""
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
            log.info("%s: no line is left out: the file's own text has none that repeats at the edges of pages", name)


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
