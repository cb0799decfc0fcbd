"""What a catalogue and records say -> the HTML of each page, piece by piece, to be written or sent."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from markupsafe import Markup

from olmocr.html import asset, page_head, page_template
from olmocr.inputs.sources import path_of
from olmocr.rendering.picture import Picture
from olmocr.text import visible
from olmocr.version import __version__
from olmocr.viewer.catalogue import Catalogue, Entry, Totals, stamp
from olmocr.viewer.katex import Katex
from olmocr.viewer.markdown import to_html, with_figures
from olmocr.viewer.pictures import LONGEST_SIDE, Pictures, open_pictures
from olmocr.viewer.records import STATUSES, ViewedDocument, ViewedPage, read_document

DOCUMENTS = "documents"

AT_ONCE = 500
"""Documents on one page of the index."""

_HERE = "olmocr.viewer"

_MOST_SEARCHABLE = 10_000_000  # characters in one page of the index; a browser can handle that
_MOST_FOUND = 200  # places that a search shows


class Snippet(NamedTuple):
    """A piece of text that was found, between the text before and after it."""

    before: str
    found: str
    after: str


@dataclass(frozen=True)
class FoundPlace:
    """A page that was found: its document, its number, what was searched, and some of its text."""

    entry: Entry
    number: int
    term: str
    snippet: Snippet


@dataclass(frozen=True)
class _ShownPage:
    """A page with everything that its part of the HTML needs; *no_picture* says why *picture* is None."""

    page: ViewedPage
    html: Markup
    picture: Picture | None
    no_picture: str


@dataclass(frozen=True)
class Look:
    """What all pages of one site share: its *title*, which documents were *chosen*, and *katex*.

    A page of the index lists *at_once* documents. If the site *is_served*, the server searches all documents; otherwise
    each page of the index searches the documents that it lists.
    """

    title: str
    chosen: str = ""
    katex: Katex | None = None
    is_served: bool = False
    at_once: int = AT_ONCE

    @cached_property
    def made_of(self) -> str:
        """Return what distinguishes this look from others."""
        templates = [asset(_HERE, name) for name in ("viewer.html", "index.html", "document.html")]
        parts = (__version__, LONGEST_SIDE, self.title, self.chosen, *templates, *self.frame(self.katex).values())
        return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()

    def frame(self, katex: Katex | None) -> dict[str, Any]:
        """Return what every page has: styles, scripts, and the policy that allows exactly these."""
        styles = [asset(_HERE, "viewer.css"), *([katex.style] if katex else [])]
        scripts = [*([katex.script] if katex else []), asset(_HERE, "viewer.js")]
        return {
            **page_head(styles, scripts),
            "meanings": STATUSES,
            "documents": DOCUMENTS,
            "is_served": self.is_served,
        }


def index_name(at: int) -> str:
    """Return the name of the index's page *at*, from 1."""
    return "index.html" if at == 1 else f"index-{at}.html"


def count_of_index_pages(totals: Totals, look: Look) -> int:
    """Return how many pages the index has."""
    return max(math.ceil(totals.documents / look.at_once), 1)


class IndexPage:
    """The page *at*, from 1, of the index of what is chosen in *catalogue*; only the first one has the totals."""

    def __init__(self, catalogue: Catalogue, look: Look, at: int) -> None:
        self._look, self._at = look, at
        self._totals = catalogue.totals()
        self._all = catalogue.count_all()
        self._entries = list(catalogue.entries((at - 1) * look.at_once, look.at_once))
        self._count = count_of_index_pages(self._totals, look)
        self._firsts = [
            (index_name(page), entry.name)
            for page in range(1, self._count + 1)
            if at == 1 and self._count > 1
            for entry in catalogue.entries((page - 1) * look.at_once, 1)
        ]

    @property
    def made_of(self) -> str:
        """What distinguishes this page from others; no record is read for it."""
        first = (self._totals, self._all, self._firsts) if self._at == 1 else ()
        listed = [(entry.key, entry.record.digest) for entry in self._entries]
        parts = (self._look.made_of, self._at, self._count, first, listed)
        return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()

    def pieces(self, searched: str = "", places: Iterable[FoundPlace] = ()) -> Iterator[str]:
        """Return its HTML; for a site that is served, with what was *searched* and the *places* where it was found."""
        found = list(places)
        return page_template(_HERE, "index.html").generate(
            **self._look.frame(None),
            title=self._look.title,
            chosen=self._look.chosen,
            of_all=self._all,
            entries=self._entries,
            totals=self._totals,
            texts=() if self._look.is_served else _texts(self._entries),
            at=self._at,
            count=self._count,
            firsts=self._firsts,
            previous=index_name(self._at - 1) if self._at > 1 else None,
            next=index_name(self._at + 1) if self._at < self._count else None,
            searched=searched,
            places=found[:_MOST_FOUND],
            has_more=len(found) > _MOST_FOUND,
        )


