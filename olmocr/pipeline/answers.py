"""What answers a run's pages: opened when the first one needs it, asked in order, given up when it is away for long."""

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
"""So many pages that nobody answered, one after the other, and the server is taken for gone."""

FIRST_LETTERS = 1000
"""So much text of the first page, half of a dense one, is written before other pages are begun beside it."""


class Answers:
    """What answers the pages of a run, so many at once as *config* says. A pile that was read before loads no model.

    *folder* keeps what a server of our own prints. *seconds* is what loading the model, or starting its server, took.
    With *ask* there is nothing to open, with *opening* that is opened instead of what *config* says. Pages that are
    rendered or asked have turns *in_hand*: ahead of the model is as much as the renderers have in hand.

    *on_stage* hears what is downloaded and loaded, and the first page's text as a model in this process writes it.
    That page is begun alone, so that there is soon something to see: the others wait until it has
    :data:`FIRST_LETTERS` letters, or is done.
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
        """The model's name as records have it; None where only its server knows it, and was not asked."""
        return self._opened.model if self._opened else self._config.model

    @property
    def most_in_hand(self) -> int:
        """How many pages may be in hand at most, whatever several servers, or a model here, say that they can hold."""
        count = len(self._config.servers)
        if self._config.is_in_process and not self._config.max_concurrent_pages:
            return _in_hand(MOST_ROOM)
        at_once = self._config.pages_at_once if self._config.max_concurrent_pages else count * MOST_ROOM
        return _in_hand(at_once + count) if count > 1 else self.in_hand.count

    async def require_model(self) -> None:
        """Make sure that there is the model that was asked for, also where no page was left to ask it about.

        Raises:
            OlmocrError: there is none of this name.
        """
        if self._opened is None:
            await require_model(self._config)

    def counts(self) -> dict[str, float]:
        """Return what a model in this process has done so far, by name; also when this is closed."""
        return self._opened.counts() if self._opened else {}

    def by_server(self) -> dict[str, dict[str, int]]:
        """Return what each of several servers has done so far, by its address; also when this is closed."""
        return self._opened.by_server() if self._opened else {}

    @contextlib.asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[Answering]:
        """Yield what answers, when it is the turn of the page with this *place* in the order.

        Raises:
            ServerUnavailableError: nobody answered this page.
            ServerError: nobody answered the last few, or there was no server from the first.
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
                    f"{error}; the run ends after {self._unanswered} pages in a row without an answer, "
                    "go on with it later"
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
        """Return what answers, opened if it is not yet.

        Raises:
            OlmocrError: it cannot be opened.
        """
        async with self._opening:
            if self._opened is None:
                started = time.monotonic()
                try:
                    self._opened = await self._stack.enter_async_context(self._open_it())
                except ServerUnavailableError as error:
                    # Away from the first: a wrong address rather than a fault that passes, and no page's.
                    raise ServerError(str(error)) from error
                self.seconds = time.monotonic() - started
        return self._opened

    def _make_room(self, at_once: int | None) -> None:
        """Let as many pages be asked about as several servers can hold, and one more for each to have at once.

        One that comes late, or comes back, may say that it can hold more than was known. A model in this process says
        how many it writes at once when it is loaded.
        """
        at_once = at_once and at_once + len(self._config.servers)
        if at_once and at_once != self._turns.count:
            self._turns.resize(at_once)
            self.in_hand.resize(_in_hand(at_once))


def _in_hand(at_once: int) -> int:
    return at_once + default_workers() + 1


class FirstPage:
    """Lets the first page go ahead of the others where a model hands on its text, to *on_stage*, as it is written."""

    def __init__(self, on_stage: OnStage) -> None:
        self._on_stage = on_stage
        self._is_taken = False
        self._others_may = asyncio.Event()

    @contextlib.asynccontextmanager
    async def alone(self, answers: Answering) -> AsyncIterator[Answering]:
        """Yield what is to be asked: at once for the first, later for all others."""
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
