"""Ctrl-C while threads work: each finishes its current piece, and only then does Ctrl-C take effect."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruption_held_back(stop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* at once when a signal asks this process to end; let the signal take effect after the block.

    Python raises KeyboardInterrupt between any two instructions of the main thread. If the main thread holds a lock
    then that the threads need to end, as `concurrent.futures` does while it waits, they deadlock.

    Raises:
        KeyboardInterrupt: a signal arrived, unless its handler raises something else.
    """
    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield
        return
    caught: list[int] = []

    def hold_back(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        stop()

    # A signal that is ignored, or that ends the process at once, continues to do so.
    handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        for number in handlers:
            signal.signal(number, hold_back)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if caught:
            handlers[signal.Signals(caught[0])](caught[0], None)
            raise KeyboardInterrupt
