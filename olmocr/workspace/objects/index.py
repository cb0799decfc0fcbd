"""Entries by key in a store: what is known of ten million pages is listed and read in a few hundred requests.

An entry is written at once, as an object of its own, under a name that contains its key, its version and a hash of its
content. Keys are spread over 256 shards by their first two digits. When a shard has more than a few such objects, it is
put together into one object, a segment, and only then are the objects in the segment removed. A process that reads at
that moment looks again. Of two entries with one key the higher version counts, and of equal versions all machines
choose the same: so several machines may make segments at once, from lists that are out of date, and nothing is lost.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from olmocr.workspace.objects.store import ObjectStore

Entry = dict[str, Any]

MOST_LOOSE = 64
"""How many entries of a shard may be objects of their own."""

MOST_LEFT = 8
"""How many of these are left when a run ends."""

_LOOKS = 4  # at a list with objects that have gone since

_TABLE = """
CREATE TABLE entries (key TEXT PRIMARY KEY, version INTEGER, name BLOB, sha256 TEXT, line TEXT) WITHOUT ROWID;
CREATE INDEX by_name ON entries (name, key);
CREATE INDEX by_sha256 ON entries (sha256);
"""


class _Shard:
    """The objects in a shard by the last list, and those that are not read yet; one thread at a time looks."""

    def __init__(self, listed: float) -> None:
        self.lock = threading.RLock()
        self.listed = listed
        self.there: set[str] = set()
        self.read: set[str] = set()


class ShardedIndex:
    """The entries below *folder*; those that were read are in a temporary file, which ends with the process.

    *clock* returns elapsed seconds. Any thread may use it.
    """

    def __init__(self, store: ObjectStore, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._shards: dict[str, _Shard] | None = None  # None before the first list of all
        self._listed = 0.0
        self._shards_lock = threading.RLock()
        self._lock = threading.RLock()  # of the file
        self._ours: set[str] = set()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_TABLE)

    def close(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._db.close()

    def get(self, key: str, *, no_older_than: float | None = None) -> Entry | None:
        """Return an entry; with *no_older_than*, from a list that is at most that many seconds old."""
        self._look(key[:2], no_older_than)
        rows = self._rows("SELECT line FROM entries WHERE key = ?", key)
        return json.loads(rows[0][0]) if rows else None

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, replacing the known one."""
        shard = self._look(key[:2], None)
        with shard.lock:
            rows = self._rows("SELECT version FROM entries WHERE key = ?", key)
            version = rows[0][0] + 1 if rows else 1
            line = _line({**entry, "key": key, "version": version})
            name = f"{self._folder}/{key[:2]}/{key}-{version:06}-{_digest(line)}.json"
            self._store.put(name, line.encode())
            self._take([line])
            earlier = {each for each in shard.there if each.startswith(f"{self._folder}/{key[:2]}/{key}-")} - {name}
            self._store.remove(earlier)
            shard.there = (shard.there - earlier) | {name}
            shard.read.add(name)
        self._ours.add(key[:2])
        if _loose(shard.there) > MOST_LOOSE:
            self.compact(key[:2])

    def tidy(self) -> None:
        """Put together the shards that were written to, so that the next process has few objects to read."""
        for name in sorted(self._ours):
            self.compact(name, unless_loose=MOST_LEFT)
        self._ours.clear()

    def entries(self) -> Iterator[Entry]:
        """Yield all entries by name, and by key."""
        for name in sorted(self._all()):
            self._look(name, None)
        after: tuple[bytes, str] = (b"", "")
        while rows := self._rows(
            "SELECT line, name, key FROM entries WHERE (name, key) > (?, ?) ORDER BY name, key LIMIT 1000", *after
        ):
            yield from (json.loads(row[0]) for row in rows)
            after = rows[-1][1], rows[-1][2]

    def with_sha256(self, sha256: str) -> list[Entry]:
        """Return those of the entries that were read that have this content."""
        rows = self._rows("SELECT line FROM entries WHERE sha256 = ? ORDER BY key", sha256)
        return [json.loads(line) for (line,) in rows]

    def first(self, most: int) -> list[Entry]:
        """Return some entries, at most *most*."""
        for name in sorted(self._all()):
            self._look(name, None)
            if self._rows("SELECT count(*) FROM entries")[0][0] >= most:
                break
        return [json.loads(line) for (line,) in self._rows("SELECT line FROM entries ORDER BY key LIMIT ?", most)]

    def compact(self, name: str, unless_loose: int = 0) -> None:
        """Put all of a shard together into one object, and remove what that contains, unless few are loose."""
        shard = self._shard(name)
        with shard.lock:
            if _loose(shard.there) > unless_loose:
                self._list(name, shard)  # another machine may have done it
            if _loose(shard.there) <= unless_loose:
                return
            self._read(name, shard)
            parts = set(shard.there)
            rows = self._rows("SELECT line FROM entries WHERE key >= ? AND key < ? ORDER BY key", name, f"{name}g")
            text = "".join(f"{line}\n" for (line,) in rows)
            segment = f"{self._folder}/{name}/all-{_digest(text)}.jsonl.gz"
            self._store.put(segment, gzip.compress(text.encode(), mtime=0))
            self._store.remove(parts - {segment})
            shard.there, shard.read = {segment}, {segment}

    # What is there, and what was read of it.

    def _all(self) -> dict[str, _Shard]:
        with self._shards_lock:
            if self._shards is None:
                self._listed, self._shards = self._clock(), {}
                for name in self._store.names(self._folder):
                    self._shard(name.removeprefix(f"{self._folder}/").partition("/")[0]).there.add(name)
            return self._shards

    def _shard(self, name: str) -> _Shard:
        with self._shards_lock:
            return self._all().setdefault(name, _Shard(self._listed))

    def _look(self, name: str, no_older_than: float | None) -> _Shard:
        shard = self._shard(name)
        with shard.lock:
            if no_older_than is not None and self._clock() - shard.listed >= no_older_than:
                self._list(name, shard)
            self._read(name, shard)
        return shard

    def _list(self, name: str, shard: _Shard) -> None:
        shard.listed = self._clock()
        shard.there = set(self._store.names(f"{self._folder}/{name}"))
        shard.read &= shard.there

    def _read(self, name: str, shard: _Shard) -> None:
        for look in range(_LOOKS):
            unread = shard.there - shard.read
            if not unread:
                return
            if look:
                self._list(name, shard)  # missing objects were put together meanwhile: they are in a segment
            found = self._store.get_all(shard.there - shard.read)
            self._take(line for data in found.values() for line in _lines(data))
            shard.read |= found.keys()
        shard.there &= shard.read

    def _take(self, lines: Iterable[str]) -> None:
        """Keep lines, each unless the known one for its key counts more."""
        with self._lock:
            self._db.execute("BEGIN")
            for line in lines:
                self._take_one(line)
            self._db.execute("COMMIT")

    def _take_one(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key, version = str(entry["key"]), int(entry["version"])
        except (ValueError, KeyError, TypeError):
            return
        row = self._db.execute("SELECT version, line FROM entries WHERE key = ?", (key,)).fetchone()
        if row and (row[0], row[1]) >= (version, line):
            return
        name = str(entry.get("name", "")).encode("utf-8", "surrogatepass")
        self._db.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", (key, version, name, _sha(entry), line)
        )

    def _rows(self, statement: str, *values: str | int | bytes) -> list[Any]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()


def _sha(entry: Entry) -> str | None:
    sha256 = entry.get("sha256")
    return sha256 if isinstance(sha256, str) else None


def _loose(names: set[str]) -> int:
    return sum(name.endswith(".json") for name in names)


def _lines(data: bytes) -> list[str]:
    try:
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return [line for line in text.decode().split("\n") if line]
    except (OSError, EOFError, UnicodeDecodeError):
        return []


def _line(entry: Entry) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
