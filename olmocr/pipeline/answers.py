"""What answers a run's pages: opened when the first one needs it, asked in order, and given up if it stays away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from olmocr.backends.choice import Answering, Sleep, answering, require_model
from olmocr.backends.fleet import MOST_ROOM
from olmocr.errors import ServerError, ServerUnavailableError
from olmocr.page import Ask, ModelResponse, PageRequest
from olmocr.pipeline.config import ReadingConfig
from olmocr.pipeline.repetition import is_looping
from olmocr.pipeline.turns import Place, Turns
from olmocr.rendering.pool import default_workers
from olmocr.stages import FirstText, OnStage, unwatched

_UNANSWERED_IN_A_ROW = 3
"""After this many unanswered pages in a row, the server is considered gone."""

FIRST_LETTERS = 1000
"""Characters of the first page, half of a dense one, that are written before other pages begin beside it."""


class Answers:
    """What answers the pages of a run, as many at once as *config* says. If all pages were read before, no model loads.

    *folder* keeps the output of a server that the run starts. *seconds* is how long it took to load the model, or to
    start its server. With *ask*, there is nothing to open; with *opening*, that is opened instead of what *config*
    says. A page holds a turn *in_hand* while it is rendered or asked about; only as many pages are ahead of the model
    as the renderers have in hand.

    *on_stage* is called with what is downloaded and loaded, and with the first page's text as a model in this process
    writes it. That page begins alone, so that there is soon something to see. The others wait until it has
    :data:`FIRST_LETTERS` characters, or is done.
    """

    def __init__(
        self,
        config: ReadingConfig,
        folder: Path,
        ask: Ask | None = None,
        sleep: Sleep = asyncio.sleep,
        on_stage: OnStage = unwatched,
        opening: Callable[[], AbstractAsyncContextManager[Answering]] | None = None,
    ) -> None:
        self._config = config
        self._open_it = opening or self._answering
        self._folder = folder
        self._sleep = sleep
        self._opened = Answering(ask, config.model or "") if ask else None
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._turns = Turns(config.pages_at_once)
        self.in_hand = Turns(_in_hand(config.pages_at_once))
        self._unanswered = 0
        self._end: ServerError | None = None
        self._on_stage = on_stage
        self._first = FirstPage(on_stage)
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.__aexit__(*exception)

    @property
    def model(self) -> str | None:
        """The model's name as records have it; None if only its server knows it, and has not been asked."""
        return self._opened.model if self._opened else self._config.model

    @property
    def most_in_hand(self) -> int:
        """How many pages may be in hand at most, however much room several servers, or a model here, report."""
        count = len(self._config.servers)
        if self._config.is_in_process and not self._config.max_concurrent_pages:
            return _in_hand(MOST_ROOM)
        at_once = self._config.pages_at_once if self._config.max_concurrent_pages else count * MOST_ROOM
        return _in_hand(at_once + count) if count > 1 else self.in_hand.count

    async def require_model(self) -> None:
        """Make sure that the requested model exists, even if no page was left to ask it about.

        Raises:
            OlmocrError: there is no model of this name.
        """
        if self._opened is None:
            await require_model(self._config)

    def counts(self) -> dict[str, float]:
        """Return what a model in this process has done so far, by name, even after this is closed."""
        return self._opened.counts() if self._opened else {}

    def by_server(self) -> dict[str, dict[str, int]]:
        """Return what each of several servers has done so far, by its address, even after this is closed."""
        return self._opened.by_server() if self._opened else {}

    @contextlib.asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[Answering]:
        """Yield what answers, when it is the turn of the page with this *place* in the order.

        Raises:
            ServerUnavailableError: no server answered this page.
            ServerError: no server answered the last few pages, or there was none from the start.
        """
        async with self._turns.turn(place):
            if self._end:
                raise self._end
            answers = await self.open()
            self._make_room(answers.pages_at_once())
            try:
                async with self._first.alone(answers) as asked:
                    yield asked
            except ServerUnavailableError as error:
                self._unanswered += 1
                if self._unanswered < _UNANSWERED_IN_A_ROW:
                    raise
                self._end = ServerError(
                    f"{error}; the run ends after {self._unanswered} pages in a row without an answer; "
                    "run it again later"
                )
                raise self._end from error
            self._unanswered = 0

    def _answering(self) -> AbstractAsyncContextManager[Answering]:
        return answering(
            self._config,
            folder=self._folder,
            longest_side=self._config.target_longest_image_dim,
            is_looping=is_looping,
            sleep=self._sleep,
            on_stage=self._on_stage,
        )

    async def open(self) -> Answering:
        """Return what answers, and open it first if necessary.

        Raises:
            OlmocrError: it cannot be opened.
        """
        async with self._opening:
            if self._opened is None:
                started = time.monotonic()
                try:
                    self._opened = await self._stack.enter_async_context(self._open_it())
                except ServerUnavailableError as error:
                    # Away from the start: a wrong address rather than a passing fault, and not the fault of a page.
                    raise ServerError(str(error)) from error
                self.seconds = time.monotonic() - started
        return self._opened

    def _make_room(self, at_once: int | None) -> None:
        """Let as many pages be asked about as several servers have room for, and one more for each to begin at once.

        A server that joins late, or comes back, may report more room than was known. A model in this process reports
        how many pages it writes at once when it is loaded.
        """
        at_once = at_once and at_once + len(self._config.servers)
        if at_once and at_once != self._turns.count:
            self._turns.resize(at_once)
            self.in_hand.resize(_in_hand(at_once))


def _in_hand(at_once: int) -> int:
    return at_once + default_workers() + 1


class FirstPage:
    """Lets the first page go ahead of the others if a model passes its text to *on_stage* while writing it."""

    def __init__(self, on_stage: OnStage) -> None:
        self._on_stage = on_stage
        self._is_taken = False
        self._others_may = asyncio.Event()

    @contextlib.asynccontextmanager
    async def alone(self, answers: Answering) -> AsyncIterator[Answering]:
        """Yield what to ask: at once for the first page, later for all others."""
        is_first, self._is_taken = not self._is_taken, True
        if is_first:
            self._on_stage(FirstText(""))
        if answers.ask_aloud is None:
            yield answers
        elif not is_first:
            await self._others_may.wait()
            yield answers
        else:
            try:
                yield replace(answers, ask=lambda request: self._ask(answers, request))
            finally:
                self._others_may.set()

    async def _ask(self, answers: Answering, request: PageRequest) -> ModelResponse:
        assert answers.ask_aloud is not None
        return await answers.ask_aloud(request, self._hear)

    def _hear(self, text: str) -> None:
        if len(text) >= FIRST_LETTERS:
            self._others_may.set()
        self._on_stage(FirstText(text))
