"""A workspace's records -> a folder of HTML: one page a document, and an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from olmocr.files import write_whole
from olmocr.html import asset, page_head, page_template
from olmocr.rendering.picture import Picture
from olmocr.text import visible
from olmocr.viewer.katex import Katex
from olmocr.viewer.markdown import to_html, with_figures
from olmocr.viewer.pictures import Pictures, open_pictures
from olmocr.viewer.records import STATUSES, Status, ViewedDocument, ViewedPage, find_records, read_documents

DOCUMENTS = "documents"

_HERE = "olmocr.viewer"

_MOST_SEARCHABLE = 50_000_000  # characters in the index; a browser holds that


@dataclass(frozen=True)
class Entry:
    """A document as the index lists it."""

    key: str
    name: str
    source_file: str
    statuses: tuple[Status, ...]
    to_look_at: int
    error: str | None

    @property
    def counts(self) -> Counter[Status]:
        """How many pages have which status."""
        return Counter(self.statuses)


@dataclass(frozen=True)
class Site:
    """What was written: *index* is the file to open."""

    index: Path
    documents: int
    failed: int
    pages: int
    to_look_at: int


@dataclass(frozen=True)
class _ShownPage:
    """A page with all that its part of the HTML needs; *no_picture* says why *picture* is None."""

    page: ViewedPage
    html: Markup
    picture: Picture | None
    no_picture: str


OnDocument = Callable[[int, int], None]
"""Called with the number of documents written so far, and how many there are."""


def write_site(
    workspace: Path, folder: Path, *, katex: Katex | None = None, on_document: OnDocument = lambda done, total: None
) -> Site:
    """Write HTML for all documents of *workspace* into *folder*, which is made where it is missing.

    One document is held at a time, and of that one picture.

    Raises:
        InputError: the folder is no workspace, or cannot be read.
        OutputError: *folder* cannot be written.
    """
    records = find_records(workspace)
    entries = sorted(_entries(records), key=lambda entry: (entry.source_file.casefold(), entry.key))
    places = {entry.key: at for at, entry in enumerate(entries)}
    for done, document in enumerate(_documents(records), 1):
        at = places.get(document.key)
        if at is None:
            continue  # written by a run that goes on, after the list was made
        around = (entries[at - 1] if at else None, entries[at + 1] if at + 1 < len(entries) else None)
        _write_document(folder, document, around, katex)
        on_document(done, len(entries))
    return _write_index(workspace, folder, entries, records)


def _documents(records: Iterable[Path]) -> Iterator[ViewedDocument]:
    for path in records:
        yield from read_documents(path)


def _entries(records: Iterable[Path]) -> Iterator[Entry]:
    for document in _documents(records):
        yield Entry(
            key=document.key,
            name=document.name,
            source_file=visible(document.source_file),
            statuses=tuple(page.status for page in document.pages),
            to_look_at=sum(page.needs_a_look for page in document.pages),
            error=document.error,
        )


def _write_document(
    folder: Path, document: ViewedDocument, around: tuple[Entry | None, Entry | None], katex: Katex | None
) -> None:
    with open_pictures(document) as pictures:
        pieces = page_template(_HERE, "document.html").generate(
            **_frame(katex),
            document=document,
            source_file=visible(document.source_file),
            pages=_shown_pages(document, pictures),
            counts=Counter(page.status for page in document.pages),
            previous=around[0],
            next=around[1],
        )
        write_whole(folder / DOCUMENTS / f"{document.key}.html", pieces)


def _shown_pages(document: ViewedDocument, pictures: Pictures) -> Iterator[_ShownPage]:
    for page in document.pages:
        picture = pictures.of(page)
        if isinstance(picture, Picture):
            yield _ShownPage(page, _page_html(page, pictures.figures(page)), picture, "")
        else:
            yield _ShownPage(page, _page_html(page, {}), None, picture)


def _page_html(page: ViewedPage, figures: Mapping[str, Picture | str]) -> Markup:
    """Return a page's text as HTML, with its *figures*; what a file itself held is no markdown."""
    if page.status == "fallback":
        return Markup("<pre>{}</pre>").format(page.text)
    return Markup(with_figures(to_html(page.text), figures))  # noqa: S704  # to_html is what makes it safe


def _write_index(workspace: Path, folder: Path, entries: list[Entry], records: Iterable[Path]) -> Site:
    site = Site(
        index=folder / "index.html",
        documents=len(entries),
        failed=sum(entry.error is not None for entry in entries),
        pages=sum(len(entry.statuses) for entry in entries),
        to_look_at=sum(entry.to_look_at for entry in entries),
    )
    pieces = page_template(_HERE, "index.html").generate(
        **_frame(None),
        title=visible(workspace.resolve().name),
        entries=entries,
        site=site,
        texts=_texts(records),
    )
    write_whole(site.index, pieces)
    return site


def _texts(records: Iterable[Path]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yield what the index searches, document by document: key, and its pages' numbers and text."""
    room = _MOST_SEARCHABLE
    for document in _documents(records):
        pages = [(page.number, page.text) for page in document.pages if page.text]
        room -= sum(len(text) for _, text in pages)
        if room < 0:
            return
        yield document.key, pages


def _frame(katex: Katex | None) -> dict[str, Any]:
    """Return what every page has: styles, scripts, and the policy that allows just these."""
    styles = [asset(_HERE, "viewer.css"), *([katex.style] if katex else [])]
    scripts = [*([katex.script] if katex else []), asset(_HERE, "viewer.js")]
    return {
        **page_head(styles, scripts),
        "meanings": STATUSES,
        "documents": DOCUMENTS,
    }
