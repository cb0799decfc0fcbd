"""A dict whose entries lie in a temporary file: of ten million documents a run remembers what it must, in no memory."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from olmocr.errors import OutputError

T = TypeVar("T")

_AT_ONCE = 1000


class DiskDict(Generic[T]):
    """Values by key, in the order in which their keys came. The file ends with this, and nobody else sees it.

    Any thread may use it. Each method raises OutputError where the disk of temporary files is full, or fails.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        with _errors():
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._db.executescript(
                "PRAGMA journal_mode = OFF;"  # nobody looks at it after a crash
                "CREATE TABLE entries (place INTEGER PRIMARY KEY, key TEXT UNIQUE, value BLOB)"
            )

    def __setitem__(self, key: str, value: T) -> None:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        with self._lock, _errors():
            added = self._db.execute(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (self._count, key, data)
            ).rowcount
            self._count += added
            if not added:
                self._db.execute("UPDATE entries SET value = ? WHERE key = ?", (data, key))

    def get(self, key: str) -> T | None:
        """Return the value of *key*; None if there is none."""
        rows = self._rows("SELECT value FROM entries WHERE key = ?", key)
        return _value(rows[0]) if rows else None

    def place(self, key: str) -> int:
        """Return how many keys came before *key*.

        Raises:
            KeyError: it did not come.
        """
        rows = self._rows("SELECT place FROM entries WHERE key = ?", key)
        if not rows:
            raise KeyError(key)
        return int(rows[0][0])

    def __contains__(self, key: str) -> bool:
        return bool(self._rows("SELECT 1 FROM entries WHERE key = ?", key))

    def __len__(self) -> int:
        return self._count

    def values(self, start: int = 0, end: int | None = None) -> Iterator[T]:
        """Yield all values, or those whose places are from *start* and before *end*; also such as come meanwhile."""
        end = 1 << 62 if end is None else end
        statement = "SELECT value, place FROM entries WHERE place >= ? AND place < ? ORDER BY place LIMIT ?"
        while rows := self._rows(statement, start, end, _AT_ONCE):
            yield from map(_value, rows)
            start = rows[-1][1] + 1

    def _rows(self, statement: str, *values: str | int) -> list[Any]:
        with self._lock, _errors():
            return self._db.execute(statement, values).fetchall()


def _value(row: tuple[bytes, ...]) -> Any:
    # Written by this process, into a file that has no name.
    return pickle.loads(row[0])  # noqa: S301


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"a temporary file could not be used ({error}); free some space, or set TMPDIR to another folder"
        ) from error
