"""How much all requests together may use, and how long the server waits for a client."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from olmocr.serving.refusals import RequestError

_RETRY_SECONDS = 5.0


class Bound:
    """An amount of bytes, or pages, for all together. If too few are left, requests wait, first come, first served."""

    def __init__(self, size: int) -> None:
        self._size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Hold *amount*, or everything if that is less."""
        amount = min(amount, self._size)
        await self._take(amount)
        try:
            yield
        finally:
            self._give(amount)

    async def _take(self, amount: int) -> None:
        if not self._waiting and amount <= self.free:
            self.free -= amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._give(amount if turn.done() and not turn.cancelled() else 0)
            raise

    def _give(self, amount: int) -> None:
        self.free += amount
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done():
                if wanted > self.free:
                    return
                self.free -= wanted
                turn.set_result(None)
            self._waiting.popleft()


class Pace:
    """How long to wait for a client: *seconds*, refilled by what it sends or receives, at *rate* bytes a second.

    A client that keeps up this rate has unlimited time; one that moves a byte now and then has not.
    """

    def __init__(self, seconds: float, rate: float) -> None:
        self._most = self.left = seconds
        self._rate = rate

    def note(self, seconds: float, moved: int) -> None:
        """Count *seconds* of waiting, in which *moved* bytes were sent or received."""
        self.left = min(self._most, self.left - seconds + moved / self._rate)


class Body:
    """One request's bytes: arriving, and then complete. ``must_go`` is set when there is no more room for them."""

    def __init__(self, since: float) -> None:
        self.bytes = 0
        self.since = since
        self.is_whole = False
        self.must_go = asyncio.Event()


class Bodies:
    """All requests' bytes, *most* at a time. If there is no room for more, the slowest request has to go."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._all: set[Body] = set()

    @property
    def bytes(self) -> int:
        """How many there are now."""
        return sum(body.bytes for body in self._all)

    @property
    def coming(self) -> int:
        """How many requests have not arrived completely yet."""
        return sum(not body.is_whole for body in self._all)

    def begin(self) -> Body:
        """Return a request that begins to arrive."""
        body = Body(self._clock())
        self._all.add(body)
        return body

    def grow(self, body: Body, count: int) -> None:
        """Count this many more bytes of it.

        Raises:
            RequestError: there is no room for them, and no request is slower than this one.
        """
        body.bytes += count
        while self.bytes > self._most:
            slowest = min((each for each in self._all if not each.is_whole), key=self._rate, default=body)
            self.end(slowest)
            slowest.must_go.set()
            if slowest is body:
                raise no_room()

    def end(self, body: Body) -> None:
        """Stop counting it."""
        self._all.discard(body)

    def _rate(self, body: Body) -> float:
        return body.bytes / max(self._clock() - body.since, 1e-3)


@dataclass(frozen=True)
class BodiesInHand:
    """The bodies of requests: questions' *in_memory*, documents' *on_disk*."""

    in_memory: Bodies
    on_disk: Bodies


def no_room() -> RequestError:
    """Return the error for requests whose bytes find no room."""
    return RequestError(
        429,
        "other requests use all the bytes that this server accepts at a time; ask again later",
        code="queue_full",
        retry_after=_RETRY_SECONDS,
    )
