"""Files: written so that a reader finds the old or the new version, compared by their bytes, stored in a cache.

Temporary files beside their target and temporary folders have this machine's mark in their names, and a lock that the
system drops when the process ends, however it ends. So a later run can recognize and remove what a killed process left.
It does not trust process numbers, and never touches what another machine may be writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from olmocr.errors import output_error

log = logging.getLogger(__name__)

_PARTIAL = ".partial"
_FOLDER = "olmocr-"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside *path* that replaces it when the block ends; missing folders are created.

    If the block fails, *path* stays as it was and nothing is left beside it. Leftovers of killed processes in this
    folder are removed.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        with file_beside(path) as (beside, file):
            yield file
            file.close()
            beside.replace(path)
    except OSError as error:
        raise output_error(error, str(path)) from error


@contextmanager
def file_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file beside *path*, by name and open; remove what still has that name after the block.

    Raises:
        OSError: it cannot be created.
    """
    beside, file = _held_file(path)
    with _closed(os.dup(file.fileno())):  # the lock outlives the file's name, so that no sweep comes in between
        try:
            with file:
                yield beside, file
        finally:
            beside.unlink(missing_ok=True)


def _held_file(path: Path) -> tuple[Path, BinaryIO]:
    """Return a new file beside *path*, open and locked."""
    while True:
        beside = path.with_name(f".{_machine()}-{secrets.token_hex(8)}{_PARTIAL}")
        file = beside.open("xb")
        _lock(file.fileno())
        if beside.exists():
            return beside, file
        file.close()  # before it was locked it had no owner, and a sweep removed it


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that only its owner can read, in *parent* or the place for temporary files; remove it after.

    Leftovers of killed processes in the same place are removed.

    Raises:
        OSError: it cannot be created.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    folder, descriptor = _held_folder(parent)
    with _closed(descriptor):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _held_folder(parent: Path) -> tuple[Path, int]:
    """Return a new folder, and an open, locked descriptor of it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{_machine()}-", dir=parent))
        # Before it is locked it has no owner, and a sweep may remove it.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            _lock(descriptor)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what killed processes of this user on this machine were writing in *folder*.

    Only looks at what :func:`whole_file` and :func:`temporary_folder` create; what cannot be removed stays.
    """
    try:
        with os.scandir(folder) as entries:
            left = [Path(entry.path) for entry in entries if _is_temporary(entry.name)]
    except OSError:
        return
    for path in left:
        with contextlib.suppress(OSError):
            _remove_abandoned(path)


def _is_temporary(name: str) -> bool:
    is_file = name.startswith(f".{_machine()}-") and name.endswith(_PARTIAL)
    return is_file or name.startswith(f"{_FOLDER}{_machine()}-")


def _remove_abandoned(path: Path) -> None:
    """Remove a file or folder that is not locked.

    Raises:
        OSError: it is locked, belongs to another user, or cannot be removed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with _closed(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid():
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path)
        elif stat.S_ISREG(status.st_mode):
            path.unlink()
        log.info("removed %s, left by a killed process", path)


@functools.cache
def sweep_once(folder: Path) -> None:
    """Sweep *folder*, once per process, since it may hold many files."""
    sweep(folder)


@functools.cache
def _machine() -> str:
    return hashlib.sha1(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:8]  # noqa: S324


def _lock(descriptor: int) -> None:
    """Lock an open file or folder for as long as it is open; without locks in the file system, nothing is swept."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextmanager
def _closed(descriptor: int) -> Iterator[None]:
    """Close *descriptor* after the block."""
    try:
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Write text in UTF-8, complete or in pieces, or bytes, by :func:`whole_file`.

    A lone surrogate, which a model's JSON can hold, is not UTF-8; it becomes a question mark.

    Raises:
        OutputError: it cannot be written.
    """
    pieces = [content] if isinstance(content, str | bytes) else content
    with whole_file(path) as file:
        file.writelines(piece if isinstance(piece, bytes) else piece.encode("utf-8", "replace") for piece in pieces)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_there(path: Path) -> bool:
    """Say whether anything is at *path*. Names that no disk accepts count as absent; `Path.exists` raises OSError then.

    Such names are too long or, on a Mac, not Unicode. What is in a folder that may not be entered counts as absent,
    too.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Say, like `is_there`, whether a file is at *path*."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Say, like `is_there`, whether a folder is at *path*."""
    return os.path.isdir(path)  # noqa: PTH112


# Answers of file systems that lack a request: memory cards, network disks, some FUSE file systems.
NOT_THERE = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY", "EBADF", "EPERM", "EACCES", "EISDIR")
    if hasattr(errno, name)
)


Flush = Callable[[int], object]


def _ways_to_flush() -> Iterator[Flush]:
    if sys.platform == "darwin":  # fsync there leaves it in the drive's own cache
        yield lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    yield os.fsync


def flushed(descriptor: int, ways: Iterable[Flush] | None = None) -> None:
    """Sync an open file or folder to the disk, as far as possible.

    Uses the first of *ways* that the file system has. One that has none writes data in its own time, which is not a
    reason to give up.

    Raises:
        OSError: the disk is full, or at fault.
    """
    for flush in _ways_to_flush() if ways is None else ways:
        try:
            flush(descriptor)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
        else:
            return


def cache_folder(name: str) -> Path:
    """Return the folder *name* of this package in the user's cache; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "olmocr" / name
