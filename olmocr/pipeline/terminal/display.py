"""A run -> visible progress from the first second: a live display, or, if nobody watches, a line now and then."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from olmocr.inputs.sources import Source
from olmocr.pipeline.terminal.progress import Tally
from olmocr.stages import FindingDocuments, FirstText, Stage
from olmocr.terminal.command import LINE_EVERY_SECONDS, is_watched
from olmocr.terminal.stage_view import Clock, StageView
from olmocr.workspace.document import PageRecord

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

log = logging.getLogger(__name__)


class Display:
    """The callbacks of a run, and what is shown of it; with *logs_lines*, in lines of the log."""

    def __init__(self, *, logs_lines: bool, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stages = StageView(clock)
        self._tally = Tally(clock())
        self._logs_lines = logs_lines
        self._last_line = clock()
        self._is_reading = False

    def on_stage(self, stage: Stage) -> None:
        """Show what happens before there are pages."""
        if isinstance(stage, FirstText):
            if not self._is_reading:
                self._is_reading = True
                self._tally.start(self._clock())
            if self._tally.has_answer:  # to this page, or to one that finished sooner
                return
        if ended := self._stages.show(stage):
            log.info("%s", ended)
        self._log_a_line()

    def on_document(self, source: Source, pages: int, waiting: int) -> None:
        """Count a document that begins."""
        self._stages.end(FindingDocuments)
        self._tally.begin(source.key, pages, waiting)

    def on_page(self, source: Source, page: PageRecord) -> None:
        """Count a page."""
        self._tally.add(source.key, source.name, page)
        if self._tally.has_answer:
            self._stages.end()
        self._log_a_line()

    def _log_a_line(self) -> None:
        now = self._clock()
        if self._logs_lines and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            log.info("%s", self._stages.line() or self._tally.line(now))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the current stage, then the progress of the pages."""
        yield from self._stages.rows()
        if self._tally.has_pages:
            yield from self._tally.rows(self._clock())


@contextlib.contextmanager
def shown_run(console: Console, *, quiet: bool) -> Iterator[Display]:
    """Yield a display on *console*; with *quiet*, an invisible one; if nobody watches, one that logs lines."""
    from rich.live import Live

    watched = is_watched(console)
    display = Display(logs_lines=not watched)
    if quiet or not watched:
        yield display
        return
    with Live(display, console=console, transient=True, refresh_per_second=4, redirect_stdout=False):
        yield display
