"""What a workspace remembers, in SQLite: every page as soon as it is finished, every document, who reads what just now.

The file is ``workspace.sqlite`` in the workspace, in WAL mode; docs/workspace.md has the schema. Pages belong to the
SHA-256 of a document's content: a file that was renamed, or lies there twice, is not read again, one that changed is.
Each process has one connection, and writes with it from one thread; processes wait for each other a little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import shutil
import socket
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from olmocr.errors import OutputError, output_error
from olmocr.inputs.sources import Source
from olmocr.reports.typed_json import WrongTypeError, parse_as
from olmocr.runtime.machine import network_disk
from olmocr.workspace.document import Failure, PageRecord
from olmocr.workspace.tally import Tally, tally_of

T = TypeVar("T")

log = logging.getLogger(__name__)

RECORDS_FILE = "workspace.sqlite"
SCHEMA_VERSION = 1

HEARTBEAT_SECONDS = 10.0
"""How often the owner of a lock says that it is alive."""

STALE_SECONDS = 60.0
"""A lock whose owner has been silent for so long, by the watch of whoever waits for it, is anybody's."""

_BUSY_SECONDS = 30.0

# SQLite knows a full disk, but takes a quota and a limit for a fault of the disk.
_NO_ROOM = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE"}
# What disks of other machines lack: locks, or memory that processes share.
_NO_LOCKS = {
    *("SQLITE_PROTOCOL", "SQLITE_NOLFS", "SQLITE_IOERR_LOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_IOERR_UNLOCK"),
    *("SQLITE_IOERR_CHECKRESERVEDLOCK", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMLOCK", "SQLITE_IOERR_SHMMAP"),
}
_NOT_WRITABLE = {"SQLITE_CANTOPEN", "SQLITE_PERM"}
_NO_DATABASE = {"SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR"}

# A file's name may have bytes that are no text: they are kept as they are.
_DOCUMENTS = "SELECT key, CAST(name AS BLOB), stat, sha256, selection, page_count, state, why, updated FROM documents"

_READINGS = """
SELECT DISTINCT json_extract(record, '$.model'), json_extract(record, '$.asked')
FROM (SELECT CASE WHEN json_valid(record) THEN record ELSE '{}' END AS record FROM pages
      WHERE sha256 = ? AND status = 'valid')
"""

_MODELS = """
SELECT DISTINCT json_extract(record, '$.model')
FROM (SELECT CASE WHEN json_valid(record) THEN record ELSE '{}' END AS record FROM pages
      WHERE status = 'valid' LIMIT 1000)
"""

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
CREATE TABLE IF NOT EXISTS pages_to_replace (
    sha256      TEXT    NOT NULL,
    page_number INTEGER NOT NULL,
    PRIMARY KEY (sha256, page_number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spellings (
    spelling    TEXT    PRIMARY KEY,
    key         TEXT    NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run         TEXT    PRIMARY KEY,
    ended       REAL    NOT NULL,
    numbers     TEXT    NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS markdown_folders (
    folder      TEXT    PRIMARY KEY
) WITHOUT ROWID;
"""

DocumentState = Literal["done", "failed", "filtered"]


@dataclass(frozen=True)
class KnownDocument:
    """What came of one source. *stat* tells whether the file may have changed, *selection* which pages were asked for.

    *sha256* and *page_count* are None if it could not be opened; *why* is None unless it failed or was left out.
    *updated* is when it was kept, in seconds since 1970, for people to read: two runs may have clocks that differ.
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

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        disk_of: Callable[[Path], str | None] = network_disk,
    ) -> None:
        """Open or make the file.

        *clock* tells seconds that go by, whatever the time of day. *disk_of* tells the kind of a disk that is another
        machine's, None of all others.

        Raises:
            OutputError: it cannot be made, is no database, or is of a later version of this package.
        """
        self._path = folder / RECORDS_FILE
        self._owner = uuid.uuid4().hex
        self._clock = clock
        self._seen: dict[str, tuple[tuple[str, float], float]] = {}
        self._network_disk = disk_of(folder)
        if self._network_disk:
            log.warning(
                "the workspace %s lies on a disk of another machine (%s), whose locks may not hold between machines: "
                "let only one work there at a time, or call a new one %s, which needs no locks",
                folder,
                self._network_disk,
                folder.absolute().as_uri(),
            )
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
                self._choose_journal()
                self._require_version()
                self._db.executescript(_SCHEMA)
                return
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _choose_journal(self) -> None:
        """WAL: a reader never waits for the writer, and what is committed survives the process, however it ends.

        It needs memory that all processes share, which machines do not (https://sqlite.org/wal.html).
        """
        if not self._network_disk:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname not in _NO_LOCKS:
                    raise
        self._db.execute("PRAGMA journal_mode = DELETE")

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

    is_shared = False

    async def away(self, call: Callable[[], T]) -> T:
        """Return what *call* returns, at once: one connection is used by one thread, and a disk takes no time."""
        return call()

    def end_waiting(self) -> None:
        """Have nobody be waited for any more: here nobody is."""

    def look_again(self) -> None:
        """Take up what other processes have done: nothing is remembered that the file does not say."""

    def has_company(self) -> bool:
        """Say whether other machines may work on the same documents: those of this one wait for each other."""
        return False

    def done_by_others(self, source: Source) -> bool:
        """Say whether another program has read a document here: none can."""
        return False

    def others_done(self) -> int:
        """Return how many documents other programs have read here."""
        return 0

    def tally(self, sha256: str) -> Tally:
        """Return a document's pages, counted."""
        return tally_of(self.pages(sha256).values())

    def add_run(self, numbers: dict[str, Any]) -> None:
        """Keep the numbers of the run that ends, without its failures, which are told of documents."""
        kept = {name: value for name, value in numbers.items() if name != "failures"}
        self._write("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (self._owner, time.time(), json.dumps(kept)))

    def runs(self) -> Iterator[dict[str, Any]]:
        """Yield the numbers of each run that ended here."""
        for (text,) in self._read("SELECT numbers FROM runs ORDER BY ended, run"):
            with contextlib.suppress(ValueError):
                yield json.loads(text)

    def add_page(self, sha256: str, page: PageRecord) -> None:
        """Keep a page; one that was kept before under the same number is replaced, and need not be any more.

        A page that fell back replaces none but one that fell back, too: what was read well stays.
        """
        if page.is_fallback and (kept := self.page(sha256, page.page_number)) and not kept.is_fallback:
            return
        self._write(
            "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, ?)",
            (sha256, page.page_number, page.status, _as_json(page), time.time()),
        )
        self._write("DELETE FROM pages_to_replace WHERE sha256 = ? AND page_number = ?", (sha256, page.page_number))

    def page(self, sha256: str, number: int) -> PageRecord | None:
        """Return what is known of one page."""
        rows = self._read("SELECT record FROM pages WHERE sha256 = ? AND page_number = ?", sha256, number)
        page = _from_json(rows[0][0]) if rows else None
        return page if page is not None and page.page_number == number else None

    def pages(self, sha256: str) -> dict[int, PageRecord]:
        """Return what is known of a document's pages, by number, in order; what cannot be read is left out."""
        rows = self._read("SELECT page_number, record FROM pages WHERE sha256 = ? ORDER BY page_number", sha256)
        found = ((number, _from_json(text)) for number, text in rows)
        return {number: page for number, page in found if page is not None and page.page_number == number}

    def finished_numbers(self, sha256: str, *, with_fallback: bool) -> set[int]:
        """Return the numbers of the pages that need no model any more; those that are flagged do, unless told so."""
        finished = {number for number, page in self.pages(sha256).items() if with_fallback or not page.is_flagged}
        return finished - self.numbers_to_replace(sha256)

    def readings(self, sha256: str) -> set[tuple[str, str]]:
        """Return by which models, and how asked, a document's pages were read that have an answer."""
        rows = self._read(_READINGS, sha256)
        return {(model, asked or "") for model, asked in rows if model}

    def only_model(self) -> str | None:
        """Return the model that read all of the first thousand pages; None if there were several, or none."""
        rows = self._read(_MODELS)
        return str(rows[0][0]) if len(rows) == 1 and rows[0][0] else None

    def read_anew(self, sha256: str, numbers: Iterable[int]) -> None:
        """Have pages be read again, by this run or a later one; what is known of each stays until then."""
        with self._errors("written"):
            values = [(sha256, number) for number in numbers]
            self._db.executemany("INSERT OR IGNORE INTO pages_to_replace VALUES (?, ?)", values)

    def numbers_to_replace(self, sha256: str) -> set[int]:
        """Return the numbers of the pages that are to be read again."""
        return {number for (number,) in self._read("SELECT page_number FROM pages_to_replace WHERE sha256 = ?", sha256)}

    def replaced(self, sha256: str) -> None:
        """Have no page be read again any more: what could be read better was."""
        self._write("DELETE FROM pages_to_replace WHERE sha256 = ?", (sha256,))

    def led_elsewhere(self, key: str, spellings: Iterable[str]) -> set[str]:
        """Note that *spellings* are of the document *key*; return the documents that have no name any more."""
        gone = set()
        for spelling in spellings:
            rows = self._read("SELECT key FROM spellings WHERE spelling = ?", spelling)
            # Before there was this table, a document's key was that of its spelling.
            before = rows[0][0] if rows else spelling
            if not rows or before != key:
                self._write("INSERT OR REPLACE INTO spellings VALUES (?, ?)", (spelling, key))
            if before != key and not self._read("SELECT 1 FROM spellings WHERE key = ? LIMIT 1", before):
                gone.add(before)
        return gone

    def forget_document(self, key: str) -> None:
        """Forget what came of a source; its pages stay."""
        self._write("DELETE FROM documents WHERE key = ?", (key,))

    def add_markdown_folder(self, folder: Path) -> None:
        """Note that markdown was written into a folder that is not the workspace's."""
        self._write("INSERT OR IGNORE INTO markdown_folders VALUES (?)", (_storable(str(folder)),))

    def markdown_folders(self) -> list[Path]:
        """Return the folders that are not the workspace's, and into which its markdown was written."""
        return [Path(folder) for (folder,) in self._read("SELECT folder FROM markdown_folders ORDER BY folder")]

    def document(self, key: str) -> KnownDocument | None:
        """Return what came of a source, None if it was never finished."""
        rows = self._read(_DOCUMENTS + " WHERE key = ?", key)
        return _known(rows[0]) if rows else None

    def documents(self) -> Iterator[KnownDocument]:
        """Yield all documents by name."""
        with self._errors("read"):
            for row in self._db.execute(_DOCUMENTS + " ORDER BY name, key"):  # they may be too many for memory
                yield _known(row)

    def failures(self) -> Iterator[Failure]:
        """Yield all documents that failed, by name, and why."""
        return (Failure(each.name, each.why or "") for each in self.documents() if each.state == "failed")

    def add_document(self, document: KnownDocument) -> None:
        """Keep what came of a source, instead of what was known of it."""
        why = _storable(document.why) if document.why else None
        key, name, *others = dataclasses.astuple(dataclasses.replace(document, why=why, updated=time.time()))
        values = (key, _bytes(name), *others)
        self._write("INSERT OR REPLACE INTO documents VALUES (?, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?)", values)

    def lock(self, name: str) -> bool:
        """Take a lock if it is free, ours, or that of a process that is dead or has been silent for long."""
        with self._errors("written"):
            self._db.execute("BEGIN IMMEDIATE")  # from here on nobody else takes one
            try:
                is_free = self._is_free(name)
                if is_free:
                    mine = (name, self._owner, this_machine(), os.getpid(), time.time())
                    self._db.execute("INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?, ?)", mine)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return is_free

    def _is_free(self, name: str) -> bool:
        rows = self._read("SELECT owner, host, pid, heartbeat FROM locks WHERE name = ?", name)
        if not rows or rows[0][0] == self._owner:
            return True
        ((owner, host, pid, heartbeat),) = rows
        return is_dead(host, pid) or self._seconds_silent(name, owner, heartbeat) > STALE_SECONDS

    def _seconds_silent(self, name: str, owner: str, heartbeat: float) -> float:
        """Return for how long this process has seen a lock's heartbeat stand still. No two clocks are compared."""
        now = self._clock()
        beat, since = self._seen.get(name, ((owner, heartbeat), now))
        if beat != (owner, heartbeat):
            beat, since = (owner, heartbeat), now
        self._seen[name] = beat, since
        return now - since

    def beat(self) -> None:
        """Say that the owner of this process's locks is alive: the heartbeat becomes another than it was."""
        self._write("UPDATE locks SET heartbeat = heartbeat + 1 WHERE owner = ?", (self._owner,))

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

    def _read(self, statement: str, *values: str | int) -> list[Any]:
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
            if kind in _NO_LOCKS:
                raise OutputError(
                    f"{self._path} could not be {what}: {error}; this disk lacks the locks that a workspace needs, "
                    "as some of other machines do: name a workspace on a disk of this one (`output_dir` may lie there)"
                ) from error
            if kind.startswith("SQLITE_READONLY") or (kind in _NOT_WRITABLE and self._path.parent.is_dir()):
                raise OutputError(
                    f"the workspace {self._path.parent} may not be written ({error}): name another folder; "
                    "its `stats` can be seen also of one that is read-only"
                ) from error
            way_out = "; move it away to begin anew" if kind in _NO_DATABASE else ""
            raise OutputError(f"{self._path} could not be {what}: {error}{way_out}") from error


@contextlib.contextmanager
def records_to_read(folder: Path) -> Iterator[Records]:
    """Yield what a workspace remembers; where nothing may be written, from a copy, since a log may have to be taken up.

    Raises:
        OutputError: it cannot be read, or there is no room for the copy.
    """
    path = folder / RECORDS_FILE
    if all(os.access(each, os.W_OK) for each in (folder, path)):
        with Records(folder) as records:
            yield records
        return
    with contextlib.ExitStack() as stack:
        try:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="olmocr-", ignore_cleanup_errors=True)))
            for name in (path.name, f"{path.name}-wal"):
                if (folder / name).exists():
                    shutil.copyfile(folder / name, copy / name)
        except OSError as error:
            raise output_error(error, f"a copy of {path}, which may not be written itself,") from error
        yield stack.enter_context(Records(copy))


def is_dead(host: str, pid: int) -> bool:
    """Return whether a lock's owner is known to be dead, which can be told of one on this machine only."""
    if host != this_machine():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's process
        return False
    return False


@functools.cache
def this_machine() -> str:
    """Return what tells a machine, or a container with processes of its own, from others that are called the same."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # no Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    if len(parts) == 1:
        parts.append(f"{uuid.getnode():012x}")
    return " ".join(parts)


def _known(row: tuple[Any, ...]) -> KnownDocument:
    key, name, *others = row
    return KnownDocument(key, name.decode("utf-8", "surrogateescape"), *others)


def _bytes(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no file's, but an URL's or a caller's
        return _storable(name).encode()


def _storable(text: str) -> str:
    """Return *text* as UTF-8 can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _as_json(page: PageRecord) -> str:
    return json.dumps(dataclasses.asdict(page))


def _from_json(text: str) -> PageRecord | None:
    try:
        return parse_as(PageRecord, text)
    except WrongTypeError:
        return None
