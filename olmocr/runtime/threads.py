"""Threads with one task: an event loop for synchronous callers, and work that binds MLX to its thread."""

from __future__ import annotations

import asyncio
import atexit
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeVar

T = TypeVar("T")


class EventLoopThread:
    """Runs coroutines for scripts, and for notebooks, whose cells already run in an event loop.

    All coroutines of one context run in the same loop, so that one can use what another has opened.
    """

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="olmocr", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def run_beside(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what *coroutine* returns, or raise what it raises, from another loop; cancelling this cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what *coroutine* returns, or raise what it raises.

        An exception that arrives while this waits, such as KeyboardInterrupt, cancels the coroutine. It is raised once
        the coroutine has ended.
        """
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()  # an Event can be left locked by an interruption
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self._loop.create_task(coroutine)
            task.add_done_callback(lambda _: ended.put(None))
            tasks.append(task)

        def cancel() -> None:
            if not tasks:  # it was interrupted before it began
                coroutine.close()
                ended.put(None)
            for task in tasks:
                task.cancel()

        try:
            self._loop.call_soon_threadsafe(begin)
            ended.get()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)
            ended.get()
            raise
        return tasks[0].result()


class _LastingThread:
    """A thread that does the work it is given, and waits for more until the process ends."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._last: Future[Any] = Future()
        threading.Thread(target=self._work, name="olmocr-mlx", daemon=True).start()

    @property
    def has_done_all(self) -> bool:
        return self._last.done()

    def do(self, work: Callable[[], T]) -> Future[T]:
        self._last = done = Future[T]()
        self._inbox.put(partial(_do, work, done))
        return done

    def _work(self) -> None:
        while True:
            self._inbox.get()()


_THREADS: list[_LastingThread] = []
_CHOOSING = threading.Lock()
"""Held while one of them is given work, so that none gets two tasks at once."""


def in_a_lasting_thread(work: Callable[[], T]) -> Future[T]:
    """Let a thread do *work* that does not end afterwards, but waits for more; return the future result.

    MLX, mlx-vlm and what they compile keep Python objects for the thread that imports them and for each that draws
    random numbers, and take the GIL to release them when such a thread ends. Before Python 3.13 a thread can be joined
    before that, and Python aborts a process whose interpreter is ending by then. A permanent thread releases nothing.
    """
    with _CHOOSING:
        thread = next((each for each in _THREADS if each.has_done_all), None)
        if thread is None:
            thread = _LastingThread()
            _THREADS.append(thread)
        return thread.do(work)


def _do(work: Callable[[], T], done: Future[T]) -> None:
    try:
        result = work()
    except BaseException as error:
        done.set_exception(error)
        del error  # with the frames that it came from, and their variables
    else:
        done.set_result(result)


@atexit.register
def _let_all_wait() -> None:
    """Make each thread that has done its work wait for more, without the GIL, before the interpreter ends.

    If a thread takes the GIL later, Python ends it, and that aborts the process. Nothing asks a thread to release the
    GIL here, so one that has done its last work keeps it until it waits. A thread that is still working, such as one
    whose model was never closed, already waits without the GIL.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_A_MINUTE)
    for thread in _THREADS:
        if thread.has_done_all:
            thread.do(_nothing).result()
    sys.setswitchinterval(interval)


_A_MINUTE = 60.0


def _nothing() -> None:
    pass
