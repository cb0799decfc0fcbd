"""PageRequests of many clients -> answers; some requests are answered at once, some wait, and more are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from olmocr.errors import AnswerError, ServerUnavailableError
from olmocr.page import ModelResponse, PageRequest
from olmocr.serving.bounds import Bound
from olmocr.serving.refusals import RequestError

T = TypeVar("T")

OnText = Callable[[str], None]
"""Receives all of an answer that is written so far."""

Write = Callable[[PageRequest, OnText], Awaitable[ModelResponse]]
"""Answers a request and reports what it writes: the engine's ``ask``, or a scripted one in a test."""

_MOST_SECONDS = 60.0
"""The longest time that a refused client is asked to wait."""


class Asking:
    """The only way to the model. It has *at_once* questions at a time, and *waiting* more requests may wait.

    A document is one request, however many of its pages are asked about. ``is_over`` is set when all have ended.
    *pixels* limits the bytes of the pictures of all questions and documents; the reader of a document takes the bytes
    of its pages. :meth:`alone` reads large pictures, in one thread.
    """

    def __init__(self, write: Write, *, at_once: int, waiting: int, pixels: Bound) -> None:
        self._write = write
        self.pixels = pixels
        self._reading = ThreadPoolExecutor(1, "olmocr-serving")
        self._most = at_once + waiting
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[ModelResponse]] = set()
        self._seconds = 1.0  # that the last few answers took on average
        self.is_closing = False  # then nothing new is accepted
        self.is_over = asyncio.Event()
        self.admitted = 0

    @property
    def asked(self) -> int:
        """The number of questions without an answer yet, pages of documents included."""
        return len(self._tasks)

    def check(self) -> None:
        """Raise at once, before a request has arrived completely, if there is no place for it.

        Raises:
            RequestError: no places are left.
            ServerUnavailableError: no more places are given.
        """
        if self.is_closing:
            raise closing()
        if self.admitted >= self._most:
            raise RequestError(
                429,
                f"{self.admitted} requests are being answered or wait, which is this server's limit; ask again later",
                code="queue_full",
                retry_after=min(_MOST_SECONDS, self._seconds * self._most / self._at_once),
            )

    def admit(self) -> Place:
        """Return one of the places of requests; errors as of :meth:`check`."""
        self.check()
        return Place(self)

    async def alone(self, work: Callable[[], T]) -> T:
        """Return what *work* returns: one call after another, so that only one at a time takes memory."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    async def ask(self, request: PageRequest) -> ModelResponse:
        """Answer *request* in its turn; cancelling this ends the answer."""
        task = self._begin(lambda: request, lambda text: None)
        try:
            return await _result(task)
        finally:
            await _end(task)

    async def stream(
        self,
        make_request: Callable[[], PageRequest],
        pixel_bytes: int = 0,
        when_answered: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[str | ModelResponse]:
        """Yield an answer's text in pieces as it is written, then the complete answer; closing this ends the answer.

        *make_request* is called, in a thread, when its turn has come: a picture takes memory once it is read, namely
        *pixel_bytes*. *when_answered* is called when the model has finished, however slowly the client reads.

        Raises:
            OlmocrError: there is no answer, or it ends in the middle.
        """
        written, news = "", asyncio.Event()

        def tell(text: str) -> None:
            nonlocal written
            written = text
            news.set()

        task = self._begin(make_request, tell, pixel_bytes)
        for tell_of_end in (lambda task: news.set(), lambda task: when_answered()):
            task.add_done_callback(tell_of_end)
        sent = ""
        try:
            while not task.done():
                await news.wait()
                news.clear()
                if len(written) > len(sent) and written.startswith(sent):
                    piece, sent = written[len(sent) :], written
                    yield piece
            answer = await _result(task)
            if not answer.text.startswith(sent):
                raise AnswerError("this answer had to be restarted and came out differently; ask again")
            if len(answer.text) > len(sent):
                yield answer.text[len(sent) :]
            yield answer
        finally:
            await _end(task)

    def close(self) -> None:
        """Accept no more requests."""
        self.is_closing = True

    def end_all(self) -> None:
        """End unfinished answers, too, and report this to whoever waits for them."""
        self.is_closing = True
        self.is_over.set()
        for task in self._tasks:
            task.cancel()

    def close_thread(self) -> None:
        """End the thread of :meth:`alone` when its current work is done."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    def _begin(
        self, make_request: Callable[[], PageRequest], tell: OnText, pixel_bytes: int = 0
    ) -> asyncio.Task[ModelResponse]:
        if self.is_over.is_set():
            raise closing()
        task = asyncio.create_task(self._answer(make_request, tell, pixel_bytes))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, make_request: Callable[[], PageRequest], tell: OnText, pixel_bytes: int) -> ModelResponse:
        # Pixels before places, as for documents' pages: in another order each might wait for the other.
        async with self.pixels.taken(pixel_bytes), self._places:  # released however slowly the answer is read
            request = await self.alone(make_request)
            started = time.monotonic()
            answer = await self._write(request, tell)
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)
            return answer


class Place:
    """A place among the current requests until it is given back, which may be done twice."""

    def __init__(self, asking: Asking) -> None:
        self._asking: Asking | None = asking
        asking.admitted += 1

    def give_back(self) -> None:
        """Let another request have it."""
        if self._asking:
            self._asking.admitted -= 1
            self._asking = None


async def _result(task: asyncio.Task[ModelResponse]) -> ModelResponse:
    await asyncio.wait([task])
    if task.cancelled():
        raise closing()
    return task.result()


async def _end(task: asyncio.Task[ModelResponse]) -> None:
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def closing() -> ServerUnavailableError:
    """Return the error for requests that come while the server closes."""
    return ServerUnavailableError("this server is closing; ask again when it runs", _MOST_SECONDS)
