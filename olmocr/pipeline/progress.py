"""Pages as they are finished -> one line about all of them."""

from __future__ import annotations

from olmocr.memory import peak_memory
from olmocr.workspace.document import PageRecord


class Tally:
    """What was read so far, and what is left, as a line of text. Times are in seconds, of any clock."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._pages = self._retried = self._fallback = self._blank = self._tokens = 0
        self._documents = self._expected = self._waiting = 0

    def begin(self, pages: int, waiting: int) -> None:
        """Count a document that is begun: *pages* of it are to be read, and *waiting* documents are behind it."""
        self._documents += 1
        self._expected += pages
        self._waiting = waiting

    def add(self, page: PageRecord) -> None:
        """Count a page."""
        self._pages += 1
        self._retried += page.attempts > 1
        self._fallback += page.is_fallback
        self._blank += page.status == "blank"
        self._tokens += page.total_output_tokens

    def line(self, now: float) -> str:
        """Return pages, those that took more than one attempt or got no good answer, how fast it goes, what is left."""
        minutes = max(now - self._started, 1e-6) / 60
        of = f" of {self._expected}" + ("+" if self._waiting else "")
        kinds = {"retried": self._retried, "failed": self._fallback, "blank": self._blank}
        shown = [f"{count} {kind}" for kind, count in kinds.items() if count]
        rates = [f"{self._pages / minutes:.1f} pages/min", f"{self._tokens / minutes / 60:.0f} tokens/s"]
        left = [f"about {_duration(self.pages_left / (self._pages / minutes))} left"] if self._pages else []
        return ", ".join([f"{self._pages}{of} pages", *shown, *rates, *left, f"{peak_memory() / 2**20:.0f} MiB"])

    @property
    def pages_left(self) -> float:
        """Pages that are left, supposing that documents still to come have as many as those that were begun."""
        begun = max(self._documents, 1)
        return max(0, self._expected - self._pages) + self._waiting * self._expected / begun


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{max(1, round(60 * minutes))} s"
    return f"{round(minutes)} min" if minutes < 100 else f"{minutes / 60:.1f} h"
