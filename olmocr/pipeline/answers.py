"""What answers a run's pages: opened when the first one needs it, asked in order, given up when it is away for long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from olmocr.backends.choice import Answering, Sleep, answering, require_model
from olmocr.errors import ServerError, ServerUnavailableError
from olmocr.page import Ask
from olmocr.pipeline.config import ReadingConfig
from olmocr.pipeline.repetition import is_looping
from olmocr.pipeline.turns import Place, Turns
from olmocr.rendering.pool import default_workers

_UNANSWERED_IN_A_ROW = 3
"""So many pages that nobody answered, one after the other, and the server is taken for gone."""


class Answers:
    """What answers the pages of a run, so many at once as *config* says. A pile that was read before loads no model.

    *folder* keeps what a server of our own prints. *seconds* is what loading the model, or starting its server, took.
    With *ask* there is nothing to open. Pages that are rendered or asked have turns *in_hand*: ahead of the model is
    as much as the renderers have in hand.
    """

    def __init__(
        self, config: ReadingConfig, folder: Path, ask: Ask | None = None, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._config = config
        self._folder = folder
        self._sleep = sleep
        self._opened = Answering(ask, config.model or "") if ask else None
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._turns = Turns(config.pages_at_once)
        self.in_hand = Turns(config.pages_at_once + default_workers() + 1)
        self._unanswered = 0
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.__aexit__(*exception)

    @property
    def model(self) -> str | None:
        """The model's name as records have it; None where only its server knows it, and was not asked."""
        return self._opened.model if self._opened else self._config.model

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

    @contextlib.asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[Answering]:
        """Yield what answers, when it is the turn of the page with this *place* in the order.

        Raises:
            ServerUnavailableError: nobody answered this page.
            ServerError: nobody answered the last few, or there was no server from the first.
        """
        async with self._turns.turn(place):
            answers = await self._open()
            try:
                yield answers
            except ServerUnavailableError as error:
                self._unanswered += 1
                if self._unanswered < _UNANSWERED_IN_A_ROW:
                    raise
                count = self._unanswered
                raise ServerError(
                    f"{error}; the run ends after {count} pages in a row without an answer, go on with it later"
                ) from error
            self._unanswered = 0

    async def _open(self) -> Answering:
        async with self._opening:
            if self._opened is None:
                started = time.monotonic()
                try:
                    opening = answering(
                        self._config,
                        folder=self._folder,
                        longest_side=self._config.target_longest_image_dim,
                        is_looping=is_looping,
                        sleep=self._sleep,
                    )
                    self._opened = await self._stack.enter_async_context(opening)
                except ServerUnavailableError as error:
                    # Away from the first: a wrong address rather than a fault that passes, and no page's.
                    raise ServerError(str(error)) from error
                self.seconds = time.monotonic() - started
        return self._opened
