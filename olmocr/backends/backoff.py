"""Wrap an Ask so that it waits while a model server is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from olmocr.errors import ServerUnavailableError
from olmocr.page import Ask, ModelResponse, PageRequest

LONGEST_WAIT = 60.0
"""The most seconds between two attempts if the server names no time."""

LONGEST_RETRY_AFTER = 300.0
"""The most seconds to wait for a server, even if it asks for more."""

OnWait = Callable[[ServerUnavailableError, float], None]
"""Called before each wait, with the reason and the seconds."""


def with_backoff(
    ask: Ask,
    *,
    attempts: int,
    on_wait: OnWait | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Ask:
    """Return an Ask that makes up to *attempts* attempts while the server is unavailable, and waits in between.

    It waits as long as the server asks for, or else about 1, 2, 4 … seconds. Jitter keeps pages that failed together
    from returning together. The last error, and any other kind of error, is raised unchanged.
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
    """Return the seconds to wait after *attempt* earlier attempts; *asked_for* is the time that the server requests."""
    jitter = random.uniform(0, 1)  # noqa: S311
    if asked_for is not None:
        return min(asked_for, LONGEST_RETRY_AFTER) + jitter
    return min(2.0**attempt + jitter, LONGEST_WAIT)
