"""What goes on at once, and in which order: things done side by side, and a semaphore whose waiters have places."""

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
"""A place in the order: that of a document, then of its page."""


class Turns:
    """Lets at most *count* go on at once; of those who wait, the one with the least place is next."""

    def __init__(self, count: int) -> None:
        self.count = self._free = count
        self._waiting: list[tuple[Place, int, asyncio.Future[None]]] = []  # a heap
        self._arrivals = itertools.count()

    def resize(self, count: int) -> None:
        """Let at most *count* go on at once from now on; those that do already go on."""
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
            if turn.done() and not turn.cancelled():  # given in the moment in which nobody wanted it any more
                self.give()
            raise

    def give(self) -> None:
        """Give a turn back, to whoever is next."""
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
    """Yield what *do* returns of each thing as it comes, *at_once* of them in hand; the first error ends them all.

    *at_once* may be what tells how many that is just now. They are begun in their order. Closing this ends those in
    hand: what must not be lost then, *do* keeps by itself.
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
