"""An Ask that waits while a model server is away, around one that does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from olmocr.errors import ServerUnavailableError
from olmocr.page import Ask, ModelResponse, PageRequest

LONGEST_WAIT = 60.0
"""Seconds between two attempts, at most, where the server names no time."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds that a server is left alone, at most, however long it asks for."""

OnWait = Callable[[ServerUnavailableError, float], None]
"""Called before each wait with why, and how many seconds."""


def with_backoff(
    ask: Ask,
    *,
    attempts: int,
    on_wait: OnWait | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Ask:
    """Return an Ask that asks at most *attempts* times while the server is unavailable, and waits in between.

    It waits about 1, 2, 4 … seconds, with jitter, so that pages that failed together do not return together,
    or as long as the server asks for. Other errors, and the last one, are raised as they are.
    """

    async def patient(request: PageRequest) -> ModelResponse:
        for attempt in range(attempts - 1):
            try:
                return await ask(request)
            except ServerUnavailableError as error:
                seconds = pause(attempt, error.retry_after)
                if on_wait is not None:
                    on_wait(error, seconds)
            await sleep(seconds)
        return await ask(request)

    return patient


def pause(attempt: int, asked_for: float | None) -> float:
    """Return the seconds to wait after so many attempts before this one; *asked_for* is what the server asks."""
    jitter = random.uniform(0, 1)  # noqa: S311
    if asked_for is not None:
        return min(asked_for, LONGEST_RETRY_AFTER) + jitter
    return min(2.0**attempt + jitter, LONGEST_WAIT)
