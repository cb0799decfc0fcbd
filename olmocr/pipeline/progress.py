"""Pages as they are finished -> one line about all of them."""

from __future__ import annotations

from olmocr.pipeline.document import PageRecord


class Tally:
    """What was read so far, as a line of text."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._pages = self._retried = self._fallback = self._blank = self._tokens = 0

    def add(self, page: PageRecord) -> None:
        """Count a page."""
        self._pages += 1
        self._retried += page.attempts > 1
        self._fallback += page.is_fallback
        self._blank += page.status == "blank"
        self._tokens += page.total_output_tokens

    def line(self, now: float) -> str:
        """Return pages, those that took more than one attempt or got no good answer, and how fast it goes."""
        minutes = max(now - self._started, 1e-6) / 60
        kinds = {"retried": self._retried, "failed": self._fallback, "blank": self._blank}
        shown = [f"{count} {kind}" for kind, count in kinds.items() if count]
        rates = [f"{self._pages / minutes:.1f} pages/min", f"{self._tokens / minutes / 60:.0f} tokens/s"]
        return ", ".join([f"{self._pages} pages", *shown, *rates])
