"""An event loop in a thread of its own, for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class EventLoopThread:
    """Runs coroutines for scripts, and for notebooks, whose cells run in an event loop already.

    All coroutines of one context run in the same loop, so that what one has opened another can use.
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

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what *coroutine* returns, or raise what it raises.

        An exception that comes while this waits, such as KeyboardInterrupt, cancels the coroutine, and is raised when
        the coroutine has ended.
        """
        has_ended = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self._loop.create_task(coroutine)
            task.add_done_callback(lambda _: has_ended.set())
            tasks.append(task)

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self._loop.call_soon_threadsafe(begin)
        try:
            has_ended.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)
            has_ended.wait()
            raise
        return tasks[0].result()
