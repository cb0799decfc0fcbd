"""A workspace's records -> what is known of each document, in a file, so that later only changes are read.

The catalogue also lists which files of the viewer's folder the viewer wrote, from what, and how it left them. If the
catalogue is missing, it is rebuilt without that list: files that are not listed belong to a person.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from olmocr.errors import OutputError, output_error
from olmocr.text import visible, whole
from olmocr.viewer.records import Record, Status, ViewedDocument, find_records, read_records

CATALOGUE = ".olmocr-viewer.sqlite"
"""The catalogue's name in the viewer's folder."""

_FORMAT = 1  # a catalogue of another format is rebuilt

_TABLES = """
    CREATE TABLE files (path BLOB PRIMARY KEY, stamp TEXT, seen INTEGER) WITHOUT ROWID;
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT UNIQUE, path BLOB, number INTEGER, start INTEGER, length INTEGER, digest TEXT,
        name TEXT, source_file TEXT, sorted TEXT, source BLOB,
        pages INTEGER, counts TEXT, to_look_at INTEGER, poor INTEGER, error TEXT
    );
    CREATE INDEX by_path ON documents (path);
    CREATE INDEX in_order ON documents (sorted, key);
    CREATE TABLE written (path TEXT PRIMARY KEY, made_of TEXT, stamp TEXT, sha256 TEXT) WITHOUT ROWID;
    CREATE VIRTUAL TABLE texts USING fts5(text, content='', detail=none, tokenize='unicode61 remove_diacritics 0');
"""
_COLUMNS = "key, name, source_file, source, pages, counts, to_look_at, error, path, number, start, length, digest"
_AT_ONCE = 500  # files of records in one transaction, and rows in one answer


_WORD = re.compile(r"[^\W_]+")  # as the table of texts separates words


@dataclass(frozen=True)
class Entry:
    """A document as the index lists it. *source* is its file's name, as bytes; *counts* are of pages by status."""

    key: str
    name: str
    source_file: str
    source: bytes
    pages: int
    counts: Mapping[Status, int]
    to_look_at: int
    error: str | None
    record: Record


@dataclass(frozen=True)
class Totals:
    """The sums over the documents."""

    documents: int
    failed: int
    pages: int
    to_look_at: int


@dataclass(frozen=True)
class Choice:
    """Which documents to show; by default all.

    *failed* chooses documents that failed, *poor* those with a page whose text is unreliable; together, both kinds.
    *names* are file names, paths or patterns. From the documents that remain, *sample* are drawn by *seed*: the same
    ones each time, and more of them with a larger number.
    """

    failed: bool = False
    poor: bool = False
    names: tuple[str, ...] = ()
    sample: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        kinds = [kind for kind, is_asked in (("failed", self.failed), ("poor", self.poor)) if is_asked]
        told = [" or ".join(kinds)] if kinds else []
        told += [f"named {' or '.join(map(visible, self.names))}"] if self.names else []
        told += [f"a sample of {self.sample} (seed {self.seed})"] if self.sample is not None else []
        return ", ".join(told)


