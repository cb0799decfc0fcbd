"""What happens at once, and in which order: things done side by side, and a semaphore whose waiters have places."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

Place = tuple[int, ...]
"""A place in the order: the document's, then the page's."""


class Turns:
    """Lets at most *count* run at once; the waiter with the lowest place is next."""

    def __init__(self, count: int) -> None:
        self.count = self._free = count
        self._waiting: list[tuple[Place, int, asyncio.Future[None]]] = []  # a heap
        self._arrivals = itertools.count()

    def resize(self, count: int) -> None:
        """Let at most *count* run at once from now on; those that already run continue."""
        more, self.count = count - self.count, count
        for _ in range(more):
            self.give()
        self._free += min(more, 0)

    async def take(self, place: Place) -> None:
        """Wait for a turn."""
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (place, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given just as its waiter was cancelled
                self.give()
            raise

    def give(self) -> None:
        """Give a turn back; the next waiter gets it."""
        while self._waiting and self._free >= 0:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    @contextlib.asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[Any]:
        """Hold a turn."""
        await self.take(place)
        try:
            yield
        finally:
            self.give()


async def side_by_side(
    things: Iterable[S], do: Callable[[S], Awaitable[T]], at_once: int | Callable[[], int]
) -> AsyncGenerator[T]:
    """Yield what *do* returns for each thing as it finishes, *at_once* at a time; the first error ends them all.

    *at_once* may be a function that returns the current number. Things begin in their order. Closing this cancels
    those in hand, so *do* itself must keep what must not be lost.
    """
    waiting = iter(things)
    tasks: set[asyncio.Future[T]] = set()
    finished: asyncio.Queue[asyncio.Future[T]] = asyncio.Queue()

    def begin() -> None:
        most = at_once() if callable(at_once) else at_once
        for thing in itertools.islice(waiting, max(0, most - len(tasks))):
            task = asyncio.ensure_future(do(thing))
            tasks.add(task)
            task.add_done_callback(finished.put_nowait)

    try:
        begin()
        while tasks:
            task = await finished.get()
            tasks.discard(task)
            begin()
            yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
