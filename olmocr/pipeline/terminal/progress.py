"""Finished pages -> the progress of a run: a line in a log, or rows of a live display."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from olmocr.runtime.memory import peak_memory
from olmocr.terminal.stage_view import bar_row, row, spoken
from olmocr.text import in_a_line
from olmocr.workspace.document import PageRecord

if TYPE_CHECKING:
    from rich.console import RenderableType


class Tally:
    """What was read so far, and what is left. Times are in seconds, of any clock.

    Only pages of documents that have begun are known; those of later documents are estimated for the time left.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._pages = self._retried = self._fallback = self._blank = self._tokens = 0
        self._expected = self._waiting = self._documents_done = 0
        self._begun = 0
        self._left: dict[str, int] = {}  # pages of each document that has begun but is not done
        self._last = ""

    def start(self, now: float) -> None:
        """Count time from *now* on: what came before was not reading."""
        self._started = now

    def begin(self, document: str, pages: int, waiting: int) -> None:
        """Count a *document* (its key) that begins: *pages* are to be read, and *waiting* documents are behind it."""
        self._begun += 1
        if pages:
            self._left[document] = pages
        self._documents_done += not pages
        self._expected += pages
        self._waiting = waiting

    def add(self, document: str, name: str, page: PageRecord) -> None:
        """Count a page of a *document* (its key) that is called *name*."""
        self._pages += 1
        self._retried += page.attempts > 1
        self._fallback += page.is_fallback
        self._blank += page.status == "blank"
        self._tokens += page.total_output_tokens
        self._last = f"{in_a_line(name)}, page {page.page_number}"
        self._begun += document not in self._left
        left = self._left.pop(document, 1) - 1
        if left:
            self._left[document] = left
        self._documents_done += not left

    @property
    def has_pages(self) -> bool:
        """Whether a page was read, or is known."""
        return bool(self._expected or self._pages)

    @property
    def has_answer(self) -> bool:
        """Whether a model has answered a page."""
        return self._tokens > 0

    @property
    def pages_left(self) -> float:
        """Pages that are left, if later documents have as many on average as those that have begun."""
        return max(0, self._expected - self._pages) + self._waiting * self._expected / max(self._begun, 1)

    def line(self, now: float) -> str:
        """Return a line with pages, how many were retried or got no good answer, the speed, and what is left."""
        parts = [f"{self._pages_of()} pages", f"{self._documents_of()} documents", *self._kinds()]
        rate = f"{self._tokens / self._minutes(now) / 60:.0f} tokens/s"
        return ", ".join([*parts, *self._speed(now), rate, f"{peak_memory() / 2**20:.0f} MiB"])

    def rows(self, now: float) -> Iterator[RenderableType]:
        """Yield the same as rows of a live display of any width, with the last page."""
        figures = "  ".join([f"{self._pages_of()} pages", *self._speed(now)])
        yield bar_row(self._pages, max(1, self._expected), figures)
        last = [f"last: {self._last}"] if self._last else []
        yield row(", ".join([f"{self._documents_of()} documents", *self._kinds(), *last]))

    def _pages_of(self) -> str:
        return f"{self._pages} of {self._expected}" + ("+" if self._waiting else "")

    def _documents_of(self) -> str:
        return f"{self._documents_done} of {self._begun + self._waiting}"

    def _kinds(self) -> list[str]:
        kinds = {"retried": self._retried, "failed": self._fallback, "blank": self._blank}
        return [f"{count} {kind}" for kind, count in kinds.items() if count]

    def _speed(self, now: float) -> list[str]:
        rate = self._pages / self._minutes(now)
        if not rate or (self._pages == self._blank and self.pages_left):  # blank pages say nothing about a model
            return []
        left = [f"about {spoken(60 * self.pages_left / rate)} left"] if self.pages_left else []
        return [f"{rate:.1f} pages/min", *left]

    def _minutes(self, now: float) -> float:
        return max(now - self._started, 1e-6) / 60
