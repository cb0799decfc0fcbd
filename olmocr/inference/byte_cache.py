"""A cache of computed values with a limit in bytes; it drops the least recently used values first."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """At most *most* values, by key, in *most_bytes* together. A value larger than that is not kept."""

    def __init__(self, most_bytes: int, most: int = sys.maxsize) -> None:
        self._most_bytes = most_bytes
        self._most = most
        self._found: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """The bytes of all values together."""
        return sum(nbytes for _, nbytes in self._found.values())

    def get(self, key: Hashable) -> Value | None:
        """Return the value of *key*, and mark it as used now; return None if there is none."""
        if key not in self._found:
            return None
        self._found.move_to_end(key)
        return self._found[key][0]

    def put(self, key: Hashable, value: Value, nbytes: int) -> None:
        """Keep *value*, and drop others that no longer have room."""
        self._found.pop(key, None)
        if nbytes <= self._most_bytes:
            self._found[key] = (value, nbytes)
            if len(self._found) > self._most:
                self._found.popitem(last=False)
            self.shrink(self._most_bytes)

    def shrink(self, to_bytes: int) -> None:
        """Drop values until the rest take at most *to_bytes*."""
        while self._found and self.nbytes > to_bytes:
            self._found.popitem(last=False)
