"""A run's stages -> what a person sees of them: rows of a live display, or lines in a log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from olmocr.stages import Downloading, FindingDocuments, FirstText, Loading, OnStage, Stage
from olmocr.terminal.command import LINE_EVERY_SECONDS, is_watched
from olmocr.text import in_a_line, one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

_RATE_SECONDS = 15.0  # over which a download's rate is measured: earlier times say little about now

log = logging.getLogger(__name__)

Clock = Callable[[], float]


class StageView:
    """The current stage, since when, and how fast it runs. Times are in seconds, of *clock*."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stage: Stage | None = None
        self._since = clock()
        self._downloaded: deque[tuple[float, int]] = deque()

    def show(self, stage: Stage) -> str | None:
        """Start *stage*; return a sentence about the one that it ends, if that is worth one."""
        now, before = self._clock(), self._stage
        if type(stage) is not type(before):
            self._since = now
            self._downloaded.clear()
        self._stage = stage
        if isinstance(stage, Downloading):
            self._downloaded.append((now, stage.done_bytes))
            while now - self._downloaded[0][0] > _RATE_SECONDS:
                self._downloaded.popleft()
            if stage.is_done:
                self._stage = None
                return f"downloaded {stage.repository}: {sized(stage.total_bytes)} in {spoken(now - self._since)}"
        return None

    def end(self, *kinds: type[Stage]) -> None:
        """Show no stage any more; with *kinds*, only none of these."""
        if not kinds or isinstance(self._stage, kinds):
            self._stage = None

    def line(self) -> str:
        """Return the stage in a line of text; "" if there is none."""
        took = spoken(self._clock() - self._since)
        match self._stage:
            case FindingDocuments(documents):
                return f"finding documents: {documents:,} so far"
            case Downloading(repository) as download:
                return f"downloading {repository}: {', '.join(self._figures(download))}"
            case Loading(model, kernels):
                compiling = f", compiling kernels for this GPU, once: {kernels} so far" if kernels else ""
                return f"loading {in_a_line(model)}: {took}{compiling}"
            case FirstText(text) if text:
                return f"reading the first page: {took}, {len(text):,} letters so far"
            case FirstText():
                return f"reading the first page: {took}"
        return ""

    def rows(self) -> Iterator[RenderableType]:
        """Yield the stage as rows of a live display, of any width."""
        from rich.text import Text

        match self._stage:
            case None:
                return
            case Downloading(repository, done, total) as download:
                yield row(f"downloading {repository}")
                yield bar_row(done, total, "  ".join(self._figures(download)))
            case FirstText(text):
                yield row(self.line())
                yield TailOf(Text(one_line(_body(text)) or " ", style="dim"))
            case _:
                yield row(self.line())

    def _figures(self, download: Downloading) -> list[str]:
        """Return how much of a download is done, how fast it runs, and the time left."""
        done = f"{sized(download.done_bytes)} of {sized(download.total_bytes)}"
        (began, first), (now, last) = self._downloaded[0], self._downloaded[-1]
        if now - began < 1 or last <= first:
            return [done]
        rate = (last - first) / (now - began)
        return [done, f"{sized(round(rate))}/s", f"{spoken((download.total_bytes - download.done_bytes) / rate)} left"]


@contextlib.contextmanager
def shown_download(console: Console, *, quiet: bool) -> Iterator[OnStage]:
    """Yield a function that shows a download: what is done, how fast it runs, time left; a line if nobody watches."""
    from rich.console import Group
    from rich.live import Live

    view, last_line = StageView(), time.monotonic()

    def show(stage: Stage) -> None:
        nonlocal last_line
        if ended := view.show(stage):
            log.info("%s", ended)
        elif not is_live and time.monotonic() - last_line >= LINE_EVERY_SECONDS:
            last_line = time.monotonic()
            log.info("%s", view.line())

    is_live = not quiet and is_watched(console)
    if not is_live:
        yield show
        return
    with Live(get_renderable=lambda: Group(*view.rows()), console=console, transient=True, redirect_stdout=False):
        yield show


def row(text: str) -> RenderableType:
    """Return *text* as one row, cut at the edge of the terminal."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def bar_row(done: float, total: float | None, figures: str) -> RenderableType:
    """Return a bar, followed by *figures*; without a *total* it only shows that something is happening."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_row(ProgressBar(total, done, pulse=total is None), Text(figures))
    return grid


class TailOf:
    """The end of a text, in one row."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield as much of the end as there is room for."""
        text = self._text.copy()
        while text.cell_len > options.max_width:
            text = text[max(1, text.cell_len - options.max_width) :]
        text.no_wrap = True
        yield text


def sized(nbytes: int) -> str:
    """Return *nbytes* in a form for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} bytes"


def spoken(seconds: float) -> str:
    """Return a time in a form for people: ``41 s``, ``9 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{max(0, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _body(text: str) -> str:
    """Return an answer without its front matter."""
    return text.split("\n---", 1)[1].lstrip("-\n") if text.startswith("---") and "\n---" in text else ""
