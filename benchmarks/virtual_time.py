"""An event loop on which only declared time passes: hours of waiting take seconds, with the same result each time.

Waiting of asyncio is skipped. Calls for threads run in this thread, at the time when a thread of their pool would be
free, and take as many seconds as they declare with :meth:`VirtualLoop.spend`. With *own*, this process's processor time
counts too.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_DEFAULT_THREADS = min(32, (os.cpu_count() or 1) + 4)  # of asyncio.to_thread


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. It cannot wait for sockets and processes."""

    def __init__(self, own: bool = False) -> None:
        super().__init__(_Skipping(self))
        self.skipped = 0.0
        self._own = own
        self._spent = 0.0
        self._pools: dict[int, _Pool] = {}

    def time(self) -> float:
        """Return the time in seconds."""
        return self.skipped + (time.process_time() if self._own else 0.0)

    def spend(self, seconds: float) -> None:
        """Make the current call, which runs in place of a thread, take this much longer."""
        self._spent += seconds

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Make a call in place of a thread of *executor*."""
        future = self.create_future()
        count = getattr(executor, "_max_workers", _DEFAULT_THREADS)
        pool = self._pools.setdefault(id(executor), _Pool(self, count))
        pool.submit(future, lambda: function(*args))
        return future

    def made(self, call: Callable[[], Any]) -> tuple[Any, Exception | None, float]:
        """Make a call; return its result or exception, and the seconds that it took."""
        self._spent = 0.0
        try:
            return call(), None, self._spent
        except Exception as error:
            return None, error, self._spent


class _Pool:
    """The threads of an executor: that many calls run at once, and the others wait."""

    def __init__(self, loop: VirtualLoop, count: int) -> None:
        self._loop = loop
        self._free = count
        self._waiting: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()

    def submit(self, future: asyncio.Future[Any], call: Callable[[], Any]) -> None:
        if self._free:
            self._free -= 1
            self._begin(future, call)
        else:
            self._waiting.append((future, call))

    def _begin(self, future: asyncio.Future[Any], call: Callable[[], Any]) -> None:
        result, error, seconds = self._loop.made(call)
        self._loop.call_later(seconds, self._end, future, result, error)

    def _end(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        if not future.done() and error is not None:
            future.set_exception(error)
        elif not future.done():
            future.set_result(result)
        if self._waiting:
            self._begin(*self._waiting.popleft())
        else:
            self._free += 1


class _Skipping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("all tasks wait for what will never happen")
        self._loop.skipped += max(0.0, timeout)
        return []
