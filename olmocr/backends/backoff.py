"""An Ask that waits while a model server is away, around one that does not. The one door to tenacity."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
    wait_random,
)

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

    def wait(state: RetryCallState) -> float:
        asked_for = _error(state).retry_after
        if asked_for is None:
            return wait_exponential_jitter(initial=1, max=LONGEST_WAIT, jitter=1)(state)
        return min(asked_for, LONGEST_RETRY_AFTER) + wait_random(0, 1)(state)

    def tell(state: RetryCallState) -> None:
        if on_wait is not None and state.next_action is not None:
            on_wait(_error(state), state.next_action.sleep)

    async def patient(request: PageRequest) -> ModelResponse:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ServerUnavailableError),
            stop=stop_after_attempt(attempts),
            wait=wait,
            before_sleep=tell,
            sleep=sleep,
            reraise=True,
        )
        return await retrying(ask, request)

    return patient


def _error(state: RetryCallState) -> ServerUnavailableError:
    error = state.outcome.exception() if state.outcome else None
    return cast(ServerUnavailableError, error)  # nothing else is waited for