class Catalogue:
    """The catalogue in *folder*, which is made if it is missing. Several processes may use one.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CATALOGUE
        self._choice = Choice()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error, str(folder)) from error
        with self._errors():
            self._db = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
        db.create_function("drawn", 2, _drawn, deterministic=True)
        try:
            db.execute("PRAGMA synchronous = OFF")  # what a power cut damages is rebuilt
            with _transaction(db):
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version == _FORMAT:
                    return db
                if not version:
                    for statement in _TABLES.split(";\n"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {_FORMAT}")
                    return db
        except sqlite3.DatabaseError as error:
            db.close()
            if getattr(error, "sqlite_errorname", "") not in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
                raise
        db.close()
        self._path.unlink(missing_ok=True)  # another version's, or damaged
        return self._open()

    def update(self, workspace: Path, on_file: Callable[[int], None] = lambda done: None) -> None:
        """Read what has changed in *workspace* since the last time.

        Raises:
            InputError: it is not a workspace, or cannot be read.
            OutputError: the catalogue cannot be written.
        """
        paths, done = find_records(workspace), 0
        with self._errors():
            seen = (self._db.execute("SELECT max(seen) FROM files").fetchone()[0] or 0) + 1
            while some := list(islice(paths, _AT_ONCE)):
                with _transaction(self._db):
                    for path in some:
                        self._take(path, seen)
                done += len(some)
                on_file(done)
            with _transaction(self._db):
                gone = "SELECT path FROM files WHERE seen != ?"
                self._db.execute(f"DELETE FROM documents WHERE path IN ({gone})", (seen,))  # noqa: S608
                self._db.execute("DELETE FROM files WHERE seen != ?", (seen,))

    def _take(self, path: Path, seen: int) -> None:
        name, now = os.fsencode(path), stamp(path)
        known = self._db.execute("SELECT stamp FROM files WHERE path = ?", (name,)).fetchone()
        if known is None or known[0] != now or now is None:
            self._db.execute("DELETE FROM documents WHERE path = ?", (name,))
            for record, document in read_records(path):
                self._add(record, document)
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (name, now, seen))

    def _add(self, record: Record, document: ViewedDocument) -> None:
        counts: dict[str, int] = {}
        for page in document.pages:
            counts[page.status] = counts.get(page.status, 0) + 1
        shown = whole(visible(document.source_file))
        row = (
            *(document.key, os.fsencode(record.path), record.number, record.start, record.length, record.digest),
            *(whole(document.name), shown, shown.casefold(), _source(document)),
            *(len(document.pages), json.dumps(counts), sum(page.needs_a_look for page in document.pages)),
            *(sum(page.is_poor for page in document.pages), whole(document.error) if document.error else None),
        )
        added = self._db.execute(f"INSERT OR REPLACE INTO documents VALUES (NULL{', ?' * len(row)})", row)  # noqa: S608
        text = "\n".join(whole(page.text) for page in document.pages)
        self._db.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (added.lastrowid, text))

    def choose(self, choice: Choice) -> None:
        """Limit :meth:`totals`, :meth:`entries` and :meth:`found` to these documents."""
        where, values = _condition(choice)
        with self._errors():
            self._db.execute("DROP TABLE IF EXISTS temp.chosen")
            self._db.execute("CREATE TEMP TABLE chosen (at INTEGER PRIMARY KEY, id INTEGER UNIQUE)")
            self._db.execute(
                "INSERT INTO chosen (id) SELECT id FROM documents WHERE id IN "  # noqa: S608
                f"(SELECT id FROM documents WHERE {where}) ORDER BY sorted, key",
                values,
            )

    def totals(self) -> Totals:
        """Return the sums over the chosen documents."""
        sums = "count(*), count(error), coalesce(sum(pages), 0), coalesce(sum(to_look_at), 0)"
        with self._errors():
            return Totals(*self._db.execute(f"SELECT {sums} FROM chosen JOIN documents USING (id)").fetchone())  # noqa: S608

    def count_all(self) -> int:
        """Return how many documents there are, chosen or not."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM documents").fetchone()[0])

    def entries(self, start: int = 0, count: int = -1) -> Iterator[Entry]:
        """Yield the chosen documents, *count* of them from *start* on, in order."""
        end = start + count if count >= 0 else None
        while end is None or start < end:
            size = _AT_ONCE if end is None else min(_AT_ONCE, end - start)
            with self._errors():
                rows = self._db.execute(
                    f"SELECT {_COLUMNS} FROM chosen JOIN documents USING (id) WHERE at > ? ORDER BY at LIMIT ?",  # noqa: S608
                    (start, size),
                ).fetchall()
            yield from map(_entry, rows)
            if len(rows) < size:
                return
            start += size

    def around(self, key: str) -> tuple[Entry | None, Entry | None, Entry | None]:
        """Return a chosen document, between the one before it and the one after it."""
        with self._errors():
            row = self._db.execute("SELECT at FROM chosen JOIN documents USING (id) WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None, None, None
        at = row[0]
        before, itself, after = (next(self.entries(place, 1), None) for place in (at - 2, at - 1, at))
        return (before if at > 1 else None), itself, after

    def found(self, words: Iterable[str]) -> Iterator[Entry]:
        """Yield the chosen documents that have words beginning with all of these."""
        query = " ".join(f'"{part}"*' for word in words for part in _WORD.findall(word))
        if not query:
            return
        with self._errors():
            keys = self._db.execute(
                "SELECT documents.id FROM texts JOIN chosen ON chosen.id = texts.rowid JOIN documents USING (id) "
                "WHERE texts MATCH ? ORDER BY at",
                (query,),
            ).fetchall()
        for key in keys:
            with self._errors():
                row = self._db.execute(f"SELECT {_COLUMNS} FROM documents WHERE id = ?", key).fetchone()  # noqa: S608
            yield _entry(row)

    def is_as_written(self, folder: Path, name: str, made_of: str) -> bool:
        """Return whether the file *name* in *folder* was made from exactly that, and was not changed since."""
        with self._errors():
            row = self._db.execute("SELECT made_of, stamp FROM written WHERE path = ?", (name,)).fetchone()
        return row is not None and row[0] == made_of and row[1] == stamp(folder / name)

    def note_written(self, folder: Path, name: str, made_of: str, sha256: str) -> None:
        """Remember what the file *name* was made from, and its state."""
        with self._errors():
            self._db.execute(
                "INSERT OR REPLACE INTO written VALUES (?, ?, ?, ?)", (name, made_of, stamp(folder / name), sha256)
            )

    def written(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yield the files that were written under names of a *pattern*, and their SHA-256."""
        after = ""
        while True:
            with self._errors():
                rows = self._db.execute(
                    "SELECT path, sha256 FROM written WHERE path > ? AND path GLOB ? ORDER BY path LIMIT ?",
                    (after, pattern, _AT_ONCE),
                ).fetchall()
            if not rows:
                return
            yield from rows
            after = rows[-1][0]

    def has(self, key: str) -> bool:
        """Return whether there is a document with this key, chosen or not."""
        with self._errors():
            return self._db.execute("SELECT 1 FROM documents WHERE key = ?", (key,)).fetchone() is not None

    def forget(self, name: str) -> None:
        """Forget that a file was written."""
        with self._errors():
            self._db.execute("DELETE FROM written WHERE path = ?", (name,))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                f"{self._path} could not be written: {error}; remove it, or choose another folder with `output_dir`"
            ) from error


def stamp(path: Path) -> str | None:
    """Return a value that changes when a file does, without reading it; None if the file does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _condition(choice: Choice) -> tuple[str, list[Any]]:
    """Return a choice in SQL, and the values in it."""
    kinds = [kind for kind, is_asked in (("error NOT NULL", choice.failed), ("poor > 0", choice.poor)) if is_asked]
    parts = [f"({' OR '.join(kinds)})"] if kinds else []
    values: list[Any] = []
    if choice.names:
        one = "source_file = ? OR name = ? OR source_file GLOB ? OR name GLOB ?"
        parts.append(f"({' OR '.join([one] * len(choice.names))})")
        values += [whole(visible(name)) for name in choice.names for _ in range(4)]
    where = " AND ".join(parts) or "1"
    if choice.sample is not None:
        where += " ORDER BY drawn(?, key) LIMIT ?"
        values += [choice.seed, choice.sample]
    return where, values


def _drawn(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()


def _source(document: ViewedDocument) -> bytes:
    try:
        return os.fsencode(document.source_file)
    except UnicodeEncodeError:  # not a file's name
        return b""


def _entry(row: tuple[Any, ...]) -> Entry:
    key, name, source_file, source, pages, counts, to_look_at, error, path, number, start, length, digest = row
    record = Record(Path(os.fsdecode(path)), number, start, length, digest)
    return Entry(key, name, source_file, source, pages, json.loads(counts), to_look_at, error, record)
