"""PageResults -> Document: the pages' text joined, and whether it counts as read."""

from __future__ import annotations

from dataclasses import dataclass

from olmocr.page import PageResponse
from olmocr.pipeline.ocr_page import PageResult
from olmocr.pipeline.sources import Source


@dataclass(frozen=True)
class Page:
    """A page as it goes into a document: *response* holds the model's answer, or the file's own text (a fallback)."""

    response: PageResponse
    result: PageResult

    @property
    def is_fallback(self) -> bool:
        """Whether no answer of the model was good."""
        return self.result.page is None


@dataclass(frozen=True)
class Document:
    """A document that was read, page by page. *content_hash* is SHA-256 of the source's bytes."""

    source: Source
    content_hash: str
    pages: tuple[Page, ...]

    @property
    def fallback_pages(self) -> tuple[int, ...]:
        """The numbers, from 1, of the pages that hold the file's own text."""
        return tuple(number for number, page in enumerate(self.pages, 1) if page.is_fallback)

    @property
    def text(self) -> str:
        """The pages' text, each but the last followed by a line end."""
        return "".join(self._texts())

    @property
    def spans(self) -> list[list[int]]:
        """Each page's place in the text: [start, end) in characters, line end included, and its number."""
        spans, start = [], 0
        for number, text in enumerate(self._texts(), 1):
            spans.append([start, start + len(text), number])
            start += len(text)
        return spans

    def _texts(self) -> list[str]:
        last = len(self.pages) - 1
        texts = [page.response.natural_text for page in self.pages]
        return ["" if text is None else text + ("\n" if at < last else "") for at, text in enumerate(texts)]


def make_page(result: PageResult, text_layer: str | None) -> Page:
    """Return the page that *result* stands for; with no good answer, one that holds *text_layer*."""
    fallback = PageResponse(None, True, 0, False, False, text_layer)
    return Page(result.page or fallback, result)


def why_failed(document: Document, max_page_error_rate: float) -> str | None:
    """Return why *document* counts as failed, or None."""
    fallbacks = document.fallback_pages
    if len(fallbacks) / len(document.pages) <= max_page_error_rate:
        return None
    number = fallbacks[0]
    rejected = document.pages[number - 1].result.rejected
    pages = (
        f"page {number}"
        if len(fallbacks) == 1
        else f"{len(fallbacks)} of {len(document.pages)} pages (first: {number})"
    )
    return f"the model gave no good answer for {pages}; last: {rejected[-1]}"