class DocumentPage:
    """The page of a document, and the documents *around* it."""

    def __init__(self, look: Look, entry: Entry, around: tuple[Entry | None, Entry | None]) -> None:
        self._look, self._entry, self._around = look, entry, around

    @property
    def name(self) -> str:
        """Its path in the viewer's folder."""
        return f"{DOCUMENTS}/{self._entry.key}.html"

    @property
    def made_of(self) -> str:
        """What distinguishes this page from others; neither the record nor the source is read for it."""
        around = [(each.key, each.name) if each else None for each in self._around]
        source = path_of(self._entry.source.decode("utf-8", "surrogateescape"))
        parts = (self._look.made_of, self._entry.record.digest, self._entry.error, around, str(source), stamp(source))
        return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()

    def pieces(self) -> Iterator[str] | None:
        """Return its HTML, made on request, one picture at a time; None if the record is gone."""
        document = read_document(self._entry.record)
        return None if document is None else _document_pieces(document, self._look, self._around)


def _document_pieces(document: ViewedDocument, look: Look, around: tuple[Entry | None, Entry | None]) -> Iterator[str]:
    with open_pictures(document) as pictures:
        yield from page_template(_HERE, "document.html").generate(
            **look.frame(look.katex),
            document=document,
            source_file=visible(document.source_file),
            pages=_shown_pages(document, pictures),
            counts=Counter(page.status for page in document.pages),
            previous=around[0],
            next=around[1],
        )


def _shown_pages(document: ViewedDocument, pictures: Pictures) -> Iterator[_ShownPage]:
    for page in document.pages:
        picture = pictures.of(page)
        if isinstance(picture, Picture):
            yield _ShownPage(page, _page_html(page, pictures.figures(page)), picture, "")
        else:
            yield _ShownPage(page, _page_html(page, {}), None, picture)


def _page_html(page: ViewedPage, figures: Mapping[str, Picture | str]) -> Markup:
    """Return a page's text as HTML, with its *figures*; text from the file itself is not markdown."""
    if page.status == "fallback":
        return Markup("<pre>{}</pre>").format(page.text)
    return Markup(with_figures(to_html(page.text), figures))  # noqa: S704  # to_html is what makes it safe


def _texts(entries: Iterable[Entry]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yield what a page of the index searches, document by document: key, and its pages' numbers and text."""
    room = _MOST_SEARCHABLE
    for entry in entries:
        document = read_document(entry.record)
        pages = [(page.number, page.text) for page in document.pages if page.text] if document else []
        room -= sum(len(text) for _, text in pages)
        if room < 0:
            return
        yield entry.key, pages


def find_places(catalogue: Catalogue, searched: str) -> Iterator[FoundPlace]:
    """Yield pages with all words that are *searched*, in any case; one more than are shown, if there are."""
    words = searched.lower().split()
    left = _MOST_FOUND + 1
    for entry in catalogue.found(words):
        document = read_document(entry.record)
        for page in document.pages if document else ():
            lower = page.text.lower()
            if all(word in lower for word in words):
                term = searched.strip() if searched.strip().lower() in lower else words[0]
                yield FoundPlace(entry, page.number, term, _snippet(page.text, words[0]))
                left -= 1
                if not left:
                    return


def _snippet(text: str, word: str) -> Snippet:
    match = re.search(re.escape(word), text, re.IGNORECASE)
    first, last = match.span() if match else (0, 0)
    start, end = max(first - 70, 0), last + 170
    before, after = ("…" if start else ""), ("…" if end < len(text) else "")
    return Snippet(before + _folded(text[start:first]), text[first:last], _folded(text[last:end]) + after)


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text)
