"""What was computed once and may be asked for again, up to so many bytes: the least recently used goes first."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """At most so many values, by key. What is larger than all of the memory is not kept."""

    def __init__(self, most_bytes: int, most: int = sys.maxsize) -> None:
        self._most_bytes = most_bytes
        self._most = most
        self._found: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What all of them take."""
        return sum(nbytes for _, nbytes in self._found.values())

    def get(self, key: Hashable) -> Value | None:
        """Return the value of *key*, which counts as used now; None if it is not there."""
        if key not in self._found:
            return None
        self._found.move_to_end(key)
        return self._found[key][0]

    def put(self, key: Hashable, value: Value, nbytes: int) -> None:
        """Keep *value*, and let go of what there is no room for any more."""
        self._found.pop(key, None)
        if nbytes <= self._most_bytes:
            self._found[key] = (value, nbytes)
            if len(self._found) > self._most:
                self._found.popitem(last=False)
            self.shrink(self._most_bytes)

    def shrink(self, to_bytes: int) -> None:
        """Let go of values until they take no more than *to_bytes*."""
        while self._found and self.nbytes > to_bytes:
            self._found.popitem(last=False)
