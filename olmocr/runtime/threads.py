"""An event loop in a thread of its own, for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
import queue
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
