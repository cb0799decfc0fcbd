"""What a workspace remembers, in SQLite: every page as soon as it is finished, every document, who reads what just now.

The file is ``workspace.sqlite`` in the workspace, in WAL mode; docs/workspace.md has the schema. Pages belong to the
SHA-256 of a document's content: a file that was renamed, or lies there twice, is not read again, one that changed is.
Each process has one connection, and writes with it from one thread; processes wait for each other a little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from olmocr.errors import OutputError
from olmocr.reports.typed_json import WrongTypeError, parse_as
from olmocr.workspace.document import PageRecord

RECORDS_FILE = "workspace.sqlite"
SCHEMA_VERSION = 1

HEARTBEAT_SECONDS = 10.0
"""How often the owner of a lock says that it is alive."""

STALE_SECONDS = 60.0
"""A lock whose owner has been silent for so long is anybody's."""

_BUSY_SECONDS = 30.0

# SQLite knows a full disk, but takes a quota and a limit for a fault of the disk.
_NO_ROOM = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE"}
_NO_DATABASE = {"SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR"}

_DOCUMENTS = "SELECT key, name, stat, sha256, selection, page_count, state, why, updated FROM documents"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (
    sha256      TEXT    NOT NULL,
    page_number INTEGER NOT NULL,
    status      TEXT    NOT NULL,
    record      TEXT    NOT NULL,
    finished    REAL    NOT NULL,
    PRIMARY KEY (sha256, page_number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    key         TEXT    PRIMARY KEY,
    name        TEXT    NOT NULL,
    stat        TEXT    NOT NULL,
    sha256      TEXT,
    selection   TEXT    NOT NULL,
    page_count  INTEGER,
    state       TEXT    NOT NULL,
    why         TEXT,
    updated     REAL    NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS locks (
    name        TEXT    PRIMARY KEY,
    owner       TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    pid         INTEGER NOT NULL,
    heartbeat   REAL    NOT NULL
) WITHOUT ROWID;
"""

DocumentState = Literal["done", "failed", "filtered"]


@dataclass(frozen=True)
class KnownDocument:
    """What came of one source. *stat* tells whether the file may have changed, *selection* which pages were asked for.

    *sha256* and *page_count* are None if it could not be opened; *why* is None unless it failed or was left out.
    *updated* is when it was kept, in seconds since 1970.
    """

    key: str
    name: str
    stat: str
    sha256: str | None
    selection: str
    page_count: int | None
    state: DocumentState
    why: str | None = None
    updated: float = field(default=0.0, compare=False)


class Records:
    """The workspace's memory; use it as a context manager, in one thread."""

    def __init__(self, folder: Path) -> None:
        """Open or make the file.

        Raises:
            OutputError: it cannot be made, is no database, or is of a later version of this package.
        """
        self._path = folder / RECORDS_FILE
        self._owner = uuid.uuid4().hex
        with self._errors("used"):
            self._db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with self._errors("used"):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Make the tables. SQLite itself does not wait for a process that chooses WAL at the same moment."""
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                # WAL: a reader never waits for the writer, and what is committed survives the process, however it ends.
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._require_version()
                self._db.executescript(_SCHEMA)
                return
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _require_version(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise OutputError(f"{self._path} was written by a later version of olmocr; update this one")
        if version == 0:
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release_all()
        self._db.close()

    def add_page(self, sha256: str, page: PageRecord) -> None:
        """Keep a page; one that was kept before under the same number is replaced."""
        self._write(
            "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, ?)",
            (sha256, page.page_number, page.status, _as_json(page), time.time()),
        )

    def pages(self, sha256: str) -> dict[int, PageRecord]:
        """Return what is known of a document's pages, by number, in order; what cannot be read is left out."""
        rows = self._read("SELECT page_number, record FROM pages WHERE sha256 = ? ORDER BY page_number", sha256)
        found = ((number, _from_json(text)) for number, text in rows)
        return {number: page for number, page in found if page is not None and page.page_number == number}

    def finished_numbers(self, sha256: str, *, with_fallback: bool) -> set[int]:
        """Return the numbers of the pages that need no model any more; those that are flagged do, unless told so."""
        return {number for number, page in self.pages(sha256).items() if with_fallback or not page.is_flagged}

    def forget_pages(self, sha256: str) -> None:
        """Forget a document's pages, so that they are read anew."""
        self._write("DELETE FROM pages WHERE sha256 = ?", (sha256,))

    def document(self, key: str) -> KnownDocument | None:
        """Return what came of a source, None if it was never finished."""
        rows = self._read(_DOCUMENTS + " WHERE key = ?", key)
        return KnownDocument(*rows[0]) if rows else None

    def documents(self) -> Iterator[KnownDocument]:
        """Yield all documents by name."""
        for row in self._read(_DOCUMENTS + " ORDER BY name, key"):
            yield KnownDocument(*row)

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield the names of all documents that failed, and why."""
        return ((each.name, each.why or "") for each in self.documents() if each.state == "failed")

    def add_document(self, document: KnownDocument) -> None:
        """Keep what came of a source, instead of what was known of it."""
        why = _storable(document.why) if document.why else None
        kept = dataclasses.replace(document, name=_storable(document.name), why=why, updated=time.time())
        values = dataclasses.astuple(kept)
        self._write("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def lock(self, name: str) -> bool:
        """Take a lock if it is free, ours, or that of a process that is dead or has been silent for long."""
        with self._errors("written"):
            self._db.execute("BEGIN IMMEDIATE")  # from here on nobody else takes one
            try:
                is_free = self._is_free(name)
                if is_free:
                    mine = (name, self._owner, socket.gethostname(), os.getpid(), time.time())
                    self._db.execute("INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?, ?)", mine)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return is_free

    def _is_free(self, name: str) -> bool:
        rows = self._read("SELECT owner, host, pid, heartbeat FROM locks WHERE name = ?", name)
        return not rows or rows[0][0] == self._owner or _is_abandoned(*rows[0][1:])

    def beat(self) -> None:
        """Say that the owner of this process's locks is alive."""
        self._write("UPDATE locks SET heartbeat = ? WHERE owner = ?", (time.time(), self._owner))

    def release(self, name: str) -> None:
        """Give a lock back."""
        self._write("DELETE FROM locks WHERE name = ? AND owner = ?", (name, self._owner))

    def release_all(self) -> None:
        """Give all locks of this process back."""
        with contextlib.suppress(OutputError):
            self._write("DELETE FROM locks WHERE owner = ?", (self._owner,))

    def _write(self, statement: str, values: Iterable[Any]) -> None:
        with self._errors("written"):
            self._db.execute(statement, tuple(values))

    def _read(self, statement: str, *values: str) -> list[Any]:
        with self._errors("read"):
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = getattr(error, "sqlite_errorname", "")
            if kind in _NO_ROOM:
                reason = f"the disk is full, or fails: {self._path} could not be {what} ({error})"
                raise OutputError(f"{reason}; free some space and run it again") from error
            way_out = "; move it away to begin anew" if kind in _NO_DATABASE else ""
            raise OutputError(f"{self._path} could not be {what}: {error}{way_out}") from error


def _is_abandoned(host: str, pid: int, heartbeat: float) -> bool:
    """Return whether a lock's owner is gone: dead, if it ran on this machine, or silent."""
    age = time.time() - heartbeat
    if age > STALE_SECONDS or age < -STALE_SECONDS:  # from the future: a clock was set back
        return True
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's process
        return False
    return False


def _storable(text: str) -> str:
    """Return *text* as UTF-8 can hold it: a file's name may have bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


def _as_json(page: PageRecord) -> str:
    return json.dumps(dataclasses.asdict(page))


def _from_json(text: str) -> PageRecord | None:
    try:
        return parse_as(PageRecord, text)
    except WrongTypeError:
        return None
