"""PageRecords -> Document: the pages' text joined, and whether it counts as read."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from olmocr.inputs.sources import Source
from olmocr.page import PageResponse

LOW_COVERAGE = 0.7
"""Below this coverage an answer has probably left text out.

A page of two columns that lost one has about 0.5, a page of three columns 0.67. What olmOCR leaves out on purpose
(running heads, page numbers and labels in figures) is rarely three words in ten.
"""

PageStatus = Literal["valid", "blank", "fallback"]
"""A good answer; an empty page, for which no model was asked; the file's own text, because no answer was good."""


@dataclass(frozen=True)
class PageRecord:
    """The result for one page, from whatever *model* and run; the model is None if none was asked.

    *response* is the accepted answer, or contains the file's own text; *rejected* says why each other answer was not
    accepted. *rotation* is how far the page was turned, counter-clockwise, to be read. *input_tokens* and
    *output_tokens* count the accepted answer, *total_output_tokens* all attempts. *coverage* is the share of the text
    layer's words that the answer has; it is None if there is no layer to compare. *seconds* is the time from the first
    question to the last answer. *ends* says how each attempt ended, in order: ``stop``, ``length``, ``loop``, ``time``,
    ``failed`` or ``cancelled``. *passes* counts the passes over the model's weights in all attempts; it is 0 if that is
    not known. *asked* describes how the model was asked: with which image and prompt. It is empty in records made
    before this was kept. *server* is the address of the model server that gave the accepted answer. It is empty if
    there is none, or if the model ran in the same process.
    """

    page_number: int
    status: PageStatus
    response: PageResponse
    model: str | None = None
    attempts: int = 0
    rejected: tuple[str, ...] = ()
    rotation: int = 0
    temperature: float = 0.0
    guided: bool = False
    finish_reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_output_tokens: int = 0
    coverage: float | None = None
    seconds: float = 0.0
    ends: tuple[str, ...] = ()
    passes: int = 0
    asked: str = ""
    server: str = ""

    @property
    def text(self) -> str:
        """The page's text, in markdown; empty if there is none."""
        return self.response.natural_text or ""

    @property
    def is_fallback(self) -> bool:
        """Whether none of the model's answers was good."""
        return self.status == "fallback"

    @property
    def is_askew(self) -> bool:
        """Whether the model called the page turned however it was shown; its last complete answer was kept."""
        return self.status == "valid" and not self.response.is_rotation_valid

    @property
    def is_flagged(self) -> bool:
        """Whether ``--retry-failed`` reads the page again."""
        return self.is_fallback or self.is_askew

    @property
    def lacks_text(self) -> bool:
        """Whether the answer has so little of the file's own text that some was probably left out."""
        return self.coverage is not None and self.coverage < LOW_COVERAGE


@dataclass(frozen=True)
class Failure:
    """What was not read, and why: a document called *source*, or one page of it."""

    source: str
    why: str
    page_number: int | None = None

    @property
    def as_json(self) -> dict[str, str | int | None]:
        """The failure as every file and answer reports it (docs/outputs.md)."""
        return {"source": self.source, "page_number": self.page_number, "why": self.why}


def page_failure(source: str, page: PageRecord) -> Failure | None:
    """Return why the last answer for a *page* of *source* was not accepted; None if one was accepted."""
    if not page.is_fallback:
        return None
    return Failure(source, page.rejected[-1] if page.rejected else "no answer was good", page.page_number)


@dataclass(frozen=True)
class AttachedFile:
    """A file that a document's text links to: a figure as PNG, or a table as CSV in UTF-8.

    *link* is how the text refers to it: by its *name*, or by a path to its *path*, which is None if it is not on disk.
    """

    page_number: int
    kind: Literal["figure", "table"]
    name: str
    link: str
    path: Path | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def media_type(self) -> str:
        """The file's MIME type."""
        return "image/png" if self.kind == "figure" else "text/csv"

    @property
    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            OSError: it is on the disk, and can no longer be read.
        """
        with self.open() as file:
            return file.read()

    def open(self) -> BinaryIO:
        """Return the file, opened at its beginning; errors as of *content*."""
        return io.BytesIO(self.data) if self.path is None else self.path.open("rb")


@dataclass(frozen=True)
class Document:
    """A document that was read, or the requested pages of it, in order.

    *content_hash* is the SHA-256 of the source's bytes, *page_count* the number of pages of the source. If figures,
    tables in another form or text without running heads were requested, the pages' text is already changed: *files*
    are what it links to, *left_as_is* says for which figure or table this failed, and why, and *dropped_lines* are the
    running heads and page numbers that were left out, each with its page's number.
    """

    source: Source
    content_hash: str
    pages: tuple[PageRecord, ...]
    page_count: int
    files: tuple[AttachedFile, ...] = ()
    left_as_is: tuple[Failure, ...] = ()
    dropped_lines: tuple[tuple[int, str], ...] = ()

    @property
    def fallback_pages(self) -> tuple[int, ...]:
        """The numbers, from 1, of the pages that contain the file's own text."""
        return tuple(page.page_number for page in self.pages if page.is_fallback)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The pages without a good answer, each with why its last answer was not accepted."""
        failures = (page_failure(self.source.name, page) for page in self.pages)
        return tuple(failure for failure in failures if failure is not None)

    @property
    def text(self) -> str:
        """The pages' text; each page except the last is followed by a line end."""
        return "".join(self._texts())

    @property
    def spans(self) -> list[list[int]]:
        """Each page's place in the text: [start, end) in characters, with its line end, and its number."""
        spans, start = [], 0
        for page, text in zip(self.pages, self._texts(), strict=True):
            spans.append([start, start + len(text), page.page_number])
            start += len(text)
        return spans

    def _texts(self) -> list[str]:
        last = len(self.pages) - 1
        texts = [page.response.natural_text for page in self.pages]
        return ["" if text is None else text + ("\n" if at < last else "") for at, text in enumerate(texts)]


def why_failed(document: Document, max_page_error_rate: float) -> str | None:
    """Return why *document* counts as failed, or None."""
    fallbacks = [page for page in document.pages if page.is_fallback]
    if len(fallbacks) <= max_page_error_rate * len(document.pages):
        return None
    first = fallbacks[0]
    pages = (
        f"page {first.page_number}"
        if len(fallbacks) == 1
        else f"{len(fallbacks)} of {len(document.pages)} pages (first: {first.page_number})"
    )
    if first.attempts == 0:  # no model was asked, so the model is not to blame
        return f"{pages} could not be drawn: {first.rejected[-1]}"
    return f"the model gave no good answer for {pages}; last: {first.rejected[-1]}"
