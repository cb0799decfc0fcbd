"""A semaphore whose waiters have places in an order: the first in order goes first, not the first to come."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator
from typing import Any

Place = tuple[int, ...]
"""A place in the order: that of a document, then of its page."""


class Turns:
    """Lets at most *count* go on at once; of those who wait, the one with the least place is next."""

    def __init__(self, count: int) -> None:
        self.count = self._free = count
        self._waiting: list[tuple[Place, int, asyncio.Future[None]]] = []  # a heap
        self._arrivals = itertools.count()

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
        while self._waiting:
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
